"""Copies of networks in 8 bits, for the processor, and in half precision, for a GPU.

Beside each copy lies a record of what was measured. A copy is used on the device and with the
ONNX Runtime it was measured on: another may be slower with it, and round otherwise.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bgx.errors import ModelError
from bgx.files import remove_leftovers, write_whole
from bgx.model import files

if TYPE_CHECKING:
    from bgx.model.store import ModelFile, Store

log = logging.getLogger(__name__)

VERSION = 1
"""Part of the cache key: raise it when a recipe changes, in bgx.model.quantize or halve."""

MOST_DIFFERENCE = 0.005
LEAST_IOU = 0.985

_CPUINFO = Path("/proc/cpuinfo")
_NVIDIA = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True, slots=True)
class Measurement:
    """A copy against float32, on photos that it was not made with.

    difference: mean over photos and pixels, of mattes in 0..1. iou: intersection over union of the
    masks at 0.5, mean over the photos. fp32_ms, copy_ms: one Run, on a CPU of one picture on one
    thread, on a GPU of a batch. photos: how many were compared.
    """

    difference: float
    iou: float
    fp32_ms: float
    copy_ms: float
    photos: int

    @property
    def faults(self) -> list[str]:
        """What stands against the copy; nothing where it passes."""
        faults = []
        if not self.difference <= MOST_DIFFERENCE:
            faults.append(f"its mattes differ by {self.difference:.4f} > {MOST_DIFFERENCE}")
        if not self.iou >= LEAST_IOU:
            faults.append(f"its masks agree to {self.iou:.4f} < {LEAST_IOU}")
        if not self.copy_ms < self.fp32_ms:
            faults.append("it is not faster here")
        return faults

    def __str__(self) -> str:
        return (
            f"{self.fp32_ms / self.copy_ms:.2f} times as fast as float32 "
            f"({self.copy_ms:.1f} against {self.fp32_ms:.1f} ms), mean difference "
            f"{self.difference:.4f}, IoU {self.iou:.4f} on {self.photos} photos held back"
        )


def find(file: ModelFile, store: Store, gpu: str | None = None) -> Path | None:
    """The copy of a network that passed on this machine, None where none did.

    gpu: label of the device (``cuda:0``) that has to run its half-precision copy; None is the
    processor and the 8-bit copy.
    """
    path = _path(file, store, gpu)
    record = path.with_suffix(".json")
    if not (files.is_file(path) and files.is_file(record)):
        return None
    passed_on = _read_machine(record)
    if passed_on is None:
        return None
    if passed_on != describe_machine(gpu):
        log.info("%s: measured elsewhere; run: bgx models optimize again", path)
        return None
    return path


def list_copies(file: ModelFile, store: Store) -> list[str]:
    """What there is of a network for this machine: ``int8``, ``fp16 on cuda:0``."""
    records = files.found(store.optimized, f"{_name(file)}-*.json")
    found = []
    for machine in filter(None, map(_read_machine, records)):
        gpu = str(machine["gpu"]).partition(" ")[0] if "gpu" in machine else None
        label = "int8" if gpu is None else f"fp16 on {gpu}"
        if label not in found and find(file, store, gpu):
            found.append(label)
    return found


def install(
    file: ModelFile,
    store: Store,
    content: bytes,
    measured: Measurement,
    gpu: str | None = None,
) -> Path:
    """Keep a copy and its record. gpu: as of :func:`find`. Raises ModelError."""
    path = _path(file, store, gpu)
    record = {"machine": describe_machine(gpu), **asdict(measured)}
    try:
        remove_leftovers(path.parent)
        # The record last: a copy without one is not used.
        path.with_suffix(".json").unlink(missing_ok=True)
        write_whole(path, content)
        write_whole(path.with_suffix(".json"), json.dumps(record, indent=2).encode())
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be kept: {error.strerror or error}; "
            "make room or set BGX_HOME to another folder"
        ) from None
    return path


def describe_machine(gpu: str | None = None) -> dict[str, str]:
    """What decides how fast and how exactly a copy runs: the processor, the GPU, the runtime."""
    from bgx.model.providers import find_flavours

    machine = {
        "cpu": platform.machine() + " " + _describe_cpu(),
        "runtime": " ".join(f"{name} {version}" for name, version in find_flavours().items()),
    }
    if gpu is not None:
        machine["gpu"] = f"{gpu} {_describe_gpus()}"
    return machine


def _describe_gpus() -> str:
    """The names of NVIDIA's GPUs, on Linux."""
    described = sorted(_NVIDIA.glob("*/information"))
    return ", ".join(_read_fields(path).get("Model", "") for path in described)


def _describe_cpu() -> str:
    """The CPU's name, on Linux with a hash of its instruction sets."""
    found = _read_fields(_CPUINFO)
    instructions = sorted((found.get("flags") or found.get("Features") or "").split())
    digest = hashlib.sha256(" ".join(instructions).encode()).hexdigest()[:16]
    return f"{found.get('model name', platform.processor())} {digest}"


def _read_fields(path: Path) -> dict[str, str]:
    """The first value of each key in lines ``KEY: VALUE``; none where there is no such file."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    found: dict[str, str] = {}
    for key, colon, value in (line.partition(":") for line in lines):
        if colon:
            found.setdefault(key.strip(), value.strip())
    return found


def _read_machine(record: Path) -> dict[str, Any] | None:
    """What a copy was measured on; None where that cannot be read."""
    try:
        machine = json.loads(record.read_bytes())["machine"]
        return dict(machine)
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.debug("%s: damaged: %r", record, error)
        return None


def _path(file: ModelFile, store: Store, gpu: str | None) -> Path:
    kind = "int8" if gpu is None else f"fp16-{gpu.replace(':', '-')}"
    return store.optimized / f"{_name(file)}-{kind}-v{VERSION}.onnx"


def _name(file: ModelFile) -> str:
    return f"{file.digest.partition(':')[2]}-{file.entry.output}"
