"""The registry of networks: their names, where they are published, and the settings they need.

The tables are in ``models.toml``; users can add their own in a second file of the same form.
Reading them loads neither numpy nor onnxruntime.
"""

from __future__ import annotations

import re
from dataclasses import MISSING, dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bgx.errors import UnknownModelError, UsageError, suggest
from bgx.settings import is_address
from bgx.tables import read_tables

if TYPE_CHECKING:
    from collections.abc import Mapping

Scale = Literal["image_max"] | float
Activation = Literal["none", "sigmoid"]
Triple = tuple[float, float, float]

# Lower case: on Windows and macOS two names that differ by case would be one file.
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_MOST = 1e30
_HASH = re.compile(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}")
_FREE = re.compile(r"multiple of ([1-9][0-9]{0,3}), up to ([1-9][0-9]{0,3})")
_MOST_SIDE = 8192


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One network of the registry. The fields are checked; a wrong one raises UsageError.

    url: where the file is published. builtin: its file name, if it comes with bgx. hash:
    ``sha256:…`` or ``md5:…`` of the file. bytes: its size. input: width and height, pixels, or
    ``multiple of 32, up to 2048`` if the network takes any such size. mean, std: per channel, after
    scaling. scale: ``image_max`` divides a picture by its own maximum, a number divides by that
    number. output: index of the output that is the matte. activation: function that brings it to
    0..1. stretch: stretch each matte from its minimum to its maximum. family: name by which
    ``--as`` selects these settings. quality, cost: measured or published figures, for people.
    tried: whether bgx's tests have run it with real weights.
    """

    name: str
    input: tuple[int, int] | str
    mean: Triple
    std: Triple
    url: str | None = None
    builtin: str | None = None
    hash: str | None = None
    bytes: int | None = None
    scale: Scale = "image_max"
    output: int = 0
    activation: Activation = "none"
    stretch: bool = True
    licence: str = "unknown"
    about: str = ""
    family: str = ""
    quality: str = ""
    cost: str = ""
    tried: bool = False

    def __post_init__(self) -> None:
        self._expect(
            bool(_NAME.fullmatch(self.name)) and not self.name.endswith(".onnx"),
            "name",
            "lower-case letters, digits, '.', '_', '-'",
        )
        self._expect(
            self.url is None or (isinstance(self.url, str) and is_address(self.url, "https")),
            "url",
            "an https address",
        )
        self._expect(
            self.hash is None or (isinstance(self.hash, str) and bool(_HASH.fullmatch(self.hash))),
            "hash",
            "sha256:<64 hex digits> or md5:<32 hex digits>, lower case",
        )
        self._expect(
            self.builtin is None
            or (
                isinstance(self.builtin, str)
                and self.builtin.endswith(".onnx")
                and Path(self.builtin).name == self.builtin
                and self.url is None
                and self.hash is not None
            ),
            "builtin",
            "a file name, together with a hash and without a url",
        )
        self._expect(self.url is None or self.hash is not None, "hash", "set where there is a url")
        self._expect(
            self.bytes is None or (_is_int(self.bytes) and self.bytes > 0), "bytes", "1 or more"
        )
        self._expect(
            _is_size(self.input) or (isinstance(self.input, str) and _read_free(self.input)),
            "input",
            '[width, height] in pixels, or "multiple of 32, up to 2048"',
        )
        self._expect(_is_triple(self.mean), "mean", "three numbers")
        self._expect(
            _is_triple(self.std) and all(value > 0 for value in self.std),
            "std",
            "three numbers above 0",
        )
        self._expect(
            self.scale == "image_max" or (_is_number(self.scale) and self.scale > 0),
            "scale",
            '"image_max" or a number above 0',
        )
        self._expect(_is_int(self.output) and self.output >= 0, "output", "0 or more")
        # A tuple, not a set: a value in a file may not be hashable.
        self._expect(self.activation in ("none", "sigmoid"), "activation", '"none" or "sigmoid"')
        self._expect(isinstance(self.stretch, bool), "stretch", "true or false")
        self._expect(isinstance(self.licence, str), "licence", "text")
        self._expect(isinstance(self.about, str), "about", "text")
        self._expect(isinstance(self.family, str), "family", "text")
        self._expect(isinstance(self.quality, str), "quality", "text")
        self._expect(isinstance(self.cost, str), "cost", "text")
        self._expect(isinstance(self.tried, bool), "tried", "true or false")

    @property
    def feed(self) -> tuple[object, ...]:
        """All fields that affect the network's input and the matte made of its output."""
        return (
            *(self.input, self.mean, self.std, self.scale),
            *(self.output, self.activation, self.stretch),
        )

    @property
    def free(self) -> bool:
        """Whether the network takes inputs of different sizes."""
        return isinstance(self.input, str)

    @property
    def largest(self) -> tuple[int, int]:
        """Width and height of the largest input, pixels."""
        if isinstance(self.input, tuple):
            return self.input
        multiple, most = _read_free(self.input) or (1, 1)
        return (most - most % multiple,) * 2

    def size_for(self, photo: tuple[int, int]) -> tuple[int, int]:
        """Width and height of the input for a photo of this size.

        If the input's size is not fixed, it is the photo's size, reduced if its longer side is too
        long, with each side rounded to the nearest multiple.
        """
        if isinstance(self.input, tuple):
            return self.input
        multiple, most = _read_free(self.input) or (1, 1)
        scale = min(1.0, most / max(photo))
        width, height = (
            multiple * max(1, min(round(side * scale / multiple), most // multiple))
            for side in photo
        )
        return width, height

    def _expect(self, ok: object, field: str, want: str) -> None:
        if not ok:
            raise UsageError(f"[{self.name}] {field} = {getattr(self, field)!r}: must be {want}")


FALLBACKS = ("isnet-general-use", "silueta", "u2netp", "lite")
"""Networks to use if the default one cannot be downloaded, best first."""

_FIELDS = frozenset(field.name for field in fields(ModelEntry)) - {"name"}
_REQUIRED = tuple(
    field.name for field in fields(ModelEntry) if field.default is MISSING and field.name != "name"
)


def entry_from_table(name: str, table: Mapping[str, Any], source: Path) -> ModelEntry:
    """Make an entry from one table of a registry file.

    Raises UsageError naming the file, the table and the field.
    """
    for field in table:
        if field not in _FIELDS:
            hint = suggest(field, _FIELDS, f"use one of {', '.join(sorted(_FIELDS))}")
            raise UsageError(f"{source}: [{name}] {field}: no such field; {hint}")
    for field in _REQUIRED:
        if field not in table:
            raise UsageError(f"{source}: [{name}] {field}: missing")
    values: dict[str, Any] = {
        field: tuple(value) if isinstance(value, list) else value for field, value in table.items()
    }
    try:
        return ModelEntry(name=name, **values)
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from None


def load_registry(extra: Path | None = None) -> dict[str, ModelEntry]:
    """Read the built-in registry, then the user's file.

    The user's tables add networks or override fields of built-in ones. Raises UsageError naming the
    file, the table and the field that is wrong.
    """
    builtin = _builtin_path()
    tables = read_tables(builtin)
    registry = {name: entry_from_table(name, table, builtin) for name, table in tables.items()}
    if extra is not None:
        for name, table in read_tables(extra).items():
            registry[name] = entry_from_table(name, tables.get(name, {}) | table, extra)
    return registry


def find_entry(registry: Mapping[str, ModelEntry], name: str) -> ModelEntry:
    """The entry called `name`. Raises UnknownModelError, which suggests the nearest name."""
    try:
        return registry[name]
    except KeyError:
        hint = suggest(name.lower(), registry, "see: bgx models list")
        raise UnknownModelError(f"{name}: no such model; {hint}") from None


def find_family(registry: Mapping[str, ModelEntry], name: str) -> ModelEntry:
    """The first entry of a family, or the entry of this name.

    Raises UsageError, which lists the families.
    """
    found = next((entry for entry in registry.values() if entry.family == name), None)
    if found is None and name not in registry:
        families = dict.fromkeys(entry.family for entry in registry.values() if entry.family)
        raise UsageError(
            f"--as {name}: use one of {', '.join(families)}, or the name of a network of: "
            "bgx models list"
        )
    return found or registry[name]


def builtin_file(name: str) -> Path:
    """Path of a network that comes with bgx."""
    return _package() / "weights" / name


def _package() -> Path:
    return Path(str(files("bgx")))


def _builtin_path() -> Path:
    installed = _package() / "models.toml"
    # In an editable install the registry is at the top of the repository.
    return installed if installed.is_file() else _package().parents[1] / "models.toml"


def _is_size(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(_is_int(side) and 1 <= side <= _MOST_SIDE for side in value)
    )


def _read_free(text: str) -> tuple[int, int] | None:
    """The multiple and the longest side in such a text; None if it has another form."""
    found = _FREE.fullmatch(text)
    if found is None:
        return None
    multiple, most = int(found[1]), int(found[2])
    return (multiple, most) if multiple <= most <= _MOST_SIDE else None


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    # Excludes infinity, NaN, and whole numbers too large to divide by.
    return isinstance(value, int | float) and not isinstance(value, bool) and -_MOST < value < _MOST


def _is_triple(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and all(_is_number(part) for part in value)
