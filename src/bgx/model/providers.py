"""ONNX Runtime on this machine: what is installed, what loads, and how it is asked.

:func:`plan_engines` is a pure function from what is asked and what there is to plain data;
:func:`start` turns one such plan into a session and asks it what it really uses.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bgx.errors import BadModelError, DeviceError, DeviceUnavailableError, RuntimeMissingError
from bgx.model.prepare import BATCH
from bgx.settings import DeviceSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import ModuleType

log = logging.getLogger(__name__)

OPENVINO = "OpenVINO"
"""In place of a provider's name: OpenVINO by itself, without ONNX Runtime."""

PROVIDERS_BY_DEVICE: Mapping[str, tuple[str, ...]] = {
    "cuda": ("CUDAExecutionProvider",),
    "tensorrt": ("TensorrtExecutionProvider",),
    "directml": ("DmlExecutionProvider",),
    "coreml": ("CoreMLExecutionProvider",),
    "openvino": (OPENVINO, "OpenVINOExecutionProvider"),
    "webgpu": ("WebGpuExecutionProvider",),
    "cpu": ("CPUExecutionProvider",),
}
"""What runs a kind of device, best first."""

# Providers with a wheel of their own, registered when they are asked for: the wheel's module.
_PLUGINS = {"WebGpuExecutionProvider": "onnxruntime_ep_webgpu"}

# Best first. Only when asked for by name: TensorRT, which builds an engine for minutes on its first
# run; CoreML, which compiles the network at every start and may compute in half precision; WebGPU,
# which compiles its shaders at every start; OpenVINO, which was faster than ONNX Runtime's own CPU
# provider with 8-bit networks alone.
_AUTO = ("cuda", "directml", "cpu")

_INSTALL = {
    "cuda": 'pip uninstall -y onnxruntime, then: pip install "bgx[gpu]" (NVIDIA driver needed)',
    "tensorrt": 'pip uninstall -y onnxruntime, then: pip install "bgx[gpu]" tensorrt',
    "directml": 'pip uninstall -y onnxruntime, then: pip install "bgx[directml]" (Windows)',
    "coreml": 'pip install "bgx[cpu]" on macOS',
    "openvino": 'pip install "bgx[openvino]"',
    "webgpu": 'pip install "bgx[webgpu]"',
    "cpu": 'pip install --force-reinstall "bgx[cpu]"',
}
_REPAIR = {
    "cuda": 'check the driver with nvidia-smi, then: pip install --upgrade "bgx[gpu]"',
    "tensorrt": "check the driver with nvidia-smi, then: pip install --upgrade tensorrt",
    "directml": "update the graphics driver",
    "coreml": "update macOS",
    "openvino": "pip install --upgrade onnxruntime-openvino openvino",
    "webgpu": "it needs a GPU with its driver, on Linux libvulkan1 too",
    "cpu": _INSTALL["cpu"],
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

Provider = tuple[str, Mapping[str, str]]
"""ONNX Runtime's name of an execution provider, and options for it."""

_CPU: Provider = ("CPUExecutionProvider", {})


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """One way to run a network, as plain data.

    device: label, ``cpu`` or ``cuda:0``. providers: ONNX Runtime's names with their options, in
    order. runs: network Runs at once. threads: threads of one Run. batch_size: pictures of one Run.
    parts: of several devices that share the work, the plan of each, which runs one at a time.
    fixed_batch: build the network for that batch alone; where False, one picture can run as one.
    memory_pattern: let ONNX Runtime plan memory from the first Run. memory_reuse: let a tensor live
    on in the memory of a dead one. memory: of the device, by ONNX Runtime's name (``cuda``), where
    a batch keeps its place; None lets each Run find one. config: session configuration entries.
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
    config: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[EnginePlan, ...] = ()

    @property
    def provider(self) -> str:
        """The provider that has to be the session's first."""
        return self.providers[0][0]

    @property
    def on_cpu(self) -> bool:
        """Whether the processor runs it, one picture a Run."""
        return self.device in {"cpu", "openvino"}

    @property
    def pool_size(self) -> int:
        """Threads of the session's one pool, so that `runs` callers and it make runs x threads.

        ONNX Runtime counts the caller of Run as one thread of the pool.
        """
        return self.runs * (self.threads - 1) + 1

    def count_workers(self, asked: int | None, cores: int) -> int:
        """Pictures in work at once: asked, else one a Run on a CPU, one a core beside a GPU."""
        return asked or (self.runs if self.on_cpu else cores)


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
    found = {
        kind: [provider for provider in providers if provider in available]
        for kind, providers in PROVIDERS_BY_DEVICE.items()
    }
    if device.kind == "auto":
        kinds = [kind for kind in _AUTO if found[kind]]
        if not kinds:
            raise DeviceUnavailableError(
                f"the installed onnxruntime lists no device bgx knows; run: {_INSTALL['cpu']}"
            )
    elif found[device.kind]:
        kinds = [device.kind]
    else:
        raise DeviceUnavailableError(
            f"--device {device.device}: no {' or '.join(PROVIDERS_BY_DEVICE[device.kind])} is "
            f"installed; run: {_INSTALL[device.kind]}"
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
    """As many pictures at once as cores; one picture alone has all of them.

    Single-threaded Runs are the fastest way through many pictures. A Run's memory grows with the
    pixels of its input, so larger inputs take more cores each.
    """
    each = device.threads or min(cores, -(-pixels // _UNIT_PIXELS))
    runs = device.workers or max(1, cores // each)
    if pictures is not None:
        runs = max(1, min(runs, pictures))
    # A thread of the pool that spins takes its core from the next picture's decoding.
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
    """The plan of one kind of device, made from what it would be on the CPU."""
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
            # A batch that does not fit into memory can be taken apart.
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
            # It can neither overlap Runs nor plan memory; see its own documentation.
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
            # It has threads of its own, as many as there are cores if not told.
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
            # Two Runs of u2netp at once take 690 MB planned ahead, 460 without the pattern, 320
            # without reuse, which keeps large blocks for small tensors; all in the same time.
            return replace(on_cpu, memory_pattern=False, memory_reuse=False)


def load_runtime() -> ModuleType:
    """Import ONNX Runtime, quiet and without telemetry.

    Raises RuntimeMissingError when no flavour is installed or it does not load.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime

        # What fails is raised and said once by bgx; ONNX Runtime would print it as well.
        onnxruntime.set_default_logger_severity(4)
    except (ImportError, AttributeError) as error:
        # AttributeError: one of two flavours was uninstalled and took the other's files with it.
        raise RuntimeMissingError(_explain_missing(error)) from None
    return onnxruntime  # type: ignore[no-any-return]


def list_providers(kinds: Iterable[str]) -> list[str]:
    """What there is to run these kinds of device: ONNX Runtime's providers, plug-ins, OpenVINO.

    Raises RuntimeMissingError.
    """
    runtime = load_runtime()
    listed = list(runtime.get_available_providers())
    wanted = {provider for kind in kinds for provider in PROVIDERS_BY_DEVICE.get(kind, ())}
    for provider in wanted & _PLUGINS.keys():
        if _register(_PLUGINS[provider]) and provider not in listed:
            listed.append(provider)
    if OPENVINO in wanted and importlib.util.find_spec("openvino") is not None:
        listed.append(OPENVINO)
    return listed


@cache
def _register(plugin: str) -> bool:
    """Make the provider of a plug-in known to ONNX Runtime; whether its wheel is there for that."""
    try:
        library = importlib.import_module(plugin).get_library_path()
        load_runtime().register_execution_provider_library(plugin, library)
    except ModuleNotFoundError:
        return False
    except AttributeError:
        log.warning("%s: needs a later onnxruntime; run: pip install --upgrade onnxruntime", plugin)
        return False
    except runtime_errors() as error:
        log.warning("%s: %s", plugin, one_line(error))
        return False
    return True


def _explain_missing(error: Exception) -> str:
    flavours = find_flavours()
    if not flavours:
        return 'no onnxruntime flavour is installed; run: pip install "bgx[cpu]"'
    conflict = explain_conflict(flavours)
    if conflict:
        return conflict
    [name] = flavours
    return f"{name} does not load: {one_line(error)}; run: pip install --force-reinstall {name}"


def find_flavours() -> dict[str, str]:
    """The installed distributions of ONNX Runtime with their versions.

    By the names of their folders alone: importlib.metadata takes longer than the network to load.
    """
    installed: dict[str, str] = {}
    for folder in sys.path:
        for path in Path(folder).glob("onnxruntime*.dist-info"):
            name, _, version = path.stem.partition("-")
            installed.setdefault(name.replace("_", "-"), version)
    return {name: installed[name] for name in _FLAVOURS if name in installed}


def explain_conflict(flavours: Mapping[str, str]) -> str | None:
    """What is wrong with two flavours side by side and how to repair it; None when there is one."""
    if len(flavours) < 2:
        return None
    names = " ".join(flavours)
    return (
        f"{' and '.join(flavours)} are installed together and overwrite each other; run: "
        f'pip uninstall -y {names}, then: pip install "bgx[cpu]" (or gpu, directml)'
    )


def start(source: Path | bytes, plan: EnginePlan, name: str) -> Any:
    """Create the plan's ``onnxruntime.InferenceSession``, or its like, from a file or its bytes.

    name: what messages call the file. Raises DeviceUnavailableError when the plan's provider does
    not load, BadModelError when the file is not a network ONNX Runtime can run.
    """
    if plan.provider == OPENVINO:
        from bgx.model.openvino import OpenvinoSession

        return OpenvinoSession(source, plan, name)
    runtime = load_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = plan.pool_size
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_mem_pattern = plan.memory_pattern
    options.enable_mem_reuse = plan.memory_reuse
    options.log_severity_level = 4
    if plan.fixed_batch:
        options.add_free_dimension_override_by_name(BATCH, plan.batch_size)
    for key, value in plan.config.items():
        options.add_session_config_entry(key, value)
    if plan.provider in {"CUDAExecutionProvider", "TensorrtExecutionProvider"}:
        _preload(runtime)
    if plan.provider == "TensorrtExecutionProvider":
        # Its wheel loads the libraries, which ONNX Runtime then finds.
        with contextlib.suppress(ImportError, OSError):
            importlib.import_module("tensorrt")
    providers = [(provider, dict(choices)) for provider, choices in plan.providers]
    try:
        if plan.provider in _PLUGINS:
            # By name ONNX Runtime would pass it over without a word.
            options.add_provider_for_devices(_find_devices(runtime, plan)[:1], providers[0][1])
            providers = []
        session = runtime.InferenceSession(
            source if isinstance(source, bytes) else os.fspath(source),
            sess_options=options,
            providers=providers,
            # Without this a provider that fails is replaced by the CPU, and stdout told so.
            enable_fallback=0,
        )
    except runtime_errors() as error:
        if plan.device == "cpu" or type(error).__name__ in _MODEL_ERRORS:
            reason = (
                one_line(error).replace(str(source), "it")
                if isinstance(source, Path)
                else one_line(error)
            )
            raise BadModelError(f"{name}: not a network onnxruntime can run: {reason}") from None
        raise DeviceUnavailableError(_undelivered(plan, one_line(error))) from None
    delivered = session.get_providers()[0]
    if delivered != plan.provider:
        raise DeviceUnavailableError(
            _undelivered(plan, f"{plan.provider} is listed but one of its libraries does not load")
        )
    if plan.memory is None:
        return session
    from bgx.model.binding import bind

    try:
        return bind(runtime, session, plan)
    except runtime_errors() as error:
        raise DeviceUnavailableError(_undelivered(plan, one_line(error))) from None


def explain_no_gpu() -> str:
    """What to do where half precision is asked for and nothing but the processor runs networks."""
    return (
        "--precision fp16 runs on a GPU alone and none is found, see: bgx info; the CPU takes "
        f"int8; for NVIDIA: {_INSTALL['cuda']}"
    )


def _find_devices(runtime: ModuleType, plan: EnginePlan) -> list[Any]:
    """What the plan's provider, a plug-in, can run on; at least one."""
    found = [device for device in runtime.get_ep_devices() if device.ep_name == plan.provider]
    if not found:
        raise DeviceUnavailableError(_undelivered(plan, f"{plan.provider} finds no device"))
    return found


def runtime_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises: its own exceptions, and those of its binding to Python."""
    from onnxruntime.capi import onnxruntime_pybind11_state as binding

    own = [
        value
        for value in vars(binding).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ]
    return (*own, RuntimeError, ValueError, MemoryError)


def one_line(error: BaseException) -> str:
    """The message without ONNX Runtime's status and source line in front and stack behind.

    Where one message holds another, the inner one says why.
    """
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    line = re.sub(r"^.*\[ONNXRuntimeError\] : \d+ : \w+ : ", "", line)
    return re.sub(r"^\S+\.(?:cc|cpp|cu|h):\d+ (?:.* was false\. |.*?\) )", "", line)[:300]


def _undelivered(plan: EnginePlan, reason: str) -> str:
    remedy = explain_conflict(find_flavours()) or _REPAIR[plan.device.partition(":")[0]]
    return f"--device {plan.device}: {reason}; {remedy}"


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
    listed = list_providers(PROVIDERS_BY_DEVICE)
    loads: list[str] = []
    fails: dict[str, str] = {}
    for kind, providers in PROVIDERS_BY_DEVICE.items():
        if not set(providers).intersection(listed):
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
        listed=tuple(listed),
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
    return "no GPU is listed" if auto == "cpu" else "the best that is listed"


def _probe(kind: str, listed: Sequence[str]) -> None:
    import numpy as np

    with tempfile.TemporaryDirectory(prefix="bgx-") as cache:
        [plan] = plan_engines(DeviceSettings(kind), listed, 1, pictures=1, cache=Path(cache))
        engine = start(_PROBE, plan, "the probe")
        try:
            engine.run(None, {"x": np.ones((1, 1, 2, 2), np.float32)})
        except runtime_errors() as error:
            raise DeviceUnavailableError(_undelivered(plan, one_line(error))) from None


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
