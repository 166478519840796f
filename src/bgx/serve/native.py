"""Requests of bgx's own API: the command line's picture options under the same names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bgx.errors import UsageError
from bgx.options import OPTIONS, find_option
from bgx.parsers import parse_backdrop
from bgx.serve.requests import CutoutRequest, Link, Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bgx.options import Option
    from bgx.serve.requests import Form

_TRUE = frozenset({"true", "1", "yes", "on", ""})
_FALSE = frozenset({"false", "0", "no", "off"})
BESIDE = ("image", "url", "model", "preset")
"""Fields that are not picture options."""

FIELDS = {name: name for name in (*OPTIONS, *BESIDE)}
"""The fields by the names of bgx's options."""


def parse_request(query: Mapping[str, str], form: Form | bytes) -> CutoutRequest:
    """Parse a request. form: the body read as a form, or the photo itself as bytes.

    Fields may be in the query too; the form overrides them. Raises Refusal (400).
    """
    texts = dict(query)
    files: Mapping[str, bytes] = {"image": form} if isinstance(form, bytes) else form.files
    if not isinstance(form, bytes):
        texts |= form.texts
    for name in files:
        if name not in ("image", "background"):
            raise _refuse(f"{name}: no such file; use image, and background for what is behind it")
    options: dict[str, Any] = {}
    for name, text in texts.items():
        if name not in BESIDE:
            option = _find(name)
            options[option.name] = read_value(option, text)
    if "background" in files and "background" in options:
        raise _refuse("background: give a file or a text, not both")
    return CutoutRequest(
        _read_source(texts, files),
        options,
        texts.get("model") or None,
        files.get("background"),
        texts.get("preset") or None,
    )


def _refuse(title: str) -> Refusal:
    return Refusal(400, "bad-request", title)


def _read_source(texts: Mapping[str, str], files: Mapping[str, bytes]) -> bytes | Link:
    url = texts.get("url")
    if url and files.get("image"):
        raise _refuse("image and url: give one of them")
    if url:
        return Link(url, lambda reason, _: Refusal(400, "url", f"url: {reason}"))
    if "image" not in files:
        raise _refuse("image: missing; send the photo as the body, or as the file image of a form")
    return files["image"]


def _find(name: str) -> Option:
    try:
        return find_option(name)
    except UsageError as error:
        raise _refuse(str(error)) from None


def read_value(option: Option, text: str) -> Any:
    """Convert a field's text into the option's type. Raises Refusal (400)."""
    if option.kind is bool:
        if text.lower() not in _TRUE | _FALSE:
            raise _refuse(f"{option.name}: use true or false")
        return text.lower() in _TRUE
    if option.kind is int:
        if not text.isascii() or not text.isdigit() or len(text) > 9:
            raise _refuse(f"{option.name}: use a whole number")
        return int(text)
    if option.name == "background":
        # A client must not name a file of this machine.
        try:
            parse_backdrop(text)
        except UsageError:
            raise _refuse(
                "background: use a colour (white, #ffffff, #ffffff80), blur[:RADIUS], "
                "original-greyed, or send an image as the file background"
            ) from None
    return text
