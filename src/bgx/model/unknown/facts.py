"""What is known about a file that is not in the registry. Loads neither numpy nor onnx."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

FLOAT, UINT8, HALF, DOUBLE = 1, 2, 10, 11
"""ONNX's numbers for types of tensors."""

Pixels = Literal["", "0..1", "0..255", "-1..1"]
"""Range of the values that a network takes; empty if unknown."""


@dataclass(frozen=True, slots=True)
class Form:
    """How a network's input and matte differ from the usual form; with the defaults, they do not.

    last: the input's channels are its last dimension. kind: ONNX's number of the input's type. bgr:
    blue is the first channel. axis: dimension of the output's channels, if that has to be removed.
    channels: 2 for subject and background, in either order. channel: the subject's. pair: both are
    logits. plain: the output has only height and width. cast: it has no floating-point numbers.
    labels: it has numbers of classes; 0 is the background. low, high: its values for background and
    subject.
    """

    last: bool = False
    kind: int = FLOAT
    bgr: bool = False
    axis: int | None = None
    channels: int = 1
    channel: int = 0
    pair: bool = False
    plain: bool = False
    cast: bool = False
    labels: bool = False
    low: float = 0.0
    high: float = 1.0

    @property
    def usual_input(self) -> bool:
        """Whether a session can feed it."""
        return not self.last and not self.bgr and self.kind in {FLOAT, HALF}

    @property
    def usual_output(self) -> bool:
        """Whether it returns mattes or their logits."""
        return self == Form(self.last, self.kind, self.bgr)


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found in a graph, and by running it.

    table: registry fields stored in the file, or None. fault: why bgx cannot use it; empty if it
    can. apart: files beside it that have its weights. size: width and height of its input; None if
    they are not fixed. free: then, for the input that an entry wishes, the one that works. output:
    index of the matte. names: of all outputs. outputs: their number; 0 if the file is not a
    network. bounded: whether the matte is in 0..1; None if the graph does not show it. form: how
    input and matte differ from the usual. settled: whether output and form need no run. pixels:
    range of the values it takes. family: recognised by the names of its layers; empty if unknown.
    """

    table: dict[str, Any] | None = None
    fault: str = ""
    apart: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    free: dict[str, tuple[int, int] | str] = field(default_factory=dict)
    output: int = 0
    names: tuple[str, ...] = ()
    outputs: int = 1
    bounded: bool | None = None
    form: Form = field(default_factory=Form)
    settled: bool = True
    pixels: Pixels = ""
    family: str = ""
