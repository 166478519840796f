"""Decides whether a copy is good enough to be used in place of float32."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bgx.errors import BgxError, ModelError
from bgx.model.session import Session
from bgx.threads import map_at_once

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float32]

MOST_DIFFERENCE = 0.005
LEAST_IOU = 0.985

_ROUNDS = 7


class Measurement(NamedTuple):
    """A copy compared with float32, on photos that it was not made with.

    difference: mean absolute difference of the mattes, 0..1. iou: intersection over union of the
    masks at 0.5, mean over the photos. fp32_ms, copy_ms: time of one run; on a CPU of one picture
    on one thread, on a GPU of a batch. photos: number of photos.
    """

    difference: float
    iou: float
    fp32_ms: float
    copy_ms: float
    photos: int

    @property
    def faults(self) -> list[str]:
        """Why the copy must not be used; empty if it passes."""
        faults = []
        if not self.difference <= MOST_DIFFERENCE:
            faults.append(f"its mattes differ by {self.difference:.4f} > {MOST_DIFFERENCE}")
        if not self.iou >= LEAST_IOU:
            faults.append(f"its masks agree to {self.iou:.4f} < {LEAST_IOU}")
        if not self.copy_ms < self.fp32_ms:
            faults.append("it is not faster here")
        return faults

    def __str__(self) -> str:
        return (
            f"{self.fp32_ms / self.copy_ms:.2f} times as fast as float32 "
            f"({self.copy_ms:.1f} against {self.fp32_ms:.1f} ms), mean difference "
            f"{self.difference:.4f}, IoU {self.iou:.4f} on {self.photos} photos held back"
        )


def measure(
    fine: Session, copy: bytes, inputs: Sequence[Array], make_matte: Callable[[Array], Array]
) -> Measurement:
    """Compare a copy with the float32 session, on the same device.

    inputs: of photos held back, [1, 3, height, width]. make_matte: turns the network's output into
    a matte, both [height, width]. Raises ModelError if the copy does not run.
    """
    try:
        coarse = Session(copy, fine.plan, fine.entry, name="the copy", output=0)

        def compare(tensor: Array) -> tuple[float, float]:
            one, other = (make_matte(session.run(tensor)[0]) for session in (fine, coarse))
            return compare_mattes(one, other)

        compared = map_at_once(compare, inputs, fine.plan.runs, "compare")
        batch = np.concatenate([inputs[0]] * fine.plan.batch_size)
        fp32_ms, copy_ms = race(fine, coarse, batch)
    except BgxError as error:
        raise ModelError(f"{fine.entry.name}: the copy does not run: {error}") from None
    difference, iou = np.mean(compared, axis=0).tolist()
    return Measurement(difference, iou, fp32_ms, copy_ms, len(inputs))


def compare_mattes(one: NDArray[Any], other: NDArray[Any]) -> tuple[float, float]:
    """Mean absolute difference, and intersection over union of the masks at 0.5 (1 if both are
    empty)."""
    first, second = one >= 0.5, other >= 0.5
    union = np.count_nonzero(first | second)
    iou = np.count_nonzero(first & second) / union if union else 1.0
    return float(np.abs(one - other).mean()), iou


def race(fine: Session, coarse: Session, batch: Array) -> tuple[float, float]:
    """Milliseconds of the fastest run of each session; they take turns."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(_ROUNDS):
        for session, taken in zip((fine, coarse), seconds, strict=True):
            start = time.perf_counter()
            session.run(batch)
            taken.append(time.perf_counter() - start)
    return 1000 * min(seconds[0]), 1000 * min(seconds[1])
