"""One picture's whole way, from its source to its outcome.

Every picture goes this way, whether it comes from the command line, Python or HTTP;
:class:`bgx.run.engine.Engine` calls :func:`process` on its threads. This is the only module that
uses both :mod:`bgx.image` and the network.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image, ImageChops

from bgx.errors import UnreadableError
from bgx.image.clean import clean_matte
from bgx.image.closer import find_neighbourhood, finds_again, place_values
from bgx.image.edge import edit_edge
from bgx.image.foreground import restore_foreground
from bgx.image.inside import fill_inside
from bgx.image.matte import measure_matte, multiply_alpha, stretch_matte, upsample_matte
from bgx.image.parts import find_part
from bgx.image.read import crop_photo, open_photo, working_size
from bgx.image.refine import refine_matte
from bgx.image.tensor import fill_tensor
from bgx.image.trust import measure_trust
from bgx.run.cutout import Cutout, Measured, encode_cutout
from bgx.run.memory import estimate_memory
from bgx.run.outcome import Done, Failed, Skipped, as_picture_error
from bgx.settings import Backdrop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from bgx.image.read import OpenedPhoto, Photo
    from bgx.image.tiles import Box
    from bgx.image.trust import Trust
    from bgx.model.engines import EnginePlan
    from bgx.model.registry import ModelEntry
    from bgx.options import OutputSettings
    from bgx.run.memory import Memory
    from bgx.run.outcome import Job, Outcome
    from bgx.run.recipe import Recipe


_ANY_ALPHA = [255 * (level > 0) for level in range(256)]

# Steep around one half: an edge stays soft over a pixel or two, glass becomes opaque or disappears.
_HARDEN = [min(255, max(0, 4 * (value - 128) + 128)) for value in range(256)]


@dataclass(frozen=True, slots=True)
class Subject:
    """What was found in a photo, or in its region.

    colours: mode RGB. alpha: mode L, of the same size. trust: how far the network is sure of it.
    """

    colours: Image.Image
    alpha: Image.Image
    trust: Trust


@dataclass(frozen=True, slots=True)
class Look:
    """What the network saw of a photo.

    box: the part of the photo that it looked at. photo: that part, or the photo itself. values: the
    network's output for it, float32 [height, width]. matte: made of the output, same shape, 0..1.
    """

    box: Box
    photo: Photo
    values: NDArray[np.float32]
    matte: NDArray[np.float32]


class Network(Protocol):
    """The part of :class:`bgx.model.session.Session` that a picture uses."""

    @property
    def entry(self) -> ModelEntry: ...

    @property
    def plan(self) -> EnginePlan: ...

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """[n, 3, height, width] to [n, height, width]; raises InferenceError."""


def process(
    job: Job,
    recipe: Recipe,
    network: Network,
    memory: Memory,
    cores: AbstractContextManager[object],
) -> Outcome:
    """Cut out one picture and write it. Never raises: an exception becomes its outcome.

    cores: entered while the picture is computed, not while it waits for storage or memory.
    """
    name = _show(str(job.source), pipe="stdin")
    try:
        if job.create and job.target is not None and job.target.is_there():
            return Skipped(job, "exists")
        return _carry_out(job, name, recipe, network, memory, cores)
    except Exception as error:  # noqa: BLE001 - becomes the outcome
        return Failed(job, as_picture_error(name, error))


def _carry_out(
    job: Job,
    name: str,
    recipe: Recipe,
    network: Network,
    memory: Memory,
    cores: AbstractContextManager[object],
) -> Done | Skipped:
    clock = Clock()
    try:
        with clock.measure("read"):
            stream = job.source.open()
    except OSError as error:
        raise UnreadableError(f"{name}: cannot be read: {error.strerror or error}") from error
    with (
        # The caller's own image must stay open.
        nullcontext() if isinstance(stream, Image.Image) else stream,
        open_photo(stream, recipe.read, name=name) as opened,
        memory.hold(_estimate(opened, recipe, network.entry)),
        # After memory: a picture that held a core and waited for memory could deadlock with one
        # that holds memory and waits for a core.
        cores,
    ):
        cutout, preview = _cut_out(opened, recipe, network, clock, name=name)
        if job.target is None:
            return Done(job, cutout.measured, cutout, preview)
        with clock.measure("write"):
            name = _show(str(job.target), pipe="stdout")
            pieces, notes = encode_cutout(cutout, name=name, threads=_codec_threads(network.plan))
        measured = cutout.measured
        del cutout
    with clock.measure("write"):
        if job.review is not None and measured.trust.doubtful:
            # Before the target, whose existence means that nothing is left to do.
            job.review.write(*pieces)
        if not job.target.write(*pieces, create=job.create):
            return Skipped(job, "exists")
    measured = replace(measured, seconds=clock.seconds, notes=measured.notes + notes)
    return Done(job, measured, preview=preview)


def _estimate(opened: OpenedPhoto, recipe: Recipe, entry: ModelEntry) -> int:
    """Bytes that a picture takes in work."""
    most = recipe.read.max_size
    # A region may have any shape, and so may what is looked at closer.
    whole = recipe.output.region is None and not recipe.output.refine
    working = working_size(opened.upright_size, most) if whole else (most, most)
    return estimate_memory(recipe.count_pixels(opened.size), entry.size_for(working))


def _show(reference: str, *, pipe: str) -> str:
    """The name of a source or target in messages."""
    return pipe if reference == "-" else reference


def _codec_threads(plan: EnginePlan) -> int:
    # As many as the network has: all cores for a single picture, one if there are others.
    return plan.threads if plan.batch_size == 1 else 1


class Clock:
    """Measures the seconds of each step; repeated measurements of a step are added up."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @property
    def seconds(self) -> dict[str, float]:
        """A copy."""
        return dict(self._seconds)

    @contextmanager
    def measure(self, step: str) -> Iterator[None]:
        """Add the seconds that the block takes to the step."""
        start = time.perf_counter()
        yield
        taken = time.perf_counter() - start
        self._seconds[step] = self._seconds.get(step, 0.0) + taken


def _cut_out(
    opened: OpenedPhoto, recipe: Recipe, network: Network, clock: Clock, *, name: str
) -> tuple[Cutout, bytes | None]:
    """The cut-out, and its preview if the recipe asks for one.

    Raises RegionError, EmptyRegionError, InferenceError and NoSubjectError.
    """
    output = recipe.output
    with clock.measure("read"):
        photo = opened.decode(metadata=output.keep_metadata, reduced=not output.needs_colours)
        region = (0, 0, *photo.size)
        if output.region is not None:
            region = output.region.box(photo.size, name=name)
    look = _look(photo, region, recipe, network, clock)
    if _may_look_closer(look, network.entry, output):
        look = _look_closer(photo, look, recipe, network, clock)
    with clock.measure("compose"):
        subject = _find_subject(look, region, output)
        if look.photo is not photo:
            subject = _put_back(subject, photo, look.box, output)
        # The pixels of a part are not needed for what follows.
        del look
        cutout = _finish(photo, subject, recipe, name=name)
    measured = replace(cutout.measured, seconds=clock.seconds)
    preview = _make_preview(photo, cutout) if recipe.preview else None
    return replace(cutout, measured=measured), preview


def _look(photo: Photo, box: Box, recipe: Recipe, network: Network, clock: Clock) -> Look:
    """Run the network on a box of the photo. Raises InferenceError."""
    with clock.measure("read"):
        seen = photo if box == (0, 0, *photo.size) else crop_photo(photo, box, recipe.read)
        tensor = make_tensor(seen, network.entry)
    with clock.measure("infer"):
        [values] = network.run(tensor)
    return Look(box, seen, values, make_matte(values, network.entry))


def _may_look_closer(look: Look, entry: ModelEntry, output: OutputSettings) -> bool:
    """Whether a look at less than this one could show more, and is wanted."""
    # Without refinement the matte is the network's own, as rembg's is.
    if not _refines(look.photo, output):
        return False
    # The subject nearest to the centre is that of the photo or the region, not of a smaller box.
    if output.keep == "centre":
        return False
    width, height = entry.size_for(look.photo.working.size)
    return look.photo.size[0] > width or look.photo.size[1] > height


def _look_closer(photo: Photo, first: Look, recipe: Recipe, network: Network, clock: Clock) -> Look:
    """A second look, at a small subject's neighbourhood; the first if that shows all there is."""
    near = find_neighbourhood(first.matte, first.photo.size)
    if near is None:
        return first
    left, top, _, _ = first.box
    box = near[0] + left, near[1] + top, near[2] + left, near[3] + top
    second = _look(photo, box, recipe, network, clock)
    matte = place_values(second.matte, box, first.box, first.matte.shape)
    return second if finds_again(first.matte, matte) else first


def make_tensor(photo: Photo, entry: ModelEntry) -> NDArray[np.float32]:
    """The network's input, float32 [1, 3, height, width]."""
    width, height = entry.size_for(photo.working.size)
    tensor = np.empty((1, 3, height, width), np.float32)
    fill_tensor(photo.working, tensor[0], mean=entry.mean, std=entry.std, scale=entry.scale)
    return tensor


def make_matte(values: NDArray[np.float32], entry: ModelEntry) -> NDArray[np.float32]:
    """The network's output as a matte of the same size, 0..1; stretched if the network needs it."""
    return stretch_matte(values) if entry.stretch else values


def _find_subject(look: Look, region: Box, output: OutputSettings) -> Subject:
    """The subject with the matte that was asked for, in the box of the look.

    The photo's pixels may be changed, those of its working image are not. region: box of the photo
    of which the subject's trust is told.
    """
    photo, values, matte = look.photo, look.values, look.matte
    alpha = _make_alpha(photo, matte, output)
    part = None if output.keep == "all" else find_part(alpha, output.keep)
    if part is not None:
        alpha = ImageChops.multiply(alpha, _enlarge(part, alpha.size))
        share = np.asarray(_enlarge(part, values.shape[::-1]), np.float32) / np.float32(255)
        values, matte = values * share, matte * share
    shown = _edit_edge(photo, alpha, output)
    colours = _make_colours(photo, alpha, shown, output)
    if look.box != region:
        values, matte = (
            place_values(each, look.box, region, each.shape) for each in (values, matte)
        )
    return Subject(colours, shown, measure_trust(values, matte))


def _put_back(subject: Subject, photo: Photo, box: Box, output: OutputSettings) -> Subject:
    """The subject of a region, in the whole photo, whose pixels may be changed."""
    behind = isinstance(output.background, Backdrop)
    colours = photo.image.copy() if behind else photo.image
    colours.paste(subject.colours, box)
    alpha = Image.new("L", colours.size)
    alpha.paste(subject.alpha, box)
    return replace(subject, colours=colours, alpha=alpha)


def _finish(photo: Photo, subject: Subject, recipe: Recipe, *, name: str) -> Cutout:
    """The finished picture; its seconds are not known yet. Raises NoSubjectError."""
    output = recipe.output
    finished = recipe.finisher.finish(photo, subject.colours, subject.alpha, name=name)
    coverage, bbox = measure_matte(finished.matte)
    image, notes = finished.image, photo.notes + finished.notes
    trust = subject.trust._replace(damaged=photo.damaged)
    own_alpha = image.mode == "RGBA" and not output.shadow and output.background is None
    return Cutout(
        image,
        None if own_alpha else finished.matte,
        finished.icc,
        photo.dpi,
        Measured(*image.size, coverage, bbox, trust, notes=notes, full=finished.full),
        photo.metadata,
        output,
    )


def _make_alpha(photo: Photo, matte: NDArray[np.float32], output: OutputSettings) -> Image.Image:
    """The picture's alpha, mode L, of the photo's size."""
    if output.matte == "solid" or _refines(photo, output):
        matte = fill_inside(matte, photo.working)
    if output.matte != "raw":
        matte = clean_matte(matte)
    if _refines(photo, output):
        alpha = refine_matte(matte, photo.working, photo.image)
    else:
        alpha = multiply_alpha(upsample_matte(matte, photo.size), photo.alpha)
    if output.matte == "solid":
        alpha = alpha.point(_HARDEN)
    return alpha


def _enlarge(part: Image.Image, size: tuple[int, int]) -> Image.Image:
    return part.resize(size, Image.Resampling.BILINEAR)


def _edit_edge(photo: Photo, alpha: Image.Image, output: OutputSettings) -> Image.Image:
    """The alpha that is shown."""
    shown = edit_edge(alpha, threshold=output.threshold, shift=output.shift, soften=output.soften)
    if photo.alpha is None or shown is alpha:
        return shown
    # What the photo hides has no colours that could be shown.
    return ImageChops.darker(shown, photo.alpha.point(_ANY_ALPHA))


def _make_colours(
    photo: Photo, alpha: Image.Image, shown: Image.Image, output: OutputSettings
) -> Image.Image:
    """The subject's colours, mode RGB; where possible, the photo's own image, changed in place.

    alpha: as refined, which tells the subject's colours from the background's. shown: the one that
    the result has.
    """
    # For the wide soft edges of an unrefined matte this would take a quarter of the whole time.
    if not _refines(photo, output) or output.mask_only or output.keep_colours:
        return photo.image
    # The photo is also the background, whose colours must not change.
    behind = isinstance(output.background, Backdrop)
    colours = photo.image.copy() if behind else photo.image
    restore_foreground(colours, alpha, photo.working, shown)
    return colours


def _refines(photo: Photo, output: OutputSettings) -> bool:
    # A photo that has an alpha is cut out already: its edges are in the alpha, not in the colours.
    return output.refine and photo.alpha is None


def _make_preview(photo: Photo, cutout: Cutout) -> bytes:
    # Imported here: only a run with a contact sheet needs it.
    from bgx.image.preview import encode_preview

    return encode_preview(photo.working, cutout.image)
