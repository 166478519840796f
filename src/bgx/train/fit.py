"""The training loop: reproducible from a seed, resumable from a checkpoint.

All random choices of a step depend only on the seed and the step's number. So an interrupted run
that goes on later ends with the same weights as one that was not interrupted.
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
"""Decay of the exponential moving average of the weights, per step."""

MARGIN = 1.25
"""Pictures are kept larger than the network's input by this factor, so that crops are sharp."""

SAVE_EVERY = 10
"""Steps between two checkpoints. Saving one takes about 1 % of the time of these steps."""

SHARES = 8
"""Number of Muon optimizers, which run in parallel. It does not depend on the number of cores, so
that a checkpoint fits any machine."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Number of steps, size of the input and learning rate over the training.

    steps: number of batches. batch: pairs in each. stages: (side of the input in pixels, share of
    the steps), in order. rate: highest learning rate; it rises linearly over the first `warmup`
    share of the steps and falls linearly to 0 over the last `decay` share.
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
        """Side of the input at a step, pixels."""
        end = 0.0
        for size, share in self.stages[:-1]:
            end += share
            if step < end * self.steps:
                return size
        return self.stages[-1][0]

    def rate_at(self, step: int) -> float:
        """Learning rate at a step."""
        rise = (step + 1) / (self.warmup * self.steps + 1)
        fall = (self.steps - step) / (self.decay * self.steps + 1)
        return self.rate * min(1.0, rise, fall)


class Run:
    """A network in training.

    average: the network with the moving average of the weights, which is the result. step: number
    of steps done.
    """

    def __init__(self, network: Lite, schedule: Schedule, device: torch.device) -> None:
        self.network = network.to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.average = copy.deepcopy(network).eval()
        self.schedule = schedule
        self.device = device
        self.step = 0
        # Each thread computes a part of the batch, so threads wait for each other once per step. If
        # they shared each convolution, they would wait at every one of them.
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
        """Do one step. Returns its loss."""
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
        # A lower decay at first, so that the weights of the first steps are soon forgotten.
        _follow(self.average, self.network, min(AVERAGE, self.step / (self.step + 10)))
        return math.fsum(loss for loss, _ in results) / len(results)

    def _differentiate(
        self, pairs: Pairs, indices: Tensor, part: int
    ) -> tuple[float, Sequence[Tensor]]:
        """Loss and gradients of one part of the batch."""
        generator = _seeded(self.device, self.schedule.seed, self.step, part)
        size = self.schedule.size_at(self.step)
        pictures, mattes, trust = draw(pairs, indices, size, generator)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._mixed):
            outputs = self._replicas[part].logits(normalise(pictures))
        loss = deep_loss(outputs, mattes, trust)
        return float(loss.detach()), torch.autograd.grad(loss, list(self.network.parameters()))

    def state(self) -> dict[str, Any]:
        """All that is needed to go on later."""
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
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
    """Train. Returns the network with averaged weights, in evaluation mode.

    network: changed by the training. checkpoint: file to save the run to and to resume it from; it
    is not deleted at the end. identity: a text that is equal for two runs if they do the same.
    progress: called after each step with the number of steps done, the loss, and the averaged
    network so far.

    Raises UsageError if the checkpoint belongs to another run or is damaged, OutputError if it
    cannot be written.
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
    """Mattes, float32 [N, 1, size, size], of photos, uint8 [N, 3, P, P]."""
    device = next(network.parameters()).device
    network.eval()
    return torch.cat(
        [
            network(normalise(resize(part, size).to(device).float() / 255)).float().cpu()
            for part in photos.split(16)
        ]
    )


def evaluate(network: Lite, pairs: Pairs, size: int) -> Score:
    """Score of the network on `pairs`, at an input of `size` pixels."""
    truth = resize(pairs.mattes, size).float() / 255
    return score_mattes(predict(network, pairs.photos, size), truth)


def normalise(pictures: Tensor) -> Tensor:
    """Pictures of 0..1 as the network's input, in channels-last memory format."""
    mean = torch.tensor(MEAN, device=pictures.device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=pictures.device).view(1, 3, 1, 1)
    return ((pictures - mean) / std).contiguous(memory_format=torch.channels_last)


def _order(count: int, schedule: Schedule, step: int) -> Tensor:
    """Indices of a step's pairs. Each epoch shows every pair once, in a new random order."""
    places = torch.arange(step * schedule.batch, (step + 1) * schedule.batch)
    epochs = sorted({int(place) // count for place in places})
    orders = {
        epoch: torch.randperm(count, generator=_seeded(places.device, schedule.seed, epoch))
        for epoch in epochs
    }
    return torch.stack([orders[int(place) // count][int(place) % count] for place in places])


def _optimizers(network: Lite, weight_decay: float) -> list[torch.optim.Optimizer]:
    """SHARES of Muon for all convolutions but the first and the heads; AdamW for the rest."""
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
        raise UsageError(f"{checkpoint}: damaged; delete it to start again") from error
    if state.get("identity") != identity:
        raise UsageError(
            f"{checkpoint}: belongs to an interrupted run with other photos or settings; "
            "use those again, or delete the file to start again"
        )
    run.load(state)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Make torch use one thread in each of our threads, of which there is one per core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _seeded(device: torch.device, *numbers: int) -> Generator:
    """A random generator whose seed depends only on the numbers."""
    seed = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return Generator(device).manual_seed(int(seed >> np.uint64(1)))


def _has_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16. Without them it is slower than float32."""
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())
