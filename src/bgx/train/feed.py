"""Input of the networks that are trained here: size and normalisation."""

from __future__ import annotations

SIZE = 288
"""Side of the input when the network is used, pixels.

Training shows crops, in which subjects are larger than in whole photos. Networks therefore do best
at a size that is a little larger than in training (Touvron et al., NeurIPS 2019).
"""

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's photos: red, green, blue, 0..1."""

TABLE = {
    "input": [SIZE, SIZE],
    "mean": list(MEAN),
    "std": list(STD),
    "scale": 255,
    "output": 0,
    "activation": "none",
    "stretch": False,
}
"""The same, as fields of the registry."""
