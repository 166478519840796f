"""How networks made here are fed."""

from __future__ import annotations

SIZE = 288
"""Side of the input in use. Crops show subjects larger than whole photos do, so networks do best at
a little more than they were trained at (Touvron et al., NeurIPS 2019)."""

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of ImageNet's photos, red, green, blue, 0..1."""

TABLE = {
    "input": [SIZE, SIZE],
    "mean": list(MEAN),
    "std": list(STD),
    "scale": 255,
    "output": 0,
    "activation": "none",
    "stretch": False,
}
"""The same as fields of the registry."""
