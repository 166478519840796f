"""Processes that are in the middle of writing a file."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_IN_WORK = """
import sys
from pathlib import Path
from bgx.files import temporary
with temporary(Path(sys.argv[1])) as path:
    path.write_bytes(b"half")
    print("written", flush=True)
    sys.stdin.readline()
"""


def start_writing(folder: Path) -> subprocess.Popen[bytes]:
    """A process in the middle of writing a file."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", _IN_WORK, str(folder)], stdin=pipe, stdout=pipe
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"written\n"
    return process
