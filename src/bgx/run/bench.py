"""Measures which device settings are the fastest on this machine, and how long each step takes."""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from bgx.run.batch import run_batch
from bgx.run.engine import Engine
from bgx.run.outcome import Done, Failed, Job
from bgx.run.recipe import Recipe
from bgx.storage import open_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bgx.model.session import Session
    from bgx.options import OutputSettings
    from bgx.settings import DeviceSettings, ReadSettings
    from bgx.storage.base import Source

STEPS = ("read", "infer", "compose", "write")


@dataclass(frozen=True, slots=True)
class Result:
    """Measurement of one policy, a combination of device settings.

    flags: the command-line options that select it. pictures_per_second: of the best round.
    milliseconds: mean time of each step per picture. slowest: its 90th percentile.
    """

    flags: str
    device: str
    pictures_per_second: float
    milliseconds: dict[str, float]
    slowest: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def make_policies(device: DeviceSettings, cores: int, *, gpu: bool) -> list[DeviceSettings]:
    """The policies worth trying: batch sizes on a GPU; on a CPU, numbers of workers and threads."""
    if gpu:
        return [replace(device, batch_size=size) for size in (1, 4, 8, 16, 32)]
    shares = dict.fromkeys((cores // threads, threads) for threads in (1, 2, 4, cores))
    return [replace(device, workers=w, threads=t) for w, t in shares if w * t <= cores and w]


def measure(
    photos: Sequence[Source],
    policies: Sequence[DeviceSettings],
    open_session: Callable[[DeviceSettings], Session],
    read: ReadSettings,
    output: OutputSettings,
) -> list[Result]:
    """Cut out the photos with each policy, in two rounds; results in the policies' order.

    Raises the error of the first photo that fails.
    """
    sessions = [(policy, open_session(policy)) for policy in policies]
    best: dict[int, Result] = {}
    with tempfile.TemporaryDirectory(prefix="bgx-bench-") as folder:
        jobs = [
            Job(photo, open_file(Path(folder, f"{number}.png")))
            for number, photo in enumerate(photos)
        ]
        for _ in range(2):
            # Alternating, so that other load on the machine affects all policies alike.
            for number, (policy, session) in enumerate(sessions):
                result = _measure_once(jobs, Recipe(read, output), session, policy)
                if number not in best or _speed(result) > _speed(best[number]):
                    best[number] = result
    return [best[number] for number in range(len(sessions))]


def _speed(result: Result) -> float:
    return result.pictures_per_second


def _measure_once(
    jobs: Sequence[Job], recipe: Recipe, session: Session, policy: DeviceSettings
) -> Result:
    engine = Engine(lambda _: session, workers=policy.workers)
    start = time.perf_counter()
    outcomes = list(run_batch([jobs], recipe, engine))
    seconds = time.perf_counter() - start
    engine.close()
    for outcome in outcomes:
        if isinstance(outcome, Failed):
            raise outcome.error
    steps = {
        step: [1000 * o.measured.seconds[step] for o in outcomes if isinstance(o, Done)]
        for step in STEPS
    }
    return Result(
        flags=_flags(policy),
        device=session.plan.device,
        pictures_per_second=len(jobs) / seconds,
        milliseconds={step: statistics.fmean(values) for step, values in steps.items()},
        slowest={step: float(np.percentile(values, 90)) for step, values in steps.items()},
    )


def _flags(policy: DeviceSettings) -> str:
    named = (
        ("--workers", policy.workers),
        ("--threads", policy.threads),
        ("--batch-size", policy.batch_size),
    )
    return " ".join(f"{name} {value}" for name, value in named if value is not None)


def draw_photos(folder: Path, count: int, size: tuple[int, int] = (1600, 1200)) -> list[Path]:
    """Draw JPEG files of about the size of photos, for a machine without photos."""
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for path, picture in zip(paths, _draw(size), strict=False):
        picture.save(path, quality=90)
    return paths


def _draw(size: tuple[int, int]) -> Iterator[Image.Image]:
    """Endless pictures of a bright subject in front of a dark, textured background."""
    random = np.random.default_rng(0)
    while True:
        coarse = random.integers(0, 90, (12, 16, 3), np.uint8)
        picture = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        left, top = (int(side * random.uniform(0.15, 0.25)) for side in size)
        subject = Image.new("L", size)
        subject.paste(255, (left, top, size[0] - left, size[1] - top))
        picture.paste((230, 150, 60), mask=subject.rotate(float(random.uniform(0, 40))))
        grain = Image.effect_noise(size, 24).convert("RGB")
        yield Image.blend(picture, grain, 0.12)
