"""Measure mattes against true ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

THRESHOLDS = 64
"""Number of thresholds that are tried for max-F."""


@dataclass(frozen=True, slots=True)
class Score:
    """Accuracy of mattes.

    max_f: F-measure (beta² = 0.3) at the best threshold, 0..1, higher is better. mae: mean absolute
    error, 0..1, lower is better.
    """

    max_f: float
    mae: float

    def __str__(self) -> str:
        return f"max-F {self.max_f:.3f}, MAE {self.mae:.3f}"

    @property
    def value(self) -> float:
        """One number for comparing networks, higher is better."""
        return self.max_f - self.mae


def score_mattes(mattes: Tensor, truth: Tensor) -> Score:
    """Score mattes.

    mattes, truth: float32 [N, 1, S, S], 0..1. Pictures without a subject count for the MAE only.
    Precision and recall are means over the pictures (Achanta et al., CVPR 2009).
    """
    true = (truth > 0.5).flatten(1)
    some = true.any(1)
    true, guesses = true[some], mattes.flatten(1)[some]
    best = 0.0
    for threshold in (k / (THRESHOLDS + 1) for k in range(1, THRESHOLDS + 1) if len(true)):
        guess = guesses >= threshold
        hits = (guess & true).sum(1).float()
        precision = float((hits / guess.sum(1).clamp(min=1)).mean())
        recall = float((hits / true.sum(1)).mean())
        if precision or recall:
            best = max(best, 1.3 * precision * recall / (0.3 * precision + recall))
    return Score(best, float((mattes - truth).abs().mean()))
