"""Hashes of files, and stamps that make it unnecessary to compute them again."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from typing import TYPE_CHECKING, NamedTuple

from bgx.errors import BadModelError
from bgx.files import write_whole

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)


class Digests(NamedTuple):
    """Hashes of a file, hexadecimal. Copies are named by sha256; md5 is in some registries."""

    sha256: str
    md5: str

    def fits(self, known: object) -> bool:
        """Whether a hash of the registry, ``sha256:…`` or ``md5:…``, is that of the file."""
        # A tuple, not a set: a damaged record may hold something that is not hashable.
        return known in (f"sha256:{self.sha256}", f"md5:{self.md5}")


def read_digests(path: Path, stamps: Path, *, trust_stamp: bool = True) -> Digests:
    """The file's hashes: from its stamp if size and time are unchanged, else computed.

    stamps: the folder of the stamps. Raises BadModelError if the file cannot be read.
    """
    try:
        resolved = path.resolve()
        state = resolved.stat()
    except OSError as error:
        raise BadModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    seen = {"path": str(resolved), "size": state.st_size, "mtime_ns": state.st_mtime_ns}
    key = hashlib.sha256(os.fsencode(resolved)).hexdigest()[:32]
    stamp = stamps / f"{key}.json"
    if trust_stamp:
        try:
            known = json.loads(stamp.read_bytes())
            if {name: known[name] for name in seen} == seen:
                return Digests(known["sha256"], known["md5"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
    digests = hash_file(path)
    try:
        write_whole(stamp, json.dumps(seen | digests._asdict()).encode())
    except OSError as error:
        log.debug("%s: no stamp kept: %s", path, error)
    return digests


def hash_file(path: Path) -> Digests:
    """Compute both hashes in one pass. Raises BadModelError if the file cannot be read."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    buffer = memoryview(bytearray(1 << 20))
    try:
        with path.open("rb", buffering=0) as file:
            while size := file.readinto(buffer):
                sha256.update(buffer[:size])
                md5.update(buffer[:size])
    except OSError as error:
        raise BadModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    return Digests(sha256.hexdigest(), md5.hexdigest())
