"""Finds a network's matte among its outputs, and what its values mean."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bgx.model.trial import split_scene

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bgx.model.unknown.facts import Form

_MATTE = re.compile(r"(?<![a-z])(alpha|matte|pha|mask)(?![a-z])")


class Place(NamedTuple):
    """Where an output has its matte.

    area: of the matte; 0 if unknown. channels: 1 or 2; 0 if unknown. axis: dimension of the
    channels; None if there is none. batch: whether it has a dimension for the batch.
    """

    area: int
    channels: int = 1
    axis: int | None = None
    batch: bool = True


def place_of(shape: Sequence[int]) -> Place | None:
    """Where the matte is in an output of this shape; None if it is none. 0 is an unknown side."""
    match tuple(shape):
        case (_, (0 | 1 | 2) as channels, height, width):
            return Place(height * width, channels, 1)
        case (_, height, width, (1 | 2) as channels):
            return Place(height * width, channels, 3)
        case (_, height, width):
            return Place(height * width)
        case (height, width):
            return Place(height * width, batch=False)
    return None


def choose_output(places: Sequence[Place | None], names: Sequence[str]) -> int | None:
    """The index of the matte; None if there is none.

    It is the largest; of several, the one called so; of several, one with a single channel; of
    several, the first.
    """
    known = [index for index, place in enumerate(places) if place is not None]
    if not known:
        return None

    def rank(index: int) -> tuple[int, bool, bool, int]:
        place = places[index] or Place(0)
        named = bool(_MATTE.search(names[index].lower()))
        return place.area, named, place.channels == 1, -index

    return max(known, key=rank)


def read_form(
    scenes: Sequence[NDArray[Any]], place: Place, usual: Form, *, bounded: bool | None
) -> tuple[Form, bool]:
    """The form of an output, and whether it is in 0..1 with that form; if not, it is a logit.

    scenes: the output for each drawn scene. usual: the form of the input. bounded: whether the
    graph shows that the output is in 0..1; None if it does not.
    """
    form = replace(
        usual,
        plain=not place.batch,
        # A single channel in front is removed in each run.
        axis=place.axis if place.axis == 3 or place.channels == 2 else None,
        cast=scenes[0].dtype not in (np.float32, np.float16),
    )
    values = [_first(scene, place).astype(float) for scene in scenes]
    if place.channels == 2:
        form = replace(form, channels=2, pair=not _are_shares(values))
        if form.pair:
            values = [1 / (1 + np.exp((each[0] - each[1]).clip(-50, 50))) for each in values]
        else:
            values = [each[1] for each in values]
        return replace(form, channel=0 if _shows_background(values) else 1), True
    low, high = min(each.min() for each in values), max(each.max() for each in values)
    if bounded or scenes[0].dtype == np.bool_:
        return form, True
    if scenes[0].dtype.kind in "iu" and high <= 20:
        form = replace(form, labels=True)
        background = _shows_background([each.clip(0, 1) for each in values])
        return replace(form, low=1.0, high=0.0) if background else form, True
    # Networks trained without a sigmoid exceed 0..1 a little; logits exceed it by far.
    if low > -0.5 and high < 1.5:
        return form, True
    if low > -2 and 20 < high < 270:
        return replace(form, high=255.0), True
    if low >= -1.01 and high <= 1.01:
        return replace(form, low=-1.0), True
    if low > -0.5:
        # A logit would be negative for the background.
        return replace(form, high=high), True
    return form, False


def _first(output: NDArray[Any], place: Place) -> NDArray[Any]:
    """The first picture's matte, [height, width]; with two channels, [2, height, width]."""
    first = output[0] if place.batch else output
    if place.axis == 3:
        first = np.moveaxis(first, -1, 0)
    return first[0] if place.axis is not None and place.channels == 1 else first


def _are_shares(pairs: Sequence[NDArray[Any]]) -> bool:
    """Whether both channels are in 0..1 and sum to 1."""
    return all(
        pair.min() > -0.01 and pair.max() < 1.01 and np.allclose(pair.sum(0), 1, atol=0.05)
        for pair in pairs
    )


def _shows_background(mattes: Sequence[NDArray[Any]]) -> bool:
    """Whether each of the scenes with a subject is the wrong way round."""
    return all(inside < 0.1 and border > 0.9 for inside, border in map(split_scene, mattes[:-1]))
