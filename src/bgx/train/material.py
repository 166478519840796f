"""Training data: read pairs, label photos with a teacher, hold pairs back, add mixtures."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from bgx.errors import PictureError, UsageError, amount
from bgx.image.read import read_photo
from bgx.machine import count_cores
from bgx.model.opening import open_session
from bgx.run.picture import make_matte, make_tensor
from bgx.settings import DeviceSettings, ReadSettings
from bgx.threads import map_at_once
from bgx.train.mixtures import PER_PHOTO, mix
from bgx.train.pairs import BadPair, find_sources, gather, read_pair, square

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bgx.image.read import Picture
    from bgx.model.store import Store
    from bgx.train.pairs import Pairs, Source, Square

    Teacher = Callable[[Picture, str], tuple[Square, Square]]

FEWEST = 8
"""The least number of pairs."""

HELD_BACK = 0.15
"""Share of the pairs that are only measured on; at most MOST_HELD_BACK pairs."""
MOST_HELD_BACK = 300


def open_teacher(name: str, store: Store, device: str) -> Teacher:
    """A function that reads a photo and makes its matte with the network called `name`."""
    session = open_session(store.resolve(name, store.registry()), DeviceSettings(device), store)

    def label(picture: Picture, name: str) -> tuple[Square, Square]:
        photo = read_photo(picture, ReadSettings(), name=name)
        [values] = session.run(make_tensor(photo, session.entry))
        matte = make_matte(values, session.entry)
        grey = Image.fromarray((matte.clip(0, 1) * 255).astype(np.uint8))
        return square(photo.working), square(grey)

    return label


def read_material(
    photos: Path, cutouts: Path | None, label: Teacher | None
) -> tuple[Pairs, Pairs, int, list[BadPair]]:
    """Read all pairs.

    cutouts: folder of the photos' cut-outs or masks, which have the photos' names, or None. label:
    the teacher, for photos without a cut-out. Returns the pairs to train on, the pairs held back,
    how many of both the teacher labelled, and the pairs that cannot be used. Raises UsageError if
    fewer than FEWEST pairs can be used.
    """
    sources, bad = find_sources(photos, cutouts)

    def read(source: Source) -> tuple[Square, Square] | BadPair:
        try:
            if source.cutout is not None:
                return read_pair(source.photo, source.cutout)
            if label is None:
                return BadPair(source.name, "has no cut-out, and no --teacher is given")
            return label(source.photo, str(source.photo))
        except PictureError as error:
            return BadPair(source.name, str(error))

    found = map_at_once(read, sources, count_cores(), "read")
    outcomes = list(zip(sources, found, strict=True))
    bad += [outcome for _, outcome in outcomes if isinstance(outcome, BadPair)]
    good = [(source, found) for source, found in outcomes if not isinstance(found, BadPair)]
    if len(good) < FEWEST:
        raise UsageError(
            f"{photos}: only {amount(len(good), 'pair')} can be used; bgx train needs {FEWEST}"
            + (f" (the first that cannot: {bad[0].name}: {bad[0].reason})" if bad else "")
        )
    held = _hold_back([source for source, _ in good])

    def put_together(wanted: bool) -> Pairs:
        chosen = [pair for pair in good if (pair[0] in held) == wanted]
        return gather(
            torch.from_numpy(np.stack([photo for _, (photo, _) in chosen])),
            torch.from_numpy(np.stack([matte for _, (_, matte) in chosen])),
            torch.tensor([source.cutout is None for source, _ in chosen]),
        )

    labelled = sum(source.cutout is None for source, _ in good)
    return put_together(False), put_together(True), labelled, bad


def _hold_back(sources: Sequence[Source]) -> set[Source]:
    """Choose the pairs that are only measured on.

    They have the user's own cut-outs if there are enough of these. The choice depends only on the
    names: if a run goes on from a network of an earlier run on the same photos, its held-back pairs
    were held back there too.
    """
    own = [source for source in sources if source.cutout is not None]
    ranked = sorted(
        own if len(own) >= FEWEST else sources,
        key=lambda source: hashlib.sha256(os.fsencode(source.name)).digest(),
    )
    return set(ranked[: min(MOST_HELD_BACK, max(2, round(HELD_BACK * len(ranked))))])


def add_mixtures(pairs: Pairs, label: Teacher, seed: int) -> Pairs:
    """Add mixtures of the photos that the teacher has labelled.

    Photos with a cut-out of the user's are not mixed, because a teacher may take another part of
    them for the subject than the user did.
    """
    photos = pairs.by_teacher.nonzero().squeeze(1)
    if not len(photos):
        return pairs
    generator = torch.Generator().manual_seed(seed)
    mixed = mix(pairs, photos, PER_PHOTO * len(photos), generator)

    def read(picture: Square) -> Square:
        _, matte = label(Image.fromarray(picture.transpose(1, 2, 0)), "mixture")
        return matte

    labelled = map_at_once(read, list(mixed.numpy()), count_cores(), "label")
    mattes = torch.from_numpy(np.stack(labelled))
    by_teacher = torch.ones(len(mixed), dtype=torch.bool)
    return pairs.with_mixtures(gather(mixed, mattes, by_teacher))
