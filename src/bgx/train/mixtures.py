"""Make pictures from photos, for a teacher to label.

A mixture is a part of a photo, or a subject in front of another photo. Mixtures show subjects at
other sizes, beside other things and in other surroundings than the photos do. The teacher decides
what the subject of each is. A small network that is trained on them as well does better on photos
that it has not seen.
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
"""Number of mixtures for each photo that the teacher has labelled."""

_PART = (0.5, 1.0)
"""Range of the side of a part, as a share of the photo's."""

_AROUND = (1.0, 2.4)
"""Range of the side of the window around a subject before it is pasted: 1 keeps the subject's size,
2 halves it."""

_BATCH = 32


def mix(pairs: Pairs, photos: Tensor, count: int, generator: Generator) -> Tensor:
    """Parts of photos, half of them with the subject of another photo in front.

    photos: indices of the pairs to mix. generator: random generator to use. Returns uint8
    [count, 3, SIDE, SIDE]. If no photo has a subject that can be pasted, all are plain parts.
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
