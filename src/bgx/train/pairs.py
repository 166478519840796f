"""Photos and their cut-outs, matched by name and read into memory."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional

from bgx.errors import PictureError, UsageError
from bgx.image.identify import SUFFIXES
from bgx.image.read import read_photo
from bgx.settings import ReadSettings

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

Square = npt.NDArray[np.uint8]
"""A picture as uint8 [channels, SIDE, SIDE]."""

SIDE = 320
"""Pictures are resized to squares of this side, pixels, whatever their shape, as for U²-Net."""

_CUT = "-cut"
"""Suffix that ``bgx remove`` adds to names."""


@dataclass(frozen=True, slots=True)
class Source:
    """Files of one pair. cutout: None if a teacher has to label the photo."""

    name: str
    photo: Path
    cutout: Path | None


@dataclass(frozen=True, slots=True)
class BadPair:
    """A pair that cannot be used, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Pairs:
    """N pairs in memory.

    photos: uint8 [N, 3, P, P], sRGB. mattes: uint8 [N, 1, P, P], 255 is the subject. weights:
    float32 [N], 0..1, weight of each pair in the loss. by_teacher: bool [N], whether a teacher made
    the matte. subjects: indices of pairs whose subject can be pasted onto other backgrounds.
    grounds: indices of pairs without a subject, which can serve as backgrounds.
    """

    photos: Tensor
    mattes: Tensor
    weights: Tensor
    by_teacher: Tensor
    subjects: Tensor
    grounds: Tensor

    def __len__(self) -> int:
        return len(self.photos)

    def resized(self, side: int) -> Pairs:
        """The same pairs, resized to squares of another side."""
        return replace(self, photos=resize(self.photos, side), mattes=resize(self.mattes, side))

    def with_mixtures(self, mixtures: Pairs) -> Pairs:
        """These pairs and mixtures. Subjects of mixtures are not pasted onto other backgrounds."""
        grounds = torch.cat([self.grounds, mixtures.grounds + len(self)])
        return Pairs(
            torch.cat([self.photos, mixtures.photos]),
            torch.cat([self.mattes, mixtures.mattes]),
            torch.cat([self.weights, mixtures.weights]),
            torch.cat([self.by_teacher, mixtures.by_teacher]),
            self.subjects,
            grounds,
        )

    def to(self, device: torch.device) -> Pairs:
        """The same pairs on another device."""
        return Pairs(*(getattr(self, field.name).to(device) for field in fields(self)))


def find_sources(photos: Path, cutouts: Path | None) -> tuple[list[Source], list[BadPair]]:
    """Find the photos of a folder, sorted, each with the cut-out of the same name.

    Names include the subfolder. The suffix, upper or lower case, and a ``-cut`` at the end make no
    difference. Also returns the pairs that cannot be used. Raises UsageError if a folder does not
    exist or holds no picture.
    """
    found = _index(photos)
    masks = _index(cutouts) if cutouts is not None else {}
    sources, bad = [], []
    for name, files in found.items():
        if len(files) > 1 or len(masks.get(name, [])) > 1:
            bad.append(BadPair(name, "several files have this name"))
        else:
            sources.append(Source(name, files[0], masks.get(name, [None])[0]))
    bad += [BadPair(name, "cut-out without a photo") for name in masks if name not in found]
    return sources, bad


def read_pair(photo_path: Path, cutout_path: Path) -> tuple[Square, Square]:
    """Read a photo, uint8 [3, SIDE, SIDE], and its matte, uint8 [1, SIDE, SIDE].

    Raises PictureError with the reason if the pair cannot be used.
    """
    photo = read_photo(photo_path, ReadSettings(), name=str(photo_path))
    cutout = read_photo(cutout_path, ReadSettings(), name=str(cutout_path))
    if photo.image.size != cutout.image.size:
        width, height = photo.image.size
        raise PictureError(
            f"{cutout_path}: is {cutout.image.width} x {cutout.image.height}, "
            f"its photo {width} x {height}"
        )
    matte = cutout.alpha
    if matte is None:
        red, green, blue = cutout.image.split()
        if red.tobytes() != green.tobytes() or red.tobytes() != blue.tobytes():
            raise PictureError(
                f"{cutout_path}: has no alpha and is not a mask, because it has colours"
            )
        matte = red
    values = np.asarray(matte)
    if values.max() < 128 and cutout.alpha is not None:
        raise PictureError(
            f"{cutout_path}: is empty; for a photo without a subject use a black mask"
        )
    if values.min() >= 128:
        raise PictureError(f"{cutout_path}: is opaque or white everywhere, so nothing is cut out")
    return square(photo.working), square(matte)


def square(image: Image.Image) -> Square:
    """Resize a picture to uint8 [channels, SIDE, SIDE]."""
    pixels = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    return np.ascontiguousarray(np.atleast_3d(pixels).transpose(2, 0, 1))


def gather(photos: Tensor, mattes: Tensor, by_teacher: Tensor) -> Pairs:
    """Make Pairs: compute the weights, and find subjects and backgrounds to paste.

    photos: uint8 [N, 3, SIDE, SIDE]. mattes: uint8 [N, 1, SIDE, SIDE]. by_teacher: bool [N].
    """
    values = resize(mattes, SIDE // 2).float() / 255
    coverage = values.mean((1, 2, 3))
    # 0 for a matte of black and white, large for one that is mostly grey.
    doubt = (4 * values * (1 - values)).mean((1, 2, 3)) / (coverage + 0.02)
    weights = torch.where(by_teacher, (1.15 - doubt).clamp(0.15, 1.0), 1.0)
    # A subject that the picture's border cuts looks wrong on another background. Only the lower
    # border may cut it.
    borders = torch.stack([values[..., 0, :], values[..., 0], values[..., -1]])
    whole = ((borders > 0.5).float().mean(-1).amax(0) < 0.15).squeeze(1)
    clean = whole & (coverage > 0.06) & (coverage < 0.6) & ((doubt < 0.15) | ~by_teacher)
    return Pairs(
        photos,
        mattes,
        weights,
        by_teacher,
        clean.nonzero().squeeze(1),
        (coverage < 0.02).nonzero().squeeze(1),
    )


def resize(images: Tensor, side: int) -> Tensor:
    """Resize uint8 [N, C, P, P] to uint8 [N, C, side, side], with antialiasing."""
    if images.shape[-1] == side:
        return images
    parts = [
        functional.interpolate(part.float(), (side, side), mode="bilinear", antialias=True)
        .round()
        .clamp(0, 255)
        .byte()
        for part in images.split(64)
    ]
    return torch.cat(parts)


def _index(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise UsageError(f"{folder}: is not a folder")
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            name = path.relative_to(folder).with_suffix("").as_posix().lower().removesuffix(_CUT)
            files.setdefault(name, []).append(path)
    if not files:
        raise UsageError(f"{folder}: holds no picture that bgx can read")
    return files
