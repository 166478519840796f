"""Fields of remove.bg's form: texts with a few ways to be empty, and codes for what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bgx.serve.requests import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})
_NOTHING = frozenset({"", "undefined", "null"})
"""Words that wrappers send for fields that were left out."""


def drop_empty(texts: Mapping[str, str]) -> dict[str, str]:
    """The fields that say something, without spaces around them."""
    return {
        # A trailing space in base64 is a + of a client that does not escape it in a form.
        name: text if name == "image_file_b64" else text.strip()
        for name, text in texts.items()
        if len(text) > 100 or text.strip().lower() not in _NOTHING
    }


def refuse(code: str, title: str, detail: str | None = None) -> Refusal:
    """With status 400 and one of remove.bg's codes."""
    return Refusal(400, code, title, detail=detail)


def read_word(texts: Mapping[str, str], field: str, words: tuple[str, ...]) -> str:
    """One of some words; the first is the default. Raises Refusal."""
    text = texts.get(field, words[0]).lower()
    if text not in words:
        raise refuse(
            f"invalid_{field}",
            f"Invalid {field} given",
            f"{show(text)}: use one of {', '.join(words)}",
        )
    return text


def read_switch(texts: Mapping[str, str], field: str, *, default: bool) -> bool:
    """Raises Refusal for anything but true and false and their like."""
    text = texts.get(field)
    if text is None:
        return default
    if text.lower() not in _TRUE | _FALSE:
        raise refuse(
            f"invalid_{field}", f"Invalid {field} given", f"{show(text)}: use true or false"
        )
    return text.lower() in _TRUE


def show(text: str) -> str:
    """For a message, cut off where it is long."""
    return text if len(text) <= 40 else text[:39] + "…"
