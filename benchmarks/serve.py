"""Compares bgx's server with rembg's: the same photos, network and machine, in one run.

    python benchmarks/serve.py --json benchmarks/results/serve.json

64 photos are sent by 1, 4 and 32 clients at once. The server is restarted for each number, and
nothing is cached. rembg and bgx answer `POST /api/remove` with a PNG cut out by the network's own
matte, the same from both; bgx also with the 8-bit copy of the network that it makes first. bgx also
answers `POST /cutouts`, with refined edges, its default. `bgx batch` on the same photos shows the
cost of HTTP. Latencies are of single requests, from sending to
the end of the answer; memory is the peak of the server's process.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import measure
import photos
import vs_rembg

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vs_rembg import Tool

CLIENTS = (1, 4, 32)
PATIENCE = 300


@dataclass(frozen=True)
class Form:
    """A kind of request. field: name of the form field with the photo."""

    path: str
    field: str


OF_REMBG = Form("/api/remove", "file")
OF_BGX = Form("/cutouts", "image")


@dataclass(frozen=True)
class Rival:
    """A server, and the requests that it gets.

    batch: options with which `bgx batch` makes the same pictures; None for rembg.
    """

    tool: Tool
    options: Sequence[str]
    form: Form
    batch: Sequence[str] | None = None


@dataclass(frozen=True)
class Load:
    """Answers to concurrent clients. seconds: of each request. statuses: number of each status."""

    clients: int
    wall_seconds: float
    seconds: list[float]
    statuses: dict[int, int]
    peak_bytes: int | None


@contextlib.contextmanager
def running(tool: Tool, *options: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run a server; yields its port once it listens, and its process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [tool.program(), *options, "--port", str(port)]
    process = subprocess.Popen(
        words, env=tool.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + PATIENCE
        while True:
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{' '.join(words)} does not listen")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        yield port, process
    finally:
        process.terminate()
        process.wait()


def ask(port: int, form: Form, photo: bytes) -> tuple[float, int]:
    """Seconds and status of one request."""
    boundary = uuid.uuid4().hex
    fields = {"model": vs_rembg.MODEL}
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()
        for name, text in fields.items()
    ]
    named = f'name="{form.field}"; filename="a.jpg"'
    head = f"--{boundary}\r\nContent-Disposition: form-data; {named}\r\n"
    body = (
        b"".join([*parts, head.encode(), b"Content-Type: image/jpeg\r\n\r\n", photo, b"\r\n--"])
        + f"{boundary}--\r\n".encode()
    )
    start = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with contextlib.closing(connection):
        kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        connection.request("POST", form.path, body, kind)
        response = connection.getresponse()
        response.read()
    return time.perf_counter() - start, response.status


def press(rival: Rival, files: Sequence[bytes], clients: int) -> Load:
    """Send each photo once, from ``clients`` threads, to a server that is warmed up."""
    with running(rival.tool, *rival.options) as (port, process):
        _, status = ask(port, rival.form, files[0])
        if status != 200:
            raise SystemExit(f"{rival.tool.name} answers {status}")
        start = time.perf_counter()
        with ThreadPoolExecutor(clients) as threads:
            answers = list(threads.map(lambda photo: ask(port, rival.form, photo), files))
        wall = time.perf_counter() - start
        peak = _peak_bytes(process.pid)
    statuses = [status for _, status in answers]
    counts = {status: statuses.count(status) for status in sorted(set(statuses))}
    return Load(clients, wall, [seconds for seconds, _ in answers], counts, peak)


def _peak_bytes(number: int) -> int | None:
    """Peak resident memory of a process, bytes; None if not on Linux."""
    try:
        lines = Path(f"/proc/{number}/status").read_text().splitlines()
    except OSError:
        return None
    [line] = (line for line in lines if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def summarize(
    loads: dict[str, list[Load]], batches: dict[str, list[measure.Usage]], count: int
) -> dict[str, dict[str, dict[str, float]]]:
    """For each number of clients a row for each server: medians over the rounds.

    batches: of those servers that have a batch. A ratio is of the same round.
    """
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for clients in dict.fromkeys(load.clients for load in loads["rembg"]):
        mine = {
            name: [load for load in all_loads if load.clients == clients]
            for name, all_loads in loads.items()
        }
        rows[f"{clients} at once"] = {
            name: _summarize_server(own, mine["rembg"], batches.get(name, []), count)
            for name, own in mine.items()
        }
    return rows


def _summarize_server(
    loads: list[Load], rembg: list[Load], batches: list[measure.Usage], count: int
) -> dict[str, float]:
    cuts = [statistics.quantiles(load.seconds, n=20) for load in loads]
    row = {
        "photos per second": count / statistics.median(load.wall_seconds for load in loads),
        "p50, s": statistics.median(cut[9] for cut in cuts),
        "p95, s": statistics.median(cut[18] for cut in cuts),
        "failed": float(sum(count - load.statuses.get(200, 0) for load in loads)),
    }
    peaks = [load.peak_bytes for load in loads if load.peak_bytes]
    if peaks:
        row["peak memory, MB"] = max(peaks) / 1e6
    if loads is not rembg:
        row["times rembg"] = _median_ratio(
            [load.wall_seconds for load in rembg], [load.wall_seconds for load in loads]
        )
    if batches:
        row["times bgx batch"] = _median_ratio(
            [usage.seconds for usage in batches], [load.wall_seconds for load in loads]
        )
    return row


def _median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def main() -> None:
    asked = _parse()
    model_file = asked.model_file or vs_rembg.known_model_file()
    with tempfile.TemporaryDirectory(prefix="bgx-benchmark-") as made:
        folder = Path(made)
        rembg = vs_rembg.rembg_tool(
            vs_rembg.rembg_python(asked.rembg_env), folder / "rembg-home", model_file
        )
        bgx = vs_rembg.bgx_tool(folder / "bgx-home", model_file, ())
        work = vs_rembg.Work.prepare(folder, photos.SIZES["1600"], asked.n)
        files = [path.read_bytes() for path in sorted(work.photos.iterdir())]
        copy = vs_rembg.make_int8(bgx, folder / "calibration")
        serve = (
            *("serve", "--model", vs_rembg.MODEL, "--device", "cpu"),
            *("--no-cache", "--queue", "64", "--timeout", "300"),
        )
        fine, coarse = (("--precision", precision) for precision in ("fp32", "int8"))
        rivals = {
            "rembg": Rival(rembg, ("s", "--no-ui", "--host", "127.0.0.1"), OF_REMBG),
            "bgx": Rival(bgx, (*serve, *fine), OF_REMBG, (*fine, "--no-refine")),
            "bgx, 8 bits": Rival(bgx, (*serve, *coarse), OF_REMBG, (*coarse, "--no-refine")),
            "bgx, refined": Rival(bgx, (*serve, *fine), OF_BGX, (*fine, "--refine")),
        }
        loads: dict[str, list[Load]] = {name: [] for name in rivals}
        batches: dict[str, list[measure.Usage]] = {
            name: [] for name, rival in rivals.items() if rival.batch
        }
        for number in range(asked.repeats):
            for clients in asked.clients:
                for name, rival in rivals.items():
                    loads[name].append(press(rival, files, clients))
                    print(f"round {number + 1}: {name}, {clients} at once", file=sys.stderr)
            for name in batches:
                batches[name].append(work.cut_all(rivals[name].tool, *(rivals[name].batch or ())))
    summary = summarize(loads, batches, asked.n)
    record = measure.make_record(
        "serve",
        settings={
            "model": vs_rembg.MODEL,
            "photos": {"width": 1600, "height": 1200, "count": asked.n},
            "rounds": asked.repeats,
            "options": {name: rival.options for name, rival in rivals.items()},
            "forms": {name: asdict(rival.form) for name, rival in rivals.items()},
        },
        versions=vs_rembg.versions((rembg, bgx)),
        measurements={
            "int8_copy": copy,
            "loads": {name: [asdict(load) for load in mine] for name, mine in loads.items()},
            "batches": {name: [asdict(usage) for usage in mine] for name, mine in batches.items()},
        },
        summary=summary,
    )
    for clients, rows in summary.items():
        print(clients)
        for name, row in rows.items():
            figures = ", ".join(f"{quantity} {value:.2f}" for quantity, value in row.items())
            print(f"  {name}: {figures}")
    measure.conclude(record, asked.json)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-n", type=int, default=64, help="how many photos (default: 64)")
    parser.add_argument("--repeats", type=int, default=1, help="rounds (default: 1)")
    parser.add_argument("--model-file", type=Path, help="u2netp.onnx (default: bgx's own)")
    parser.add_argument("--rembg-env", type=Path, help="virtual environment that has rembg")
    parser.add_argument("--json", type=Path, help="write the record to this file")
    parser.add_argument(
        "--clients", type=int, nargs="+", default=CLIENTS, help="at once (default: 1 4 32)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
