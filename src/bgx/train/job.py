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
"""`TrainSettings.start` for a network of random weights."""

STAGES = ((160, 0.3), (192, 0.5), (224, 0.2))
"""Side of the input and share of the steps, from random weights: all there is to learn, small and
quickly, then the outlines. A trained network goes on at the last of them."""

TOLERANCE = 5e-3
"""Largest difference allowed between torch's mattes and the file's, whose weights are halves."""


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """What ``bgx train`` is asked for; a wrong value raises UsageError.

    photos: folder of photos. cutouts: folder of their cut-outs or masks, named as they are; None
    where the teacher labels all. output: the file to make, ``.onnx``. start: a network of the
    registry or a file that bgx train made, to go on from; NOTHING for random weights. teacher:
    a network that labels photos without a cut-out, and mixtures of them. epochs: how many pictures
    are shown, in times of the pairs; with a teacher, mixtures are among them. batch: pairs of one
    step, and rate: of learning, each None for one that suits `start`. seed: two runs with the same
    seed, pairs and machine give the same network on a CPU.
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
            raise UsageError("name a folder of cut-outs, or a --teacher that makes them")
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
        """Where an interrupted run goes on from; gone when it is done."""
        return self.output.with_suffix(".checkpoint")


@dataclass(frozen=True, slots=True)
class Progress:
    """One step done. step: its number, of `steps`. loss: its own. score: computes, when called,
    that of the network so far on the held-back pairs.
    """

    step: int
    steps: int
    loss: float
    score: Callable[[], Score]


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What came out. before and after: scores of the start and of the result on held-back pairs.

    pairs: trained on. held_back: scored on. labelled: pairs among both that the teacher labelled.
    mixtures: made of those, labelled by it and trained on too. bad: not used, and why. seconds: of
    the whole job.
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

    progress: told of each step. An interrupted run goes on from its checkpoint when it is started
    again with the same settings.

    Raises UsageError (too few pairs; torch is missing; the file that is there is better or none of
    bgx's), ModelError for `start` and `teacher`, OutputError.
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
        raise UsageError("--device cuda: this torch sees no CUDA device; use --device cpu")
    return torch.device("cuda" if has_cuda and asked != "cpu" else "cpu")


def _start(start: str, store: Store) -> Lite:
    from bgx.train.export import from_onnx
    from bgx.train.network import Lite

    if start == NOTHING:
        return Lite(normed=True)
    return from_onnx(store.resolve(start, store.registry()).path)


def _schedule(settings: TrainSettings, count: int) -> Schedule:
    """Small pictures first where there is all to learn; the last size alone where there is not."""
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
    """Equal for two runs that do the same."""
    digest = hashlib.sha256(str(schedule).encode())
    for values in (*network.state_dict().values(), pairs.photos, pairs.mattes, pairs.weights):
        digest.update(values.numpy().data)
    return digest.hexdigest()


def _defend(settings: TrainSettings, *, rival_score: Score, score: Score) -> None:
    if rival_score.value > score.value:
        raise UsageError(
            f"{settings.output}: kept, it is better ({rival_score}) than the new one ({score}); "
            "to have the new one move it away and repeat the command"
        )


def _check(content: bytes, network: Lite, output: Path) -> None:
    """Raise BadModelError unless ONNX Runtime gives what torch gives."""
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
