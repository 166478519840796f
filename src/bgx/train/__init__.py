"""Fitting the small built-in network to one's own photos; needs the extra ``train``.

::

    pairs     photos and cut-outs, matched by name, read into memory; what cannot be used is listed
    augment   batches of them, different each time
    network   the network; losses: what is made small; muon: how
    fit       the loop: reproducible, resumable
    calibrate how decided the result is
    score     max-F and mean absolute error on held-back pairs
    feed      how the network is fed; export: network to ONNX file and back
    job       all of it in order: train()

Nothing else in bgx imports this room, and importing it does not load torch.
"""

from __future__ import annotations

from bgx.train.job import Progress, TrainResult, TrainSettings, train
from bgx.train.score import Score

__all__ = ["Progress", "Score", "TrainResult", "TrainSettings", "train"]
