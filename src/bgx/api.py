"""The Python interface: does what the command line does, but raises instead of exiting.

>>> remover = Remover("u2netp")
>>> remover.cut("in.jpg").save("out.png")
"""

from __future__ import annotations

import logging
import os
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, cast

from bgx.model.opening import open_session
from bgx.model.store import Store
from bgx.options import PictureOptions, settle
from bgx.presets import preset_options
from bgx.run.batch import cut_in_order, run_batch
from bgx.run.cutout import Cutout
from bgx.run.engine import Engine
from bgx.run.existing import refuse_overwriting
from bgx.run.outcome import Failed, Job, Skipped, as_done
from bgx.run.plan import plan_batch
from bgx.run.recipe import Recipe
from bgx.run.sheet import Sheet
from bgx.settings import (
    DEFAULT_MAX_PIXELS,
    DEFAULT_MAX_SIZE,
    DeviceSettings,
    ModelSettings,
    ReadSettings,
)
from bgx.storage import open_file, open_folder
from bgx.storage.memory import InMemory
from bgx.threads import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Unpack

    from PIL import Image

    from bgx.errors import BgxError
    from bgx.model.session import Session
    from bgx.run.outcome import Outcome
    from bgx.run.plan import Plan
    from bgx.settings import Existing, Precision
    from bgx.storage.base import Source

log = logging.getLogger(__name__)

__all__ = ["Cutout", "Remover", "remove"]


class Remover:
    """Removes backgrounds with one network on one device. Thread-safe.

    model: a name from the registry or the path of an ONNX file; None is the default of ``--model``.
    as_: see ``--as``. The other arguments, here and in the methods, are the command-line options of
    the same names. The network is downloaded and loaded when the first picture is cut out.

    All exceptions are a :class:`bgx.errors.BgxError`. The constructor raises UsageError for invalid
    values; the methods raise ModelError or DeviceError if the network cannot be loaded, and
    PictureError for a picture.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        device: str = "auto",
        workers: int | None = None,
        threads: int | None = None,
        batch_size: int | None = None,
        precision: Precision = "auto",
        max_size: int = DEFAULT_MAX_SIZE,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        offline: bool = False,
        as_: str | None = None,
    ) -> None:
        device_settings = DeviceSettings(device, workers, threads, batch_size, precision)
        self._read = ReadSettings(max_size, max_pixels)
        store = Store(ModelSettings.from_environment(offline=offline, family=as_))

        def load(alone: bool) -> Session:
            named = model if model is None else os.fspath(model)
            file = store.resolve(named, store.registry())
            return open_session(file, device_settings, store, pictures=1 if alone else None)

        self._load, self._workers = load, workers
        self._engine = Engine(load, workers=workers)

    def cut(
        self,
        image: str | Path | bytes | Image.Image,
        *,
        preset: str | None = None,
        **options: Unpack[PictureOptions],
    ) -> Cutout:
        """Cut out one picture, on all cores unless other threads cut out pictures at the same time.

        image: a path, a file's content, or a Pillow image, which is not changed. Raises
        PictureError.
        """
        output = settle(options, preset=preset_options(preset), open_format=True)
        recipe = Recipe(self._read, output)
        outcome = wait_for(self._engine.submit(Job(_open(image)), recipe, alone=True))
        return cast("Cutout", as_done(outcome).cutout)

    def cut_many(
        self,
        images: Iterable[str | Path | bytes | Image.Image],
        *,
        preset: str | None = None,
        **options: Unpack[PictureOptions],
    ) -> Iterator[Cutout | BgxError]:
        """Cut out several pictures at once; yields the results in the order of the pictures.

        For a picture that cannot be cut out, its error is yielded. The pictures are taken from
        ``images`` a few ahead of the results, so that memory stays bounded.
        """
        output = settle(options, preset=preset_options(preset), open_format=True)
        recipe = Recipe(self._read, output)
        jobs = (Job(_open(image)) for image in images)
        return map(_get_cutout, cut_in_order(jobs, recipe, self._engine))

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
        """Cut out files and folders into the folder ``out``; yields one outcome per picture.

        Works as ``bgx batch`` does: subfolders are kept, existing results are skipped, and a
        picture that fails is an outcome. What the command line would say about the chosen names is
        logged as a warning. The output folder is made at once, and UsageError and OutputError are
        raised; errors of the network are raised when the first outcome is asked for.
        """
        output = settle(options, preset=preset_options(preset))
        named = [inputs] if isinstance(inputs, str | Path) else inputs
        plan = plan_batch(
            [os.fspath(name) for name in named],
            open_folder(out),
            suffix=f".{output.format}",
            existing=existing,
            review=open_folder(review) if review is not None else None,
            sheet=open_file(sheet) if sheet is not None else None,
            read=output.reads,
        )
        recipe = Recipe(self._read, output, preview=plan.sheet is not None)
        return self._carry_out(plan, chain([_begin(plan)], map(_begin, plan.rest)), recipe)

    def _carry_out(
        self, plan: Plan, parts: Iterator[Sequence[Job | Skipped]], recipe: Recipe
    ) -> Iterator[Outcome]:
        for part in parts:
            skipped = [one for one in part if isinstance(one, Skipped)]
            if len(skipped) == len(part):
                yield from skipped
                continue
            sheet = Sheet(plan.sheet) if plan.sheet else None
            engine = self._engine
            if plan.remote:
                engine = Engine(self._load, workers=self._workers, remote=True)
            yield from run_batch(chain([part], parts), recipe, engine, sheet=sheet)


def _begin(part: Plan) -> list[Job | Skipped]:
    """Prepare a part of a batch, log its notes, and return its pictures. Raises OutputError."""
    for note in part.notes:
        log.warning("%s", note)
    return part.begin()


def _open(image: str | Path | bytes | Image.Image) -> Source:
    if isinstance(image, str | Path):
        return open_file(image)
    return InMemory(image)


def _get_cutout(outcome: Outcome) -> Cutout | BgxError:
    return outcome.error if isinstance(outcome, Failed) else cast("Cutout", as_done(outcome).cutout)


def remove(
    source: str | Path | bytes | Image.Image,
    target: str | Path,
    *,
    model: str | Path | None = None,
    preset: str | None = None,
    **options: Unpack[PictureOptions],
) -> None:
    """Cut out one picture into a file whose suffix names the format.

    Raises UsageError also if the target is the source.
    """
    if isinstance(source, str | Path):
        refuse_overwriting([open_file(source)], [], targets=[open_file(target)])
    Remover(model).cut(source, preset=preset, **options).save(target)
