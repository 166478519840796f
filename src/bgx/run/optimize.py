"""Make a network's 8-bit copy on the user's photos, and keep it only where it is as good."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from bgx.errors import BgxError, ModelError, PictureError, UsageError
from bgx.image.matte import stretch_map
from bgx.image.read import SUFFIXES, read_photo
from bgx.image.tensor import fill_tensor
from bgx.model import optimized
from bgx.model.optimized import Measurement
from bgx.model.providers import count_cores, plan_engines
from bgx.model.quantize import quantize
from bgx.model.session import Session, read_prepared
from bgx.settings import DeviceSettings, ReadSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bgx.model.quantize import Quantized
    from bgx.model.registry import ModelEntry
    from bgx.model.store import ModelFile, Store

    Tensor = NDArray[np.float32]
    Tell = Callable[[str], None]

LEAST_PHOTOS = 8

_ROUNDS = 7  # of the comparison of speed


def optimize(
    file: ModelFile, store: Store, folder: Path, count: int, *, tell: Tell
) -> tuple[Path, Measurement]:
    """Make, measure and install the 8-bit copy of a network; its path and what was measured.

    folder: photos like those to be cut out. Up to `count` of them are measured for the copy, as
    many others are held back to compare it with float32. tell: hears of the progress.
    Raises UsageError (too few photos) and ModelError (it cannot be made, or did not pass).
    """
    used, held_back = _read_photos(folder, count, file.entry, tell)
    prepared = read_prepared(file, store)
    made = quantize(prepared, used, tell=tell)
    tell(f"comparing with float32 on {len(held_back)} photos held back")
    measured = _measure(file, store, prepared, made, held_back)
    if measured.faults:
        raise ModelError(
            f"{file.entry.name}: no 8-bit copy installed: {' and '.join(measured.faults)} "
            f"({measured}); float32 stays in use, more photos of one kind may help"
        )
    return optimized.install(file, store, made.content, measured), measured


def _read_photos(
    folder: Path, count: int, entry: ModelEntry, tell: Tell
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
            tensors.append(_read_photo(path, entry))
        except PictureError as error:
            tell(str(error))
    if len(tensors) < LEAST_PHOTOS:
        raise UsageError(
            f"--calibrate {folder}: {len(tensors)} photos to be read there; "
            f"{LEAST_PHOTOS} are the least, some hundred of all kinds are good"
        )
    return tensors[0::2], tensors[1::2]


def _read_photo(path: Path, entry: ModelEntry) -> Tensor:
    photo = read_photo(path, ReadSettings(), name=str(path))
    width, height = entry.input
    tensor = np.empty((1, 3, height, width), np.float32)
    fill_tensor(photo.working, tensor[0], mean=entry.mean, std=entry.std, scale=entry.scale)
    return tensor


def _measure(
    file: ModelFile, store: Store, prepared: bytes, made: Quantized, photos: Sequence[Tensor]
) -> Measurement:
    # As in a batch: single-threaded Runs.
    cores = count_cores()
    device = DeviceSettings("cpu", workers=cores, threads=1)
    [plan] = plan_engines(
        device, ["CPUExecutionProvider"], cores, pictures=None, cache=store.engines
    )
    name = str(file.path)
    fine = Session(prepared, plan, file.entry, name=name, output=0)
    coarse = Session(made.content, plan, file.entry, name=f"{name} in 8 bits", output=0)
    try:
        with ThreadPoolExecutor(cores) as pool:
            compared = pool.map(lambda photo: (_matte(fine, photo), _matte(coarse, photo)), photos)
            pairs = list(compared)
        fp32_ms, int8_ms = _race(fine, coarse, photos[0])
    except BgxError as error:
        raise ModelError(f"{name}: the 8-bit copy does not run: {error}") from None
    return Measurement(
        difference=float(np.mean([np.abs(one - other).mean() for one, other in pairs])),
        iou=float(np.mean([_overlap(one >= 0.5, other >= 0.5) for one, other in pairs])),
        fp32_ms=fp32_ms,
        int8_ms=int8_ms,
        kept=made.kept,
        convolutions=made.convolutions,
        photos=len(photos),
    )


def _matte(session: Session, tensor: Tensor) -> Tensor:
    [values] = session.run(tensor)
    return stretch_map(values) if session.entry.stretch else values


def _overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Intersection over union; two empty masks agree."""
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 1.0


def _race(fine: Session, coarse: Session, tensor: Tensor) -> tuple[float, float]:
    """Milliseconds of the fastest Run of each, taken in turns."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(_ROUNDS):
        for session, taken in zip((fine, coarse), seconds, strict=True):
            start = time.perf_counter()
            session.run(tensor)
            taken.append(time.perf_counter() - start)
    return 1000 * min(seconds[0]), 1000 * min(seconds[1])
