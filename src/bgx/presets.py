"""Presets: named sets of options that meet the rules of a marketplace.

The built-in ones are in ``presets.toml``; users can add their own in a file of the same form.
Reading them loads neither numpy nor onnxruntime.
"""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from bgx.errors import UsageError, suggest
from bgx.options import find_option, settle
from bgx.settings import expand_path
from bgx.tables import read_tables

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable
    from pathlib import Path

    from bgx.options import PictureOptions

_FIELDS = {"rule": str, "written": datetime.date, "options": dict}


@dataclass(frozen=True, slots=True)
class Preset:
    """options: by name. rule: the rule that they meet. written: when that rule was looked up."""

    name: str
    rule: str
    written: datetime.date
    options: PictureOptions


def load_presets() -> dict[str, Preset]:
    """The built-in presets, and those of the file BGX_PRESETS names, which replace the same names.

    Raises UsageError naming the file, the table and the field that is wrong.
    """
    presets = _read_presets(files("bgx") / "presets.toml")
    own = os.environ.get("BGX_PRESETS")
    return presets | _read_presets(expand_path(own)) if own else presets


def preset_options(name: str | None) -> PictureOptions:
    """The options of the preset, empty if the name is None. Raises UsageError."""
    return {} if name is None else find_preset(name).options


def find_preset(name: str) -> Preset:
    """The preset of this name. Raises UsageError, which suggests the nearest name."""
    presets = load_presets()
    try:
        return presets[name]
    except KeyError:
        hint = suggest(name.lower(), presets, "see: bgx presets")
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
    try:
        for spelled, value in table["options"].items():
            option = find_option(spelled)
            if type(value) is not option.kind:
                raise UsageError(f"{spelled} = {value!r}: must be {_KINDS[option.kind]}")
            options[option.name] = value
        settle(options, open_format=True)
    except UsageError as error:
        raise UsageError(f"[{name}.options] {error}") from None
    return Preset(name, table["rule"], table["written"], options)


_KINDS: dict[type, str] = {
    str: "a text in quotes",
    int: "a whole number",
    bool: "true or false",
    datetime.date: "a date (2026-01-31)",
    dict: "a table",
}
