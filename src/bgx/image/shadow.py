"""Shadows under a subject."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageChops, ImageFilter

if TYPE_CHECKING:
    from bgx.image.tiles import Box
    from bgx.settings import Shadow

# Lengths, as shares of the subject's longer side.
_SOFT_BLUR = 0.025
_SOFT_DROP = 0.02
_CONTACT_FOOT = 0.05
_CONTACT_DEPTH = 0.025
_CONTACT_BLUR = 0.008
_CONTACT_HALO = 0.03


def cast_shadow(alpha: Image.Image, subject: Box, shadow: Shadow) -> Image.Image:
    """The shadow as mode L: the alpha of a black layer below the subject.

    alpha: mode L, the subject on its canvas. subject: its box. A ``soft`` shadow is the subject's
    blurred outline, moved down, as under a large lamp. A ``contact`` shadow darkens the ground
    under the subject's lowest part. Parts beyond the canvas are cut off.
    """
    cast = _cast_soft if shadow.kind == "soft" else _cast_contact
    longest = max(subject[2] - subject[0], subject[3] - subject[1])
    return cast(alpha, subject, longest).point([round(v * shadow.strength) for v in range(256)])


def _cast_soft(alpha: Image.Image, _: Box, longest: int) -> Image.Image:
    dropped = Image.new("L", alpha.size)
    dropped.paste(alpha, (0, round(_SOFT_DROP * longest)))
    return dropped.filter(ImageFilter.GaussianBlur(_SOFT_BLUR * longest))


def _cast_contact(alpha: Image.Image, subject: Box, longest: int) -> Image.Image:
    """Flatten the subject's lowest part, and blur it into a dark core and a wide, weak halo."""
    left, top, right, bottom = subject
    top = max(top, bottom - max(1, round(_CONTACT_FOOT * longest)))
    foot = alpha.crop((left, top, right, bottom))
    depth = max(1, round(_CONTACT_DEPTH * longest))
    foot = foot.resize((foot.width, depth), Image.Resampling.BOX)
    ground = Image.new("L", alpha.size)
    ground.paste(foot, (left, bottom - depth // 2))
    core = ground.filter(ImageFilter.GaussianBlur(_CONTACT_BLUR * longest))
    halo = ground.filter(ImageFilter.GaussianBlur(_CONTACT_HALO * longest))
    return ImageChops.screen(core, halo)
