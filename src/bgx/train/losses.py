"""What training makes small."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional

from bgx.train.augment import box_blur

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

SIDE_WEIGHT = 0.5
"""Of a side head's loss; that of the matte itself counts 1."""


def structure_loss(logits: Tensor, mattes: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy and soft IoU, both heavier near boundaries (F3Net, Wei et al., AAAI 2020).

    logits, mattes (0..1): [N, 1, H, W]. weights: [N], one a picture. Returns a scalar.
    """
    side = logits.shape[-1] // 10 * 2 + 1
    near = 1 + 4 * (box_blur(mattes, side) - mattes).abs()
    entropy = functional.binary_cross_entropy_with_logits(logits, mattes, reduction="none")
    entropy = _sum(near * entropy) / _sum(near)
    guess = logits.sigmoid()
    both = _sum(near * guess * mattes)
    either = _sum(near * (guess + mattes - guess * mattes))
    # One pixel more in each: an empty matte answered by an empty guess is no loss.
    overlap = (both + 1) / (either + 1)
    return (weights * (entropy + 1 - overlap)).sum() / weights.sum()


def deep_loss(outputs: Sequence[Tensor], mattes: Tensor, weights: Tensor) -> Tensor:
    """The structure loss of the matte, outputs[0], and SIDE_WEIGHT of each side head's.

    mattes: [N, 1, S, S]; outputs: logits at S divided by powers of two.
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
