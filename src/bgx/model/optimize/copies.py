"""Keeps the copies that passed, and finds them.

Each copy has a record of its measurement. It is used only on the device and with the ONNX Runtime
that it was measured with: on others it may be slower, and round differently.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from bgx.errors import ModelError
from bgx.files import remove_leftovers, write_whole
from bgx.model import files
from bgx.model.hardware import describe_machine

if TYPE_CHECKING:
    from pathlib import Path

    from bgx.model.optimize.gate import Measurement
    from bgx.model.store import ModelFile, Store

log = logging.getLogger(__name__)

VERSION = 1
"""Part of the file name: to be raised when copies are made in another way."""


def find(file: ModelFile, store: Store, gpu: str | None = None) -> Path | None:
    """The copy of a network that passed on this machine; None if there is none.

    gpu: the device (``cuda:0``) that is to run the half-precision copy; None for the 8-bit copy and
    the CPU.
    """
    path = _path(file, store, gpu)
    record = path.with_suffix(".json")
    if not (files.is_file(path) and files.is_file(record)):
        return None
    passed_on = _read_machine(record)
    if passed_on is None:
        return None
    if passed_on != describe_machine(gpu):
        log.info("%s: made on another machine or runtime; run: bgx models optimize", path)
        return None
    return path


def list_copies(file: ModelFile, store: Store) -> list[str]:
    """The copies of a network that passed on this machine: ``int8``, ``fp16 on cuda:0``."""
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
    """Write a copy and its record. gpu: as in :func:`find`. Raises ModelError."""
    path = _path(file, store, gpu)
    record = {"machine": describe_machine(gpu), **measured._asdict()}
    try:
        remove_leftovers(path.parent)
        # The record last: a copy without one is not used.
        path.with_suffix(".json").unlink(missing_ok=True)
        write_whole(path, content)
        write_whole(path.with_suffix(".json"), json.dumps(record, indent=2).encode())
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be written: {error.strerror or error}; "
            "make room or set BGX_HOME to another folder"
        ) from None
    return path


def _read_machine(record: Path) -> dict[str, Any] | None:
    """What a copy was measured on; None if the record cannot be read."""
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
