"""The training loop: reproducible from a seed, resumable from a checkpoint.

Every random choice of a step depends on the seed and the step's number alone: a run that was
interrupted goes on as if it had not been, to the same weights.
"""

from __future__ import annotations

import copy
import io
import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Generator, nn

from bgx.errors import OutputError, UsageError
from bgx.files import write_whole
from bgx.machine import count_cores
from bgx.train.augment import draw
from bgx.train.feed import MEAN, STD
from bgx.train.losses import deep_loss
from bgx.train.muon import Muon
from bgx.train.pairs import resize
from bgx.train.score import Score, score_mattes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

    from bgx.train.network import Lite
    from bgx.train.pairs import Pairs

AVERAGE = 0.999
"""Share of itself that the average of the weights keeps at each step."""

MARGIN = 1.25
"""Pictures are held this much larger than the network sees them, for sharp crops."""

SAVE_EVERY = 10
"""Steps between two checkpoints, which take a hundredth of their time."""

SHARES = 8
"""Into which Muon's work is cut for the threads; a checkpoint holds as many, whatever the cores."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long, how large, how fast.

    steps: batches in all. stages: side of the input and share of the steps, in order. rate: of
    learning; it rises over the first `warmup` and falls to 0 over the last `decay` of the steps.
    """

    steps: int
    batch: int
    stages: tuple[tuple[int, float], ...]
    rate: float
    warmup: float = 0.02
    decay: float = 0.45
    weight_decay: float = 0.02
    seed: int = 0

    def size_at(self, step: int) -> int:
        """Side of the input at a step."""
        end = 0.0
        for size, share in self.stages[:-1]:
            end += share
            if step < end * self.steps:
                return size
        return self.stages[-1][0]

    def rate_at(self, step: int) -> float:
        """Rate of learning at a step."""
        rise = (step + 1) / (self.warmup * self.steps + 1)
        fall = (self.steps - step) / (self.decay * self.steps + 1)
        return self.rate * min(1.0, rise, fall)


class Run:
    """A network in training.

    average: the running average of its weights, which is the result. step: steps done.
    """

    def __init__(self, network: Lite, schedule: Schedule, device: torch.device) -> None:
        self.network = network.to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.average = copy.deepcopy(network).eval()
        self.schedule = schedule
        self.device = device
        self.step = 0
        # Threads that share each convolution wait for each other at every one of them, on a busy
        # machine most of the time; threads with a part of the batch each meet once a step.
        parts = 1 if device.type == "cuda" else max(1, min(count_cores(), schedule.batch // 8))
        weights = {id(weight): weight for weight in network.parameters()}
        self._replicas = [
            network,
            *(copy.deepcopy(network, dict[int, Any](weights)) for _ in range(parts - 1)),
        ]
        self._threads = ThreadPoolExecutor(parts)
        self._optimizers = _optimizers(network, schedule.weight_decay)
        self._mixed = device.type == "cuda" or _has_bfloat16()

    def advance(self, pairs: Pairs) -> float:
        """One step. Returns its loss."""
        indices = _order(len(pairs), self.schedule, self.step).chunk(len(self._replicas))
        results = list(
            self._threads.map(
                lambda part: self._differentiate(pairs, indices[part], part), range(len(indices))
            )
        )
        weights = list(self.network.parameters())
        for weight, *gradients in zip(weights, *(found for _, found in results), strict=True):
            weight.grad = torch.stack(gradients).mean(0)
        nn.utils.clip_grad_norm_(weights, 5.0)
        rate = self.schedule.rate_at(self.step)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        list(self._threads.map(lambda optimizer: optimizer.step(), self._optimizers))
        self.step += 1
        # The first steps' weights must not linger.
        _follow(self.average, self.network, min(AVERAGE, self.step / (self.step + 10)))
        return math.fsum(loss for loss, _ in results) / len(results)

    def _differentiate(
        self, pairs: Pairs, indices: Tensor, part: int
    ) -> tuple[float, Sequence[Tensor]]:
        """Loss and gradients of a part of the batch."""
        generator = _seeded(self.device, self.schedule.seed, self.step, part)
        size = self.schedule.size_at(self.step)
        pictures, mattes, trust = draw(pairs, indices, size, generator)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._mixed):
            outputs = self._replicas[part].logits(normalise(pictures))
        loss = deep_loss(outputs, mattes, trust)
        return float(loss.detach()), torch.autograd.grad(loss, list(self.network.parameters()))

    def state(self) -> dict[str, Any]:
        """All that the rest of the run depends on."""
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state` was taken."""
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)


def fit(
    network: Lite,
    pairs: Pairs,
    schedule: Schedule,
    *,
    device: torch.device,
    checkpoint: Path,
    identity: str,
    progress: Callable[[int, float, Lite], None],
) -> Lite:
    """Train; returns the average of the weights, in evaluation mode. `network` is taken over.

    checkpoint: file that the run is saved to and resumed from; it is left when done. identity: what
    makes two runs the same. progress: told the steps done, the last one's loss, and the result so
    far.

    Raises UsageError when the checkpoint belongs to another run, OutputError when it cannot be
    written.
    """
    with _one_thread_each():
        run = Run(network, schedule, device)
        _resume(run, checkpoint, identity)
        size = 0
        while run.step < schedule.steps:
            if size != schedule.size_at(run.step):
                size = schedule.size_at(run.step)
                held = pairs.resized(min(pairs.photos.shape[-1], round(size * MARGIN))).to(device)
            progress(run.step + 1, run.advance(held), run.average)
            if run.step % SAVE_EVERY == 0 or run.step == schedule.steps:
                _save(run, checkpoint, identity)
        return run.average


@torch.no_grad()
def predict(network: Lite, photos: Tensor, size: int) -> Tensor:
    """uint8 [N, 3, P, P] -> mattes float32 [N, 1, size, size]."""
    device = next(network.parameters()).device
    network.eval()
    return torch.cat(
        [
            network(normalise(resize(part, size).to(device).float() / 255)).float().cpu()
            for part in photos.split(16)
        ]
    )


def evaluate(network: Lite, pairs: Pairs, size: int) -> Score:
    """Score of the network on pairs it was not trained on."""
    truth = resize(pairs.mattes, size).float() / 255
    return score_mattes(predict(network, pairs.photos, size), truth)


def normalise(pictures: Tensor) -> Tensor:
    """0..1 to what the network takes, channels last."""
    mean = torch.tensor(MEAN, device=pictures.device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=pictures.device).view(1, 3, 1, 1)
    return ((pictures - mean) / std).contiguous(memory_format=torch.channels_last)


def _order(count: int, schedule: Schedule, step: int) -> Tensor:
    """The pairs of a step: an epoch shows each once, in an order of its own."""
    places = torch.arange(step * schedule.batch, (step + 1) * schedule.batch)
    epochs = sorted({int(place) // count for place in places})
    orders = {
        epoch: torch.randperm(count, generator=_seeded(places.device, schedule.seed, epoch))
        for epoch in epochs
    }
    return torch.stack([orders[int(place) // count][int(place) % count] for place in places])


def _optimizers(network: Lite, weight_decay: float) -> list[torch.optim.Optimizer]:
    """Muon for the convolutions inside, in SHARES; AdamW for the rest."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for weight in network.parameters():
        inside = weight.ndim == 4 and weight.shape[0] > 1 and weight.shape[1] > 3
        (matrices if inside else others).append(weight)
    groups = [
        {"params": [weight for weight in others if weight.ndim > 1], "weight_decay": weight_decay},
        {"params": [weight for weight in others if weight.ndim == 1], "weight_decay": 0.0},
    ]
    return [
        torch.optim.AdamW(groups),
        *(Muon(matrices[k::SHARES], weight_decay=weight_decay) for k in range(SHARES)),
    ]


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, keep: float) -> None:
    pairs = zip(average.state_dict().values(), network.state_dict().values(), strict=True)
    for mean, value in pairs:
        if mean.is_floating_point():
            mean.lerp_(value, 1 - keep)
        else:
            mean.copy_(value)


def _save(run: Run, checkpoint: Path, identity: str) -> None:
    content = io.BytesIO()
    torch.save(run.state() | {"identity": identity}, content)
    try:
        write_whole(checkpoint, content.getvalue())
    except OSError as error:
        raise OutputError(f"{checkpoint}: cannot be written: {error.strerror}") from error


def _resume(run: Run, checkpoint: Path, identity: str) -> None:
    if not checkpoint.is_file():
        return
    try:
        state = torch.load(checkpoint, map_location=run.device, weights_only=True)
    except Exception as error:
        raise UsageError(f"{checkpoint}: damaged; delete it to begin anew") from error
    if state.get("identity") != identity:
        raise UsageError(
            f"{checkpoint}: is of an interrupted run with other photos or settings; "
            "repeat those, or delete it to begin anew"
        )
    run.load(state)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Each of our threads computes alone; as many do as there are cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _seeded(device: torch.device, *numbers: int) -> Generator:
    """A generator that depends on the numbers alone."""
    seed = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return Generator(device).manual_seed(int(seed >> np.uint64(1)))


def _has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 itself; where not, it is slower than float32."""
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())
