"""The prepared copy of a network: made once, compared with the original, and kept."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from bgx.errors import BadModelError, InferenceError
from bgx.files import remove_leftovers, write_whole
from bgx.model import files
from bgx.model.digests import hash_file
from bgx.model.hardware import hash_machine
from bgx.model.mapped import save_mapped
from bgx.model.prepare import PREPARE_VERSION, DoesNotFit, is_half, prepare, to_float32
from bgx.model.trial import check_copy

if TYPE_CHECKING:
    from pathlib import Path

    from bgx.model.store import ModelFile, Store

log = logging.getLogger(__name__)


def find_prepared(file: ModelFile, store: Store, *, for_cpu: bool) -> tuple[Path | bytes, int]:
    """The network to run, and the index of its output that is the matte.

    That is the prepared copy, which is made the first time, or the original if no copy can be made.
    for_cpu: for this CPU, one picture at a time.
    """
    entry = file.entry
    stem = f"{file.digest.partition(':')[2]}-{entry.output}-v{PREPARE_VERSION}"
    refusal = store.prepared / f"{stem}{'-cpu' if for_cpu else ''}.txt"
    copy = store.prepared / f"{stem}{f'-cpu-{hash_machine()}' if for_cpu else ''}.onnx"
    if files.is_file(copy):
        return copy, 0
    try:
        if files.is_file(refusal):
            raise DoesNotFit(refusal.read_text(encoding="utf-8", errors="replace"))
        return _make(file, copy, for_cpu=for_cpu), 0
    except DoesNotFit as reason:
        log.debug("%s: used as it is: %s", file.path, reason)
        _keep(refusal, str(reason).encode())
        return file.path, entry.output
    except InferenceError as error:
        # A run may fail for lack of memory, so this is not recorded: later it may work.
        log.debug("%s: used as it is: %s", file.path, error)
        return file.path, entry.output


def read_prepared(file: ModelFile, store: Store) -> bytes:
    """The prepared copy in float32. Raises BadModelError if no copy can be made."""
    source, _ = find_prepared(file, store, for_cpu=False)
    if source == file.path:
        raise BadModelError(f"{file.shown}: bgx cannot prepare a graph of this form")
    return to_float32(source if isinstance(source, bytes) else source.read_bytes())


def _make(file: ModelFile, target: Path, *, for_cpu: bool) -> Path | bytes:
    """Make the copy; returns its path, or its content if that cannot be written.

    Raises DoesNotFit, BadModelError, InferenceError, NoMemoryError.
    """
    content = prepare(file.path, file.entry.output, for_cpu=for_cpu)

    def check(copy: Path | bytes) -> None:
        # A CPU runs one picture at a time; with a GPU's batches, none may depend on the others.
        count = 1 if for_cpu else 2
        check_copy(copy, file.path, file.entry, count=count, half=is_half(file.path))
        # The copy is named after the digest that was computed before: the file must still have it.
        if not hash_file(file.path).fits(file.digest):
            raise BadModelError(f"{file.shown}: was replaced while it was being opened; try again")

    if for_cpu and save_mapped(content, target, check):
        return target
    check(content)
    return target if not for_cpu and _keep(target, content) else content


def _keep(path: Path, content: bytes) -> bool:
    """Write a file unless it exists; returns whether it exists afterwards."""
    if not files.is_file(path):
        try:
            remove_leftovers(path.parent)
            write_whole(path, content)
        except OSError as error:
            log.debug("%s: not kept: %s", path, error)
    return files.is_file(path)
