"""Four figures that tell how far a matte can be trusted.

They are measured on the network's output, in less than a millisecond.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from bgx.image.clean import SPECK
from bgx.image.regions import label_regions

if TYPE_CHECKING:
    from numpy.typing import NDArray

Side = Literal["left", "top", "right", "bottom"]

DOUBTFUL = 0.9
"""Confidence below which a person should look: a tenth of the subject may be wrong."""


class Trust(NamedTuple):
    """Figures of one matte. The subject is where the matte is at least one half.

    confidence: expected overlap with the true mask (intersection over union) if the network's own
    probabilities are right, 0..1; 0 if there is no subject. touches_border: sides of the photo that
    the subject reaches. fill: width or height of the subject as a share of the photo's, whichever
    is larger, 0..1. subjects: number of connected regions. The last three ignore specks. damaged:
    some pixels of the photo are missing or wrong.
    """

    confidence: float
    touches_border: tuple[Side, ...]
    fill: float
    subjects: int
    damaged: bool = False

    @property
    def doubtful(self) -> bool:
        """Whether a person should look at it."""
        return self.damaged or self.confidence < DOUBTFUL


def measure_trust(probabilities: NDArray[np.float32], matte: NDArray[np.float32]) -> Trust:
    """Measure one matte.

    probabilities: the network's output, float32 [height, width]: the probability, 0..1, that a
    pixel belongs to the subject; values outside are clipped, NaN counts as 0. matte: the matte made
    from it, same shape, 0..1: the same values, or stretched ones. The expected overlap is
    approximated by expected intersection over expected union (Nowozin, "Optimal Decisions from
    Probabilistic Models: the Intersection-over-Union Case", CVPR 2014, section 3). Undecided pixels
    in and around the subject lower it, in relation to the subject's size, and so do values that
    were low before stretching.
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
    """Distance from the first to the last True, as a share of the length."""
    places = np.flatnonzero(used)
    return float(places[-1] + 1 - places[0]) / used.size
