"""A network in 8-bit integers: activations unsigned per tensor, weights signed per channel.

A prepared network (see :mod:`bgx.model.prepare`) gets pairs of QuantizeLinear and DequantizeLinear
around its convolutions and what lies between them, which ONNX Runtime fuses into integer kernels.
Three things keep the mattes:

- Channels are brought to like ranges, exactly undone in the weights that read them: Nagel et al.,
  "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019, section 4.1, with
  measured ranges and the strength of Xiao et al., "SmoothQuant", 2023, equation 4.
- The mean error of rounded weights is taken out of the bias: Nagel et al., section 4.2.
- Convolutions that still spoil the mattes, found by measuring, stay in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bgx.errors import BadModelError
from bgx.machine import count_cores
from bgx.model.engines import EnginePlan
from bgx.model.int8.equalize import equalize
from bgx.model.int8.network import Form, observe, read_network
from bgx.model.int8.write import write_network
from bgx.model.providers import one_line, runtime_errors, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]
    Measure = Callable[[frozenset[str]], float]

DAMAGE = 0.001
"""Mean difference from float32, in parts of a map's span, that needs no remedy."""

_STRENGTHS = (0.5, 0.65)
_SEARCHED = 8  # pictures that damage is measured on
_ROUNDS = 3  # groups of convolutions that may go back to float32
_GROUP = 4  # convolutions of one such group at most
_PARTS = 8  # that a search looks into at once
_REMEDY = 0.9  # a group that leaves more of the damage than this is none
_SHARE = 0.75  # of a group's gain that makes a part of it enough


@dataclass(frozen=True, slots=True)
class Quantized:
    """content: the ONNX file. kept: names of the convolutions left in float32. convolutions: how
    many there are. damage: mean difference from float32, in parts of a map's span.
    """

    content: bytes
    kept: tuple[str, ...]
    convolutions: int
    damage: float


def quantize(
    prepared: bytes, pictures: Sequence[NDArray[np.float32]], *, tell: Callable[[str], None]
) -> Quantized:
    """The 8-bit form of a prepared network of input (batch, 3, height, width) and one output.

    pictures: inputs [1, 3, height, width] to measure on, some dozens. tell: hears of the progress.
    Raises BadModelError where the network cannot be quantised.
    """
    network = read_network(prepared)
    names = [node.name for node in network.nodes if network.is_convolution(node)]
    tell(f"measuring the ranges of {len(names)} convolutions on {len(pictures)} photos")
    plain = Form(network, observe(network, pictures), network.parameters())
    forms = [plain, *(equalize(plain, strength) for strength in _STRENGTHS)]
    searched = pictures[:: -(-len(pictures) // _SEARCHED)]
    wanted = list(_run(prepared, searched))

    def measure(form: Form, kept: frozenset[str]) -> float:
        return _difference(wanted, _run(write_network(form, kept), searched))

    kept: frozenset[str] = frozenset()
    damages = [measure(form, kept) for form in forms]
    damage = min(damages)
    form = forms[damages.index(damage)]
    tell(f"all in 8 bits: difference {damage:.4f}")
    for _ in range(_ROUNDS):
        if damage <= DAMAGE or len(kept) == len(names):
            break

        def measure_with(group: frozenset[str], kept: frozenset[str] = kept) -> float:
            return measure(form, kept | group)

        more, left = _find_harmful([n for n in names if n not in kept], damage, measure_with)
        if left > _REMEDY * damage:
            break
        kept, damage = kept | more, left
        tell(f"{len(kept)} of {len(names)} convolutions in float32: difference {damage:.4f}")
    ordered = tuple(name for name in names if name in kept)
    return Quantized(write_network(form, kept), ordered, len(names), damage)


def _find_harmful(
    names: Sequence[str], damage: float, measure: Measure
) -> tuple[frozenset[str], float]:
    """The few neighbours that do the most damage, and what is left of it with them in float32.

    The best of a few parts is looked into until it is small, and then for as long as a part of it
    brings nearly as much.
    """
    group, left = list(names), damage
    while True:
        # Two at least, at first: what goes from one to the next may be what suffers.
        size = max(2 if len(group) > 2 else 1, -(-len(group) // _PARTS))
        parts = [group[first : first + size] for first in range(0, len(group), size)]
        scores = [measure(frozenset(part)) for part in parts]
        best = scores.index(min(scores))
        if len(group) <= _GROUP and damage - scores[best] < _SHARE * (damage - left):
            break
        group, left = parts[best], scores[best]
        if len(group) == 1:
            break
    return frozenset(group), left


def _difference(wanted: Iterable[Array], given: Iterable[Array]) -> float:
    def compare(fine: Array, coarse: Array) -> float:
        return float(np.abs(coarse - fine).mean()) / max(float(np.ptp(fine)), 1e-6)

    return float(np.mean([compare(*pair) for pair in zip(wanted, given, strict=True)]))


def _run(content: bytes, pictures: Iterable[Array]) -> Iterator[Array]:
    engine = start(content, EnginePlan("cpu", threads=count_cores()), "the 8-bit network")
    [source] = engine.get_inputs()
    for picture in pictures:
        try:
            [output] = engine.run(None, {source.name: picture})
        except runtime_errors() as error:
            raise BadModelError(f"the 8-bit network does not run: {one_line(error)}") from None
        yield output
