"""Turns a request into an order: settles its options, reads the photo's header, makes its key."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from bgx.errors import BackgroundError, PictureError, TooLargeError
from bgx.image.read import open_photo
from bgx.options import OutputSettings, settle
from bgx.presets import preset_options
from bgx.serve.making import PICTURE, Order

if TYPE_CHECKING:
    from collections.abc import Callable

    from bgx.options import PictureOptions
    from bgx.serve.requests import CutoutRequest
    from bgx.settings import ReadSettings


_BACKGROUND_PIXELS = 25_000_000
"""Largest image behind the subject."""


def make_order(
    wanted: CutoutRequest,
    source: bytes,
    background: bytes | None,
    *,
    model: str | None,
    identity: dict[str, Any],
    read: ReadSettings,
    address: Callable[..., str],
) -> Order:
    """The order for a request.

    source, background: files. model: as returned by :meth:`bgx.serve.networks.Networks.choose`.
    identity: JSON values that determine the network's output. address: makes a key of JSON values.

    Raises PictureError if the photo is unreadable, too large or does not contain the region asked
    for; UsageError for the options and the background.
    """
    options = dict(wanted.options)
    if background is not None:
        _check_background(background, read)
        options["background"] = background
    output = settle(cast("PictureOptions", options), preset=preset_options(wanted.preset))
    with open_photo(io.BytesIO(source), read, name=PICTURE) as opened:
        width, height = opened.upright_size
    if output.region is not None:
        output.region.box((width, height), name=PICTURE)
    key = address(
        source=hashlib.sha256(source).hexdigest(),
        output=_describe(output),
        package=wanted.package,
        max_size=read.max_size,
        **identity,
    )
    return Order(key, source, width * height, output, model, wanted.package)


def _check_background(background: bytes, read: ReadSettings) -> None:
    """Raise BackgroundError for a bad or large one; the engine's memory plan ignores it."""
    most = replace(read, max_pixels=min(read.max_pixels, _BACKGROUND_PIXELS))
    try:
        with open_photo(io.BytesIO(background), most, name="--background"):
            pass
    except TooLargeError:
        raise BackgroundError(
            f"--background: more than {most.max_pixels:,} pixels; use a smaller one"
        ) from None
    except PictureError as error:
        raise BackgroundError(str(error)) from error


def _describe(output: OutputSettings) -> str:
    """All settings as a text, with an image replaced by its hash."""
    background = output.background
    if isinstance(background, bytes):
        digest = hashlib.sha256(background).hexdigest()
        return f"{output._replace(background=None)!r} on {digest}"
    return repr(output)
