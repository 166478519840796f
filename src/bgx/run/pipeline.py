"""One picture's way from file to file.

The only room that knows both the pictures and the network.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from bgx.errors import BgxError
from bgx.image.clean import clean_matte
from bgx.image.finish import Finisher
from bgx.image.foreground import restore_foreground
from bgx.image.matte import measure_matte, multiply_alpha, stretch_map, upsample_matte
from bgx.image.read import Photo, Picture, read_photo
from bgx.image.refine import refine_matte
from bgx.image.tensor import fill_tensor
from bgx.image.trust import measure_trust
from bgx.image.write import write_file
from bgx.run.cutout import Cutout
from bgx.run.outcome import Measured, blame, ends_run
from bgx.settings import Backdrop, OutputSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL import Image

    from bgx.model.engines import EnginePlan
    from bgx.model.registry import ModelEntry
    from bgx.settings import ReadSettings

log = logging.getLogger(__name__)


class Network(Protocol):
    """What the pipeline needs of a :class:`bgx.model.session.Session`."""

    @property
    def entry(self) -> ModelEntry: ...

    @property
    def plan(self) -> EnginePlan: ...

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """[n, 3, height, width] to [n, height, width]; raises InferenceError."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A picture ready for the network. tensor: float32 [1, 3, height, width]."""

    name: str
    photo: Photo
    tensor: NDArray[np.float32]
    seconds: dict[str, float]


class Pipeline:
    """The steps of one picture's way around one network. Thread-safe: it keeps no state.

    codec_threads: that encoding one picture may use. Raises UsageError where the output's
    background cannot be read.
    """

    def __init__(
        self,
        network: Network,
        read: ReadSettings,
        output: OutputSettings,
        *,
        codec_threads: int = 1,
    ) -> None:
        self.network = network
        self._codec_threads = codec_threads
        self._read = read
        self._output = output
        self._finisher = Finisher(output)

    def load(self, source: Picture, name: str) -> Loaded:
        """Decode, and fill the network's input."""
        seconds: dict[str, float] = {}
        entry = self.network.entry
        with _timed(seconds, "read"):
            photo = read_photo(
                source,
                self._read,
                name=name,
                metadata=self._output.keep_metadata,
                reduced=not self._output.needs_colours,
            )
            width, height = entry.input
            tensor = np.empty((1, 3, height, width), np.float32)
            fill_tensor(photo.working, tensor[0], mean=entry.mean, std=entry.std, scale=entry.scale)
        return Loaded(name, photo, tensor, seconds)

    def infer(self, loaded: Sequence[Loaded]) -> list[NDArray[np.float32] | BgxError]:
        """A map, float32 [height, width], 0..1, or an error for each picture.

        A batch that fails is taken apart and tried picture by picture.
        """
        seconds: dict[str, float] = {}
        try:
            with _timed(seconds, "infer"):
                batch = [one.tensor for one in loaded]
                maps = self.network.run(np.concatenate(batch) if len(batch) > 1 else batch[0])
        except Exception as error:  # noqa: BLE001 - becomes the pictures' value
            if len(loaded) == 1 or ends_run(error):
                return [blame(one.name, error) for one in loaded]
            log.info("batch of %d failed (%r); retrying picture by picture", len(loaded), error)
            return [result for one in loaded for result in self.infer([one])]
        for one in loaded:
            one.seconds["infer"] = seconds["infer"] / len(loaded)
        return list(maps)

    def compose(self, loaded: Loaded, values: NDArray[np.float32]) -> Cutout:
        """The picture as asked for, from the network's map of it.

        Takes over the photo's pixels, not the working image's. Raises NoSubjectError.
        """
        photo = loaded.photo
        with _timed(loaded.seconds, "compose"):
            matte = self.to_matte(values)
            trust = measure_trust(values, matte)
            alpha = self._make_alpha(photo, matte)
            colours = self._make_colours(photo, alpha)
            finished = self._finisher.finish(photo, colours, alpha, name=loaded.name)
            coverage, bbox = measure_matte(finished.matte)
        image, notes = finished.image, photo.notes + finished.notes
        own = image.mode == "RGBA" and not self._output.shadow
        return Cutout(
            image,
            None if own else finished.matte,
            finished.icc,
            photo.dpi,
            Measured(*image.size, coverage, bbox, trust, loaded.seconds, notes),
            photo.metadata,
            self._output,
        )

    def to_matte(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """A map of the network as a matte of its size: stretched where the network needs that."""
        return stretch_map(values) if self.network.entry.stretch else values

    def _make_alpha(self, photo: Photo, matte: NDArray[np.float32]) -> Image.Image:
        """Mode L, of the photo's size."""
        if self._output.matte == "clean":
            matte = clean_matte(matte)
        if self._refines(photo):
            return refine_matte(matte, photo.working, photo.image)
        return multiply_alpha(upsample_matte(matte, photo.size), photo.alpha)

    def _make_colours(self, photo: Photo, alpha: Image.Image) -> Image.Image:
        """The subject's colours, mode RGB; the photo's own image, changed, where it can be."""
        output = self._output
        # The wide soft edges of a matte that is not refined would take a quarter of the whole time.
        if not self._refines(photo) or output.mask_only or output.keep_colours:
            return photo.image
        # Where the photo itself stands behind the subject, it must keep its colours.
        behind = isinstance(output.background, Backdrop)
        colours = photo.image.copy() if behind else photo.image
        restore_foreground(colours, alpha, photo.working)
        return colours

    def _refines(self, photo: Photo) -> bool:
        # Edges of a photo that is cut out already are its alpha's, not its colours'.
        return self._output.refine and photo.alpha is None

    def encode(self, cutout: Cutout, name: str) -> tuple[list[bytes], Measured]:
        """The file in the format asked for, in pieces, and what is measured with it.

        Raises UnwritableError.
        """
        file_format = self._output.format or "png"
        pieces, notes = cutout.encode_noted(file_format, name=name, threads=self._codec_threads)
        return pieces, replace(cutout.measured, notes=cutout.measured.notes + notes)

    def write(self, cutout: Cutout, *targets: Path) -> Measured:
        """Encode once and write, complete or not at all. Raises UnwritableError, OutputError."""
        with _timed(cutout.measured.seconds, "write"):
            pieces, measured = self.encode(cutout, str(targets[-1]))
            for target in targets:
                write_file(target, *pieces)
        return measured

    def cut(self, source: Picture, name: str) -> Cutout:
        """One picture, all steps but writing. Raises PictureError."""
        try:
            loaded = self.load(source, name)
            return self.compose(loaded, self.infer_one(loaded))
        except MemoryError as error:
            raise blame(name, error) from error

    def infer_one(self, loaded: Loaded) -> NDArray[np.float32]:
        """The map of one picture. Raises BgxError."""
        [matte] = self.infer([loaded])
        if isinstance(matte, BgxError):
            raise matte
        return matte


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - start
