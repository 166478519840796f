"""Limits of a container, set by a control group of the system that runs the tests."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path("/sys/fs/cgroup")

_Word = str | bytes | Path

# A process that enters the group before it becomes another program.
_ENTER = (
    "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid()));"
    "os.execv(sys.argv[2], sys.argv[2:])"
)


@contextlib.contextmanager
def container(controller: str, limits: dict[str, str]) -> Iterator[Path]:
    """A control group; skips the test where none can be made.

    limits: by file name, in version 1 and in version 2 of control groups; the first that is there
    is set.
    """
    for root in (_ROOT / controller, _ROOT):
        group = root / f"bgx-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            for name, value in limits.items():
                if (group / name).exists():
                    (group / name).write_text(value)
                    yield group
                    return
        finally:
            group.rmdir()
    pytest.skip(f"no control group of {controller} can be made here")


def run_in(group: Path, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program inside; command: its path, then its arguments."""
    return subprocess.run(enter(group, *command), capture_output=True, text=True, **options)


def enter(group: Path, *command: _Word) -> list[_Word]:
    """The command that runs another one inside."""
    return [sys.executable, "-c", _ENTER, str(group / "cgroup.procs"), *command]
