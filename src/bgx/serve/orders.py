"""From what is asked for to an order: options settled, the header read, the key reckoned."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from bgx.errors import PictureError, TooLargeError, UsageError
from bgx.image.read import open_photo
from bgx.options import OutputSettings, settle
from bgx.presets import preset_options
from bgx.serve.making import PICTURE, Order

if TYPE_CHECKING:
    from collections.abc import Callable

    from bgx.options import PictureOptions
    from bgx.serve.asks import Ask
    from bgx.settings import ReadSettings


_BACKGROUND_PIXELS = 25_000_000
"""Of an image behind the subject, at most."""


def make_order(
    ask: Ask,
    source: bytes,
    background: bytes | None,
    *,
    model: str | None,
    identity: dict[str, Any],
    read: ReadSettings,
    address: Callable[..., str],
) -> Order:
    """Raises PictureError for what is no picture, too large or outside of its region; UsageError.

    model: of the network's choice; identity: all that decides how it runs. address: reckons keys.
    """
    options = dict(ask.options)
    if background is not None:
        _check_background(background, read)
        options["background"] = background
    output = settle(cast("PictureOptions", options), preset=preset_options(ask.preset))
    with open_photo(io.BytesIO(source), read, name=PICTURE) as opened:
        width, height = opened.upright_size
    if output.region is not None:
        output.region.box((width, height), name=PICTURE)
    key = address(
        source=hashlib.sha256(source).hexdigest(),
        output=_describe(output),
        package=ask.package,
        max_size=read.max_size,
        **identity,
    )
    return Order(key, source, width * height, output, model, ask.package)


def _check_background(background: bytes, read: ReadSettings) -> None:
    """Raises UsageError. Backgrounds are decoded outside of the account of pictures at work."""
    most = replace(read, max_pixels=min(read.max_pixels, _BACKGROUND_PIXELS))
    try:
        with open_photo(io.BytesIO(background), most, name="background"):
            pass
    except TooLargeError:
        raise UsageError(
            f"background: more than {most.max_pixels:,} pixels; use a smaller one"
        ) from None
    except PictureError as error:
        raise UsageError(str(error)) from error


def _describe(output: OutputSettings) -> str:
    """All settings; an image as its hash."""
    background = output.background
    if isinstance(background, bytes):
        digest = hashlib.sha256(background).hexdigest()
        return f"{output._replace(background=None)!r} on {digest}"
    return repr(output)
