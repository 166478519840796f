"""The door for Python: the same rooms as the command line's, raising instead of exiting.

>>> remover = Remover("u2netp")
>>> remover.cut("in.jpg").save("out.png")
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from bgx.image.read import SUFFIXES
from bgx.image.write import remove_leftovers
from bgx.machine import count_cores
from bgx.model.session import Session, open_session
from bgx.model.store import Store
from bgx.options import PictureOptions, make_output
from bgx.presets import expand_preset
from bgx.run.batch import cut_all, name_picture, process
from bgx.run.cutout import Cutout
from bgx.run.pipeline import Pipeline
from bgx.run.plan import plan_batch
from bgx.run.sheet import Sheet
from bgx.settings import (
    DEFAULT_MAX_PIXELS,
    DEFAULT_MAX_SIZE,
    DeviceSettings,
    ModelSettings,
    ReadSettings,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Unpack

    from PIL import Image

    from bgx.errors import BgxError
    from bgx.run.outcome import Outcome
    from bgx.run.plan import Plan
    from bgx.settings import Existing, OutputSettings, Precision

__all__ = ["Cutout", "Remover", "remove"]


class Remover:
    """Removes backgrounds with one network on one device. Thread-safe.

    model: a name of the registry or the path of an ONNX file; None as without ``--model``. device:
    see ``--device``. The other arguments, here and of the methods, are the command line's options
    of the same names. The network is fetched and loaded when the first picture comes.

    Raises a :class:`bgx.errors.BgxError`: UsageError when made with wrong values; ModelError and
    DeviceError when the network is loaded; PictureError for a picture.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        device: str = "auto",
        workers: int | None = None,
        threads: int | None = None,
        batch_size: int | None = None,
        precision: Precision = "auto",
        max_size: int = DEFAULT_MAX_SIZE,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        offline: bool = False,
    ) -> None:
        self._model = model
        self._device = DeviceSettings(device, workers, threads, batch_size, precision)
        self._read = ReadSettings(max_size, max_pixels)
        self._store = Store(ModelSettings.from_environment(offline=offline))
        self._sessions: dict[bool, Session] = {}
        self._lock = threading.Lock()

    def cut(
        self,
        image: str | Path | bytes | Image.Image,
        *,
        preset: str | None = None,
        **options: Unpack[PictureOptions],
    ) -> Cutout:
        """Cut out one picture, on all cores. Raises PictureError."""
        output = make_output(**expand_preset(preset, options))
        picture = Path(image) if isinstance(image, str) else image
        pipeline = Pipeline(self._session(many=False), self._read, output)
        return pipeline.cut(picture, name_picture(picture))

    def cut_many(
        self,
        images: Iterable[str | Path | bytes | Image.Image],
        *,
        preset: str | None = None,
        **options: Unpack[PictureOptions],
    ) -> Iterator[Cutout | BgxError]:
        """Cut out pictures, several at once; yields in their order, and only as far ahead as fits.

        A picture that cannot be cut out yields its error in its place.
        """
        output = make_output(**expand_preset(preset, options))
        session = self._session(many=True)
        pictures = (Path(image) if isinstance(image, str) else image for image in images)
        pipeline = Pipeline(session, self._read, output)
        return cut_all(pictures, pipeline, workers=self._workers(session))

    def batch(
        self,
        inputs: str | Path | Iterable[str | Path],
        out: str | Path,
        *,
        existing: Existing = "skip",
        review: str | Path | None = None,
        sheet: str | Path | None = None,
        preset: str | None = None,
        **options: Unpack[PictureOptions],
    ) -> Iterator[Outcome]:
        """Cut out files and folders into the folder ``out``; yields an outcome a picture.

        As ``bgx batch``: the tree is kept, what exists is skipped, a broken picture is an outcome.
        Raises UsageError and OutputError at once, the network's errors with the first outcome.
        """
        chosen: PictureOptions = {"format": "png", **expand_preset(preset, options)}
        output = make_output(**chosen)
        named = [inputs] if isinstance(inputs, str | Path) else inputs
        plan = plan_batch(
            map(Path, named),
            Path(out),
            suffix=f".{output.format}",
            suffixes=SUFFIXES,
            existing=existing,
            review=Path(review) if review else None,
            sheet=Path(sheet) if sheet else None,
            read=output.reads,
        )
        return self._carry_out(plan, output)

    def _carry_out(self, plan: Plan, output: OutputSettings) -> Iterator[Outcome]:
        remove_leftovers(plan.folders)
        yield from plan.skipped
        if plan.jobs:
            session = self._session(many=True)
            pipeline = Pipeline(session, self._read, output)
            contacts = Sheet(plan.sheet) if plan.sheet else None
            workers = self._workers(session)
            yield from process(plan.jobs, pipeline, workers=workers, sheet=contacts)

    def _workers(self, session: Session) -> int:
        return session.plan.count_workers(self._device.workers, count_cores())

    def _session(self, *, many: bool) -> Session:
        # One picture alone wants all cores inside the network, many want a core each.
        with self._lock:
            if many not in self._sessions:
                file = self._store.resolve(self._model, self._store.registry())
                pictures = None if many else 1
                self._sessions[many] = open_session(
                    file, self._device, self._store, pictures=pictures
                )
            return self._sessions[many]


def remove(
    source: str | Path | bytes | Image.Image,
    target: str | Path,
    *,
    model: str | None = None,
    preset: str | None = None,
    **options: Unpack[PictureOptions],
) -> None:
    """Cut out one picture into a file whose suffix names the format."""
    Remover(model).cut(source, preset=preset, **options).save(target)
