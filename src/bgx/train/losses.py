"""Loss functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional

from bgx.train.augment import box_blur

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

SIDE_WEIGHT = 0.5
"""Weight of each side head's loss. The loss of the matte itself has weight 1."""


def structure_loss(logits: Tensor, mattes: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy plus soft IoU loss, both higher near edges (F3Net, Wei et al., AAAI 2020).

    logits: [N, 1, H, W]. mattes: the same shape, 0..1. weights: [N], one per picture. Returns a
    scalar.
    """
    side = logits.shape[-1] // 10 * 2 + 1
    near = 1 + 4 * (box_blur(mattes, side) - mattes).abs()
    entropy = functional.binary_cross_entropy_with_logits(logits, mattes, reduction="none")
    entropy = _sum(near * entropy) / _sum(near)
    guess = logits.sigmoid()
    both = _sum(near * guess * mattes)
    either = _sum(near * (guess + mattes - guess * mattes))
    # Plus one pixel, so that an empty guess for an empty matte has no loss.
    overlap = (both + 1) / (either + 1)
    return (weights * (entropy + 1 - overlap)).sum() / weights.sum()


def deep_loss(outputs: Sequence[Tensor], mattes: Tensor, weights: Tensor) -> Tensor:
    """Structure loss of the matte plus SIDE_WEIGHT times that of each side head.

    outputs: logits of the matte, then those of the side heads; their sides are S divided by powers
    of two. mattes: [N, 1, S, S], 0..1. weights: [N].
    """
    total = structure_loss(outputs[0].float(), _shrunk(mattes, outputs[0]), weights)
    for side in outputs[1:]:
        loss = structure_loss(side.float(), _shrunk(mattes, side), weights)
        total = total + SIDE_WEIGHT * loss
    return total


def _shrunk(mattes: Tensor, logits: Tensor) -> Tensor:
    return functional.avg_pool2d(mattes, mattes.shape[-1] // logits.shape[-1])


def _sum(values: Tensor) -> Tensor:
    return values.sum((1, 2, 3))
