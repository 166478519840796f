"""ONNX Runtime on this machine: what is installed, what loads, and how it is asked.

:func:`plan_engines` is a pure function from what is asked and what there is to plain data;
:func:`start` turns one such plan into a session and asks it what it really uses.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bgx.errors import BadModelError, DeviceError, DeviceUnavailableError, RuntimeMissingError
from bgx.settings import DeviceSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

log = logging.getLogger(__name__)

PROVIDER_BY_DEVICE = {
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "cpu": "CPUExecutionProvider",
}

# Best first. TensorRT builds an engine for minutes on its first run: only when asked for by name.
_AUTO = ("cuda", "directml", "coreml", "openvino", "cpu")

_REMEDY = {
    "cuda": 'needs an NVIDIA driver and one runtime alone: pip install "bgx[gpu]"',
    "tensorrt": 'needs an NVIDIA driver, TensorRT and one runtime alone: pip install "bgx[gpu]"',
    "directml": 'needs Windows and one runtime alone: pip install "bgx[directml]"',
    "coreml": 'needs macOS: pip install "bgx[cpu]"',
    "openvino": "needs one runtime alone: pip install onnxruntime-openvino",
    "cpu": 'pip install --force-reinstall "bgx[cpu]"',
}

# Every distribution that unpacks into the folder `onnxruntime`.
_FLAVOURS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-rocm",
    "onnxruntime-migraphx",
    "onnxruntime-silicon",
    "onnxruntime-training",
)

# ORT's names for "this is not a network", whatever the device.
_MODEL_ERRORS = frozenset(
    {"InvalidProtobuf", "InvalidGraph", "NoModel", "NoSuchFile", "NotImplemented"}
)

# Pictures of one GPU run at 320 x 320; larger inputs take proportionally fewer.
_GPU_BATCH = 16
_UNIT_PIXELS = 320 * 320

# A 1 x 1 convolution by 2, opset 11: the least that makes a provider load its libraries.
_PROBE = (
    b'\x08\x06:c\n\x0f\n\x01x\n\x01w\x12\x01y"\x04Conv\x12\x01p*\x13\x08\x01\x08\x01\x08\x01\x08\x01'
    b'\x10\x01"\x04\x00\x00\x00@B\x01wZ\x1b\n\x01x\x12\x16\n\x14\x08\x01\x12\x10\n\x02\x08\x01\n\x02'
    b"\x08\x01\n\x02\x08\x02\n\x02\x08\x02b\x1b\n\x01y\x12\x16\n\x14\x08\x01\x12\x10\n\x02\x08\x01\n"
    b"\x02\x08\x01\n\x02\x08\x02\n\x02\x08\x02B\x04\n\x00\x10\x0b"
)


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """One way to run a network, as plain data.

    device: label, ``cpu`` or ``cuda:0``. providers: ONNX Runtime's names with their options, in
    order. runs: network Runs at once. threads: threads of one Run. batch_size: pictures of one Run.
    serial: Runs must not overlap. memory_pattern: let ONNX Runtime plan memory from the first Run.
    config: session configuration entries.
    """

    device: str
    providers: tuple[tuple[str, Mapping[str, str]], ...]
    runs: int = 1
    threads: int = 1
    batch_size: int = 1
    serial: bool = False
    memory_pattern: bool = True
    config: Mapping[str, str] = field(default_factory=dict)

    @property
    def provider(self) -> str:
        """The provider that has to be the session's first."""
        return self.providers[0][0]

    @property
    def pool_size(self) -> int:
        """Threads of the session's one pool, so that `runs` callers and it make runs x threads.

        ONNX Runtime counts the caller of Run as one thread of the pool.
        """
        return self.runs * (self.threads - 1) + 1


def plan_engines(
    device: DeviceSettings,
    available: Sequence[str],
    cores: int,
    *,
    pictures: int | None,
    cache: Path,
    pixels: int = _UNIT_PIXELS,
) -> list[EnginePlan]:
    """The engines to try, best first: one for a device asked for by name.

    available: providers ONNX Runtime lists. cores: see :func:`count_cores`. pictures: how many are
    to be done, None where unknown. cache: folder for built engines. pixels: width x height of the
    network's input. Raises DeviceUnavailableError when the device asked for is not listed.
    """
    if device.kind == "auto":
        kinds = [kind for kind in _AUTO if PROVIDER_BY_DEVICE[kind] in available]
        if not kinds:
            raise DeviceUnavailableError(f"onnxruntime lists no device at all; {_REMEDY['cpu']}")
    elif PROVIDER_BY_DEVICE[device.kind] in available:
        kinds = [device.kind]
    else:
        raise DeviceUnavailableError(
            f"--device {device.device}: the installed onnxruntime has no "
            f"{PROVIDER_BY_DEVICE[device.kind]}; it {_REMEDY[device.kind]}"
        )
    return [
        _plan_cpu(device, cores, pictures, pixels)
        if kind == "cpu"
        else _plan_accelerator(kind, device, cores, pictures, cache, pixels)
        for kind in kinds
    ]


def _plan_cpu(device: DeviceSettings, cores: int, pictures: int | None, pixels: int) -> EnginePlan:
    """As many pictures at once as cores; one picture alone has all of them.

    Single-threaded Runs are the fastest way through many pictures. A Run's memory grows with the
    pixels of its input, so larger inputs take more cores each.
    """
    each = device.threads or min(cores, -(-pixels // _UNIT_PIXELS))
    runs = device.workers or max(1, cores // each)
    if pictures is not None:
        runs = max(1, min(runs, pictures))
    threads = device.threads or max(1, cores // runs)
    # A thread of the pool that spins takes its core from the next picture's decoding.
    spin = "1" if runs == 1 and pictures == 1 else "0"
    return EnginePlan(
        device="cpu",
        providers=(("CPUExecutionProvider", {}),),
        runs=runs,
        threads=threads,
        config={"session.intra_op.allow_spinning": spin},
    )


def _plan_accelerator(
    kind: str,
    device: DeviceSettings,
    cores: int,
    pictures: int | None,
    cache: Path,
    pixels: int,
) -> EnginePlan:
    batch = device.batch_size or max(1, _GPU_BATCH * _UNIT_PIXELS // pixels)
    if pictures is not None:
        batch = max(1, min(batch, pictures))
    index = {"device_id": str(device.index)}
    # The largest part of a convolution's set-up: EXHAUSTIVE tries every algorithm.
    cuda = ("CUDAExecutionProvider", index | {"cudnn_conv_algo_search": "HEURISTIC"})
    options: dict[str, list[tuple[str, Mapping[str, str]]]] = {
        "cuda": [cuda],
        "tensorrt": [
            (
                "TensorrtExecutionProvider",
                index
                | {
                    "trt_engine_cache_enable": "True",
                    "trt_engine_cache_path": str(cache),
                    "trt_timing_cache_enable": "True",
                    "trt_timing_cache_path": str(cache),
                },
            ),
            cuda,
        ],
        "directml": [("DmlExecutionProvider", index)],
        "coreml": [
            (
                "CoreMLExecutionProvider",
                {"ModelFormat": "MLProgram", "RequireStaticInputShapes": "1"},
            )
        ],
        "openvino": [("OpenVINOExecutionProvider", {"device_type": "CPU", "precision": "FP32"})],
    }
    indexed = kind in {"cuda", "tensorrt", "directml"}
    return EnginePlan(
        device=f"{kind}:{device.index}" if indexed else kind,
        providers=(*options[kind], ("CPUExecutionProvider", {})),
        threads=device.threads or cores,
        batch_size=batch,
        serial=kind == "directml",
        memory_pattern=kind != "directml",
        config={"session.intra_op.allow_spinning": "0"},
    )


def load_runtime() -> ModuleType:
    """Import ONNX Runtime, quiet and without telemetry.

    Raises RuntimeMissingError when no flavour is installed or it does not load.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    flavours = find_flavours()
    if not flavours:
        raise RuntimeMissingError(
            'no onnxruntime flavour is installed; run: pip install "bgx[cpu]"'
        )
    try:
        import onnxruntime
    except ImportError as error:
        conflict = explain_conflict(flavours)
        raise RuntimeMissingError(
            conflict or f"onnxruntime does not load: {one_line(error)}; run: {_REMEDY['cpu']}"
        ) from None
    # What fails is raised and said once by bgx; ONNX Runtime would print it as well.
    onnxruntime.set_default_logger_severity(4)
    return onnxruntime  # type: ignore[no-any-return]


def find_flavours() -> dict[str, str]:
    """The installed distributions of ONNX Runtime with their versions."""
    found = {}
    for name in _FLAVOURS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def explain_conflict(flavours: Mapping[str, str]) -> str | None:
    """What is wrong with two flavours side by side and how to repair it; None when there is one."""
    if len(flavours) < 2:
        return None
    names = " ".join(flavours)
    return (
        f"{' and '.join(flavours)} are installed together and overwrite each other; run: "
        f'pip uninstall -y {names}, then: pip install "bgx[cpu]" (or gpu, directml)'
    )


def start(source: Path | bytes, plan: EnginePlan) -> Any:
    """Create the plan's ``onnxruntime.InferenceSession`` from a file or its bytes.

    Raises DeviceUnavailableError when the plan's provider does not load, BadModelError when the
    file is not a network ONNX Runtime can run.
    """
    runtime = load_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = plan.pool_size
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_mem_pattern = plan.memory_pattern
    options.log_severity_level = 4
    # Every Run has the same shape, so the batch is no variable and kernels are chosen once.
    options.add_free_dimension_override_by_name("batch", plan.batch_size)
    for key, value in plan.config.items():
        options.add_session_config_entry(key, value)
    if plan.provider in {"CUDAExecutionProvider", "TensorrtExecutionProvider"}:
        _preload(runtime)
    try:
        session = runtime.InferenceSession(
            source if isinstance(source, bytes) else os.fspath(source),
            sess_options=options,
            providers=[name for name, _ in plan.providers],
            provider_options=[dict(choices) for _, choices in plan.providers],
            # Without this a provider that fails is replaced by the CPU, and stdout told so.
            enable_fallback=0,
        )
    except runtime_errors() as error:
        if plan.device == "cpu" or type(error).__name__ in _MODEL_ERRORS:
            raise BadModelError(one_line(error)) from None
        raise DeviceUnavailableError(_undelivered(plan, one_line(error))) from None
    delivered = session.get_providers()[0]
    if delivered != plan.provider:
        raise DeviceUnavailableError(
            _undelivered(plan, f"{plan.provider} is listed but one of its libraries does not load")
        )
    return session


def runtime_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime may raise: its own exceptions, and the two of its Python layer."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [
        value
        for value in vars(state).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ]
    return (*own, RuntimeError, ValueError)


def one_line(error: BaseException) -> str:
    """The message without ONNX Runtime's prefixes and stack."""
    text = str(error).strip().splitlines()
    return text[0][:300] if text else type(error).__name__


def _undelivered(plan: EnginePlan, reason: str) -> str:
    kind = plan.device.partition(":")[0]
    conflict = explain_conflict(find_flavours())
    return f"--device {plan.device}: {reason}; {conflict or 'it ' + _REMEDY[kind]}"


def _preload(runtime: ModuleType) -> None:
    """Load CUDA and cuDNN from the wheels beside onnxruntime-gpu, where it has such a function."""
    preload = getattr(runtime, "preload_dlls", None)
    if preload is None:
        return
    said = io.StringIO()
    # It prints what it cannot find; stdout belongs to the user.
    with contextlib.redirect_stdout(said):
        try:
            preload()
        except (OSError, RuntimeError) as error:
            log.debug("preload_dlls: %s", error)
    if said.getvalue():
        log.debug("preload_dlls: %s", said.getvalue().strip())


@dataclass(frozen=True, slots=True)
class RuntimeReport:
    """What ``bgx info`` says about ONNX Runtime.

    flavours: installed distributions with versions. version: of the module imported, None when
    there is none. listed: providers it lists. loads: device kinds that really run a network. fails:
    device kinds listed that do not, with the reason. auto: the device ``auto`` takes, None when
    none. why: reason for it. trouble: what to repair, None when nothing.
    """

    flavours: Mapping[str, str]
    version: str | None
    listed: tuple[str, ...]
    loads: tuple[str, ...]
    fails: Mapping[str, str]
    auto: str | None
    why: str
    trouble: str | None


def inspect_runtime() -> RuntimeReport:
    """Try every provider on a network of one node. Never raises for what it finds."""
    flavours = find_flavours()
    trouble = explain_conflict(flavours)
    try:
        runtime = load_runtime()
    except RuntimeMissingError as error:
        return RuntimeReport(flavours, None, (), (), {}, None, str(error), str(error))
    listed = tuple(runtime.get_available_providers())
    loads: list[str] = []
    fails: dict[str, str] = {}
    for kind, provider in PROVIDER_BY_DEVICE.items():
        if provider not in listed:
            continue
        try:
            _probe(kind, listed)
        except (DeviceError, BadModelError) as error:
            fails[kind] = str(error)
        else:
            loads.append(kind)
    auto = next((kind for kind in _AUTO if kind in loads), None)
    return RuntimeReport(
        flavours=flavours,
        version=runtime.__version__,
        listed=listed,
        loads=tuple(loads),
        fails=fails,
        auto=auto,
        why=_why(auto, fails),
        trouble=trouble,
    )


def _why(auto: str | None, fails: Mapping[str, str]) -> str:
    if auto is None:
        return "no device runs a network"
    passed = [kind for kind in _AUTO[: _AUTO.index(auto)] if kind in fails]
    if passed:
        return f"the best that loads; {', '.join(passed)} listed but not loading"
    return "the best that onnxruntime lists, and it loads"


def _probe(kind: str, listed: Sequence[str]) -> None:
    import numpy as np

    [plan] = plan_engines(
        DeviceSettings(device=kind), listed, 1, pictures=1, cache=Path(os.devnull).parent
    )
    session = start(_PROBE, plan)
    try:
        session.run(None, {"x": np.ones((1, 1, 2, 2), np.float32)})
    except runtime_errors() as error:
        raise DeviceUnavailableError(one_line(error)) from None


def count_cores(
    *,
    cgroup: Path = Path("/proc/self/cgroup"),
    mount: Path = Path("/sys/fs/cgroup"),
) -> int:
    """Cores this process may use: the smaller of its affinity and its cgroup quota, at least 1.

    cgroup: the process's cgroups. mount: where cgroup file systems hang. Both exist on Linux alone.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    try:
        lines = cgroup.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    quotas = [quota for line in lines for quota in _quotas(line, mount)]
    return max(1, int(min([cores, *quotas])))


def _quotas(line: str, mount: Path) -> list[float]:
    """Quotas in cores of one line ``ID:CONTROLLERS:PATH`` and of all cgroups above it."""
    _, _, rest = line.partition(":")
    controllers, _, path = rest.partition(":")
    if not controllers:
        root = mount
    elif "cpu" in controllers.split(","):
        root = mount / "cpu"
    else:
        return []
    # In a container the path is that of the host and its parents may be all there is.
    parts = Path(path.lstrip("/")).parts
    folders = [root.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
    return [quota for folder in folders if (quota := _quota(folder)) is not None]


def _quota(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="utf-8")
            period = (folder / "cpu.cfs_period_us").read_text(encoding="utf-8")
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        # No such file, or "max": no limit here.
        return None
