"""Keeps the memory of a batch allocated on the device between runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

    from numpy.typing import NDArray

    from bgx.model.engines import EnginePlan


class BoundSession:
    """An ``onnxruntime.InferenceSession`` with one input and one output in fixed device memory.

    A batch of the planned size is copied to and from the same device memory in every run; batches
    of another size are run as usual. One run at a time.
    """

    def __init__(
        self,
        runtime: ModuleType,
        session: Any,
        plan: EnginePlan,
        shapes: tuple[tuple[int, ...], tuple[int, ...]],
    ) -> None:
        """shapes: of input and output. Raises whatever ONNX Runtime raises."""
        index = int(plan.providers[0][1].get("device_id", "0"))
        self._session = session
        self._shape = shapes[0]
        self._input, self._output = (
            runtime.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, plan.memory, index)
            for shape in shapes
        )
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(session.get_inputs()[0].name, self._input)
        self._binding.bind_ortvalue_output(session.get_outputs()[0].name, self._output)

    def get_providers(self) -> Any:
        return self._session.get_providers()

    def get_inputs(self) -> Any:
        return self._session.get_inputs()

    def get_outputs(self) -> Any:
        return self._session.get_outputs()

    def run(self, names: Sequence[str] | None, feed: Mapping[str, NDArray[np.float32]]) -> Any:
        """As ``onnxruntime.InferenceSession.run``."""
        [batch] = feed.values()
        if batch.shape != self._shape:
            return self._session.run(names, feed)
        self._input.update_inplace(batch)
        self._binding.synchronize_inputs()
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()
        # A copy: in CPU memory the array would be overwritten by the next run.
        return [np.array(self._output.numpy())]


def bind(runtime: ModuleType, session: Any, plan: EnginePlan) -> Any:
    """Bind the session to the plan's memory; a session with dynamic shapes is returned unchanged.

    Raises whatever ONNX Runtime raises.
    """
    ports = [*session.get_inputs(), *session.get_outputs()]
    shapes = [_fix(port.shape, plan.batch_size) for port in ports]
    if len(ports) != 2 or any(port.type != "tensor(float)" for port in ports):
        return session
    source, result = shapes
    if source is None or result is None:
        return session
    return BoundSession(runtime, session, plan, (source, result))


def _fix(shape: Sequence[int | str | None], batch_size: int) -> tuple[int, ...] | None:
    """The shape with this batch size; None if other dimensions are dynamic."""
    open_batch = bool(shape) and not isinstance(shape[0], int)
    fixed = tuple(side for side in shape if isinstance(side, int))
    if open_batch:
        fixed = (batch_size, *fixed)
    return fixed if len(fixed) == len(shape) else None
