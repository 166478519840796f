"""The one table of picture options, and the one decision what a picture's options come to.

:class:`PictureOptions` is the table: a row an option. The command line's options, Python's keyword
arguments and what a preset may hold follow from it through :data:`OPTIONS`. A new option is a row
here, a field of :class:`OutputSettings` below, and the code that acts on that field.

:func:`settle` decides between what was typed, the environment and a preset.
"""

# No annotations from __future__: the table's are read when this module is loaded.

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, TypedDict, get_args, get_origin, get_type_hints

from bgx.errors import UsageError
from bgx.parsers import (
    Canvas,
    parse_align,
    parse_background,
    parse_bytes,
    parse_canvas,
    parse_fill,
    parse_margin,
    parse_region,
    parse_resize,
    parse_shadow,
    parse_shift,
    parse_soften,
    parse_threshold,
)
from bgx.settings import (
    FORMAT_BY_SUFFIX,
    LOSSLESS_FORMATS,
    Align,
    Area,
    Background,
    Colour,
    ColourSpace,
    Format,
    Keep,
    Margins,
    MatteKind,
    PngLevel,
    Region,
    Shadow,
)

# The table's columns ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Conflict:
    """That an option cannot stand beside another one.

    other: its name. message: the error where both were asked for in one place. when: whether the
    two values, this option's first, exclude each other; called where both are set.
    """

    other: str
    message: str
    when: Callable[[Any, Any], bool] = lambda mine, others: True


@dataclass(frozen=True, slots=True)
class Option:
    """A picture option.

    help: for ``--help``. short: the one-letter flag. metavar: the form of its text. fallback: what
    leaving it out means, where that is more than the default. bounds: of a whole number. parse:
    from the text (or Python's value) to the setting, raising UsageError; None takes the value as it
    is. conflicts: with other options; each pair stands once. shrink: what is left of its value
    where an option of higher precedence contradicts it; None is nothing.

    The rest follows from the row and from the settings. name: in Python. kind: str, int or bool (a
    switch), of its written form. choices: the texts allowed; empty where any may be. default: the
    setting where it is left out.
    """

    help: str
    short: str | None = None
    metavar: str | None = None
    fallback: str | None = None
    bounds: tuple[int, int] | None = None
    parse: Callable[[Any], Any] | None = None
    conflicts: tuple[Conflict, ...] = ()
    shrink: Callable[[Any], Any] | None = None
    name: str = ""
    kind: type = str
    choices: tuple[str, ...] = ()
    default: Any = None

    @property
    def flag(self) -> str:
        """As typed."""
        return f"--{self.name.replace('_', '-')}"

    def read(self, value: Any) -> Any:
        """The setting that a value comes to. Raises UsageError."""
        if self.kind is bool and not isinstance(value, bool):
            raise UsageError(f"{self.flag} {value!r}: use True or False")
        if self.choices and value not in self.choices:
            raise UsageError(f"{self.flag} {value}: use one of {', '.join(self.choices)}")
        if self.bounds:
            least, most = self.bounds
            if type(value) is not int or not least <= value <= most:
                raise UsageError(f"{self.flag} {value}: use {least} to {most}")
        return self.parse(value) if self.parse else value


def _fixes_size(canvas: Canvas, _: Any) -> bool:
    return canvas.size is not None


def _keep_aspect(canvas: Canvas) -> Canvas:
    """Of a size, its shape."""
    if canvas.size is None:
        return canvas
    width, height = canvas.size
    shared = math.gcd(width, height)
    return Canvas(aspect=(width // shared, height // shared))


# The table ----------------------------------------------------------------------------------------


class PictureOptions(TypedDict, total=False):
    """The command line's options of the same names; None is as if left out."""

    format: Annotated[
        Format | None,
        Option("Of the output.", "-f", fallback="as OUTPUT's suffix says, else png"),
    ]
    quality: Annotated[
        int | None,
        Option(
            "For lossy JPEG, WebP, AVIF.",
            "-q",
            fallback="JPEG 92, AVIF 80, WebP lossless",
            bounds=(1, 100),
        ),
    ]
    png_level: Annotated[PngLevel, Option("fast, or mostly smaller in many times the time.")]
    region: Annotated[
        str | tuple[float, float, float, float] | None,
        Option(
            "Cut out what is in this box alone, pixels or % of the photo; the rest is background.",
            metavar="X0,Y0,X1,Y1",
            fallback="the whole photo",
            parse=parse_region,
        ),
    ]
    keep: Annotated[
        Keep, Option("Of several subjects: all, the largest, or the one nearest to the centre.")
    ]
    matte: Annotated[
        MatteKind,
        Option(
            "clean takes specks and pin-holes out of the network's, raw leaves them; solid is "
            "clean, and opaque but for its edges."
        ),
    ]
    refine: Annotated[
        bool,
        Option(
            "Bring the matte to the photo's own edges, soft edges to the subject's own colours; "
            "without, the matte is the network's own."
        ),
    ]
    keep_colours: Annotated[
        bool, Option("Leave the old background's colours in soft edges, which --refine takes out.")
    ]
    threshold: Annotated[
        str | float | None,
        Option(
            "Make the matte hard: opaque from this alpha on, 0 to 1, else transparent.",
            metavar="0.5",
            parse=parse_threshold,
        ),
    ]
    shift: Annotated[
        str | float | None,
        Option(
            "Move the matte's edge, pixels of the photo: inwards (-) or outwards (+).",
            metavar="-1px|+2px",
            parse=parse_shift,
        ),
    ]
    soften: Annotated[
        str | float | None,
        Option(
            "Blur the matte's edge by this many pixels of the photo.",
            metavar="2px",
            parse=parse_soften,
        ),
    ]
    mask_only: Annotated[
        bool,
        Option(
            "Write the matte instead of the cut-out.",
            conflicts=(
                Conflict("background", "--mask-only writes the matte and needs no --background"),
                Conflict("shadow", "--mask-only writes the matte and needs no --shadow"),
            ),
        ),
    ]
    background: Annotated[
        str | Colour | Path | bytes | None,
        Option(
            "Put the subject on a colour (a name, #rrggbb, or translucent #rrggbbaa), an image "
            "FILE, or the photo itself: blur[:RADIUS] or original-greyed.",
            "-b",
            metavar="WHAT",
            fallback="white for JPEG, else none",
            parse=parse_background,
        ),
    ]
    shadow: Annotated[
        str | None,
        Option(
            "none, soft or contact, with a strength of its own as in soft:40%.",
            metavar="KIND",
            fallback="none",
            parse=parse_shadow,
        ),
    ]
    crop: Annotated[bool, Option("Show the subject alone; the next three do so too.")]
    margin: Annotated[
        str | int | None,
        Option(
            "Room around it, % of its longer side or pixels; one, two (vertical, horizontal) or "
            "four values (top, right, bottom, left).",
            metavar="3%|40px|'…'",
            parse=parse_margin,
            conflicts=(
                Conflict(
                    "fill", "--fill and --margin both say how much room; leave one of them out"
                ),
            ),
        ),
    ]
    canvas: Annotated[
        str | None,
        Option(
            "Put it on a canvas of this size, of this shape around it, or of the photo's size.",
            metavar="WxH|W:H|square|original",
            parse=parse_canvas,
            conflicts=(
                Conflict(
                    "resize",
                    "--resize: --canvas WxH is the size already; leave one of them out",
                    _fixes_size,
                ),
            ),
            shrink=_keep_aspect,
        ),
    ]
    fill: Annotated[
        str | None,
        Option("Its share of the canvas's width or height.", metavar="85%", parse=parse_fill),
    ]
    align: Annotated[
        str | tuple[float, float],
        Option(
            "Where it stands on the canvas: center, bottom, original (as in the photo), or percent "
            "of the room left and above.",
            metavar="WORD|'X% Y%'",
            fallback="center",
            parse=parse_align,
        ),
    ]
    resize: Annotated[
        str | int | None,
        Option(
            "Longer side, or box, that the result must fit in, pixels; or the most megapixels.",
            metavar="N|WxH|4MP",
            parse=parse_resize,
        ),
    ]
    upscale: Annotated[bool, Option("Enlarge where --canvas, --fill or --resize need it.")]
    max_bytes: Annotated[
        str | int | None,
        Option(
            "Lower the quality until the file is this small at most.",
            metavar="10MB",
            parse=parse_bytes,
        ),
    ]
    colour: Annotated[ColourSpace, Option("Keep the photo's colour profile or convert to sRGB.")]
    keep_metadata: Annotated[bool, Option("Write the photo's EXIF and XMP too, place and all.")]


@dataclass(frozen=True, slots=True)
class CanvasSettings:
    """How the finished picture is framed; nothing asked is the photo as it is.

    crop: frame the subject; size, aspect, original, margin and fill do so too. margin: room around
    it. size: width and height, pixels. aspect: width to height; the size is what the subject needs.
    original: the photo's own size. fill: share (0..1) of the width or height, whichever it reaches
    first, that the subject takes. align: where the subject stands. upscale: enlarge where that is
    needed. resize: width and height that the finished picture fits in, pixels, or how many pixels
    it has at most.
    """

    crop: bool = False
    margin: Margins | None = None
    size: tuple[int, int] | None = None
    aspect: tuple[int, int] | None = None
    original: bool = False
    fill: float | None = None
    align: Align = "center"
    upscale: bool = False
    resize: tuple[int, int] | Area | None = None

    @property
    def limit(self) -> tuple[float, float] | None:
        """The width and height the frame may reach, None where it has the subject's own size.

        Where it has the photo's size or is bounded by its pixels, the finished picture is scaled
        down as a whole instead.
        """
        if self.size is not None or not isinstance(self.resize, tuple) or self.original:
            return self.size
        width, height = self.resize
        if self.aspect is None:
            return width, height
        across, down = self.aspect
        return min(width, height * across / down), min(height, width * down / across)

    @property
    def frames_subject(self) -> bool:
        """Whether the subject decides what is shown."""
        return (
            self.crop
            or self.original
            or any(value is not None for value in (self.margin, self.size, self.aspect, self.fill))
        )

    @property
    def asked(self) -> bool:
        """Whether the finished picture is framed otherwise than the photo."""
        return self.frames_subject or self.resize is not None


@dataclass(frozen=True, slots=True)
class OutputSettings:
    """What is written: the options, read and settled; made by :func:`settle`.

    quality: 1..100 for lossy JPEG, WebP, AVIF; None is lossless for WebP and the default of the
    others. background: what the subject is put on. mask_only: write the matte instead of the
    cut-out. png_level: "small" takes many times as long for a file that is mostly smaller. canvas:
    the framing. shadow: below the subject. max_bytes: of the file; the quality of lossy formats is
    lowered as far as that needs. colour: keep the photo's profile or convert to sRGB.
    keep_metadata: write the photo's EXIF and XMP, place and serial numbers included. matte: "raw"
    is the network's own, "clean" has no specks and pin-holes, "solid" is clean and opaque but for
    its edges. refine: bring the matte to the photo's own edges, and half-transparent pixels to the
    subject's own colours; keep_colours: the first alone. region: what the network looks at, and all
    that is not background; None is the whole photo. keep: which of several subjects. threshold:
    alpha (0..1) from which the matte becomes opaque, and below which transparent; None leaves it
    soft. shift: how far its edge moves outwards, pixels of the photo. soften: standard deviation of
    its blur, pixels of the photo. The last three act in this order on the refined matte.
    """

    format: Format = "png"
    quality: int | None = None
    background: Background | None = None
    mask_only: bool = False
    png_level: PngLevel = "fast"
    canvas: CanvasSettings = CanvasSettings()
    shadow: Shadow | None = None
    max_bytes: int | None = None
    colour: ColourSpace = "keep"
    keep_metadata: bool = False
    matte: MatteKind = "raw"
    refine: bool = True
    keep_colours: bool = False
    region: Region | None = None
    keep: Keep = "all"
    threshold: float | None = None
    shift: float = 0.0
    soften: float = 0.0

    @property
    def reads(self) -> list[Path]:
        """Files that are read for it."""
        return [self.background] if isinstance(self.background, Path) else []

    @property
    def needs_colours(self) -> bool:
        """Whether the photo's own pixels are needed: to be written, or to be looked at closely."""
        return not self.mask_only or self.refine or self.canvas.asked or self.region is not None


_FRAMING = {field.name: field.default for field in fields(CanvasSettings)}
_DEFAULTS = {field.name: field.default for field in fields(OutputSettings)} | _FRAMING


def _complete(name: str, row: Any) -> Option:
    """The option of a row, with what follows from the row's type and from the settings."""
    written: Any
    option: Option
    written, option = get_args(row)
    types = (written,) if get_origin(written) is Literal else get_args(written) or (written,)
    choices = [get_args(one) for one in types if get_origin(one) is Literal]
    return replace(
        option,
        name=name,
        kind=next((kind for kind in (str, int, bool) if kind in types), str),
        choices=choices[0] if choices else (),
        default=None if option.parse else _DEFAULTS[name],
    )


OPTIONS: dict[str, Option] = {
    name: _complete(name, row)
    for name, row in get_type_hints(PictureOptions, include_extras=True).items()
}
"""The table by names, in the order of ``--help``."""


def find_option(name: str) -> Option:
    """By its name, with ``_`` or ``-``. Raises UsageError that suggests the nearest one."""
    try:
        return OPTIONS[name.replace("-", "_")]
    except KeyError:
        import difflib

        dash = "-" if "-" in name else "_"
        names = [known.replace("_", dash) for known in OPTIONS]
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"{name}: no such option{hint}") from None


# The decision -------------------------------------------------------------------------------------


def settle(
    typed: PictureOptions,
    *,
    environment: PictureOptions | None = None,
    preset: PictureOptions | None = None,
    target: str | None = None,
    open_format: bool = False,
) -> OutputSettings:
    """What the options come to: what was typed, then the environment, then a preset, then defaults.

    What contradicts an option of higher precedence gives way; two contradicting ones of one
    precedence are an error. target: the file to be written, whose suffix names the format; None
    where there is no name yet (a folder, a pipe). open_format: the caller of Python names the
    format later, with the cut-out at hand, so that a quality is kept without a format. Raises
    UsageError.
    """
    layers = [_read(layer or {}) for layer in (typed, environment, preset)]
    chosen: dict[str, Any] = {}
    for layer in layers:
        chosen = _add_below(chosen, layer)
    asked = chosen.get("format")
    chosen["format"] = _choose_format(asked, target, typed="format" in layers[0])
    if chosen["format"] in LOSSLESS_FORMATS and (asked or not open_format):
        if "quality" in layers[0]:
            raise UsageError(
                f"--quality has no meaning for {chosen['format']}, which is lossless; leave it out"
            )
        chosen.pop("quality", None)
    return _make_settings(chosen)


def _read(options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the options that are given, by name."""
    given = {find_option(name): value for name, value in options.items() if value is not None}
    return {option.name: option.read(value) for option, value in given.items()}


def _add_below(chosen: dict[str, Any], layer: dict[str, Any]) -> dict[str, Any]:
    """What was chosen, and what of a layer of lower precedence does not contradict it."""
    merged = layer | chosen
    for one, other, _ in list(_find_conflicts(merged)):
        lower = {one, other} - chosen.keys()
        if len(lower) == 1:
            name = lower.pop()
            shrink = OPTIONS[name].shrink
            merged[name] = shrink(merged[name]) if shrink else None
    for _, _, message in _find_conflicts(merged):
        raise UsageError(message)
    return merged


def _find_conflicts(values: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The names of two options that are both set and exclude each other, and the message."""
    present = {name: value for name, value in values.items() if value not in (None, False)}
    for name, value in present.items():
        for conflict in OPTIONS[name].conflicts:
            other = conflict.other
            if other in present and conflict.when(value, present[other]):
                yield name, other, conflict.message


def _choose_format(asked: Format | None, target: str | None, *, typed: bool) -> Format:
    """The one that the target's suffix names; the one asked for, or png, where none is named."""
    if target is None or (asked and PurePath(target).suffix.lower() not in FORMAT_BY_SUFFIX):
        return asked or "png"
    named = format_of(target)
    if typed and asked != named:
        raise UsageError(f"{target}: the suffix does not fit --format {asked}; change either")
    return named


def format_of(target: PurePath | str) -> Format:
    """The format that the target's suffix names. Raises UsageError where it names none."""
    try:
        return FORMAT_BY_SUFFIX[PurePath(target).suffix.lower()]
    except KeyError:
        known = ", ".join(FORMAT_BY_SUFFIX)
        raise UsageError(f"{target}: unknown suffix; use {known} or --format") from None


def _make_settings(chosen: dict[str, Any]) -> OutputSettings:
    given = {name: value for name, value in chosen.items() if value is not None}
    shape: Canvas = given.pop("canvas", Canvas())
    framing = {name: given.pop(name) for name in _FRAMING if name in given}
    canvas = CanvasSettings(**shape._asdict(), **framing)
    _check_room(canvas)
    return OutputSettings(canvas=canvas, **given)


def _check_room(canvas: CanvasSettings) -> None:
    """Raises UsageError where the margin takes all of the canvas or of the size to fit in."""
    limit, margin = canvas.limit, canvas.margin
    if limit is None or margin is None:
        return
    top, right, bottom, left = margin.pixels(0, 0)
    if left + right >= limit[0] or top + bottom >= limit[1]:
        raise UsageError(
            f"--margin {margin}: leaves nothing of {limit[0]:g} x {limit[1]:g}; use less"
        )
