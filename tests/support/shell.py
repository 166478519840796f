"""The command line as a shell sees it: arguments and stdin in; code, stdout and stderr out."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bgx.cli.main import run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PATIENCE = 60  # seconds until a process that hangs fails its test


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: bytes
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The report on stdout."""
        return [json.loads(line) for line in self.out.splitlines()]


def bgx(*arguments: str | Path, stdin: bytes = b"") -> Result:
    """Run the command line in this process."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="")
    err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace", newline="")
    logger = logging.getLogger("bgx")
    handlers, level, original = logger.handlers, logger.level, sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = run([os.fspath(argument) for argument in arguments])
    finally:
        sys.stdin = original
        logger.handlers = handlers
        logger.setLevel(level)
    err.flush()
    return Result(code, out.buffer.getvalue(), err.buffer.getvalue().decode())


def command(*arguments: str | bytes | Path) -> list[str | bytes | Path]:
    """The arguments that run bgx in a process of its own."""
    return [sys.executable, "-m", "bgx", *arguments]


def bgx_process(
    *arguments: str | bytes | Path,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    **options: Any,
) -> Result:
    """Run the command line in a process of its own. env: added to this one's."""
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    done = subprocess.run(
        command(*arguments),
        input=stdin,
        env={**os.environ, **(env or {})},
        timeout=PATIENCE,
        **(streams | options),
    )
    return Result(done.returncode, done.stdout or b"", (done.stderr or b"").decode())


def read_rows(report: Path) -> list[dict[str, Any]]:
    """The rows of a report's file."""
    return [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
