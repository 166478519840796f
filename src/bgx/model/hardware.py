"""Describes the CPU, the GPUs and the runtime: a copy of a network may fit no others."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib import import_module
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
"""Where Linux describes the CPU."""

NVIDIA = Path("/proc/driver/nvidia/gpus")
"""Where NVIDIA's driver describes its GPUs; only on Linux."""


def describe_machine(gpu: str | None = None) -> dict[str, str]:
    """What decides how fast a copy is and how it rounds: CPU, GPU and ONNX Runtime.

    gpu: a device (``cuda:0``) that is to run it; None for the CPU.
    """
    from bgx.model.providers import find_flavours

    machine = {
        "cpu": platform.machine() + " " + _describe_cpu(),
        "runtime": " ".join(f"{name} {version}" for name, version in find_flavours().items()),
    }
    if gpu is not None:
        machine["gpu"] = f"{gpu} {_describe_gpus()}"
    return machine


def hash_machine() -> str:
    """A short name of this CPU and ONNX Runtime, for files that fit no others."""
    return _shorten(json.dumps(describe_machine()))


def _describe_gpus() -> str:
    """Names of the NVIDIA GPUs; only on Linux."""
    described = sorted(NVIDIA.glob("*/information"))
    return ", ".join(_read_fields(path).get("Model", "") for path in described)


def _describe_cpu() -> str:
    """Name of the CPU and a hash of its instruction sets."""
    found = _read_fields(CPUINFO)
    instructions = found.get("flags") or found.get("Features") or " ".join(_ask_numpy())
    digest = _shorten(" ".join(sorted(instructions.split())))
    return f"{found.get('model name', platform.processor())} {digest}"


def _ask_numpy() -> list[str]:
    """The instruction sets that NumPy knows and this CPU has, for systems other than Linux."""
    try:
        known = import_module("numpy._core._multiarray_umath").__cpu_features__
    except (ImportError, AttributeError):
        return []
    return [name for name, present in known.items() if present]


def _shorten(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read_fields(path: Path) -> dict[str, str]:
    """The first value of each key in lines ``KEY: VALUE``; empty if there is no such file."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    found: dict[str, str] = {}
    for key, colon, value in (line.partition(":") for line in lines):
        if colon:
            found.setdefault(key.strip(), value.strip())
    return found
