"""The table of picture options, and the function that turns given options into settings.

:class:`PictureOptions` is the table, with one row per option. The options of the command line, the
keyword arguments in Python and the options allowed in presets are all derived from it through
:data:`OPTIONS`. A new option needs a row here, a field in :class:`OutputSettings` below, and the
code that uses this field.

:func:`settle` combines typed options, environment variables and a preset.
"""

# Without "from __future__ import annotations": the table's annotations are evaluated on import.

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    TypedDict,
    get_args,
    get_origin,
    get_type_hints,
)

from bgx.errors import UsageError, suggest
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


class Conflict(NamedTuple):
    """States that an option cannot be combined with another one.

    other: its name. message: the error if both are given with the same precedence. when: called
    with the values of this and the other option, if both are set; whether they exclude each other.
    """

    other: str
    message: str
    when: Callable[[Any, Any], bool] = lambda mine, others: True


class Option(NamedTuple):
    """A picture option.

    help: text for ``--help``. short: one-letter flag. metavar: form of its value, for ``--help``.
    fallback: description of the default, if that depends on something. bounds: of a whole number.
    parse: turns the text (or a value from Python) into the setting, or raises UsageError; None uses
    the value as it is. conflicts: with other options; each pair is listed once. shrink: the part of
    the value that remains if an option of higher precedence contradicts it; None drops it all.

    The other fields are filled in from the row's type and from the settings. name: in Python. kind:
    type of the written value: str, int or bool (a switch). choices: allowed texts; empty if any is
    allowed. default: the setting if the option is not given.
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
        """The option as typed on the command line."""
        return f"--{self.name.replace('_', '-')}"

    def read(self, value: Any) -> Any:
        """Turn a value into the setting. Raises UsageError."""
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
    """The aspect ratio of a canvas that has a size."""
    if canvas.size is None:
        return canvas
    width, height = canvas.size
    shared = math.gcd(width, height)
    return Canvas(aspect=(width // shared, height // shared))


# The table ----------------------------------------------------------------------------------------


class PictureOptions(TypedDict, total=False):
    """Picture options, as on the command line; None is the same as leaving the option out."""

    format: Annotated[
        Format | None,
        Option("Format of the output.", "-f", fallback="by the suffix of OUTPUT, else png"),
    ]
    quality: Annotated[
        int | None,
        Option(
            "Quality of lossy JPEG, WebP, AVIF.",
            "-q",
            fallback="JPEG 92, AVIF 80, WebP lossless",
            bounds=(1, 100),
        ),
    ]
    png_level: Annotated[
        PngLevel, Option("small files are usually smaller, but take many times as long.")
    ]
    region: Annotated[
        str | tuple[float, float, float, float] | None,
        Option(
            "Cut out only what is in this box, pixels or % of the photo; the rest is background.",
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
            "clean removes specks and pin-holes from the network's matte, raw keeps them; solid is "
            "clean, and fully opaque except at edges."
        ),
    ]
    refine: Annotated[
        bool,
        Option(
            "Move the matte to the photo's own edges, and give soft edges the subject's colours; "
            "without it, the matte is the network's own."
        ),
    ]
    keep_colours: Annotated[
        bool, Option("Keep the old background's colours in soft edges, which --refine removes.")
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
            "none, soft or contact, optionally with a strength: soft:40%.",
            metavar="KIND",
            fallback="none",
            parse=parse_shadow,
        ),
    ]
    crop: Annotated[bool, Option("Crop to the subject; the next three options do so too.")]
    margin: Annotated[
        str | int | None,
        Option(
            "Space around it, % of its longer side or pixels; one, two (vertical, horizontal) or "
            "four values (top, right, bottom, left).",
            metavar="3%|40px|'…'",
            parse=parse_margin,
            conflicts=(
                Conflict(
                    "fill",
                    "--fill and --margin both set the space around the subject; leave out one",
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
                    "--resize and --canvas WxH both set the size; leave out one of them",
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
            "Its place on the canvas: center, bottom, original (as in the photo), or percent of "
            "the space left of and above it.",
            metavar="WORD|'X% Y%'",
            fallback="center",
            parse=parse_align,
        ),
    ]
    resize: Annotated[
        str | int | None,
        Option(
            "Longest side, or box, that the result must fit in, pixels; or most megapixels.",
            metavar="N|WxH|4MP",
            parse=parse_resize,
        ),
    ]
    upscale: Annotated[bool, Option("Enlarge if --canvas, --fill or --resize need it.")]
    max_bytes: Annotated[
        str | int | None,
        Option(
            "Largest file size; the quality is lowered as needed.",
            metavar="10MB",
            parse=parse_bytes,
        ),
    ]
    colour: Annotated[ColourSpace, Option("Keep the photo's colour profile or convert to sRGB.")]
    keep_metadata: Annotated[
        bool, Option("Keep the photo's EXIF and XMP, including where it was taken.")
    ]


class CanvasSettings(NamedTuple):
    """How the finished picture is framed; with the defaults it is the whole photo.

    crop: frame the subject; size, aspect, original, margin and fill do so too. margin: space around
    it. size: width and height, pixels. aspect: ratio (width, height); the size follows from the
    subject. original: the photo's own size. fill: share (0..1) of the width or height, whichever it
    reaches first, that the subject takes. align: where the subject is placed. upscale: enlarge if
    needed. resize: width and height that the finished picture must fit in, pixels, or its largest
    number of pixels.
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
        """The largest width and height of the frame; None if it follows from the subject.

        If the frame has the photo's size, or a number of pixels is the limit, the finished picture
        is scaled down as a whole instead.
        """
        if self.size is not None or isinstance(self.resize, Area | None) or self.original:
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
        """Whether the finished picture is framed differently from the photo."""
        return self.frames_subject or self.resize is not None


class OutputSettings(NamedTuple):
    """The settings that a result is made with, from the options; made by :func:`settle`.

    quality: 1..100 for lossy JPEG, WebP, AVIF; None is lossless WebP and the default of the others.
    background: what the subject is put on. mask_only: write the matte instead of the cut-out.
    png_level: "small" files are usually smaller, but take many times as long. canvas: the framing.
    shadow: below the subject. max_bytes: largest file size; the quality of lossy formats is lowered
    as needed. colour: keep the photo's profile or convert to sRGB. keep_metadata: keep the photo's
    EXIF and XMP, including place and serial numbers. matte: "raw" is the network's own, "clean" has
    no specks and pin-holes, "solid" is clean and fully opaque except at edges. refine: move the
    matte to the photo's own edges, and give half-transparent pixels the subject's colours;
    keep_colours: only the first of these. region: the part of the photo that the network gets; the
    rest is background; None is the whole photo. keep: which of several subjects. threshold: alpha
    (0..1) from which the matte becomes opaque, and below which transparent; None keeps it soft.
    shift: how far its edge moves outwards, pixels of the photo. soften: standard deviation of its
    blur, pixels of the photo. The last three are applied in this order to the refined matte.
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
        """Files other than photos that are read."""
        return [self.background] if isinstance(self.background, Path) else []

    @property
    def needs_colours(self) -> bool:
        """Whether the photo's pixels are needed at full size."""
        return not self.mask_only or self.refine or self.canvas.asked or self.region is not None


_FRAMING = CanvasSettings._field_defaults
_DEFAULTS = OutputSettings._field_defaults | _FRAMING


def _complete(name: str, row: Any) -> Option:
    """The option of a row, with the fields that follow from the row's type and the settings."""
    written: Any
    option: Option
    written, option = get_args(row)
    types = (written,) if get_origin(written) is Literal else get_args(written) or (written,)
    choices = [get_args(one) for one in types if get_origin(one) is Literal]
    return option._replace(
        name=name,
        kind=next((kind for kind in (str, int, bool) if kind in types), str),
        choices=choices[0] if choices else (),
        default=None if option.parse else _DEFAULTS[name],
    )


OPTIONS: dict[str, Option] = {
    name: _complete(name, row)
    for name, row in get_type_hints(PictureOptions, include_extras=True).items()
}
"""The options by name, in the order of ``--help``."""


def find_option(name: str) -> Option:
    """The option of this name, with ``_`` or ``-``. Raises UsageError, which suggests one."""
    try:
        return OPTIONS[name.replace("-", "_")]
    except KeyError:
        dash = "-" if "-" in name else "_"
        names = [known.replace("_", dash) for known in OPTIONS]
        hint = suggest(name, names, f"use one of {', '.join(names)}")
        raise UsageError(f"{name}: no such option; {hint}") from None


# The decision -------------------------------------------------------------------------------------


def settle(
    typed: PictureOptions,
    *,
    environment: PictureOptions | None = None,
    preset: PictureOptions | None = None,
    target: str | None = None,
    open_format: bool = False,
) -> OutputSettings:
    """Combine options into settings, by precedence: typed, environment, preset, defaults.

    An option that contradicts one of higher precedence is ignored; two contradicting options of the
    same precedence are an error. target: the file to be written, whose suffix names the format;
    None if there is no name (a folder, a pipe). open_format: the format is chosen later, when the
    cut-out is saved (in Python), so a quality without a format is kept. Raises UsageError.
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
    """The settings for the options that are given, by name."""
    given = {find_option(name): value for name, value in options.items() if value is not None}
    return {option.name: option.read(value) for option, value in given.items()}


def _add_below(chosen: dict[str, Any], layer: dict[str, Any]) -> dict[str, Any]:
    """Add the settings of a layer of lower precedence that do not contradict the chosen ones."""
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
    """Pairs of options that are both set and exclude each other: their names and the message."""
    present = {name: value for name, value in values.items() if value not in (None, False)}
    for name, value in present.items():
        for conflict in OPTIONS[name].conflicts:
            other = conflict.other
            if other in present and conflict.when(value, present[other]):
                yield name, other, conflict.message


def _choose_format(asked: Format | None, target: str | None, *, typed: bool) -> Format:
    """The format that the target's suffix names, else the requested one, else png."""
    if target is None or (asked and PurePath(target).suffix.lower() not in FORMAT_BY_SUFFIX):
        return asked or "png"
    named = format_of(target)
    if typed and asked != named:
        raise UsageError(f"{target}: the suffix does not match --format {asked}; change either")
    return named


def format_of(target: PurePath | str) -> Format:
    """The format that the target's suffix names. Raises UsageError if it names none."""
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
    """Raise UsageError if the margins take up the whole canvas or size limit."""
    limit, margin = canvas.limit, canvas.margin
    if limit and margin and not margin.fit_into(*limit):
        raise UsageError(
            f"--margin {margin}: leaves no space in {limit[0]:g} x {limit[1]:g}; use less"
        )
