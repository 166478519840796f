"""Pictures that nobody took, for a teacher to label.

A teacher can be asked about any picture, not about photos alone. Parts of photos, and subjects set
before other photos, show subjects at sizes, in company and in surroundings that a few thousand
photos do not have; which of several things such a picture is about is the teacher's to say. What a
small network learns from it holds for more than the photos it was shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bgx.train.augment import choose, crop, set_before, stack
from bgx.train.pairs import SIDE

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from bgx.train.pairs import Pairs

PER_PHOTO = 2
"""Mixtures to make for each photo that the teacher has labelled."""

_PART = (0.5, 1.0)
"""Side of the parts, of a photo's."""

_AROUND = (1.0, 2.4)
"""Side of the window around a subject that is pasted: from its own size to less than half."""

_BATCH = 32


def mix(pairs: Pairs, photos: Tensor, count: int, generator: Generator) -> Tensor:
    """uint8 [count, 3, SIDE, SIDE]: parts of photos, half of them behind another photo's subject.

    photos: indices of the pairs to mix. generator: decides. Where none of them has a subject that
    can be pasted, all are plain parts.
    """
    subjects = photos[torch.isin(photos, pairs.subjects)]
    sizes = [min(_BATCH, count - first) for first in range(0, count, _BATCH)]
    return torch.cat([_mix_batch(pairs, photos, subjects, size, generator) for size in sizes])


def _mix_batch(
    pairs: Pairs, photos: Tensor, subjects: Tensor, count: int, generator: Generator
) -> Tensor:
    mixed = crop(stack(pairs, choose(photos, count, generator)), _PART, SIDE, generator)[:, :3]
    if len(subjects):
        pasted = choose(subjects, -(-count // 2), generator)
        cut = crop(stack(pairs, pasted), _AROUND, SIDE, generator)
        mixed[: len(pasted)] = set_before(cut, mixed[: len(pasted)])
    return (mixed * 255).round().clamp(0, 255).byte()
