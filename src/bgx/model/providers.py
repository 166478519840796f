"""ONNX Runtime on this machine: what is installed, and starting sessions.

:func:`start` checks which provider each session really uses, so that nothing falls back silently.
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
from bgx.model.arena import use_arena
from bgx.model.engines import OPENVINO, PROVIDERS_BY_DEVICE, REPAIR, explain_install
from bgx.model.prepare import BATCH

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import ModuleType

    from bgx.model.engines import EnginePlan

log = logging.getLogger(__name__)

# Providers in wheels of their own, which are registered when needed, and the wheels' modules.
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

# ONNX Runtime's exceptions that mean "this is not a usable network", on any device.
_MODEL_ERRORS = frozenset(
    {"InvalidProtobuf", "InvalidGraph", "NoModel", "NoSuchFile", "NotImplemented"}
)

# Messages of its thread pool if the system refuses a thread, on POSIX and on Windows.
_NO_THREAD = ("pthread_create failed", "_beginthreadex failed")

# Messages of failed allocations: C++ on POSIX and on Windows, ONNX Runtime, Linux.
_NO_MEMORY = ("bad_alloc", "bad allocation", "Failed to allocate memory", "Cannot allocate memory")


def load_runtime() -> ModuleType:
    """Import ONNX Runtime, without its log and telemetry.

    Raises RuntimeMissingError if none is installed or it does not load, and NoMemoryError.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime

        # bgx reports errors once; ONNX Runtime would print them too.
        onnxruntime.set_default_logger_severity(4)
    except (ImportError, AttributeError, MemoryError) as error:
        # AttributeError: uninstalling another flavour removed files that this one needs.
        if lacks_memory(error):
            raise NoMemoryError(explain_no_memory("onnxruntime")) from None
        raise RuntimeMissingError(_explain_missing(error)) from None
    return onnxruntime  # type: ignore[no-any-return]


def list_providers(kinds: Iterable[str]) -> list[str]:
    """The providers available for these kinds of devices: ONNX Runtime's, plug-ins, OpenVINO.

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
    """Register the provider of a plug-in with ONNX Runtime; returns whether that worked."""
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
    """The installed distributions of ONNX Runtime and their versions.

    Found by the names of their folders, because importlib.metadata takes longer to import than a
    network takes to load.
    """
    installed: dict[str, str] = {}
    for folder in sys.path:
        for path in Path(folder).glob("onnxruntime*.dist-info"):
            name, _, version = path.stem.partition("-")
            installed.setdefault(name.replace("_", "-"), version)
    return {name: installed[name] for name in _FLAVOURS if name in installed}


def explain_conflict(flavours: Mapping[str, str]) -> str | None:
    """The message for two installed flavours, with the remedy; None if there is only one."""
    if len(flavours) < 2:
        return None
    names = " ".join(flavours)
    return (
        f"{' and '.join(flavours)} are installed together and overwrite each other; run: "
        f"pip uninstall -y {names}, then: {install_hint('cpu')} (or gpu, directml)"
    )


def start(source: Path | bytes, plan: EnginePlan, name: str, *, save_to: Path | None = None) -> Any:
    """Create an ``onnxruntime.InferenceSession``, or an object with its methods, for the plan.

    source: the file or its bytes. name: of the file, for messages. save_to: where ONNX Runtime is
    to write the network as it runs it. Raises DeviceUnavailableError if the plan's provider does
    not load, BadModelError if ONNX Runtime cannot run the network, and NoMemoryError.
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
    if plan.arena:
        use_arena(runtime, options)
    if plan.fixed_batch:
        options.add_free_dimension_override_by_name(BATCH, plan.batch_size)
    if save_to is not None:
        options.optimized_model_filepath = os.fspath(save_to)
    for key, value in plan.config.items():
        options.add_session_config_entry(key, value)
    if plan.provider in {"CUDAExecutionProvider", "TensorrtExecutionProvider"}:
        _preload(runtime)
    if plan.provider == "TensorrtExecutionProvider":
        # Importing its wheel loads the libraries that ONNX Runtime needs.
        with contextlib.suppress(ImportError, OSError):
            importlib.import_module("tensorrt")
    providers = [(provider, dict(choices)) for provider, choices in plan.providers]
    try:
        if plan.provider in _PLUGINS:
            # If given by name, ONNX Runtime would ignore a plug-in silently.
            options.add_provider_for_devices(_find_devices(runtime, plan)[:1], providers[0][1])
            providers = []
        session = runtime.InferenceSession(
            source if isinstance(source, bytes) else os.fspath(source),
            sess_options=options,
            providers=providers,
            # Otherwise a provider that fails is replaced by the CPU, with a message on stdout.
            enable_fallback=0,
        )
    except runtime_errors() as error:
        if plan.pool_size > 1 and any(words in str(error) for words in _NO_THREAD):
            log.warning("%s: the system refuses more threads; the network runs on one", name)
            return start(source, replace(plan, threads=1), name, save_to=save_to)
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
    """The message for half precision on a machine without a usable GPU."""
    return (
        "--precision fp16 needs a GPU, and none is found; see: bgx info; on the CPU use int8; "
        f"for NVIDIA: {explain_install('cuda')}"
    )


def _find_devices(runtime: ModuleType, plan: EnginePlan) -> list[Any]:
    """The devices of the plan's plug-in provider, at least one."""
    found = [device for device in runtime.get_ep_devices() if device.ep_name == plan.provider]
    if not found:
        raise DeviceUnavailableError(explain_undelivered(plan, f"{plan.provider} finds no device"))
    return found


def runtime_errors() -> tuple[type[Exception], ...]:
    """The exceptions of ONNX Runtime: its own, and those of its Python binding."""
    from onnxruntime.capi import onnxruntime_pybind11_state as binding

    own = [
        value
        for value in vars(binding).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ]
    return (*own, RuntimeError, ValueError, MemoryError)


def lacks_memory(error: BaseException) -> bool:
    """Whether an exception of a runtime means that there is too little memory."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY)


def explain_no_memory(name: str) -> str:
    """The message for too little memory to load a network or a runtime."""
    return (
        f"{name}: too little memory to load it; raise the limit (ulimit -v, the container's), or "
        "use a smaller network, such as --model lite"
    )


def one_line(error: BaseException) -> str:
    """The reason in a message of ONNX Runtime, without status, source line and stack trace."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    line = re.sub(r"^.*\[ONNXRuntimeError\] : \d+ : \w+ : ", "", line)
    place = r"(?:/|\b[A-Za-z]:\\)\S+\.(?:cc|cpp|cu|h):\d+ (?:.* was false\. |.*?\) )"
    return re.sub(place, "", line)[:300]


def explain_undelivered(plan: EnginePlan, reason: str) -> str:
    remedy = explain_conflict(find_flavours()) or REPAIR[plan.device.partition(":")[0]]
    return f"--device {plan.device}: {reason}; {remedy}"


def _preload(runtime: ModuleType) -> None:
    """Load CUDA and cuDNN from their wheels, if this version of onnxruntime-gpu can do that."""
    preload = getattr(runtime, "preload_dlls", None)
    if preload is None:
        return
    said = io.StringIO()
    # It prints what it cannot find, but stdout is for results only.
    with contextlib.redirect_stdout(said):
        try:
            preload()
        except (OSError, RuntimeError) as error:
            log.debug("preload_dlls: %s", error)
    if said.getvalue():
        log.debug("preload_dlls: %s", said.getvalue().strip())
