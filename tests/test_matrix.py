"""Every variety of picture is read right or refused in one line; none is rubbish called done."""

from __future__ import annotations

import itertools
import random
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bgx.errors import UnreadableError
from bgx.image.read import read_photo
from bgx.settings import ReadSettings
from support.matrix import Case, Picture, all_cases

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

SAMPLE = 200
"""Cases of the matrix that every run tries; the marker ``matrix`` tries all."""

SHARES = 8
"""Parts of the matrix that can be tried at once."""


def _check(case: Picture) -> str | None:
    """What is wrong, in words."""
    try:
        photo = read_photo(case.data, ReadSettings(), name="shoe")
    except UnreadableError as error:
        message = str(error)
        if case.colours is not None:
            return f"refused: {message}"
        if not message.startswith("shoe: is a") or not message.isprintable():
            return f"refused without saying what it is: {message}"
        return None
    if case.colours is None:
        return "read, where nobody can know what is meant"
    if photo.image.size != case.colours.shape[1::-1]:
        return f"size {photo.image.size}"
    if (photo.alpha is None) != (case.alpha is None):
        return "an alpha too many" if case.alpha is None else "the alpha is lost"
    seen = np.ones(case.colours.shape[:2], bool)
    if case.edges:
        seen = _inside(case.colours)
    if photo.alpha is not None and case.alpha is not None:
        off = np.abs(np.asarray(photo.alpha, float) - case.alpha)[seen].max()
        if off > 3 * case.edges + 1:
            return f"alpha is off by {off}"
        seen &= case.alpha > case.hidden
    off = np.abs(np.asarray(photo.image, float) - case.colours)[seen].max()
    return f"colours are off by {off}" if off > case.tolerance else None


def _inside(colours: NDArray[Any]) -> NDArray[np.bool_]:
    """Where all around is the same colour."""
    reach = 9
    inside = np.ones(colours.shape[:2], bool)
    for axis, step in itertools.product((0, 1), (-reach, reach)):
        inside &= (np.roll(colours, step, axis) == colours).all(axis=2)
    inside[:reach], inside[-reach:], inside[:, :reach], inside[:, -reach:] = (False,) * 4
    return inside


def _wrong(cases: Iterable[Case]) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, on files as odd as these
        found = [(case.name, _check(case.make())) for case in cases]
    return [f"{name}: {wrong}" for name, wrong in found if wrong]


def test_a_sample_of_all_varieties() -> None:
    assert not _wrong(random.Random(14).sample(list(all_cases()), SAMPLE))


@pytest.mark.matrix
@pytest.mark.parametrize("share", range(SHARES))
def test_all_varieties(share: int) -> None:
    assert not _wrong(itertools.islice(all_cases(), share, None, SHARES))
