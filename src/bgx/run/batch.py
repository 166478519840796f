"""Many pictures on their way at once."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bgx.errors import BgxError
from bgx.image.read import count_pixels
from bgx.run.outcome import Done, Failed, Job, Skipped, blame, ends_run
from bgx.run.stages import Bound, Stage, run_stages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from bgx.image.read import Picture
    from bgx.run.cutout import Cutout
    from bgx.run.outcome import Outcome
    from bgx.run.pipeline import Loaded, Network, Pipeline
    from bgx.run.sheet import Sheet
    from bgx.run.stages import Occupancy

_PIXELS_PER_WORKER = 25_000_000
"""Room for one large photo each; larger ones take the room of several and run with fewer beside
them. A pixel in work costs some 14 bytes, for a JPEG of quality 100 twice as much."""


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
                if ends_run(value):
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
            return blame(name_picture(value[0] if isinstance(value, tuple) else value), error)

    return lambda values: [attempt(value) for value in values]
