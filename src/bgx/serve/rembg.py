"""Requests of the API of rembg's own server (``rembg s``, 2.0): ``GET|POST /api/remove``.

By default it returns the network's own matte; rembg's alpha matting (``a``) and decontamination
(``dc``) are bgx's ``refine``. ``extras`` and ``vm`` are refused: ``extras`` gives clients access to
files and options of the server, and ``vm`` needs a further network.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from bgx.serve.requests import CutoutRequest, Link, Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bgx.serve.requests import Form

_YES = frozenset({"true", "1", "on", "yes", "t", "y"})
_NO = frozenset({"false", "0", "off", "no", "f", "n"})
_THRESHOLDS = {"af": 255, "ab": 255, "ae": None}
"""Parameters of rembg's alpha matting and their largest values: checked, and otherwise ignored."""


def parse_request(query: Mapping[str, str], form: Form | None) -> CutoutRequest:
    """Parse a request. form: the body of a POST; None for a GET, which has all fields in the query.

    ``bgc`` and ``extras`` are always in the query. Raises Refusal (400, 422).
    """
    fields = query if form is None else form.texts
    if query.get("extras"):
        raise Refusal(
            400,
            "unsupported",
            "extras is not supported: it hands options and files of the server to whoever asks",
        )
    for name, most in _THRESHOLDS.items():
        _check_number(fields, name, most)
    if _read_switch(fields, "vm"):
        raise Refusal(
            400, "unsupported", "vm is not supported: use a=true, which is bgx's --refine"
        )
    refine = [_read_switch(fields, name) for name in ("a", "dc")]
    options: dict[str, Any] = {"format": "png", "refine": any(refine)}
    if _read_switch(fields, "ppm"):
        options["matte"] = "clean"
    colour = _read_colour(query.get("bgc", ""))
    if _read_switch(fields, "om"):
        options["mask_only"] = True
    elif colour:
        options["background"] = colour
    return CutoutRequest(_read_source(query, form), options, fields.get("model") or None)


def _read_source(query: Mapping[str, str], form: Form | None) -> bytes | Link:
    if form is None:
        if not query.get("url"):
            raise Refusal(422, "missing", "url: required")
        return Link(query["url"], lambda reason, _: Refusal(400, "url", f"url: {reason}"))
    if "file" not in form.files:
        raise Refusal(422, "missing", "file: required, as a file of multipart/form-data")
    return form.files["file"]


def _read_switch(fields: Mapping[str, str], name: str) -> bool:
    text = fields.get(name, "").strip().lower()
    if text not in _YES | _NO | {""}:
        raise Refusal(422, "bool_parsing", f"{name}: must be true or false")
    return text in _YES


def _check_number(fields: Mapping[str, str], name: str, most: int | None) -> None:
    text = fields.get(name, "").strip() or "0"
    if not re.fullmatch(r"\d{1,9}", text) or (most is not None and int(text) > most):
        limit = "or more" if most is None else f"to {most}"
        raise Refusal(422, "int_parsing", f"{name}: must be a whole number, 0 {limit}")


def _read_colour(text: str) -> str | None:
    """Convert ``r,g,b`` or ``r,g,b,a``, each 0..255, to #rrggbb or #rrggbbaa."""
    if not text:
        return None
    numbers = text.split(",")
    if len(numbers) not in (3, 4) or not all(re.fullmatch(r" *\d{1,3} *", n) for n in numbers):
        raise Refusal(422, "colour", "bgc: must be r,g,b,a, each 0 to 255")
    values = [int(number) for number in numbers]
    if max(values) > 255:
        raise Refusal(422, "colour", "bgc: must be r,g,b,a, each 0 to 255")
    return "#" + bytes(values).hex()


def error_json(refusal: Refusal) -> dict[str, Any]:
    """The body of an answer with an error."""
    return {"detail": refusal.title if not refusal.detail else f"{refusal.title}: {refusal.detail}"}
