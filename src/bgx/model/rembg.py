"""Where rembg keeps the files it fetched, so that they need not be fetched again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def rembg_paths(name: str, environment: Mapping[str, str], home: Path) -> list[Path]:
    """Where rembg keeps the file called `name`, newest layout first.

    ``U2NET_HOME`` wins over ``REMBG_HOME``; below either a folder per model, and in the older
    layout all files side by side in ``~/.u2net``.
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
    """The user's home; a path that is nowhere for a user without one, as containers have them."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("~")
