"""bgx removes photo backgrounds in batches, fast.

>>> from bgx import Remover
>>> Remover("u2netp").cut("in.jpg").save("out.png")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bgx.api import Cutout, Remover, remove

__version__ = "0.2.0"
__all__ = ["Cutout", "Remover", "__version__", "remove"]


def __getattr__(name: str) -> Any:
    # Imported on first use (PEP 562): bgx.api loads numpy, which `bgx --help` must not.
    if name in {"Cutout", "Remover", "remove"}:
        from bgx import api

        return getattr(api, name)
    raise AttributeError(f"module 'bgx' has no attribute {name!r}")
