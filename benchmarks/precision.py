"""Compares a network in float32 with its 8-bit copy: speed, and difference of the mattes.

    bgx models optimize u2netp --calibrate PHOTOS
    python benchmarks/precision.py OTHER_PHOTOS --model u2netp

Both run in one process, alternately, with single-threaded runs as in a batch. Use other photos than
those that the copy was made with.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import measure
from bgx.image.identify import SUFFIXES
from bgx.image.read import read_photo
from bgx.machine import count_cores
from bgx.model.opening import open_session
from bgx.model.optimize.gate import compare_mattes
from bgx.model.store import Store
from bgx.run.picture import make_matte, make_tensor
from bgx.settings import DeviceSettings, ModelSettings, ReadSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bgx.model.session import Session

    Tensor = NDArray[np.float32]

PRECISIONS = ("fp32", "int8")


def open_both(model: str) -> dict[str, Session]:
    """The sessions by precision. Raises MissingModelError where there is no 8-bit copy."""
    store = Store(ModelSettings.from_environment())
    file = store.resolve(model, store.registry())
    return {
        precision: open_session(file, DeviceSettings("cpu", threads=1, precision=precision), store)
        for precision in PRECISIONS
    }


def load_tensors(paths: Sequence[Path], session: Session) -> list[Tensor]:
    photos = (read_photo(path, ReadSettings(), name=str(path)) for path in paths)
    return [make_tensor(photo, session.entry) for photo in photos]


def race(sessions: dict[str, Session], tensors: Sequence[Tensor], cores: int) -> dict[str, Any]:
    """Milliseconds of a Run alone, and a picture's with a Run on every core, by precision."""
    taken: dict[str, dict[str, float]] = {}
    for name, session in sessions.items():
        start = time.perf_counter()
        session.run(tensors[0])
        alone = time.perf_counter() - start
        start = time.perf_counter()
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(session.run, tensors[: 2 * cores]))
        each = (time.perf_counter() - start) / len(tensors[: 2 * cores])
        taken[name] = {"alone": 1000 * alone, "each": 1000 * each}
    return taken


def compare(sessions: dict[str, Session], tensor: Tensor) -> dict[str, float]:
    """Mean difference of the two mattes and intersection over union of the masks at 0.5."""
    mattes = [make_matte(session.run(tensor)[0], session.entry) for session in sessions.values()]
    difference, iou = compare_mattes(*mattes)
    return {"difference": difference, "iou": iou}


def summarize(
    rounds: Sequence[dict[str, Any]], photos: Sequence[dict[str, float]]
) -> dict[str, Any]:
    best = {
        name: {kind: min(taken[name][kind] for taken in rounds) for kind in ("alone", "each")}
        for name in PRECISIONS
    }
    return {
        "milliseconds": best,
        "times as fast": {
            kind: best["fp32"][kind] / best["int8"][kind] for kind in ("alone", "each")
        },
        "mean difference": float(np.mean([photo["difference"] for photo in photos])),
        "largest difference": max(photo["difference"] for photo in photos),
        "mean iou": float(np.mean([photo["iou"] for photo in photos])),
        "median iou": float(np.median([photo["iou"] for photo in photos])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="a folder")
    parser.add_argument("--model", default="u2netp", help="default: u2netp")
    parser.add_argument("--count", type=int, default=64, help="photos compared (default: 64)")
    parser.add_argument("--rounds", type=int, default=7, help="of the race (default: 7)")
    parser.add_argument("--json", type=Path, help="write the record to this file")
    asked = parser.parse_args()
    sessions = open_both(asked.model)
    found = sorted(path for path in asked.photos.rglob("*") if path.suffix.lower() in SUFFIXES)
    tensors = load_tensors(found[: asked.count], sessions["fp32"])
    cores = count_cores()
    rounds = [race(sessions, tensors, cores) for _ in range(asked.rounds)]
    with ThreadPoolExecutor(cores) as pool:
        photos = list(pool.map(lambda tensor: compare(sessions, tensor), tensors))
    summary = summarize(rounds, photos)
    record = measure.make_record(
        "precision",
        settings={"model": asked.model, "photos": len(tensors), "rounds": asked.rounds},
        versions={"bgx": measure.versions()},
        measurements={"rounds": rounds, "photos": photos},
        summary=summary,
    )
    for name, taken in summary["milliseconds"].items():
        print(
            f"{name}: {taken['alone']:.0f} ms a Run, {taken['each']:.0f} ms each on {cores} cores"
        )
    print(
        f"{summary['times as fast']['alone']:.2f} and {summary['times as fast']['each']:.2f} times "
        f"as fast; over {len(tensors)} photos mean difference {summary['mean difference']:.4f}, at "
        f"most {summary['largest difference']:.4f}; IoU mean {summary['mean iou']:.4f}, median "
        f"{summary['median iou']:.4f}"
    )
    measure.conclude(record, asked.json)


if __name__ == "__main__":
    main()
