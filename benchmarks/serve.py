"""Compares bgx's server with rembg's: the same photos, network and machine, in one run.

    python benchmarks/serve.py --json benchmarks/results/serve.json

Both answer `POST /api/remove` with a PNG cut out by the network's own matte, for 1, 4 and 32
clients at once. The server is restarted for each number, and nothing is cached. `bgx batch` on the
same photos shows the cost of HTTP. Latencies are of single requests, from sending to the end of the
answer; memory is the peak of the server's process.
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
class Load:
    """What some clients at once met. seconds: of each request. statuses: how many of each."""

    clients: int
    wall_seconds: float
    seconds: list[float]
    statuses: dict[int, int]
    peak_bytes: int | None


@contextlib.contextmanager
def running(tool: Tool, *options: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A server on a free port, when it listens."""
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


def ask(port: int, photo: bytes) -> tuple[float, int]:
    """Seconds and status of one request."""
    boundary = uuid.uuid4().hex
    fields = {"model": vs_rembg.MODEL}
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()
        for name, text in fields.items()
    ]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n'
    body = (
        b"".join([*parts, head.encode(), b"Content-Type: image/jpeg\r\n\r\n", photo, b"\r\n--"])
        + f"{boundary}--\r\n".encode()
    )
    start = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with contextlib.closing(connection):
        kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        connection.request("POST", "/api/remove", body, kind)
        response = connection.getresponse()
        response.read()
    return time.perf_counter() - start, response.status


def press(tool: Tool, options: Sequence[str], files: Sequence[bytes], clients: int) -> Load:
    """Send all photos once, from so many clients, to a server that has answered before."""
    with running(tool, *options) as (port, process):
        _, status = ask(port, files[0])
        if status != 200:
            raise SystemExit(f"{tool.name} answers {status}")
        start = time.perf_counter()
        with ThreadPoolExecutor(clients) as threads:
            answers = list(threads.map(lambda photo: ask(port, photo), files))
        wall = time.perf_counter() - start
        peak = _peak_bytes(process.pid)
    statuses = [status for _, status in answers]
    counts = {status: statuses.count(status) for status in sorted(set(statuses))}
    return Load(clients, wall, [seconds for seconds, _ in answers], counts, peak)


def _peak_bytes(number: int) -> int | None:
    """Of a process on Linux."""
    try:
        lines = Path(f"/proc/{number}/status").read_text().splitlines()
    except OSError:
        return None
    [line] = (line for line in lines if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def summarize(
    loads: dict[str, list[Load]], batch: list[measure.Usage], count: int
) -> dict[str, dict[str, float]]:
    """A row for each number of clients: medians over the rounds."""
    best = count / min(usage.seconds for usage in batch)
    rows: dict[str, dict[str, float]] = {}
    for clients in dict.fromkeys(load.clients for load in loads["bgx"]):
        row: dict[str, float] = {}
        rates = {}
        for name, all_loads in loads.items():
            mine = [load for load in all_loads if load.clients == clients]
            rates[name] = [count / load.wall_seconds for load in mine]
            cuts = [statistics.quantiles(load.seconds, n=20) for load in mine]
            row[f"{name} photos per second"] = statistics.median(rates[name])
            row[f"{name} p50, s"] = statistics.median(cut[9] for cut in cuts)
            row[f"{name} p95, s"] = statistics.median(cut[18] for cut in cuts)
            peaks = [load.peak_bytes for load in mine if load.peak_bytes]
            if peaks:
                row[f"{name} peak memory, MB"] = max(peaks) / 1e6
            row[f"{name} failed"] = sum(count - load.statuses.get(200, 0) for load in mine)
        row["bgx / rembg"] = statistics.median(
            bgx / rembg for bgx, rembg in zip(rates["bgx"], rates["rembg"], strict=True)
        )
        row["bgx serve / bgx batch"] = statistics.median(rates["bgx"]) / best
        rows[f"{clients} at once"] = row
    return rows


def main() -> None:
    asked = _parse()
    model_file = asked.model_file or vs_rembg.known_model_file()
    with tempfile.TemporaryDirectory(prefix="bgx-benchmark-") as name:
        folder = Path(name)
        rembg = vs_rembg.rembg_tool(
            vs_rembg.rembg_python(asked.rembg_env), folder / "rembg-home", model_file
        )
        bgx = vs_rembg.bgx_tool(folder / "bgx-home", model_file, ())
        work = vs_rembg.Work.prepare(folder, photos.SIZES["1600"], asked.n)
        files = [path.read_bytes() for path in sorted(work.photos.iterdir())]
        options = {
            "bgx": (
                *("serve", "--model", vs_rembg.MODEL, "--device", "cpu", "--precision", "fp32"),
                *("--no-cache", "--queue", "64", "--timeout", "300"),
            ),
            "rembg": ("s", "--no-ui", "--host", "127.0.0.1"),
        }
        loads: dict[str, list[Load]] = {"bgx": [], "rembg": []}
        batch = []
        for number in range(asked.repeats):
            for clients in asked.clients:
                for tool in (bgx, rembg):
                    loads[tool.name].append(press(tool, options[tool.name], files, clients))
                    print(f"round {number + 1}: {tool.name}, {clients} at once", file=sys.stderr)
            batch.append(work.cut_all(bgx))
    summary = summarize(loads, batch, asked.n)
    record = measure.make_record(
        "serve",
        settings={
            "model": vs_rembg.MODEL,
            "photos": {"width": 1600, "height": 1200, "count": asked.n},
            "rounds": asked.repeats,
            "options": options,
        },
        versions={
            tool.name: measure.versions(tool.python, ("rembg", *measure.PACKAGES))
            for tool in (rembg, bgx)
        },
        measurements={
            "loads": {name: [asdict(load) for load in mine] for name, mine in loads.items()},
            "batch": [asdict(usage) for usage in batch],
        },
        summary=summary,
    )
    for name, row in summary.items():
        print(name)
        for quantity, value in row.items():
            print(f"  {quantity:28}{value:10.2f}")
    measure.conclude(record, asked.json)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-n", type=int, default=64, help="how many photos (default: 64)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--model-file", type=Path, help="u2netp.onnx (default: bgx's own)")
    parser.add_argument("--rembg-env", type=Path, help="virtual environment that has rembg")
    parser.add_argument("--json", type=Path, help="write the record to this file")
    parser.add_argument(
        "--clients", type=int, nargs="+", default=CLIENTS, help="at once (default: 1 4 32)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
