"""Presets: options that a marketplace's rule comes to, by name.

The tables stand in ``presets.toml``, the user's own in a second file of the same form. Reading them
loads neither numpy nor a runtime.
"""

from __future__ import annotations

import datetime
import difflib
import math
import os
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, cast

from bgx.errors import UsageError
from bgx.options import SWITCHES, PictureOptions, make_output, parse_canvas, without_none
from bgx.settings import LOSSLESS_FORMATS, expand_path
from bgx.tables import read_tables

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.resources.abc import Traversable
    from pathlib import Path

_BARS = {"margin": ("fill",), "fill": ("margin",), "mask_only": ("background", "shadow")}
"""Options that cannot stand beside another."""

_FIELDS = {"rule": str, "written": datetime.date, "options": dict}


@dataclass(frozen=True, slots=True)
class Preset:
    """Options by name. rule: what they stand for. written: when the rule was written down."""

    name: str
    rule: str
    written: datetime.date
    options: PictureOptions


def load_presets() -> dict[str, Preset]:
    """The built-in presets, then those of the file that BGX_PRESETS names, which may replace some.

    Raises UsageError naming the file, the table and the field that is wrong.
    """
    presets = _read_presets(files("bgx") / "presets.toml")
    own = os.environ.get("BGX_PRESETS")
    return presets | _read_presets(expand_path(own)) if own else presets


def expand_preset(name: str | None, options: PictureOptions) -> PictureOptions:
    """The options of a preset, with those given (None is not) in their place. Raises UsageError."""
    given = without_none(options)
    return given if name is None else cast("PictureOptions", complete(given, find_preset(name)))


def complete(given: Mapping[str, Any], preset: Preset) -> dict[str, Any]:
    """The options given, and those of the preset that do not contradict them."""
    barred = {other for option in given if given[option] for other in _BARS.get(option, ())}
    if "x" in str(given.get("canvas")):
        barred.add("resize")
    if given.get("format", preset.options.get("format")) in LOSSLESS_FORMATS:
        barred.add("quality")
    own = {option: value for option, value in preset.options.items() if option not in barred}
    size, _ = parse_canvas(str(own.get("canvas", "square")))
    if size and given.get("resize"):
        # Of a size that another one is asked for, the shape is left.
        shared = math.gcd(*size)
        own["canvas"] = f"{size[0] // shared}:{size[1] // shared}"
    return own | dict(given)


def find_preset(name: str) -> Preset:
    """Raises UsageError that suggests the nearest name."""
    presets = load_presets()
    try:
        return presets[name]
    except KeyError:
        near = difflib.get_close_matches(name.lower(), presets, n=1)
        hint = f"did you mean {near[0]}?" if near else "see: bgx presets"
        raise UsageError(f"--preset {name}: no such preset; {hint}") from None


def _read_presets(source: Path | Traversable) -> dict[str, Preset]:
    tables = read_tables(source)
    try:
        return {name: _make_preset(name, table) for name, table in tables.items()}
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from None


def _make_preset(name: str, table: dict[str, Any]) -> Preset:
    for field in table.keys() - _FIELDS.keys():
        raise UsageError(f"[{name}] {field}: no such field; use {', '.join(_FIELDS)}")
    for field, kind in _FIELDS.items():
        if not isinstance(table.get(field), kind):
            raise UsageError(f"[{name}] {field}: missing, or not {_KINDS[kind]}")
    options: Any = {}
    for option, value in table["options"].items():
        field = option.replace("-", "_")
        if field not in PictureOptions.__annotations__:
            near = difflib.get_close_matches(field, PictureOptions.__annotations__, n=1)
            hint = f"; did you mean {near[0].replace('_', '-')}?" if near else ""
            raise UsageError(f"[{name}.options] {option}: no such option{hint}")
        kind = _OPTION_KINDS.get(field, str)
        if type(value) is not kind:
            raise UsageError(f"[{name}.options] {option} = {value!r}: must be {_KINDS[kind]}")
        options[field] = value
    try:
        make_output(**options)
    except UsageError as error:
        raise UsageError(f"[{name}.options] {error}") from None
    return Preset(name, table["rule"], table["written"], options)


_OPTION_KINDS: dict[str, type] = {"quality": int} | dict.fromkeys(SWITCHES, bool)
_KINDS: dict[type, str] = {
    str: "a text in quotes",
    int: "a whole number",
    bool: "true or false",
    datetime.date: "a date (2026-01-31)",
    dict: "a table",
}
