"""Trial runs: what does a network return, and does a copy of it give the same?"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from bgx.errors import BadModelError, InferenceError, NoMemoryError
from bgx.machine import count_cores
from bgx.model.engines import EnginePlan
from bgx.model.prepare import DoesNotFit
from bgx.model.providers import (
    explain_no_memory,
    lacks_memory,
    one_line,
    runtime_errors,
    start,
)
from bgx.model.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from bgx.model.registry import ModelEntry

TOLERANCE = 1e-4
"""Largest difference allowed between the outputs of a prepared copy and of the original, 0..1."""

HALF_TOLERANCE = 0.01
"""The same where the original computes in half precision, which rounds to 0.0005 in each layer."""

_NOISE = (320, 256)
"""Width and height of a trial's noise, where the network leaves that free."""


def check_network(path: Path, entry: ModelEntry, name: str) -> None:
    """Run a file once with the settings of `entry`. name: of the file, for messages.

    Raises BadModelError if it does not run, and NoMemoryError.
    """
    session = Session(path, _plan(1), entry, name=name, output=entry.output)
    try:
        session.run(_make_noise(1, entry))
    except InferenceError as error:
        raise BadModelError(str(error)) from None


def start_trial(source: Path | bytes, name: str) -> Any:
    """A session of ONNX Runtime for :func:`show_scenes`. name: of the file, for messages.

    Raises BadModelError if it does not load, and NoMemoryError.
    """
    return start(source, _plan(1), name)


def show_scenes(
    engine: Any, entry: ModelEntry, size: tuple[int, int], *, name: str, count: int | None = None
) -> list[list[NDArray[Any]]]:
    """All outputs of a network, [batch, ...], for each of some drawn scenes.

    engine: of a network with the usual input. entry: says how it is fed. size: width and height.
    name: of the file, for messages. count: of scenes; None is all. Raises BadModelError if it does
    not run with this size, and NoMemoryError.
    """
    [port] = engine.get_inputs()
    batch = port.shape[0] if isinstance(port.shape[0], int) else 1
    kind = np.float16 if port.type == "tensor(float16)" else np.float32
    mean, std = (np.reshape(values, (3, 1, 1)) for values in (entry.mean, entry.std))
    divisor = 255 if entry.scale == "image_max" else entry.scale
    found: list[list[NDArray[Any]]] = []
    for scene in islice(_draw_scenes(*size), count):
        photo = ((scene / divisor - mean) / std).astype(kind)
        try:
            found.append(engine.run(None, {port.name: np.stack([photo] * batch)}))
        except runtime_errors() as error:
            if lacks_memory(error):
                raise NoMemoryError(explain_no_memory(name)) from None
            raise BadModelError(f"{name}: does not run: {one_line(error)}") from None
    return found


def split_scene(matte: NDArray[Any]) -> tuple[float, float]:
    """The mean of a scene's matte, [height, width], in the subject's middle and at the border."""
    height, width = matte.shape
    inside, border = _find_disc(width, height, 0.12), ~_find_disc(width, height, 0.45)
    return float(matte[inside].mean()), float(matte[border].mean())


def _draw_scenes(width: int, height: int) -> Iterator[NDArray[np.float32]]:
    """A subject in the middle of a plain background, three times, and noise: [3, height, width].

    Values are those of pixels, 0..255.
    """
    disc = _find_disc(width, height, 0.25)
    for subject, behind in (
        ((245, 245, 245), (10, 10, 10)),
        ((10, 10, 10), (245, 245, 245)),
        ((220, 110, 30), (150, 170, 180)),
    ):
        colours = np.array([behind, subject], np.float32)
        yield colours[disc.astype(int)].transpose(2, 0, 1)
    yield np.random.default_rng(0).uniform(0, 255, (3, height, width)).astype(np.float32)


def _find_disc(width: int, height: int, radius: float) -> NDArray[np.bool_]:
    """A disc in the middle. radius: share of the shorter side."""
    down, across = np.ogrid[:height, :width]
    away = np.hypot(down - (height - 1) / 2, across - (width - 1) / 2)
    inside: NDArray[np.bool_] = away <= max(1.0, radius * min(width, height))
    return inside


def check_copy(
    copy: Path | bytes, original: Path, entry: ModelEntry, *, count: int, half: bool
) -> None:
    """Raise DoesNotFit unless a batch has the same result with the copy as with the original.

    entry: the settings of the original; the copy's matte is its first output. count: pictures of
    the batch. half: whether the original computes in half precision. Raises BadModelError if the
    original does not run with these settings, InferenceError, and NoMemoryError.
    """
    batch = _make_noise(count, entry)
    fine = Session(original, _plan(1), entry, name=str(original), output=entry.output)
    try:
        expected = fine.run(batch)
        del fine  # a large network must not be in memory twice
        given = Session(copy, _plan(count), entry, name="the copy", output=0).run(batch)
    except BadModelError as error:
        raise DoesNotFit(str(error)) from None
    difference = float(np.abs(given - expected).max())
    if difference > (HALF_TOLERANCE if half else TOLERANCE):
        raise DoesNotFit(f"the copy's mattes differ from the original's by {difference:.2g}")


def _make_noise(count: int, entry: ModelEntry) -> NDArray[np.float32]:
    width, height = entry.size_for(_NOISE)
    return np.random.default_rng(0).standard_normal((count, 3, height, width), np.float32)


def _plan(batch_size: int) -> EnginePlan:
    # Without pattern and reuse, so that a trial takes no more memory than the pictures will.
    return EnginePlan(
        "cpu",
        threads=count_cores(),
        batch_size=batch_size,
        memory_pattern=False,
        memory_reuse=False,
    )
