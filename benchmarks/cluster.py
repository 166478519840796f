"""Measures the overhead of a broker, and how many photos per second one producer can hand out.

    python benchmarks/cluster.py --json benchmarks/results/cluster.json

Overhead: `bgx batch` alone and `bgx batch --broker` with one worker cut out the same photos in turn
on the same cores. Both run with few and with many photos; the difference gives the time of a photo
without startup. CPU seconds are those of all bgx processes; on a machine with other load they are
more meaningful than the wall clock.

Rate: photos per second of a batch whose worker answers at once, without reading or writing
pictures: the upper limit of one producer with one Redis. Needs redis-server.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import measure
import photos
import vs_rembg

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FEW, MANY = 8, 72
PATIENCE = 120


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """Run a Redis server that stores nothing on disk; yields its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["redis-server", "--port", str(port), "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            if time.monotonic() > end:
                raise SystemExit("redis-server does not listen")
            time.sleep(0.1)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def running(words: Sequence[str | Path], environment: dict[str, str]) -> Iterator[int]:
    """Run a process while the block runs; yields its process id."""
    process = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def cpu_seconds(pid: int) -> float:
    """CPU seconds used so far by a process and its running children. Linux only."""
    total = 0.0
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if pid in (int(entry.name), int(fields[1])):
                ticks = sum(map(int, fields[11:15]))
                total += ticks / os.sysconf("SC_CLK_TCK")
    return total


def cut(tool: vs_rembg.Tool, source: Path, target: Path, *options: str) -> measure.Usage:
    shutil.rmtree(target, ignore_errors=True)
    usage = tool.run("batch", source, "-o", target, "--quiet", "--model", vs_rembg.MODEL, *options)
    if len(list(target.iterdir())) != len(list(source.iterdir())):
        raise SystemExit(f"{target} is not complete")
    return usage


def measure_overhead(folder: Path, url: str, model: Path, rounds: int) -> list[dict[str, float]]:
    """One row for each round: seconds by "WAY COUNT CLOCK", such as "broker 72 wall"."""
    tool = vs_rembg.bgx_tool(folder / "home", model, ())
    sources = {}
    for count in (FEW, MANY):
        photos.write(folder / str(count), photos.SIZES["1600"], count)
        sources[count] = folder / str(count)
    command = [tool.python, "-m", "bgx", "worker", "--broker", url, "--allow", folder]
    rows = []
    with running([*command, "--device", "cpu"], dict(tool.environment)) as worker:
        cut(tool, sources[FEW], folder / "warm", "--broker", url, "--precision", "fp32")
        for number in range(rounds):
            row: dict[str, float] = {}
            for count, source in sources.items():
                for way, options in (("plain", ("--device", "cpu")), ("broker", ("--broker", url))):
                    before = cpu_seconds(worker)
                    usage = cut(tool, source, folder / way, *options, "--precision", "fp32")
                    spent = (usage.cpu_seconds or 0.0) + cpu_seconds(worker) - before
                    row |= {f"{way} {count} wall": usage.seconds, f"{way} {count} CPU": spent}
            rows.append(row)
            print(f"round {number + 1}: {row}", file=sys.stderr)
    return rows


def summarize(rows: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Medians over the rounds: seconds per photo by way, and the broker's relative overhead."""
    summary = {}
    for clock in ("wall", "CPU"):
        ways = {
            way: statistics.median(
                (row[f"{way} {MANY} {clock}"] - row[f"{way} {FEW} {clock}"]) / (MANY - FEW)
                for row in rows
            )
            for way in ("plain", "broker")
        }
        summary[f"{clock} seconds per photo"] = ways | {
            "overhead": ways["broker"] / ways["plain"] - 1
        }
    return summary


def measure_rate(folder: Path, url: str, count: int) -> dict[str, float]:
    """Time a batch of ``count`` photos that no worker opens and whose results already exist."""
    source, target = folder / "none", folder / "made"
    source.mkdir()
    target.mkdir()
    for number in range(count):
        (source / f"{number:06}.jpg").write_bytes(b"\xff\xd8\xff")
        (target / f"{number:06}.png").write_bytes(b"result")
    stub = [sys.executable, __file__, "--answer", url]
    environment = dict(os.environ)
    with running(stub, environment):
        words = [sys.executable, "-m", "bgx", "batch", source, "-o", target, "--broker", url]
        child = measure.run([*words, "--existing", "overwrite", "--model", "lite"], environment)
    usage = child.usage
    return {
        "photos": count,
        "seconds": usage.seconds,
        "photos per second": count / usage.seconds,
        "tasks per second": count / 64 / usage.seconds,
        "CPU seconds of the producer": usage.cpu_seconds or 0.0,
        "peak memory of the producer, MB": (usage.peak_bytes or 0) / 1e6,
    }


def answer(url: str) -> None:
    """Run a stub worker that reports every picture as done at once."""
    from celery import current_task, shared_task

    from bgx.cluster.answers import publish
    from bgx.cluster.broker import TASK, make_app

    trust = {"confidence": 1.0, "touches_border": [], "fill": 0.5, "subjects": 1, "damaged": False}
    done = {"width": 1, "height": 1, "coverage": 0.5, "bbox": [0, 0, 1, 1], "trust": trust}
    done |= {"seconds": {}, "notes": [], "full": [1, 1]}
    app = make_app(url, ["bgx"], task_limit=900)
    connection = app.connection_for_write()

    @shared_task(name=TASK)
    def cut(message: dict[str, Any]) -> None:
        sign = {"task": current_task.request.id, "worker": "stub-1"}
        # One message for each picture, as a real worker sends them.
        answers = [
            sign | {"rows": [[number, {"done": done}]]} for number, *_ in message["pictures"]
        ]
        for one in answers:
            publish(connection, message["reply"], [one])

    app.Worker(pool="solo", quiet=True, loglevel="ERROR").start()


def main() -> None:
    asked = _parse()
    if asked.answer:
        answer(asked.answer)
        return
    model = asked.model_file or vs_rembg.known_model_file()
    with tempfile.TemporaryDirectory(prefix="bgx-benchmark-") as name, redis() as url:
        rate = measure_rate(Path(name), url, asked.photos)
        print(f"rate: {rate}", file=sys.stderr)
        rows = measure_overhead(Path(name), url, model, asked.repeats)
    summary: dict[str, dict[str, float]] = {**summarize(rows), "no pictures' work": rate}
    record = measure.make_record(
        "cluster",
        settings={
            "model": vs_rembg.MODEL,
            "photos": {"width": 1600, "height": 1200, "counts": [FEW, MANY]},
            "rounds": asked.repeats,
        },
        versions={"bgx": measure.versions(sys.executable, ("celery", "redis", *measure.PACKAGES))},
        measurements={"overhead": rows, "rate": rate},
        summary=summary,
    )
    for quantity, row in summary.items():
        print(quantity)
        for word, value in row.items():
            print(f"  {word:34}{value:12.3f}")
    measure.conclude(record, asked.json)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=int, default=20_000, help="number (default: 20000)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--model-file", type=Path, help="u2netp.onnx (default: bgx's own)")
    parser.add_argument("--json", type=Path, help="write the record to this file")
    parser.add_argument("--answer", metavar="URL", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
