"""Compares the built-in network with a larger one: accuracy, speed, arithmetic.

    python benchmarks/lite.py FOLDER --models lite u2netp

FOLDER holds ``images`` and ``masks`` (white is subject) whose files have the same names. A model is
a name in the registry or an ONNX file. Photos are processed as in ``bgx batch``; mattes are
compared at the photo's size. Milliseconds are of the network alone, the models alternating, median
of the rounds.

max-F is the F-measure (beta² = 0.3) of mean precision and mean recall at the best of 255 thresholds
(Achanta et al., CVPR 2009), MAE the mean absolute error of the matte, a MAC one multiplication and
addition of a convolution.
"""

from __future__ import annotations

import argparse
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from PIL import Image

from bgx.image.identify import SUFFIXES
from bgx.image.matte import upsample_matte
from bgx.image.read import read_photo
from bgx.model.engines import EnginePlan
from bgx.model.opening import open_session
from bgx.model.providers import load_runtime, start
from bgx.model.store import ModelFile, Store
from bgx.run.picture import make_matte, make_tensor
from bgx.settings import DeviceSettings, ModelSettings, ReadSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bgx.model.session import Session

THRESHOLDS = 255


@dataclass(frozen=True)
class Row:
    """A row of the table: one model."""

    model: str
    max_f: float
    mae: float
    milliseconds: float
    macs: float


def find_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Photos and their masks, by name."""
    masks = {path.stem: path for path in (folder / "masks").iterdir()}
    photos = sorted(
        path for path in (folder / "images").iterdir() if path.suffix.lower() in SUFFIXES
    )
    return [(photo, masks[photo.stem]) for photo in photos if photo.stem in masks]


def cut(session: Session, photo: Path, size: tuple[int, int]) -> NDArray[np.float32]:
    """The network's matte of a photo, 0..1, (height, width) for a (width, height)."""
    decoded = read_photo(photo, ReadSettings(), name=str(photo))
    [values] = session.run(make_tensor(decoded, session.entry))
    matte = make_matte(values, session.entry)
    return np.asarray(upsample_matte(matte, size), np.float32) / 255


def measure(session: Session, pair: tuple[Path, Path]) -> NDArray[np.float64]:
    """Absolute error, then precisions, then recalls at each threshold, of one photo."""
    photo, mask = pair
    with Image.open(mask) as image:
        truth = np.asarray(image.convert("L")) >= 128
    matte = cut(session, photo, (truth.shape[1], truth.shape[0]))
    error = np.abs(matte - truth).mean()
    # Pixels at or above each threshold, of all and of the subject's.
    levels = (matte * THRESHOLDS).astype(np.int64)
    every, hits = (
        np.bincount(values.ravel(), minlength=THRESHOLDS + 1)[::-1].cumsum()[::-1][1:]
        for values in (levels, levels[truth])
    )
    return np.concatenate([[error], hits / np.maximum(every, 1), hits / max(truth.sum(), 1)])


def score(session: Session, pairs: Sequence[tuple[Path, Path]]) -> tuple[float, float]:
    """(max-F, MAE) over all photos."""
    with ThreadPoolExecutor(session.plan.runs) as threads:
        rows = np.stack(list(threads.map(partial(measure, session), pairs)))
    error, *curves = rows.mean(axis=0)
    precision, recall = np.split(np.asarray(curves), 2)
    f = 1.3 * precision * recall / np.maximum(0.3 * precision + recall, 1e-12)
    return float(f.max()), float(error)


def time_in_turns(
    files: Sequence[ModelFile], store: Store, threads: int, rounds: int
) -> list[float]:
    """Milliseconds of one picture for each model."""
    device = DeviceSettings("cpu", workers=1, threads=threads)
    sessions = [open_session(file, device, store, pictures=1) for file in files]
    noise = np.random.default_rng(0)
    batches = [
        noise.standard_normal((1, 3, *session.entry.input[::-1]), np.float32)
        for session in sessions
    ]
    taken: list[list[float]] = [[] for _ in sessions]
    for _ in range(rounds + 1):
        for session, batch, times in zip(sessions, batches, taken, strict=True):
            began = time.perf_counter()
            session.run(batch)
            times.append(1000 * (time.perf_counter() - began))
    # The first round fills caches.
    return [statistics.median(times[1:]) for times in taken]


def count_macs(file: ModelFile) -> float:
    """Multiplications and additions of all convolutions for one picture."""
    model = onnx.load(file.path)
    shapes = {weight.name: tuple(weight.dims) for weight in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Cast" and node.input[0] in shapes:
            shapes[node.output[0]] = shapes[node.input[0]]
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    del model.graph.output[:]
    for node in convolutions:
        model.graph.output.add(name=node.output[0])
    plan = EnginePlan(device="cpu", providers=(("CPUExecutionProvider", {}),))
    load_runtime()
    engine = start(model.SerializeToString(), plan, str(file.path))
    width, height = file.entry.input
    outputs = engine.run(
        None, {engine.get_inputs()[0].name: np.zeros((1, 3, height, width), np.float32)}
    )
    return float(
        sum(
            output.size * np.prod(shapes[node.input[1]][1:])
            for node, output in zip(convolutions, outputs, strict=True)
        )
    )


def compare(folder: Path, models: Sequence[str], *, threads: int, rounds: int) -> list[Row]:
    """A row for each model, on the same photos in the same process."""
    pairs = find_pairs(folder)
    store = Store(ModelSettings.from_environment())
    files = [store.resolve(model, store.registry()) for model in models]
    scores = [
        score(open_session(file, DeviceSettings("cpu"), store, pictures=len(pairs)), pairs)
        for file in files
    ]
    times = time_in_turns(files, store, threads, rounds)
    return [
        Row(model, *found, milliseconds, count_macs(file))
        for model, file, found, milliseconds in zip(models, files, scores, times, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare networks on photos with masks.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=["lite", "u2netp"])
    parser.add_argument("--threads", type=int, default=1, help="of one Run (default: 1)")
    parser.add_argument("--rounds", type=int, default=15, help="of timing (default: 15)")
    asked = parser.parse_args()
    rows = compare(asked.folder, asked.models, threads=asked.threads, rounds=asked.rounds)
    print(f"{len(find_pairs(asked.folder))} photos, {asked.threads} thread(s)")
    print("| model | max-F | MAE | ms | GMAC |")
    print("|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {Path(row.model).name} | {row.max_f:.3f} | {row.mae:.3f} "
            f"| {row.milliseconds:.1f} | {row.macs / 1e9:.2f} |"
        )


if __name__ == "__main__":
    main()
