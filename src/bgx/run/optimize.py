"""Make a network's int8 or fp16 copy, and keep it only where it is as good on the user's photos."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bgx.errors import BgxError, DeviceUnavailableError, ModelError, PictureError, UsageError
from bgx.image.identify import SUFFIXES
from bgx.image.matte import stretch_map
from bgx.image.read import read_photo
from bgx.machine import count_cores
from bgx.model import optimized
from bgx.model.halve import halve
from bgx.model.opening import open_session
from bgx.model.optimized import Measurement
from bgx.model.prepared import read_prepared
from bgx.model.providers import explain_no_gpu
from bgx.model.quantize import quantize
from bgx.model.session import Session
from bgx.run.picture import make_tensor
from bgx.settings import ReadSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bgx.model.store import ModelFile, Store
    from bgx.settings import DeviceSettings

    Tensor = NDArray[np.float32]
    Tell = Callable[[str], None]

LEAST_PHOTOS = 8

_ROUNDS = 7  # of the comparison of speed


def optimize(
    file: ModelFile,
    store: Store,
    folder: Path,
    count: int,
    device: DeviceSettings,
    *,
    tell: Tell,
) -> tuple[Path, Measurement]:
    """Make, measure and install a copy of a network; its path and what was measured.

    folder: photos like those to be cut out. Up to `count` of them are measured for the 8-bit copy,
    as many others are held back to compare the copy with float32. device: what runs both; its
    precision is the copy's, int8 (for the CPU) or fp16 (for a GPU). tell: hears of the progress.
    Raises UsageError (too few photos), DeviceUnavailableError, and ModelError (it cannot be made,
    or did not pass).
    """
    fine = _open_float32(file, store, device)
    used, held_back = _read_photos(folder, count, fine, tell)
    prepared = read_prepared(file, store)
    if device.precision == "int8":
        copy = quantize(prepared, used, tell=tell).content
    else:
        copy = halve(prepared)
    tell(f"comparing with float32 on {fine.device}, on {len(held_back)} photos held back")
    measured = _measure(fine, copy, held_back)
    if measured.faults:
        raise ModelError(
            f"{file.entry.name}: no {device.precision} copy installed: "
            f"{' and '.join(measured.faults)} ({measured}); float32 stays in use, more photos of "
            "one kind may help"
        )
    gpu = None if fine.plan.on_cpu else fine.device
    return optimized.install(file, store, copy, measured, gpu), measured


def _open_float32(file: ModelFile, store: Store, device: DeviceSettings) -> Session:
    """The network as it runs without the copy, on the device that would run the copy."""
    if device.precision == "int8":
        # As in a batch: single-threaded Runs.
        device = replace(device, device="cpu", workers=count_cores(), threads=1)
    session = open_session(file, replace(device, precision="fp32"), store)
    if device.precision == "fp16" and session.plan.on_cpu:
        raise DeviceUnavailableError(explain_no_gpu())
    return session


def _read_photos(
    folder: Path, count: int, session: Session, tell: Tell
) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs of the network, to make the copy with and held back: every other photo each."""
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
            tell(str(error))
    if len(tensors) < LEAST_PHOTOS:
        raise UsageError(
            f"--calibrate {folder}: {len(tensors)} photos to be read there; "
            f"{LEAST_PHOTOS} are the least, some hundred of all kinds are good"
        )
    return tensors[0::2], tensors[1::2]


def _measure(fine: Session, copy: bytes, photos: Sequence[Tensor]) -> Measurement:
    try:
        coarse = Session(copy, fine.plan, fine.entry, name="the copy", output=0)
        with ThreadPoolExecutor(fine.plan.runs) as pool:
            compared = pool.map(lambda photo: (_matte(fine, photo), _matte(coarse, photo)), photos)
            pairs = list(compared)
        batch = np.concatenate([photos[0]] * fine.plan.batch_size)
        fp32_ms, copy_ms = _race(fine, coarse, batch)
    except BgxError as error:
        raise ModelError(f"{fine.entry.name}: the copy does not run: {error}") from None
    return Measurement(
        difference=float(np.mean([np.abs(one - other).mean() for one, other in pairs])),
        iou=float(np.mean([_overlap(one >= 0.5, other >= 0.5) for one, other in pairs])),
        fp32_ms=fp32_ms,
        copy_ms=copy_ms,
        photos=len(photos),
    )


def _matte(session: Session, tensor: Tensor) -> Tensor:
    [values] = session.run(tensor)
    return stretch_map(values) if session.entry.stretch else values


def _overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Intersection over union; two empty masks agree."""
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 1.0


def _race(fine: Session, coarse: Session, batch: Tensor) -> tuple[float, float]:
    """Milliseconds of the fastest Run of each, taken in turns."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(_ROUNDS):
        for session, taken in zip((fine, coarse), seconds, strict=True):
            start = time.perf_counter()
            session.run(batch)
            taken.append(time.perf_counter() - start)
    return 1000 * min(seconds[0]), 1000 * min(seconds[1])
