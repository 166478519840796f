"""Finds the files that rembg has downloaded, so that they need not be downloaded again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def rembg_paths(name: str, environment: Mapping[str, str], home: Path) -> list[Path]:
    """The places where versions of rembg keep the file of a model, the newest version's first.

    ``U2NET_HOME`` takes precedence over ``REMBG_HOME``. The newest layout has a folder per model;
    the older one has all files in ``~/.u2net``.
    """

    def expand(text: str) -> Path:
        return home / text[2:] if text.startswith("~/") else home if text == "~" else Path(text)

    data = environment.get("XDG_DATA_HOME")
    legacy = expand(environment.get("U2NET_HOME") or f"{data or '~'}/.u2net")
    if environment.get("U2NET_HOME"):
        current = legacy
    else:
        current = expand(environment.get("REMBG_HOME") or (f"{data}/rembg" if data else "~/.rembg"))
    file = f"{name}.onnx"
    paths = [current / "models" / name / file, legacy / file, home / ".u2net" / file]
    return list(dict.fromkeys(paths))


def find_home() -> Path:
    """The user's home folder; a path that does not exist if the user has none, as in containers."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("~")
