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
from bgx.image.read import SUFFIXES, read_photo
from bgx.settings import ReadSettings

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

Square = npt.NDArray[np.uint8]
"""One picture in memory, [channels, SIDE, SIDE]."""

SIDE = 320
"""Pictures are squashed to squares of this side, as networks of U²-Net's kind see them."""

_CUT = "-cut"
"""What ``bgx remove`` adds to a name."""


@dataclass(frozen=True, slots=True)
class Source:
    """Files of one pair; cutout is None where a teacher has to label the photo."""

    name: str
    photo: Path
    cutout: Path | None


@dataclass(frozen=True, slots=True)
class BadPair:
    """A pair that is not used, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Pairs:
    """N pairs in memory.

    photos: uint8 [N, 3, P, P] sRGB. mattes: uint8 [N, 1, P, P], 255 is subject. weights: float32
    [N], 0..1, how far to trust each matte. by_teacher: bool [N], whether it is a teacher's.
    subjects: indices of pairs whose subject can be pasted elsewhere. grounds: indices of pairs
    without a subject.
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
        """The same pairs as squares of another side."""
        return replace(self, photos=resize(self.photos, side), mattes=resize(self.mattes, side))

    def with_mixtures(self, mixtures: Pairs) -> Pairs:
        """These pairs and others that are only looked at: nothing of them is pasted."""
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
    """Photos of a folder, sorted, each with the file of the same name in the folder of cut-outs.

    Names are compared without suffix, without case and without ``-cut``, and with their folders.
    Raises UsageError where a folder is none or holds no picture.
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
    """Photo [3, SIDE, SIDE] and matte [1, SIDE, SIDE].

    Raises PictureError that says why a pair is of no use.
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
            raise PictureError(f"{cutout_path}: has no alpha and is no mask (it has colours)")
        matte = red
    values = np.asarray(matte)
    if values.max() < 128 and cutout.alpha is not None:
        raise PictureError(f"{cutout_path}: is empty; a black mask says that there is no subject")
    if values.min() >= 128:
        raise PictureError(f"{cutout_path}: leaves nothing out")
    return square(photo.working), square(matte)


def square(image: Image.Image) -> Square:
    """uint8 [channels, SIDE, SIDE]."""
    pixels = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    return np.ascontiguousarray(np.atleast_3d(pixels).transpose(2, 0, 1))


def gather(photos: Tensor, mattes: Tensor, by_teacher: Tensor) -> Pairs:
    """Pairs with their weights and uses.

    photos: uint8 [N, 3, SIDE, SIDE]. mattes: uint8 [N, 1, SIDE, SIDE]. by_teacher: bool [N].
    """
    values = resize(mattes, SIDE // 2).float() / 255
    coverage = values.mean((1, 2, 3))
    # 0 where the matte is black and white, large where it is mostly grey.
    doubt = (4 * values * (1 - values)).mean((1, 2, 3)) / (coverage + 0.02)
    weights = torch.where(by_teacher, (1.15 - doubt).clamp(0.15, 1.0), 1.0)
    # A subject cut by the picture's border, the lower one apart, looks wrong elsewhere.
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
    """uint8 [N, C, P, P] -> uint8 [N, C, side, side], antialiased."""
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
        raise UsageError(f"{folder}: holds no picture")
    return files
