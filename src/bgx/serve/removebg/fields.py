"""Reads single fields of remove.bg's requests, and refuses bad ones with its error codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bgx.serve.requests import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})
_NOTHING = frozenset({"", "undefined", "null"})
"""Texts that client libraries send for fields without a value, lower case."""


def drop_empty(texts: Mapping[str, str]) -> dict[str, str]:
    """The fields with a value, stripped of surrounding spaces."""
    return {
        # A trailing space in base64 is a + of a client that does not escape it in a form.
        name: text if name == "image_file_b64" else text.strip()
        for name, text in texts.items()
        if len(text) > 100 or text.strip().lower() not in _NOTHING
    }


def refuse(code: str, title: str, detail: str | None = None) -> Refusal:
    """A refusal with status 400. code: one of remove.bg's."""
    return Refusal(400, code, title, detail=detail)


def read_word(texts: Mapping[str, str], field: str, words: tuple[str, ...]) -> str:
    """The field, which must be one of ``words``; the first is the default. Raises Refusal."""
    text = texts.get(field, words[0]).lower()
    if text not in words:
        raise refuse(
            f"invalid_{field}",
            f"Invalid {field} given",
            f"{show(text)}: use one of {', '.join(words)}",
        )
    return text


def read_switch(texts: Mapping[str, str], field: str, *, default: bool) -> bool:
    """The field as a boolean. Raises Refusal for another text."""
    text = texts.get(field)
    if text is None:
        return default
    if text.lower() not in _TRUE | _FALSE:
        raise refuse(
            f"invalid_{field}", f"Invalid {field} given", f"{show(text)}: use true or false"
        )
    return text.lower() in _TRUE


def show(text: str) -> str:
    """The text, shortened for a message."""
    return text if len(text) <= 40 else text[:39] + "…"
