"""ONNX Runtime on this machine: what is installed, and a plan turned into a session.

:func:`start` asks each session what it really uses: nothing falls back in silence.
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
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bgx.errors import (
    BadModelError,
    DeviceUnavailableError,
    NoMemoryError,
    RuntimeMissingError,
)
from bgx.install import install_hint
from bgx.model.engines import OPENVINO, PROVIDERS_BY_DEVICE, REPAIR, explain_install
from bgx.model.prepare import BATCH

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import ModuleType

    from bgx.model.engines import EnginePlan

log = logging.getLogger(__name__)

# Providers with a wheel of their own, registered when they are asked for: the wheel's module.
_PLUGINS = {"WebGpuExecutionProvider": "onnxruntime_ep_webgpu"}

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

# What its pool says where the system refuses a thread, on POSIX and on Windows.
_NO_THREAD = ("pthread_create failed", "_beginthreadex failed")

# How allocators report that there is no memory: C++ on POSIX and on Windows, ONNX Runtime's, Linux.
_NO_MEMORY = ("bad_alloc", "bad allocation", "Failed to allocate memory", "Cannot allocate memory")


def load_runtime() -> ModuleType:
    """Import ONNX Runtime, quiet and without telemetry.

    Raises RuntimeMissingError if no flavour is installed or it does not load, NoMemoryError.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime

        # What fails is raised and said once by bgx; ONNX Runtime would print it as well.
        onnxruntime.set_default_logger_severity(4)
    except (ImportError, AttributeError, MemoryError) as error:
        # AttributeError: one of two flavours was uninstalled and took the other's files with it.
        if lacks_memory(error):
            raise NoMemoryError(explain_no_memory("onnxruntime")) from None
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
        return f"no onnxruntime flavour is installed; run: {install_hint('cpu')}"
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
        f"pip uninstall -y {names}, then: {install_hint('cpu')} (or gpu, directml)"
    )


def start(source: Path | bytes, plan: EnginePlan, name: str) -> Any:
    """Create the plan's ``onnxruntime.InferenceSession``, or its like, from a file or its bytes.

    name: what messages call the file. Raises DeviceUnavailableError if the plan's provider does not
    load, BadModelError if the file is not a network ONNX Runtime can run, NoMemoryError.
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
        if plan.pool_size > 1 and any(words in str(error) for words in _NO_THREAD):
            log.warning("%s: the system gives it no threads; it runs on one", name)
            return start(source, replace(plan, threads=1), name)
        if plan.device == "cpu" and lacks_memory(error):
            raise NoMemoryError(explain_no_memory(name)) from None
        if plan.device == "cpu" or type(error).__name__ in _MODEL_ERRORS:
            reason = (
                one_line(error).replace(str(source), "it")
                if isinstance(source, Path)
                else one_line(error)
            )
            raise BadModelError(f"{name}: not a network onnxruntime can run: {reason}") from None
        raise DeviceUnavailableError(explain_undelivered(plan, one_line(error))) from None
    delivered = session.get_providers()[0]
    if delivered != plan.provider:
        raise DeviceUnavailableError(
            explain_undelivered(
                plan, f"{plan.provider} is listed but one of its libraries does not load"
            )
        )
    if plan.memory is None:
        return session
    from bgx.model.binding import bind

    try:
        return bind(runtime, session, plan)
    except runtime_errors() as error:
        raise DeviceUnavailableError(explain_undelivered(plan, one_line(error))) from None


def explain_no_gpu() -> str:
    """What to do where half precision is asked for and nothing but the processor runs networks."""
    return (
        "--precision fp16 runs on a GPU alone and none is found, see: bgx info; the CPU takes "
        f"int8; for NVIDIA: {explain_install('cuda')}"
    )


def _find_devices(runtime: ModuleType, plan: EnginePlan) -> list[Any]:
    """What the plan's provider, a plug-in, can run on; at least one."""
    found = [device for device in runtime.get_ep_devices() if device.ep_name == plan.provider]
    if not found:
        raise DeviceUnavailableError(explain_undelivered(plan, f"{plan.provider} finds no device"))
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


def lacks_memory(error: BaseException) -> bool:
    """Whether a runtime's exception says that there was not enough memory."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY)


def explain_no_memory(name: str) -> str:
    """What to do if there is too little memory to load a network's file or a runtime."""
    return (
        f"{name}: too little memory to load it; raise the limit (ulimit -v, the container's), or "
        "take a smaller network, such as --model lite"
    )


def one_line(error: BaseException) -> str:
    """The message without ONNX Runtime's status and source line in front and stack behind.

    Where one message holds another, the inner one says why.
    """
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    line = re.sub(r"^.*\[ONNXRuntimeError\] : \d+ : \w+ : ", "", line)
    return re.sub(r"^\S+\.(?:cc|cpp|cu|h):\d+ (?:.* was false\. |.*?\) )", "", line)[:300]


def explain_undelivered(plan: EnginePlan, reason: str) -> str:
    remedy = explain_conflict(find_flavours()) or REPAIR[plan.device.partition(":")[0]]
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
