"""How far a matte can be trusted: what a person would look at, in four numbers.

Measured on the network's map, before anything is made of it; some tenths of a millisecond.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from bgx.image.clean import SPECK
from bgx.image.regions import label_regions

if TYPE_CHECKING:
    from numpy.typing import NDArray

Side = Literal["left", "top", "right", "bottom"]

DOUBTFUL = 0.9
"""Confidence below which a person should look: a tenth of the subject may be wrong."""


@dataclass(frozen=True, slots=True)
class Trust:
    """What to expect of a matte. The subject is where the matte is at least one half.

    confidence: the overlap with the true mask (intersection over union) that the network's own
    probabilities promise, 0..1; 0 where there is no subject. touches_border: sides of the photo's
    frame that the subject reaches. fill: its width or height as a share of the frame's, whichever
    is larger, 0..1. subjects: connected regions. Specks count in none of the three.
    """

    confidence: float
    touches_border: tuple[Side, ...]
    fill: float
    subjects: int

    @property
    def doubtful(self) -> bool:
        """Whether a person should look at it."""
        return self.confidence < DOUBTFUL


def measure_trust(probabilities: NDArray[np.float32], matte: NDArray[np.float32]) -> Trust:
    """Judge one matte by the map it was made of.

    probabilities: the network's own values, float32 [height, width], 0..1 each the probability that
    the pixel is the subject's. matte: what was made of them, same shape, 0..1: the same, or
    stretched. Values outside are clipped, undefined ones are 0. The expected overlap is taken as
    expected intersection over expected union (Nowozin, "Optimal Decisions from Probabilistic
    Models: the Intersection-over-Union Case", CVPR 2014, section 3). It counts hesitation inside
    and around the subject against its size, and a weak map before it was stretched.
    """
    inside = matte >= 0.5
    if not inside.any():
        return Trust(0.0, (), 0.0, 0)
    likely = np.nan_to_num(probabilities, nan=0.0).clip(0.0, 1.0)
    intersection = float(likely.sum(where=inside, dtype=np.float64))
    union = int(np.count_nonzero(inside)) + float(likely.sum(where=~inside, dtype=np.float64))
    labels, areas = label_regions(inside)
    subjects = areas >= SPECK * areas.max()
    subjects[0] = False
    subject = subjects[labels]
    return Trust(
        confidence=intersection / union,
        touches_border=_find_touched(subject),
        fill=max(_span(subject.any(axis=axis)) for axis in (0, 1)),
        subjects=int(np.count_nonzero(subjects)),
    )


def _find_touched(subject: NDArray[np.bool_]) -> tuple[Side, ...]:
    edges: dict[Side, NDArray[np.bool_]] = {
        "left": subject[:, 0],
        "top": subject[0],
        "right": subject[:, -1],
        "bottom": subject[-1],
    }
    return tuple(side for side, edge in edges.items() if edge.any())


def _span(used: NDArray[np.bool_]) -> float:
    """From the first to the last True, as a share of the length."""
    places = np.flatnonzero(used)
    return float(places[-1] + 1 - places[0]) / used.size
