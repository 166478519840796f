"""Used by all benchmarks: runs and measures programs, describes the machine, writes records.

A record is one JSON file: the settings, the versions and the machine, every single measurement, and
the summary. Only ratios within one record are meaningful, not numbers of different records.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

REPOSITORY = Path(__file__).resolve().parents[1]

PACKAGES = ("bgx-cutout", "onnxruntime", "numpy", "pillow", "isal")
"""Packages whose versions a record contains if they are installed."""

INSTRUCTIONS = frozenset(
    {
        "avx2",
        "avx512f",
        "avx_vnni",
        "avx512_vnni",
        "avx512_bf16",
        "amx_int8",
        "amx_bf16",
        "asimddp",
        "i8mm",
    }
)
"""CPU flags, as Linux names them, that affect how fast a network runs."""


@dataclass(frozen=True)
class Usage:
    """Resources used by one run of a program. None: not reported by the platform."""

    seconds: float
    cpu_seconds: float | None
    peak_bytes: int | None


@dataclass(frozen=True)
class Child:
    """A program that ended successfully."""

    usage: Usage
    stdout: str
    stderr: str


class ChildError(Exception):
    """A program ended with an error."""


def run(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Child:
    """Run a program to its end and return what it took and said.

    The program is started by a bare interpreter, not from here: Linux counts the peak memory of the
    starting process as the program's own. Raises ChildError with the program's last words when it
    does not exit with 0.
    """
    words = [str(word) for word in command]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "usage.json"
        launcher = [sys.executable, "-I", "-S", __file__, str(report), *words]
        ended = subprocess.run(
            launcher, env=environment, capture_output=True, text=True, errors="replace"
        )
        if ended.returncode:
            tail = ended.stderr.strip()[-2000:]
            raise ChildError(f"{' '.join(words)}: exit {ended.returncode}\n{tail}")
        usage = Usage(**json.loads(report.read_text()))
    return Child(usage, ended.stdout, ended.stderr)


def _launch(report: Path, command: Sequence[str]) -> int:
    """Run a command with our streams, write its Usage to report, return its exit code."""
    start = time.perf_counter()
    with subprocess.Popen(command) as process:
        if hasattr(os, "wait4"):
            _, status, spent = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - start
            process.returncode = os.waitstatus_to_exitcode(status)
            unit = 1 if sys.platform == "darwin" else 1024
            usage = Usage(seconds, spent.ru_utime + spent.ru_stime, spent.ru_maxrss * unit)
        else:
            process.wait()
            usage = Usage(time.perf_counter() - start, None, None)
    report.write_text(json.dumps(asdict(usage)))
    # The negative return code of a signal is not a valid exit code.
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def fastest(operation: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of several runs, the one that other processes disturbed least."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        operation()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def machine() -> dict[str, Any]:
    """The hardware and system a record was made on."""
    from bgx.machine import count_cores  # the launcher runs without site packages

    model, flags = _processor()
    return {
        "cpu": model,
        "usable_cores": count_cores(),
        "instructions": sorted(INSTRUCTIONS & flags),
        "architecture": platform.machine(),
        "system": platform.system(),
    }


def _processor() -> tuple[str, set[str]]:
    """The CPU's name and, on Linux, its flags."""
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        named = subprocess.run(command, capture_output=True, text=True)
        return named.stdout.strip() or platform.processor(), set()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor(), set()
    fields = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    flags = fields.get("flags") or fields.get("Features") or ""
    return fields.get("model name", platform.machine()), set(flags.split())


def versions(
    python: str | Path = sys.executable, packages: Sequence[str] = PACKAGES
) -> dict[str, str]:
    """Versions of an environment's interpreter and of those packages it has."""
    asked = subprocess.run(
        [python, __file__, "--versions", *packages], capture_output=True, text=True, check=True
    )
    found: dict[str, str] = json.loads(asked.stdout)
    return found


def _own_versions(packages: Iterable[str]) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The checked-out commit, with "+" when files differ from it; None outside a clone."""
    git = ["git", "-C", str(REPOSITORY)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout else "")


def make_record(
    benchmark: str,
    *,
    settings: Mapping[str, Any],
    versions: Mapping[str, Mapping[str, str]],
    measurements: Mapping[str, Any],
    summary: Mapping[str, Any],
) -> dict[str, Any]:
    """Join what was found with when and where.

    versions: by environment. measurements: every single run. summary: what is read from them.
    """
    return {
        "benchmark": benchmark,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "versions": dict(versions),
        "settings": dict(settings),
        "measurements": dict(measurements),
        "summary": dict(summary),
    }


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def conclude(record: Mapping[str, Any], path: Path | None) -> None:
    """Print where a record comes from, and write it to the path if there is one."""
    print(describe_origin(record))
    if path is not None:
        write_record(path, record)


def describe_origin(record: Mapping[str, Any]) -> str:
    """Lines for the terminal: versions by environment, commit, machine."""
    lines = [
        f"{environment}: {', '.join(f'{name} {version}' for name, version in found.items())}"
        for environment, found in record["versions"].items()
    ]
    hardware = record["machine"]
    lines.append(
        f"commit {record['commit']} on {hardware['cpu']} ({hardware['architecture']}, "
        f"{hardware['system']}), {hardware['usable_cores']} cores, "
        f"{' '.join(hardware['instructions']) or 'instructions unknown'}"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1] == "--versions":
        print(json.dumps(_own_versions(sys.argv[2:])))
    else:
        sys.exit(_launch(Path(sys.argv[1]), sys.argv[2:]))
