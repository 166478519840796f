"""OpenVINO with the methods of ``onnxruntime.InferenceSession`` that bgx uses."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from bgx.errors import BadModelError, DeviceUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import ModuleType

    from numpy.typing import NDArray

    from bgx.model.engines import EnginePlan

_TYPES = {"f32": "float", "f16": "float16"}
"""ONNX Runtime's names of OpenVINO's types."""


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output. type: ONNX Runtime's name. shape: a dynamic dimension is a name."""

    name: str
    type: str
    shape: list[int | str]


class OpenvinoSession:
    """A network compiled for this machine's CPU, in float32 and, for an 8-bit copy, in 8 bits.

    Up to `plan.runs` threads can call :meth:`run` at once; others wait.
    """

    def __init__(self, source: Path | bytes, plan: EnginePlan, name: str) -> None:
        """Raises DeviceUnavailableError if OpenVINO does not load, BadModelError if it cannot run
        the network.
        """
        openvino = _load()
        try:
            core = openvino.Core()
            model = core.read_model(source if isinstance(source, bytes) else os.fspath(source))
            if plan.fixed_batch:
                _fix_batch(model, plan.batch_size)
            compiled = core.compile_model(
                model,
                "CPU",
                {
                    # By default it uses bfloat16 on CPUs that support it.
                    "INFERENCE_PRECISION_HINT": "f32",
                    "NUM_STREAMS": plan.runs,
                    "INFERENCE_NUM_THREADS": plan.runs * plan.threads,
                    # Two processes would pin their threads to the same cores.
                    "ENABLE_CPU_PINNING": False,
                },
            )
        except RuntimeError as error:
            raise BadModelError(
                f"{name}: not a network openvino can run: {_last_line(error)}"
            ) from None
        self._model = compiled
        self._requests: SimpleQueue[Any] = SimpleQueue()
        for _ in range(plan.runs):
            self._requests.put(compiled.create_infer_request())

    def get_providers(self) -> list[str]:
        return ["OpenVINO"]

    def get_inputs(self) -> list[Port]:
        return [_port(port) for port in self._model.inputs]

    def get_outputs(self) -> list[Port]:
        return [_port(port) for port in self._model.outputs]

    def run(self, names: Sequence[str] | None, feed: Mapping[str, NDArray[Any]]) -> list[Any]:
        """The outputs of these names; None is all of them. Raises RuntimeError."""
        request = self._requests.get()
        try:
            request.infer(dict(feed), share_inputs=True)
            ports = names or [port.name for port in self.get_outputs()]
            # Copies, because the next run of the request overwrites its memory.
            return [request.get_tensor(name).data.copy() for name in ports]
        except RuntimeError as error:
            raise RuntimeError(_last_line(error)) from None
        finally:
            self._requests.put(request)


def _load() -> ModuleType:
    # Importing openvino sends telemetry to Intel, unless the package for that cannot be imported.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise DeviceUnavailableError(
            f"--device openvino: openvino does not load: {_last_line(error)}; run: "
            "pip install --force-reinstall openvino"
        ) from None
    return openvino  # type: ignore[no-any-return]


def _fix_batch(model: Any, size: int) -> None:
    """Set the batch size if the network's only input has a dynamic one."""
    if len(model.inputs) == 1 and model.inputs[0].partial_shape[0].is_dynamic:
        shape = model.inputs[0].partial_shape
        shape[0] = size
        model.reshape(shape)


def _port(port: Any) -> Port:
    element = port.element_type.get_type_name()
    return Port(
        name=port.any_name,
        type=f"tensor({_TYPES.get(element, element)})",
        shape=[
            side.get_length() if side.is_static else f"side_{axis}"
            for axis, side in enumerate(port.partial_shape)
        ],
    )


def _last_line(error: Exception) -> str:
    """The reason, which is the last line of OpenVINO's messages."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]
