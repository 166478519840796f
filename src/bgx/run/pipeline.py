"""One picture's way from file to file, and many pictures on that way at once.

The only room that knows both the pictures and the network.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from bgx.errors import BgxError, BugError, InferenceError, PictureError, TooLargeError
from bgx.image.compose import cut_out, flatten
from bgx.image.matte import measure_matte, multiply_alpha, stretch_map, upsample_matte
from bgx.image.read import Photo, Picture, count_pixels, read_photo
from bgx.image.tensor import fill_tensor
from bgx.image.write import encode_picture, format_of, write_file
from bgx.run.outcome import Done, Failed, Job, Measured, Outcome, Skipped
from bgx.run.stages import Bound, Stage, run_stages
from bgx.settings import OPAQUE_FORMATS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray
    from PIL import Image

    from bgx.model.providers import EnginePlan
    from bgx.model.registry import ModelEntry
    from bgx.settings import Colour, Format, OutputSettings, PngLevel, ReadSettings

log = logging.getLogger(__name__)

WHITE: Colour = (255, 255, 255)

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
    matte: mode L, the photo's size. icc, dpi: the photo's own. measured: what it came to.
    """

    image: Image.Image
    matte: Image.Image
    icc: bytes | None = field(repr=False)
    dpi: tuple[float, float] | None
    measured: Measured

    def encode(
        self,
        file_format: Format,
        *,
        name: str = "cut-out",
        quality: int | None = None,
        png_level: PngLevel = "fast",
        threads: int = 1,
    ) -> bytes:
        """The file's bytes; transparency goes on white where the format has none."""
        image = self.image
        if file_format in OPAQUE_FORMATS and image.mode == "RGBA":
            image = flatten(image.convert("RGB"), image.getchannel("A"), WHITE)
        return encode_picture(
            image,
            file_format,
            name=name,
            quality=quality,
            png_level=png_level,
            icc=self.icc,
            dpi=self.dpi,
            threads=threads,
        )

    def save(self, target: str | Path, *, quality: int | None = None) -> None:
        """Write to a path whose suffix names the format, in one step: complete or not at all."""
        target = Path(target)
        file_format = format_of(target)
        write_file(target, self.encode(file_format, quality=quality, name=str(target)))


class Pipeline:
    """The steps of one picture's way around one network. Thread-safe: it keeps no state.

    codec_threads: that encoding one picture may use.
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

    def load(self, source: Picture, name: str) -> Loaded:
        """Decode, and fill the network's input."""
        seconds: dict[str, float] = {}
        entry = self.network.entry
        with _timed(seconds, "read"):
            photo = read_photo(source, self._read, name=name)
            width, height = entry.input
            tensor = np.empty((1, 3, height, width), np.float32)
            fill_tensor(photo.working, tensor[0], mean=entry.mean, std=entry.std, scale=entry.scale)
        return Loaded(name, photo, tensor, seconds)

    def infer(self, loaded: Sequence[Loaded]) -> list[NDArray[np.float32] | PictureError]:
        """A map, float32 [height, width], 0..1, or an error for each picture.

        A batch that fails is taken apart and tried picture by picture.
        """
        seconds: dict[str, float] = {}
        try:
            with _timed(seconds, "infer"):
                batch = [one.tensor for one in loaded]
                maps = self.network.run(np.concatenate(batch) if len(batch) > 1 else batch[0])
        except (InferenceError, MemoryError) as error:
            if len(loaded) == 1:
                return [_blame(loaded[0].name, error)]
            log.info("batch of %d failed (%r); retrying picture by picture", len(loaded), error)
            return [result for one in loaded for result in self.infer([one])]
        for one in loaded:
            one.seconds["infer"] = seconds["infer"] / len(loaded)
        return [stretch_map(values) if self.network.entry.stretch else values for values in maps]

    def compose(self, loaded: Loaded, matte: NDArray[np.float32]) -> Cutout:
        """The picture as asked for. Takes over the photo's pixels."""
        photo, output = loaded.photo, self._output
        with _timed(loaded.seconds, "compose"):
            alpha = multiply_alpha(upsample_matte(matte, photo.image.size), photo.alpha)
            coverage, bbox = measure_matte(alpha)
            background = output.background
            if background is None and output.format in OPAQUE_FORMATS:
                background = WHITE
            if output.mask_only:
                image = alpha
            elif background is not None:
                image = flatten(photo.image, alpha, background)
            else:
                image = cut_out(photo.image, alpha)
        measured = Measured(*image.size, coverage, bbox, loaded.seconds, photo.notes)
        return Cutout(image, alpha, photo.icc, photo.dpi, measured)

    def encode(self, cutout: Cutout, name: str) -> bytes:
        """The file's bytes, in the format asked for. Raises UnwritableError."""
        output = self._output
        return cutout.encode(
            output.format or "png",
            name=name,
            quality=output.quality,
            png_level=output.png_level,
            threads=self._codec_threads,
        )

    def write(self, cutout: Cutout, target: Path) -> None:
        """Encode and write, complete or not at all. Raises UnwritableError, OutputError."""
        with _timed(cutout.measured.seconds, "write"):
            write_file(target, self.encode(cutout, str(target)))

    def cut(self, source: Picture, name: str) -> Cutout:
        """One picture, all steps but writing. Raises PictureError."""
        try:
            loaded = self.load(source, name)
            return self.compose(loaded, self.infer_one(loaded))
        except MemoryError as error:
            raise _blame(name, error) from error

    def infer_one(self, loaded: Loaded) -> NDArray[np.float32]:
        """The map of one picture. Raises PictureError."""
        [matte] = self.infer([loaded])
        if isinstance(matte, PictureError):
            raise matte
        return matte


def count_workers(plan: EnginePlan, asked: int | None, cores: int) -> int:
    """Pictures in work at once: asked, else one a network run on a CPU, one a core beside a GPU."""
    return asked or (plan.runs if plan.device == "cpu" else cores)


def process(
    jobs: Sequence[Job], pipeline: Pipeline, *, workers: int, stop: threading.Event | None = None
) -> Iterator[Outcome]:
    """Cut out and write; yields exactly one outcome a job, as they are finished.

    workers: pictures in work at once (on a GPU: decoders, and as many encoders). When ``stop`` is
    set, what is in work is finished and the rest is yielded as skipped. A run-wide error (device,
    output) sets it too, and is raised at the end.
    """
    stop = stop or threading.Event()
    fatal: BgxError | None = None
    left = dict(enumerate(jobs))

    def finish(job: Job, loaded: Loaded, matte: NDArray[np.float32]) -> Done:
        cutout = pipeline.compose(loaded, matte)
        pipeline.write(cutout, job.target)
        return Done(job, cutout.measured)

    def load(job: Job) -> Loaded:
        return pipeline.load(job.source, str(job.source))

    flow = run_stages(
        jobs,
        _make_stages(pipeline, workers, load, finish),
        _bound(pipeline.network, workers),
        weigh=lambda job: count_pixels(job.source),
        stop=stop,
    )
    for index, value in flow:
        job = left.pop(index)
        if isinstance(value, BgxError):
            if not isinstance(value, PictureError):
                fatal = fatal or value
                stop.set()
            yield Failed(job, value)
        else:
            yield value
    for job in left.values():
        yield Skipped(job, "stopped" if fatal else "interrupted")
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
    items = workers + 2 if network.plan.batch_size == 1 else 2 * (workers + network.plan.batch_size)
    return Bound(items, workers * _PIXELS_PER_WORKER)


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
        try:
            mattes = pipeline.infer([loaded for _, loaded in values])
        except Exception as error:  # noqa: BLE001 - becomes each picture's value
            return [_as_value(loaded.name, error) for _, loaded in values]
        return [
            matte if isinstance(matte, PictureError) else (item, loaded, matte)
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
        except Exception as error:  # noqa: BLE001 - becomes the picture's value
            return _as_value(name_picture(value[0] if isinstance(value, tuple) else value), error)

    return lambda values: [attempt(value) for value in values]


def _as_value(name: str, error: Exception) -> BgxError:
    """What an exception met on a picture becomes on its way to the report."""
    match error:
        case BgxError():
            return error
        case MemoryError():
            return _blame(name, error)
    log.debug("unexpected error", exc_info=error)
    return BugError(f"{name}: unexpected {error!r}; please report this as a bug")


def _blame(name: str, error: InferenceError | MemoryError) -> PictureError:
    if isinstance(error, MemoryError):
        return TooLargeError(f"{name}: not enough memory; scale it down or use fewer --workers")
    return InferenceError(f"{name}: {error}")


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - start
