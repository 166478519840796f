"""Measures the built-in network on one core: photos per second and memory.

    python benchmarks/edge.py

`bgx batch --model lite --no-refine` with one picture in work and one thread, start-up included.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import measure
import photos

MODEL = "lite"
COMMAND = (
    *("batch", "--model", MODEL, "--no-refine"),
    *("--device", "cpu", "--workers", "1", "--threads", "1"),
)


def measure_size(folder: Path, size: tuple[int, int], count: int, rounds: int) -> list[Any]:
    """The usage of each round; all rounds cut out the same photos."""
    photos.write(folder / "photos", size, count)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("BGX_")
    } | {"BGX_HOME": str(folder / "home"), "BGX_OFFLINE": "1"}
    program = [sys.executable, "-m", "bgx", *COMMAND, str(folder / "photos")]
    return [
        asdict(
            measure.run(
                [*program, "--existing", "overwrite", "-o", folder / "cut"], environment
            ).usage
        )
        for _ in range(rounds)
    ]


def summarize(measurements: dict[str, list[Any]], count: int) -> dict[str, dict[str, float]]:
    """Medians over rounds, by size; without memory if the platform does not report it."""
    summary = {}
    for name, rounds in measurements.items():
        seconds = statistics.median(one["seconds"] for one in rounds)
        summary[name] = {"photos per second": count / seconds}
        if rounds[0]["peak_bytes"] is not None:
            peak = statistics.median(one["peak_bytes"] for one in rounds)
            summary[name]["peak memory, MB"] = peak / 1e6
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-n", type=int, default=24, help="photos of each size (default: 24)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--sizes", nargs="+", default=list(photos.SIZES), choices=photos.SIZES)
    parser.add_argument("--json", type=Path, help="write the record to this file")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bgx-benchmark-") as name:
        measurements = {
            size: measure_size(Path(name) / size, photos.SIZES[size], asked.n, asked.repeats)
            for size in asked.sizes
        }
    record = measure.make_record(
        "edge",
        settings={
            "model": MODEL,
            "photos": {
                "count": asked.n,
                "sizes": {size: photos.SIZES[size] for size in asked.sizes},
            },
            "rounds": asked.repeats,
        },
        versions={"bgx": measure.versions()},
        measurements=measurements,
        summary=summarize(measurements, asked.n),
    )
    for size, row in record["summary"].items():
        print(f"{size:6}{', '.join(f'{row[key]:.3g} {key}' for key in row)}")
    measure.conclude(record, asked.json)


if __name__ == "__main__":
    main()
