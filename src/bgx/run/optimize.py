"""Makes a faster copy of a network from the user's photos; see :mod:`bgx.model.optimize`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from bgx.errors import DeviceUnavailableError, ModelError, PictureError, UsageError, amount
from bgx.image.identify import SUFFIXES
from bgx.image.read import read_photo
from bgx.machine import count_cores
from bgx.model.opening import open_session
from bgx.model.optimize import copies
from bgx.model.optimize.fp16 import halve
from bgx.model.optimize.gate import measure
from bgx.model.optimize.int8 import quantize
from bgx.model.prepared import read_prepared
from bgx.model.providers import explain_no_gpu
from bgx.run.picture import make_matte, make_tensor
from bgx.settings import ReadSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from bgx.model.optimize.gate import Measurement
    from bgx.model.session import Session
    from bgx.model.store import ModelFile, Store
    from bgx.settings import DeviceSettings

    Tensors = list[NDArray[np.float32]]

LEAST_PHOTOS = 8


def optimize(
    file: ModelFile,
    store: Store,
    folder: Path,
    count: int,
    device: DeviceSettings,
    *,
    progress: Callable[[str], None],
) -> tuple[Path, Measurement]:
    """Make, measure and keep a copy of a network; returns its path and the measurement.

    folder: photos like those to be cut out. Up to `count` of them are used to make the 8-bit copy,
    as many others are held back to compare the copy with float32. device: runs both; its precision
    is the copy's, int8 (for the CPU) or fp16 (for a GPU). progress: called with lines for the user.
    Raises UsageError (too few photos), DeviceUnavailableError, and ModelError (the copy cannot be
    made, or is not good enough).
    """
    fine = _open_float32(file, store, device)
    used, held_back = _read_photos(folder, count, fine, progress)
    prepared = read_prepared(file, store)
    if device.precision == "int8":
        copy = quantize(prepared, used, progress=progress).content
    else:
        copy = halve(prepared)
    progress(f"comparing with float32 on {fine.device}, on {len(held_back)} photos held back")
    measured = measure(fine, copy, held_back, partial(make_matte, entry=fine.entry))
    if measured.faults:
        raise ModelError(
            f"{file.entry.name}: no {device.precision} copy installed: "
            f"{' and '.join(measured.faults)} ({measured}); float32 stays in use, more photos of "
            "one kind may help"
        )
    gpu = None if fine.plan.on_cpu else fine.device
    return copies.install(file, store, copy, measured, gpu), measured


def _open_float32(file: ModelFile, store: Store, device: DeviceSettings) -> Session:
    """The network in float32, on the device that would run the copy."""
    if device.precision == "int8":
        # As in a batch: single-threaded runs.
        device = replace(device, device="cpu", workers=count_cores(), threads=1)
    session = open_session(file, replace(device, precision="fp32"), store)
    if device.precision == "fp16" and session.plan.on_cpu:
        raise DeviceUnavailableError(explain_no_gpu())
    return session


def _read_photos(
    folder: Path, count: int, session: Session, progress: Callable[[str], None]
) -> tuple[Tensors, Tensors]:
    """The network's inputs for the photos, alternately: to make the copy with, and held back."""
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    most = min(len(paths), 2 * count)
    tensors = []
    for index in range(most):
        path = paths[index * len(paths) // most]
        try:
            photo = read_photo(path, ReadSettings(), name=str(path))
            tensors.append(make_tensor(photo, session.entry))
        except PictureError as error:
            progress(str(error))
    if len(tensors) < LEAST_PHOTOS:
        raise UsageError(
            f"--calibrate {folder}: {amount(len(tensors), 'readable photo')}; "
            f"at least {LEAST_PHOTOS} are needed, some hundred of all kinds are best"
        )
    return tensors[0::2], tensors[1::2]
