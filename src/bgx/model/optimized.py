"""8-bit copies of networks that passed on this machine: where they lie and when they are used.

Beside each copy lies a record of what was measured. A copy is used on the machine and with the
ONNX Runtime it was measured on: another may be slower with it, and round otherwise.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bgx.errors import ModelError
from bgx.model import files

if TYPE_CHECKING:
    from bgx.model.store import ModelFile, Store

log = logging.getLogger(__name__)

VERSION = 1
"""Part of the cache key: raise it when the recipe in bgx.model.quantize changes."""

MOST_DIFFERENCE = 0.005
LEAST_IOU = 0.985

_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Measurement:
    """An 8-bit copy against float32, on photos that it was not made with.

    difference: mean over photos and pixels, of mattes in 0..1. iou: intersection over union of the
    masks at 0.5, mean over the photos. fp32_ms, int8_ms: one Run on one thread. kept: the
    convolutions left in float32, of `convolutions`. photos: how many were compared.
    """

    difference: float
    iou: float
    fp32_ms: float
    int8_ms: float
    kept: tuple[str, ...]
    convolutions: int
    photos: int

    @property
    def faults(self) -> list[str]:
        """What stands against the copy; nothing where it passes."""
        faults = []
        if not self.difference <= MOST_DIFFERENCE:
            faults.append(f"its mattes differ by {self.difference:.4f} > {MOST_DIFFERENCE}")
        if not self.iou >= LEAST_IOU:
            faults.append(f"its masks agree to {self.iou:.4f} < {LEAST_IOU}")
        if not self.int8_ms < self.fp32_ms:
            faults.append("it is not faster here")
        return faults

    def __str__(self) -> str:
        return (
            f"{self.fp32_ms / self.int8_ms:.2f} times as fast as float32 "
            f"({self.int8_ms:.0f} against {self.fp32_ms:.0f} ms), mean difference "
            f"{self.difference:.4f}, IoU {self.iou:.4f} on {self.photos} photos held back, "
            f"{len(self.kept)} of {self.convolutions} convolutions in float32"
        )


def find(file: ModelFile, store: Store) -> Path | None:
    """The 8-bit copy of a network, None where none passed on this machine."""
    path = _path(file, store)
    record = path.with_suffix(".json")
    if not (path.is_file() and record.is_file()):
        return None
    try:
        passed_on = json.loads(record.read_bytes())["machine"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.debug("%s: damaged: %r", record, error)
        return None
    if passed_on != describe_machine():
        log.info("%s: measured elsewhere; run: bgx models optimize again", path)
        return None
    return path


def install(file: ModelFile, store: Store, content: bytes, measured: Measurement) -> Path:
    """Keep an 8-bit copy and its record. Raises ModelError."""
    path = _path(file, store)
    record = {"machine": describe_machine(), **asdict(measured)}
    try:
        # The record last: a copy without one is not used.
        path.with_suffix(".json").unlink(missing_ok=True)
        files.write(path, content)
        files.write(path.with_suffix(".json"), json.dumps(record, indent=2).encode())
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be kept: {error.strerror or error}; "
            "make room or set BGX_HOME to another folder"
        ) from None
    return path


def describe_machine() -> dict[str, str]:
    """What decides how fast and how exactly 8-bit networks run: the CPU and the runtime."""
    from bgx.model.providers import find_flavours

    return {
        "cpu": platform.machine() + " " + _describe_cpu(),
        "runtime": " ".join(f"{name} {version}" for name, version in find_flavours().items()),
    }


def _describe_cpu() -> str:
    """The CPU's name, on Linux with a hash of its instruction sets."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    pairs = (line.partition(":") for line in lines if ":" in line)
    found: dict[str, str] = {}
    for key, _, value in pairs:
        found.setdefault(key.strip(), value.strip())
    instructions = sorted((found.get("flags") or found.get("Features") or "").split())
    digest = hashlib.sha256(" ".join(instructions).encode()).hexdigest()[:16]
    return f"{found.get('model name', platform.processor())} {digest}"


def _path(file: ModelFile, store: Store) -> Path:
    digest = file.digest.partition(":")[2]
    return store.optimized / f"{digest}-{file.entry.output}-int8-v{VERSION}.onnx"
