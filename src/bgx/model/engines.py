"""Plans which engines to try for a device, and with which options. Pure functions on plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bgx.errors import DeviceUnavailableError
from bgx.install import install_hint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bgx.settings import DeviceSettings

OPENVINO = "OpenVINO"
"""Used like a provider's name: OpenVINO itself, without ONNX Runtime."""

PROVIDERS_BY_DEVICE: Mapping[str, tuple[str, ...]] = {
    "cuda": ("CUDAExecutionProvider",),
    "tensorrt": ("TensorrtExecutionProvider",),
    "directml": ("DmlExecutionProvider",),
    "coreml": ("CoreMLExecutionProvider",),
    "openvino": (OPENVINO, "OpenVINOExecutionProvider"),
    "webgpu": ("WebGpuExecutionProvider",),
    "cpu": ("CPUExecutionProvider",),
}
"""Providers for each kind of device, best first."""

# Best first. These are used only if they are named: TensorRT, which builds an engine for minutes in
# its first run; CoreML, which compiles the network at every start and may compute in half
# precision; WebGPU, which compiles its shaders at every start; OpenVINO, which was faster than ONNX
# Runtime's CPU provider only with 8-bit networks.
AUTO = ("cuda", "directml", "cpu")

_REINSTALL_CPU = "pip install --force-reinstall onnxruntime"


def explain_install(kind: str) -> str:
    """The command that installs the runtime for a kind of device."""
    match kind:
        case "cuda":
            return (
                f"pip uninstall -y onnxruntime, then: {install_hint('gpu')} (needs NVIDIA's driver)"
            )
        case "tensorrt":
            return f"pip uninstall -y onnxruntime, then: {install_hint('gpu')} tensorrt"
        case "directml":
            return f"pip uninstall -y onnxruntime, then: {install_hint('directml')} (Windows)"
        case "coreml":
            return f"{install_hint('cpu')} on macOS"
        case "cpu":
            return _REINSTALL_CPU
        case _:
            return install_hint(kind)


REPAIR = {
    "cuda": "check the driver with nvidia-smi, then: "
    'pip install --upgrade "onnxruntime-gpu[cuda,cudnn]"',
    "tensorrt": "check the driver with nvidia-smi, then: pip install --upgrade tensorrt",
    "directml": "update the graphics driver",
    "coreml": "update macOS",
    "openvino": "pip install --upgrade onnxruntime-openvino openvino",
    "webgpu": "it needs a GPU with its driver, on Linux libvulkan1 too",
    "cpu": _REINSTALL_CPU,
}
"""What to do if the runtime for a kind of device is installed but does not work."""

# Pictures in one GPU run at 320 x 320; for larger inputs proportionally fewer.
_GPU_BATCH = 16
_UNIT_PIXELS = 320 * 320

Provider = tuple[str, Mapping[str, str]]
"""ONNX Runtime's name of an execution provider, and options for it."""

_CPU: Provider = ("CPUExecutionProvider", {})


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """One way to run a network, as plain data.

    device: ``cpu``, ``cuda:0`` and so on. providers: ONNX Runtime's names with their options, in
    order. runs: network runs at once. threads: of one run. batch_size: pictures in one run. parts:
    if several devices share the work, the plan of each, which does one run at a time. fixed_batch:
    build the network for this batch size only; if False, a single picture can also be run alone.
    memory_pattern: let ONNX Runtime plan memory by the first run. memory_reuse: reuse the memory of
    freed tensors. memory: ONNX Runtime's name of the device memory (``cuda``) in which batches have
    a fixed place; None allocates for each run. arena: use the memory that all networks on the CPU
    share as long as the process lives; otherwise it is returned with the session. config: entries
    of the session configuration.
    """

    device: str
    providers: tuple[Provider, ...] = (_CPU,)
    runs: int = 1
    threads: int = 1
    batch_size: int = 1
    fixed_batch: bool = True
    memory_pattern: bool = True
    memory_reuse: bool = True
    memory: str | None = None
    arena: bool = False
    config: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[EnginePlan, ...] = ()

    @property
    def provider(self) -> str:
        """The provider that has to run the network."""
        return self.providers[0][0]

    @property
    def on_cpu(self) -> bool:
        """Whether it runs on the CPU, with one picture per run."""
        return self.device in {"cpu", "openvino"}

    @property
    def pool_size(self) -> int:
        """Size of the session's thread pool: together with the callers, there are runs x threads.

        ONNX Runtime counts the calling thread as one thread of the pool.
        """
        return self.runs * (self.threads - 1) + 1

    def count_workers(self, asked: int | None, cores: int) -> int:
        """Pictures in work at once: `asked`, else one per core with a GPU, one per run on a CPU.

        If a run has several cores, one more: otherwise all but one of them would have nothing to do
        while the picture is read and written.
        """
        return asked or (self.runs + (self.threads > 1) if self.on_cpu else cores)


def plan_engines(
    device: DeviceSettings,
    available: Sequence[str],
    cores: int,
    *,
    pictures: int | None,
    cache: Path,
    pixels: int = _UNIT_PIXELS,
) -> list[EnginePlan]:
    """The engines to try, best first; a single one if the device is named.

    available: providers that ONNX Runtime lists. cores: see :func:`count_cores`. pictures: how many
    will be cut out, None if unknown. cache: folder for built engines. pixels: width x height of the
    network's input. Raises DeviceUnavailableError if the requested device is not listed.
    """
    found = {
        kind: [provider for provider in providers if provider in available]
        for kind, providers in PROVIDERS_BY_DEVICE.items()
    }
    if device.kind == "auto":
        kinds = [kind for kind in AUTO if found[kind]]
        if not kinds:
            raise DeviceUnavailableError(
                f"the installed onnxruntime lists no device bgx knows; run: {_REINSTALL_CPU}"
            )
    elif found[device.kind]:
        kinds = [device.kind]
    else:
        raise DeviceUnavailableError(
            f"--device {device.device}: no {' or '.join(PROVIDERS_BY_DEVICE[device.kind])} is "
            f"installed; run: {explain_install(device.kind)}"
        )
    on_cpu = _plan_cpu(device, cores, pictures, pixels)
    batch_size = device.batch_size or max(1, _GPU_BATCH * _UNIT_PIXELS // pixels)
    if pictures is not None:
        batch_size = max(1, min(batch_size, -(-pictures // len(device.indices))))
    plans = [
        _plan(kind, found[kind][0], index, on_cpu, batch_size, cache)
        for kind in kinds
        for index in device.indices
    ]
    if len(device.indices) == 1:
        return plans
    return [replace(plans[0], device=device.device, runs=len(plans), parts=tuple(plans))]


def _plan_cpu(device: DeviceSettings, cores: int, pictures: int | None, pixels: int) -> EnginePlan:
    """As many pictures at once as there are cores; a single picture gets all cores.

    With many pictures, single-threaded runs are the fastest. The memory of a run grows with the
    pixels of its input, so larger inputs get more cores each, and fewer run at once.
    """
    each = device.threads or min(cores, -(-pixels // _UNIT_PIXELS))
    runs = device.workers or max(1, cores // each)
    if pictures is not None:
        runs = max(1, min(runs, pictures))
    # A spinning pool thread would take a core away from decoding the next picture.
    spin = "1" if pictures == 1 else "0"
    return EnginePlan(
        device="cpu",
        providers=(_CPU,),
        runs=runs,
        threads=device.threads or max(1, cores // runs),
        config={"session.intra_op.allow_spinning": spin},
    )


def _plan(
    kind: str, provider: str, index: int, on_cpu: EnginePlan, batch_size: int, cache: Path
) -> EnginePlan:
    """The plan for one kind of device. on_cpu: what it would be on the CPU."""
    device_id = {"device_id": str(index)}
    # EXHAUSTIVE, the default, tries every algorithm of every convolution.
    cuda: Provider = (
        "CUDAExecutionProvider",
        {**device_id, "cudnn_conv_algo_search": "HEURISTIC"},
    )
    threads = on_cpu.runs * on_cpu.threads
    gpu = replace(on_cpu, device=f"{kind}:{index}", runs=1, threads=threads, batch_size=batch_size)
    match kind:
        case "cuda":
            # Not fixed, so that a batch that does not fit into memory can be split.
            return replace(gpu, providers=(cuda, _CPU), fixed_batch=False, memory="cuda")
        case "tensorrt":
            engine: Provider = (
                "TensorrtExecutionProvider",
                {
                    **device_id,
                    "trt_engine_cache_enable": "True",
                    "trt_engine_cache_path": str(cache),
                    "trt_timing_cache_enable": "True",
                    "trt_timing_cache_path": str(cache),
                },
            )
            return replace(gpu, providers=(engine, cuda, _CPU), memory="cuda")
        case "directml":
            # DirectML supports neither concurrent runs nor memory planning (see its documentation).
            engine = ("DmlExecutionProvider", device_id)
            return replace(gpu, providers=(engine, _CPU), memory_pattern=False)
        case "coreml":
            engine = (
                "CoreMLExecutionProvider",
                {"ModelFormat": "MLProgram", "RequireStaticInputShapes": "1"},
            )
            return replace(on_cpu, device=kind, providers=(engine, _CPU), runs=1, threads=threads)
        case "webgpu":
            # It chooses the GPU by itself.
            return replace(gpu, device=kind, providers=((provider, {}), _CPU))
        case "openvino" if provider == OPENVINO:
            return replace(on_cpu, device=kind, providers=((OPENVINO, {}),))
        case "openvino":
            # By default it starts as many threads of its own as there are cores.
            engine = (
                "OpenVINOExecutionProvider",
                {
                    "device_type": "CPU",
                    "precision": "FP32",
                    "num_of_threads": str(threads),
                    "num_streams": str(on_cpu.runs),
                },
            )
            return replace(on_cpu, device=kind, providers=(engine, _CPU))
        case _:
            # Two concurrent runs of u2netp take 690 MB with both, 460 MB without the pattern, and
            # 320 MB also without reuse, which keeps large blocks for small tensors; the time is the
            # same.
            return replace(on_cpu, memory_pattern=False, memory_reuse=False, arena=True)
