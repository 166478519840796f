"""The pip commands that messages recommend.

The command and the import are called bgx, the distribution bgx-cutout: on the Python package index
the name bgx belongs to another project, "Background Execution Engine", which is also imported as
bgx.
"""

from __future__ import annotations

import json

DISTRIBUTION = "bgx-cutout"


def install_hint(extra: str) -> str:
    """The command that adds an extra, such as ``gpu``, to the installed bgx.

    For an editable install it has to be run in the clone's folder.
    """
    if _is_editable():
        return f'pip install -e ".[{extra}]"'
    return f'pip install "{DISTRIBUTION}[{extra}]"'


def explain_other_bgx() -> str | None:
    """What to do about the other project's package in this environment; None if it is not there.

    Its files and ours share the folder ``bgx``: whichever is installed later overwrites the other's
    ``__init__.py``, and uninstalling one removes that file. So ours has to be installed again.
    """
    from importlib import metadata

    try:
        version = metadata.version("bgx")
    except metadata.PackageNotFoundError:
        return None
    again = "-e ." if _is_editable() else f"--force-reinstall --no-deps {DISTRIBUTION}"
    return (
        f"another package, bgx {version}, is installed here and shares the folder bgx with "
        f"{DISTRIBUTION}; run: pip uninstall -y bgx, then: pip install {again}"
    )


def _is_editable() -> bool:
    """Whether this bgx was installed with ``pip install -e`` (PEP 610)."""
    # It takes some 20 ms to import.
    from importlib import metadata

    try:
        origin = metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return False
    return bool(json.loads(origin or "{}").get("dir_info", {}).get("editable"))
