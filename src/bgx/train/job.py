"""From folders of photos and cut-outs to a network's file."""

from __future__ import annotations

import hashlib
import importlib.util
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from bgx.errors import BadModelError, OutputError, UsageError
from bgx.files import write_whole
from bgx.install import install_hint
from bgx.settings import ModelSettings
from bgx.train.feed import SIZE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

    from bgx.model.store import Store
    from bgx.train.fit import Schedule
    from bgx.train.network import Lite
    from bgx.train.pairs import BadPair, Pairs
    from bgx.train.score import Score

Device = Literal["auto", "cpu", "cuda"]

NOTHING = "nothing"
"""Value of `TrainSettings.start` for random weights."""

STAGES = ((160, 0.3), (192, 0.5), (224, 0.2))
"""Stages of a training from random weights: (side of the input in pixels, share of the steps).

Small inputs are fast and enough to learn what a subject is; larger ones then teach the outlines.
If the start is a trained network, only the last size is used.
"""

TOLERANCE = 5e-3
"""Largest difference allowed between the mattes of torch and of the file, with float16 weights."""


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """Settings of a training. A wrong value raises UsageError.

    photos: folder of photos. cutouts: folder of their cut-outs or masks, which have the photos'
    names; None if the teacher labels all photos. output: the file to write, ``.onnx``. start: where
    the training starts from: a network of the registry, a file that bgx train made, or NOTHING for
    random weights. teacher: a network that labels photos without a cut-out, and mixtures of them.
    epochs: number of pictures to show, as a multiple of the number of pairs; with a teacher, some
    of these pictures are mixtures. batch: pairs in one step. rate: learning rate. For both, None
    chooses a value that suits `start`. seed: on a CPU, two runs with the same seed and the same
    pairs on the same machine give the same network.
    """

    photos: Path
    cutouts: Path | None
    output: Path
    start: str = "lite"
    teacher: str | None = None
    epochs: int = 30
    batch: int | None = None
    rate: float | None = None
    seed: int = 0
    device: Device = "auto"
    models: ModelSettings = field(default_factory=ModelSettings)

    def __post_init__(self) -> None:
        if self.output.suffix.lower() != ".onnx":
            raise UsageError(f"{self.output}: name a file that ends in .onnx")
        if self.cutouts is None and self.teacher is None:
            raise UsageError("give a folder of cut-outs, or a --teacher that makes them")
        for option, value in (("--epochs", self.epochs), ("--batch", self.batch)):
            if value is not None and value < 1:
                raise UsageError(f"{option} {value}: use 1 or more")
        if self.rate is not None and not 0 < self.rate < 1:
            raise UsageError(f"--rate {self.rate}: use a number between 0 and 1")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed {self.seed}: use 0 or more, and less than 2^63")
        if self.device not in get_args(Device):
            raise UsageError(f"--device {self.device}: use one of {', '.join(get_args(Device))}")

    @property
    def checkpoint(self) -> Path:
        """File that an interrupted run is resumed from; deleted when the training is finished."""
        return self.output.with_suffix(".checkpoint")


@dataclass(frozen=True, slots=True)
class Progress:
    """A finished step.

    step: its number, 1 to `steps`. loss: its loss. score: a function that computes the score of the
    network so far on the held-back pairs.
    """

    step: int
    steps: int
    loss: float
    score: Callable[[], Score]


@dataclass(frozen=True, slots=True)
class TrainResult:
    """Result of a training.

    output: the file. before, after: scores on the held-back pairs at the start and at the end.
    pairs: number of pairs trained on, without mixtures. held_back: number of pairs held back.
    labelled: how many of both the teacher labelled. mixtures: number of mixtures trained on. bad:
    pairs that were not used, with the reason. seconds: time of the whole job.
    """

    output: Path
    before: Score
    after: Score
    pairs: int
    held_back: int
    labelled: int
    mixtures: int
    bad: tuple[BadPair, ...]
    seconds: float


def train(
    settings: TrainSettings,
    *,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> TrainResult:
    """Train a network and write it as an ONNX file.

    progress: called after each step. An interrupted run is resumed from its checkpoint if it is
    started again with the same settings.

    Raises UsageError (too few pairs; torch is not installed; the existing output file is better),
    BadModelError (the existing output file was not made by bgx train), ModelError for `start` and
    `teacher`, OutputError.
    """
    if importlib.util.find_spec("torch") is None:
        raise UsageError(f"bgx train needs an extra package; run: {install_hint('train')}")
    import torch

    from bgx.model.store import Store
    from bgx.train.calibrate import calibrate
    from bgx.train.export import from_onnx, to_onnx
    from bgx.train.fit import evaluate, fit
    from bgx.train.material import add_mixtures, open_teacher, read_material

    began = time.perf_counter()
    store = Store(settings.models)
    device = _device(settings.device)
    rival = from_onnx(settings.output) if settings.output.exists() else None
    torch.manual_seed(settings.seed)
    network = _start(settings.start, store)
    teacher = settings.teacher
    label = None if teacher is None else open_teacher(teacher, store, settings.device)
    shown, held, labelled, bad = read_material(settings.photos, settings.cutouts, label)
    before = evaluate(network, held, SIZE)
    schedule = _schedule(settings, len(shown))
    material = shown if label is None else add_mixtures(shown, label, settings.seed)
    result = fit(
        network,
        material,
        schedule,
        device=device,
        checkpoint=settings.checkpoint,
        identity=_identity(network, schedule, material),
        progress=lambda done, loss, average: progress(
            Progress(done, schedule.steps, loss, lambda: evaluate(average, held, SIZE))
        ),
    ).cpu()
    calibrate(result, shown)
    after = evaluate(result, held, SIZE)
    if rival is not None:
        _defend(settings, rival_score=evaluate(rival, held, SIZE), score=after)
    content = to_onnx(result)
    _check(content, result, settings.output)
    _write(settings.output, content)
    settings.checkpoint.unlink(missing_ok=True)
    return TrainResult(
        settings.output,
        before,
        after,
        len(shown),
        len(held),
        labelled,
        len(material) - len(shown),
        tuple(bad),
        time.perf_counter() - began,
    )


def _device(asked: Device) -> torch.device:
    import torch

    has_cuda = torch.cuda.is_available()
    if asked == "cuda" and not has_cuda:
        raise UsageError("--device cuda: torch finds no CUDA device; use --device cpu")
    return torch.device("cuda" if has_cuda and asked != "cpu" else "cpu")


def _start(start: str, store: Store) -> Lite:
    from bgx.train.export import from_onnx
    from bgx.train.network import Lite

    if start == NOTHING:
        return Lite(normed=True)
    return from_onnx(store.resolve(start, store.registry()).path)


def _schedule(settings: TrainSettings, count: int) -> Schedule:
    """All stages for random weights; only the last stage for a trained network."""
    from bgx.train.fit import Schedule

    anew = settings.start == NOTHING
    batch = settings.batch or (32 if anew else 16)
    return Schedule(
        steps=max(1, round(count * settings.epochs / batch)),
        batch=batch,
        stages=STAGES if anew else ((STAGES[-1][0], 1.0),),
        rate=settings.rate or (3e-3 if anew else 3e-4),
        seed=settings.seed,
    )


def _identity(network: Lite, schedule: Schedule, pairs: Pairs) -> str:
    """A hash that is equal for two runs with the same start, schedule and pairs."""
    digest = hashlib.sha256(str(schedule).encode())
    for values in (*network.state_dict().values(), pairs.photos, pairs.mattes, pairs.weights):
        digest.update(values.numpy().data)
    return digest.hexdigest()


def _defend(settings: TrainSettings, *, rival_score: Score, score: Score) -> None:
    if rival_score.value > score.value:
        raise UsageError(
            f"{settings.output}: kept, it is better ({rival_score}) than the new one ({score}); "
            "to get the new one, move this file away and repeat the command"
        )


def _check(content: bytes, network: Lite, output: Path) -> None:
    """Raise BadModelError if ONNX Runtime and torch give different mattes."""
    import torch

    from bgx.model.engines import EnginePlan
    from bgx.model.providers import start

    noise = np.random.default_rng(0).standard_normal((2, 3, SIZE, SIZE), np.float32)
    plan = EnginePlan(device="cpu", providers=(("CPUExecutionProvider", {}),))
    [found] = start(content, plan, str(output)).run(None, {"image": noise})
    with torch.no_grad():
        difference = float(np.abs(network(torch.from_numpy(noise)).numpy() - found).max())
    if not difference <= TOLERANCE:
        raise BadModelError(f"{output}: not written: ONNX Runtime differs by {difference:.2g}")


def _write(path: Path, content: bytes) -> None:
    try:
        write_whole(path, content)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
