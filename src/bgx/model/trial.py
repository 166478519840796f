"""Trial runs on noise: does a network run with its settings, does a copy give the same output?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bgx.errors import BadModelError, InferenceError
from bgx.machine import count_cores
from bgx.model.engines import EnginePlan
from bgx.model.prepare import DoesNotFit
from bgx.model.session import Session

if TYPE_CHECKING:
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


def find_range(path: Path, entry: ModelEntry) -> tuple[float, float]:
    """The least and the greatest value that a network returns for noise.

    Raises BadModelError if it does not run with the settings of `entry`, and NoMemoryError.
    """
    session = Session(path, _plan(1), entry, name=str(path), output=entry.output)
    try:
        values = session.run(_make_noise(1, entry))
    except InferenceError as error:
        raise BadModelError(str(error)) from None
    return float(values.min()), float(values.max())


def check_copy(copy: bytes, original: Path, entry: ModelEntry, *, count: int, half: bool) -> None:
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
