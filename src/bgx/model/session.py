"""A loaded network, which turns tensors into mattes."""

from __future__ import annotations

from dataclasses import replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bgx.errors import BadModelError, InferenceError, amount
from bgx.model.providers import lacks_memory, one_line, runtime_errors, start

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from bgx.model.engines import EnginePlan
    from bgx.model.registry import ModelEntry

_TYPES: Mapping[str, type[np.floating[Any]]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}
"""Types of inputs, by ONNX Runtime's names."""


class Session:
    """A network on one or more devices. :meth:`run` may be called from any number of threads.

    Up to `plan.runs` threads run the network at once, each on a free device; others wait.

    entry: the network's settings. plan: how it is run; `plan.batch_size` is the largest batch of
    one run. device: ``cpu``, ``cuda:0`` and so on. provider: ONNX Runtime's name of the provider
    that really runs it. precision: ``fp32``, ``int8`` or ``fp16``.
    """

    def __init__(
        self,
        source: Path | bytes,
        plan: EnginePlan,
        entry: ModelEntry,
        *,
        name: str,
        output: int,
        precision: Literal["fp32", "int8", "fp16"] = "fp32",
    ) -> None:
        """source: the network's file. name: of the file, for messages. output: index of the matte.

        Raises DeviceUnavailableError if the plan's provider does not load, and BadModelError if the
        network does not take the input that `entry` describes.
        """
        engines = [start(source, part, name) for part in plan.parts or (plan,)]
        self._input, self._type, fixed = _check_input(engines[0], entry, name)
        self._output = _check_output(engines[0], output, name)
        self._name = name
        self._free: SimpleQueue[Any] = SimpleQueue()
        for turn in range(plan.runs):
            self._free.put(engines[turn % len(engines)])
        self._fixed_batch = plan.fixed_batch or fixed is not None
        self.entry = entry
        self.plan = plan if fixed is None else replace(plan, batch_size=fixed)
        self.provider: str = engines[0].get_providers()[0]
        self.device = plan.device
        self.precision = precision

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """The network's output, [n, height, width], for a batch, [n, 3, height, width].

        The entry's activation is applied, stretching is not. The result is C-contiguous, and does
        not depend on how pictures are batched. Raises InferenceError; BadModelError if the network
        does not return one matte per picture.
        """
        size = self.plan.batch_size
        mattes = [self._run(batch[first : first + size]) for first in range(0, len(batch), size)]
        if not mattes:
            width, height = self.entry.largest
            return np.empty((0, height, width), np.float32)
        return mattes[0] if len(mattes) == 1 else np.concatenate(mattes)

    def _run(self, chunk: NDArray[np.float32]) -> NDArray[np.float32]:
        count = len(chunk)
        size = 1 if count == 1 and not self._fixed_batch else self.plan.batch_size
        if count < size:
            # Padded, because a GPU has to choose its kernels again for every new shape.
            chunk = np.concatenate([chunk, np.repeat(chunk[-1:], size - count, axis=0)])
        feed = {self._input: np.ascontiguousarray(chunk, self._type)}
        engine = self._free.get()
        try:
            [output] = engine.run([self._output], feed)
        except runtime_errors() as error:
            reason = one_line(error)
            if self.plan.on_cpu and lacks_memory(error):
                reason = "not enough memory; use fewer --workers or a smaller network"
            raise InferenceError(f"{self._name} failed on {self.device}: {reason}") from None
        finally:
            self._free.put(engine)
        if output.ndim == 4 and output.shape[1] == 1:
            output = output[:, 0]
        if output.ndim != 3 or len(output) != size:
            raise BadModelError(
                f"{self._name}: output {self.entry.output} is {output.shape}, not one matte per "
                "picture; set `output` of its table in the registry"
            )
        mattes = np.ascontiguousarray(output[:count], np.float32)
        if not np.isfinite(mattes).all():
            raise InferenceError(f"{self._name} returned NaN or infinity on {self.device}")
        if self.entry.activation == "sigmoid":
            # The same as 1 / (1 + exp(-x)), but cannot overflow.
            mattes = 0.5 * (1.0 + np.tanh(0.5 * mattes))
        return mattes


def _check_input(
    engine: Any, entry: ModelEntry, name: str
) -> tuple[str, type[np.floating[Any]], int | None]:
    """Name and type of the network's input, and its batch size; None if that is not fixed."""
    inputs = engine.get_inputs()
    if len(inputs) != 1:
        raise BadModelError(f"{name}: has {len(inputs)} inputs; bgx needs networks with one")
    [first] = inputs
    if first.type not in _TYPES:
        raise BadModelError(f"{name}: takes {first.type}; export it with float32 or float16")
    width, height = ("any", "any") if entry.free else entry.largest
    shape = first.shape
    if len(shape) != 4 or any(
        isinstance(side, int) and side != wanted
        for side, wanted in zip(shape[1:], (3, height, width), strict=True)
    ):
        raise BadModelError(
            f"{name}: takes {shape}, not [batch, 3, {height}, {width}]; give it a table with its "
            "own `input` in a registry file (BGX_MODELS)"
        )
    return first.name, _TYPES[first.type], shape[0] if isinstance(shape[0], int) else None


def _check_output(engine: Any, output: int, name: str) -> str:
    outputs = engine.get_outputs()
    if output >= len(outputs):
        raise BadModelError(
            f"{name}: has {amount(len(outputs), 'output')}, numbered from 0, and no number "
            f"{output}; set `output` of its table in the registry"
        )
    return str(outputs[output].name)
