"""Set the scale and offset of the last layer after the training.

The network is trained on cropped, pasted and degraded pictures, so on whole photos its values are
closer to one half than they should be. A scale and an offset of its logits put that right (Platt
scaling, 1999). They do not change which pixel has a higher value than another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bgx.train.feed import SIZE
from bgx.train.fit import predict
from bgx.train.pairs import resize

if TYPE_CHECKING:
    from bgx.train.network import Lite
    from bgx.train.pairs import Pairs

SCALES = (1.0, 1.5, 2.0, 2.5, 3.0)
OFFSETS = (0.0, -1.0, -0.5, 0.5, 1.0)

SAMPLE = 300
"""Number of training pairs to use. Held-back pairs are for measuring only."""


@torch.no_grad()
def calibrate(network: Lite, pairs: Pairs) -> None:
    """Scale and shift the logits, in place, to get the smallest mean error of the matte."""
    chosen = torch.arange(0, len(pairs), max(1, len(pairs) // SAMPLE))
    mattes = resize(pairs.mattes[chosen], SIZE).float() / 255
    weights = pairs.weights[chosen].view(-1, 1, 1, 1)
    logits = torch.logit(predict(network, pairs.photos[chosen], SIZE), eps=1e-5)

    def error(scale: float, offset: float) -> float:
        return float((weights * (torch.sigmoid(scale * logits + offset) - mattes).abs()).mean())

    choices = [(scale, offset) for scale in SCALES for offset in OFFSETS]
    scale, offset = min(choices, key=lambda choice: error(*choice))
    network.head.get_parameter("weight").mul_(scale)
    network.head.get_parameter("bias").mul_(scale).add_(offset)
