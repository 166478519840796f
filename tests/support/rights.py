"""Running as a user whom permissions hold, even where the tests run as root; small file systems."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CAPABILITY_VERSION = 0x20080522
_READ_AND_WRITE_ALL = 0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


@contextmanager
def ordinary_user() -> Iterator[None]:
    """This thread, and those it starts, may read and write only what permissions allow."""
    if os.name != "posix":
        pytest.skip("POSIX permissions")
    if os.geteuid() != 0:
        yield
        return
    if sys.platform != "linux":
        pytest.skip("root may do everything")
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    before = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    reduced = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, before) == 0
    reduced[:] = before[:]
    reduced[0] &= ~_READ_AND_WRITE_ALL
    assert libc.capset(header, reduced) == 0
    try:
        yield
    finally:
        assert libc.capset(header, before) == 0


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """A file system at a new folder. options: of mount, such as ``-t tmpfs``."""
    folder.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run([mount, *options, str(folder)], capture_output=True).returncode
    ):
        pytest.skip("no right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def remount_read_only(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
