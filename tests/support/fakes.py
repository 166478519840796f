"""Networks and photos for tests that do not need ONNX Runtime.

Every network here is a :class:`bgx.run.pipeline.Network`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from bgx.errors import InferenceError
from bgx.model.engines import EnginePlan
from bgx.model.registry import ModelEntry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

SIZE = 32

ENTRY = ModelEntry(
    name="fake",
    input=(SIZE, SIZE),
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    scale=255.0,
    stretch=False,
)


def cpu_plan(runs: int = 2) -> EnginePlan:
    """As many single pictures at once as `runs`."""
    return EnginePlan("cpu", (("CPUExecutionProvider", {}),), runs=runs)


def gpu_plan(batch_size: int = 4) -> EnginePlan:
    """One batch at a time."""
    return EnginePlan(
        "cuda:0", (("CUDAExecutionProvider", {}),), runs=1, threads=2, batch_size=batch_size
    )


@dataclass
class FakeNetwork:
    """Its matte is the mean of the picture's channels: bright is subject.

    batches: size of each run, in the order they started.
    """

    plan: EnginePlan = field(default_factory=cpu_plan)
    entry: ModelEntry = ENTRY
    batches: list[int] = field(default_factory=list)

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        self.batches.append(len(batch))
        return np.asarray(batch.mean(axis=1), np.float32)


@dataclass
class ConstantNetwork(FakeNetwork):
    """The same value everywhere."""

    value: float = 1.0

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.full_like(super().run(batch), self.value)


@dataclass
class CrashingNetwork(FakeNetwork):
    """Raises an error for a batch that holds a picture it does not like."""

    refuse: Callable[[NDArray[np.float32]], bool] = lambda picture: True
    error: Exception = field(default_factory=lambda: InferenceError("the network crashed"))

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        mattes = super().run(batch)
        if any(self.refuse(picture) for picture in batch):
            raise self.error
        return mattes


@dataclass
class SmallMemoryNetwork(FakeNetwork):
    """Has room for so many pictures in a run and no more."""

    room: int = 1
    error: Exception = field(default_factory=lambda: InferenceError("out of memory"))

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        mattes = super().run(batch)
        if len(batch) > self.room:
            raise self.error
        return mattes


@dataclass
class GatedNetwork(FakeNetwork):
    """Announces each run and waits until it is let through.

    started: released once a run. gate: open it once for all runs.
    """

    started: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    gate: threading.Event = field(default_factory=threading.Event)

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        self.started.release()
        assert self.gate.wait(60), "nobody opened the gate"
        return super().run(batch)


def draw_photo(size: tuple[int, int] = (48, 36), subject: int = 255) -> Image.Image:
    """A black photo with a grey rectangle in its middle."""
    width, height = size
    photo = Image.new("RGB", size, "black")
    box = (width // 4, height // 4, 3 * width // 4, 3 * height // 4)
    photo.paste((subject, subject, subject), box)
    return photo


def save_photo(path: Path, *, size: tuple[int, int] = (48, 36), subject: int = 255) -> Path:
    """Save such a photo; its folder is made where missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_photo(size, subject).save(path)
    return path
