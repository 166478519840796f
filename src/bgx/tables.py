"""Reads TOML files that consist of tables: the registry of networks and the presets."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

from bgx.errors import UsageError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable
    from pathlib import Path


def read_tables(path: Path | Traversable) -> dict[str, dict[str, Any]]:
    """The tables of a TOML file by name. Raises UsageError naming the file."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not UTF-8 text") from None
    except RecursionError:
        raise UsageError(f"{path}: not valid TOML: nested too deep") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from None
    for name, table in content.items():
        if not isinstance(table, dict):
            raise UsageError(f"{path}: {name}: must be a table, [{name}]")
    return content
