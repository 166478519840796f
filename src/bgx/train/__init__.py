"""Fitting the small built-in network to one's own photos; needs the extra ``train``.

::

    pairs     photos and cut-outs, matched by name and read into memory; lists what cannot be used
    mixtures  more pictures, made from the photos, for a teacher to label
    material  pairs to train on and held-back pairs, from folders and a teacher
    augment   random changes to the pairs of each batch
    network   the network
    losses    the loss functions
    muon      the optimizer of the convolutions
    fit       the training loop: reproducible and resumable
    calibrate scale and offset of the last layer, set after the training
    score     max-F and mean absolute error on held-back pairs
    feed      size and normalisation of the network's input
    export    the network as an ONNX file, and back
    job       all of it in order: train()

Nothing else in bgx imports this room, and importing it does not load torch.
"""

from __future__ import annotations

from bgx.train.job import Progress, TrainResult, TrainSettings, train
from bgx.train.score import Score

__all__ = ["Progress", "Score", "TrainResult", "TrainSettings", "train"]
