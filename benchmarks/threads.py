"""Measures how to divide the cores into concurrent network runs and threads of each run.

    python benchmarks/threads.py --photos 1600 -n 24

Runs `bgx batch` with several --workers and --threads, and `bgx remove` of one photo with more and
more --threads, alternately, in several rounds. bgx's own choice is measured among them and marked;
it is based on these tables (`_plan_cpu` in src/bgx/model/engines.py). Speeds are relative to bgx's
choice in the same round, medians over rounds: 0.5 means half as many photos per second, or twice
the time for one.
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

import measure
import photos
import vs_rembg
from bgx.machine import count_cores
from bgx.model.engines import plan_engines
from bgx.settings import DeviceSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

MODEL = vs_rembg.MODEL
ONE_PHOTO = "one photo"
BATCH = "batch"


@dataclass(frozen=True)
class Split:
    """Number of concurrent runs (--workers) and of threads of each (--threads)."""

    workers: int
    threads: int

    def ask(self, bgx: vs_rembg.Tool) -> vs_rembg.Tool:
        """bgx with the options for this split; `bgx remove` always has one run."""
        threads = ("--threads", str(self.threads))
        many = (*bgx.many, *threads, "--workers", str(self.workers))
        return replace(bgx, one=(*bgx.one, *threads), many=many)


def choose(cores: int, pictures: int) -> Split:
    """The split that bgx chooses without options."""
    [plan] = plan_engines(
        DeviceSettings("cpu"), ["CPUExecutionProvider"], cores, pictures=pictures, cache=Path()
    )
    return Split(plan.runs, plan.threads)


def split_cores(cores: int) -> list[Split]:
    """All splits into powers of two or all cores; some leave cores idle."""
    shares = sorted({2**power for power in range(cores.bit_length())} | {cores})
    return [
        Split(workers, threads)
        for workers in shares
        for threads in shares
        if workers * threads <= cores
    ]


def compare(bgx: vs_rembg.Tool, work: vs_rembg.Work, cores: int, rounds: int) -> dict[str, Any]:
    """Usage in each round by split, of a batch and of one photo alone; bgx's choice comes first."""
    count = len(list(work.photos.iterdir()))
    splits = {
        BATCH: [choose(cores, count), *split_cores(cores)],
        ONE_PHOTO: [choose(cores, 1), *(Split(1, threads) for threads in range(1, cores + 1))],
    }
    # bgx's choice is usually one of the others, and is then measured only once.
    unique = {what: list(dict.fromkeys(some)) for what, some in splits.items()}
    measurements: dict[str, Any] = {
        what: [{**asdict(split), "rounds": []} for split in some] for what, some in unique.items()
    }
    work.cut_cold(bgx)
    with tqdm(total=rounds * sum(map(len, unique.values())), leave=False) as progress:
        for _ in range(rounds):
            for what, operate in ((BATCH, work.cut_all), (ONE_PHOTO, work.cut_cold)):
                for split, row in zip(unique[what], measurements[what], strict=True):
                    progress.set_description(f"{what} {split.workers} x {split.threads}")
                    row["rounds"].append(asdict(operate(split.ask(bgx))))
                    progress.update()
    return measurements


def summarize(measurements: dict[str, Any], count: int) -> dict[str, list[dict[str, Any]]]:
    """Medians by split, ordered by threads; `speed` is relative to bgx's choice."""
    return {
        what: sorted(
            _summarize(rows, count if what == BATCH else 1),
            key=lambda row: (row["threads"], row["workers"]),
        )
        for what, rows in measurements.items()
    }


def _summarize(rows: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    chosen = [usage["seconds"] for usage in rows[0]["rounds"]]
    summary = []
    for row in rows:
        seconds = [usage["seconds"] for usage in row["rounds"]]
        peaks = [usage["peak_bytes"] for usage in row["rounds"]]
        summary.append(
            {
                "workers": row["workers"],
                "threads": row["threads"],
                "chosen": row is rows[0],
                "seconds": statistics.median(seconds),
                "photos per second": statistics.median(count / taken for taken in seconds),
                "speed": statistics.median(
                    ours / taken for ours, taken in zip(chosen, seconds, strict=True)
                ),
                "peak memory, MB": None if None in peaks else statistics.median(peaks) / 1e6,
            }
        )
    return summary


def describe(summary: dict[str, list[dict[str, Any]]]) -> str:
    lines = [f"{'workers':>7}{'threads':>9}{'photos/s':>10}{'speed':>8}{'MB':>7}  bgx batch"]
    for row in summary[BATCH]:
        lines.append(_row(row, f"{row['photos per second']:10.2f}"))
    lines.append(f"{'':7}{'threads':>9}{'seconds':>10}{'speed':>8}{'MB':>7}  bgx remove")
    for row in summary[ONE_PHOTO]:
        lines.append(_row({**row, "workers": ""}, f"{row['seconds']:10.3f}"))
    return "\n".join(lines)


def _row(row: dict[str, Any], cell: str) -> str:
    peak = row["peak memory, MB"]
    memory = "?" if peak is None else f"{peak:.0f}"
    mark = "  chosen" if row["chosen"] else ""
    return f"{row['workers']:>7}{row['threads']:>9}{cell}{row['speed']:8.2f}{memory:>7}{mark}"


def main() -> None:
    asked = vs_rembg.make_parser(__doc__, size="1600").parse_args()
    size, cold = photos.SIZES[asked.photos], vs_rembg.COLD_PHOTO
    model_file = asked.model_file or vs_rembg.known_model_file()
    with tempfile.TemporaryDirectory(prefix="bgx-benchmark-") as name:
        folder = Path(name)
        bgx = vs_rembg.bgx_tool(folder / "bgx-home", model_file, ())
        work = vs_rembg.Work.prepare(folder, size, asked.n)
        measurements = compare(bgx, work, count_cores(), asked.repeats)
    summary = summarize(measurements, asked.n)
    record = measure.make_record(
        "threads",
        settings={
            "model": MODEL,
            "precision": "fp32",
            "photos": {"width": size[0], "height": size[1], "count": asked.n},
            "one photo": {"width": cold[0], "height": cold[1]},
            "rounds": asked.repeats,
        },
        versions={"bgx": measure.versions()},
        measurements=measurements,
        summary=summary,
    )
    print(
        f"{asked.n} photos of {size[0]} x {size[1]}, then one of {cold[0]} x {cold[1]}; "
        f"{asked.repeats} rounds, {MODEL}"
    )
    print(describe(summary))
    measure.conclude(record, asked.json)


if __name__ == "__main__":
    main()
