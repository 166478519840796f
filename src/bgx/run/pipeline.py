"""One picture's way from file to file, and many pictures on that way at once.

The only room that knows both the pictures and the network.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from bgx.errors import BgxError, BugError, InferenceError, PictureError, TooLargeError
from bgx.image.clean import clean_matte
from bgx.image.compose import flatten
from bgx.image.finish import Finisher
from bgx.image.foreground import restore_foreground
from bgx.image.matte import measure_matte, multiply_alpha, stretch_map, upsample_matte
from bgx.image.read import Photo, Picture, count_pixels, read_photo
from bgx.image.refine import refine_matte
from bgx.image.tensor import fill_tensor
from bgx.image.trust import measure_trust
from bgx.image.write import encode_picture, encode_within, format_of, write_file
from bgx.run.outcome import Done, Failed, Job, Measured, Outcome, Skipped
from bgx.run.stages import Bound, Occupancy, Stage, run_stages
from bgx.settings import OPAQUE_FORMATS, WHITE, Backdrop, OutputSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray
    from PIL import Image

    from bgx.image.metadata import Metadata
    from bgx.model.providers import EnginePlan
    from bgx.model.registry import ModelEntry
    from bgx.run.sheet import Sheet
    from bgx.settings import Format, PngLevel, ReadSettings

log = logging.getLogger(__name__)

_PIXELS_PER_WORKER = 25_000_000
"""Room for one large photo each; larger ones take the room of several and run with fewer beside
them. A pixel in work costs some 14 bytes."""


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


@dataclass(frozen=True, slots=True)
class Cutout:
    """A finished picture.

    image: RGBA with straight alpha; RGB where a background was asked for; L for the matte alone.
    separate: the matte, where it is not the image's own alpha: many cut-outs in memory need not
    hold it twice. icc: what describes the image. dpi, metadata: the photo's own. measured: what it
    came to. output: what was asked for.
    """

    image: Image.Image
    separate: Image.Image | None = field(repr=False)
    icc: bytes | None = field(repr=False)
    dpi: tuple[float, float] | None
    measured: Measured
    metadata: Metadata | None = field(default=None, repr=False)
    output: OutputSettings = field(default=OutputSettings(), repr=False)

    @property
    def matte(self) -> Image.Image:
        """The subject's alpha, mode L, the image's size; not its shadow's."""
        return self.image.getchannel("A") if self.separate is None else self.separate

    def encode(
        self,
        file_format: Format,
        *,
        name: str = "cut-out",
        quality: int | None = None,
        png_level: PngLevel | None = None,
        threads: int = 1,
    ) -> bytes:
        """The file's bytes; transparency goes on white where the format has none.

        quality, png_level: None is what was asked for with the cut-out. Raises UnwritableError.
        """
        data, _ = self.encode_noted(
            file_format, name=name, quality=quality, png_level=png_level, threads=threads
        )
        return data

    def encode_noted(
        self,
        file_format: Format,
        *,
        name: str,
        quality: int | None = None,
        png_level: PngLevel | None = None,
        threads: int = 1,
    ) -> tuple[bytes, tuple[str, ...]]:
        """As :meth:`encode`, with notes for the report."""
        output = self.output
        image = self.image
        if file_format in OPAQUE_FORMATS and image.mode == "RGBA":
            image = flatten(image.convert("RGB"), image.getchannel("A"), WHITE)
        quality = quality or output.quality

        def encode(quality: int | None) -> bytes:
            return encode_picture(
                image,
                file_format,
                name=name,
                quality=quality,
                png_level=png_level or output.png_level,
                icc=self.icc,
                dpi=self.dpi,
                metadata=self.metadata,
                exact_white=output.canvas.asked and output.background in {None, WHITE},
                threads=threads,
            )

        if output.max_bytes is None:
            return encode(quality), ()
        data, lowered = encode_within(output.max_bytes, encode, file_format, quality, name=name)
        note = f"quality {lowered} to stay within {output.max_bytes:,} bytes"
        return data, (note,) if lowered else ()

    def save(self, target: str | Path, *, quality: int | None = None) -> None:
        """Write to a path whose suffix names the format, in one step: complete or not at all."""
        target = Path(target)
        file_format = format_of(target)
        write_file(target, self.encode(file_format, quality=quality, name=str(target)))


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
            if len(loaded) == 1 or _ends_run(error):
                return [_blame(one.name, error) for one in loaded]
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
            matte = stretch_map(values) if self.network.entry.stretch else values
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

    def _make_alpha(self, photo: Photo, matte: NDArray[np.float32]) -> Image.Image:
        """Mode L, of the photo's size."""
        if self._output.matte == "clean":
            matte = clean_matte(matte)
        # Edges of a photo that is cut out already are its alpha's, not its colours'.
        if self._output.refine and photo.alpha is None:
            return refine_matte(matte, photo.working, photo.image)
        return multiply_alpha(upsample_matte(matte, photo.size), photo.alpha)

    def _make_colours(self, photo: Photo, alpha: Image.Image) -> Image.Image:
        """The subject's colours, mode RGB; the photo's own image, changed, where it can be."""
        output = self._output
        # The wide soft edges of a matte that is not refined would take a quarter of the whole time.
        refined = output.refine and photo.alpha is None
        if not refined or output.mask_only or output.keep_colours:
            return photo.image
        # Where the photo itself stands behind the subject, it must keep its colours.
        behind = isinstance(output.background, Backdrop)
        colours = photo.image.copy() if behind else photo.image
        restore_foreground(colours, alpha, photo.working)
        return colours

    def encode(self, cutout: Cutout, name: str) -> tuple[bytes, Measured]:
        """The file's bytes, in the format asked for, and what is measured with them.

        Raises UnwritableError.
        """
        file_format = self._output.format or "png"
        data, notes = cutout.encode_noted(file_format, name=name, threads=self._codec_threads)
        return data, replace(cutout.measured, notes=cutout.measured.notes + notes)

    def write(self, cutout: Cutout, *targets: Path) -> Measured:
        """Encode once and write, complete or not at all. Raises UnwritableError, OutputError."""
        with _timed(cutout.measured.seconds, "write"):
            data, measured = self.encode(cutout, str(targets[-1]))
            for target in targets:
                write_file(target, data)
        return measured

    def cut(self, source: Picture, name: str) -> Cutout:
        """One picture, all steps but writing. Raises PictureError."""
        try:
            loaded = self.load(source, name)
            return self.compose(loaded, self.infer_one(loaded))
        except MemoryError as error:
            raise _blame(name, error) from error

    def infer_one(self, loaded: Loaded) -> NDArray[np.float32]:
        """The map of one picture. Raises BgxError."""
        [matte] = self.infer([loaded])
        if isinstance(matte, BgxError):
            raise matte
        return matte


def count_workers(plan: EnginePlan, asked: int | None, cores: int) -> int:
    """Pictures in work at once: asked, else one a network run on a CPU, one a core beside a GPU."""
    return asked or (plan.runs if plan.on_cpu else cores)


def process(
    jobs: Sequence[Job],
    pipeline: Pipeline,
    *,
    workers: int,
    stop: threading.Event | None = None,
    sheet: Sheet | None = None,
    meter: dict[str, Occupancy] | None = None,
) -> Iterator[Outcome]:
    """Cut out and write; yields exactly one outcome a job, as they are finished.

    workers: pictures in work at once (on a GPU: decoders, and as many encoders). When ``stop`` is
    set, what is in work is finished and the rest is yielded as skipped. A run-wide error (device,
    output) sets it too, and is raised at the end. ``sheet`` receives the pictures that are done; it
    is written at the end, and first without any, to see that it can be. ``meter`` receives the
    stages' occupancy.
    """
    stop = stop or threading.Event()
    fatal: BgxError | None = None
    left = dict(enumerate(jobs))
    if sheet is not None:
        try:
            sheet.write(finished=False)
        except BgxError as error:
            fatal, sheet = error, None
            stop.set()

    def finish(job: Job, loaded: Loaded, values: NDArray[np.float32]) -> Done:
        cutout = pipeline.compose(loaded, values)
        targets = [job.target]
        if job.review is not None and cutout.measured.trust.doubtful:
            # First: the target, once it exists, says that nothing is left to do.
            targets.insert(0, job.review)
        measured = pipeline.write(cutout, *targets)
        if sheet is not None:
            sheet.add(job, measured, loaded.photo.working, cutout.image)
        return Done(job, measured)

    def load(job: Job) -> Loaded:
        return pipeline.load(job.source, str(job.source))

    flow = run_stages(
        jobs,
        _make_stages(pipeline, workers, load, finish),
        _bound(pipeline.network, workers),
        weigh=lambda job: count_pixels(job.source),
        stop=stop,
        meter=meter,
    )
    try:
        for index, value in flow:
            job = left.pop(index)
            if isinstance(value, BgxError):
                if _ends_run(value):
                    fatal = fatal or value
                    stop.set()
                yield Failed(job, value)
            else:
                yield value
        for job in left.values():
            yield Skipped(job, "stopped" if fatal else "interrupted")
    finally:
        if sheet is not None:
            sheet.write()
    if fatal is not None:
        raise fatal


def cut_all(
    pictures: Iterable[Picture], pipeline: Pipeline, *, workers: int
) -> Iterator[Cutout | BgxError]:
    """Cut out without writing; yields in the pictures' order, an error in its picture's place."""

    def finish(_: Picture, loaded: Loaded, matte: NDArray[np.float32]) -> Cutout:
        return pipeline.compose(loaded, matte)

    def load(picture: Picture) -> Loaded:
        return pipeline.load(picture, name_picture(picture))

    flow = run_stages(
        pictures,
        _make_stages(pipeline, workers, load, finish),
        _bound(pipeline.network, workers),
        weigh=count_pixels,
        in_order=True,
    )
    for _, value in flow:
        yield value


def name_picture(picture: Picture | Job) -> str:
    """What messages call it."""
    match picture:
        case Job(source=source):
            return str(source)
        case Path():
            return str(picture)
        case _:
            return "picture"


def _bound(network: Network, workers: int) -> Bound:
    size = network.plan.batch_size
    items = workers + 2 if size == 1 else 2 * (workers + size)
    # A batch of large photos must be able to fill.
    return Bound(items, max(workers, size) * _PIXELS_PER_WORKER)


def _make_stages(
    pipeline: Pipeline,
    workers: int,
    load: Callable[[Any], Loaded],
    finish: Callable[[Any, Loaded, NDArray[np.float32]], Any],
) -> list[Stage]:
    network = pipeline.network
    if network.plan.batch_size == 1:
        # A worker takes its picture all the way: nothing waits, and the pixels stay in its cache.
        def cut(item: Any) -> Any:
            loaded = load(item)
            return finish(item, loaded, pipeline.infer_one(loaded))

        return [Stage("cut", _each(cut), workers)]

    def infer(values: list[tuple[Any, Loaded]]) -> list[Any]:
        mattes = pipeline.infer([loaded for _, loaded in values])
        return [
            matte if isinstance(matte, BgxError) else (item, loaded, matte)
            for (item, loaded), matte in zip(values, mattes, strict=True)
        ]

    return [
        Stage("read", _each(lambda item: (item, load(item))), workers),
        Stage("infer", infer, network.plan.runs, network.plan.batch_size),
        Stage("write", _each(lambda value: finish(*value)), workers),
    ]


def _each(operate: Callable[[Any], Any]) -> Callable[[list[Any]], list[Any]]:
    """An operation on one value as one on a list, with what it raises as the value."""

    def attempt(value: Any) -> Any:
        try:
            return operate(value)
        except BgxError as error:
            return error
        except Exception as error:  # noqa: BLE001 - becomes the picture's value
            return _blame(name_picture(value[0] if isinstance(value, tuple) else value), error)

    return lambda values: [attempt(value) for value in values]


def _ends_run(error: Exception) -> bool:
    """Whether no other picture will fare better."""
    return isinstance(error, BgxError) and not isinstance(error, PictureError)


def _blame(name: str, error: Exception) -> BgxError:
    """What is said of a picture that met an exception which does not name it."""
    match error:
        case InferenceError():
            return InferenceError(f"{name}: {error}")
        case BgxError():
            return error
        case MemoryError():
            return TooLargeError(f"{name}: not enough memory; scale it down or use fewer --workers")
    log.debug("unexpected error", exc_info=error)
    bug = BugError(f"{name}: unexpected {error!r}; please report this as a bug")
    bug.__cause__ = error
    return bug


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - start
