"""Options that several commands share, and how they become settings.

An option can be set in the environment as ``BGX_`` and its name, unless it says ``envvar=None``.
"""

from __future__ import annotations

import codecs
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import click
from click.core import ParameterSource

from bgx.errors import UsageError
from bgx.options import make_output
from bgx.settings import (
    DEFAULT_MAX_PIXELS,
    DEFAULT_MAX_SIZE,
    DEFAULT_MODEL,
    FORMATS,
    LOSSLESS_FORMATS,
    Align,
    ColourSpace,
    DeviceSettings,
    Existing,
    MatteKind,
    ModelSettings,
    PngLevel,
    Precision,
    ReadSettings,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Unpack

    from bgx.options import PictureOptions
    from bgx.settings import Format, OutputSettings


def option(*names: str, **attributes: Any) -> Callable[[Any], Any]:
    """A click option with its environment variable, shown with its default."""
    long = next(name for name in names if name.startswith("--")).partition("/")[0]
    variable = "BGX_" + long.removeprefix("--").replace("-", "_").upper()
    defaults: dict[str, Any] = {"envvar": variable, "show_default": True}
    return click.option(*names, **(defaults | attributes))


def is_typed(parameter: str) -> bool:
    """Whether it stands on the command line: neither in the environment nor in a preset."""
    context = click.get_current_context()
    return context.get_parameter_source(parameter) is ParameterSource.COMMANDLINE


def settle_format(output: OutputSettings, file_format: Format) -> OutputSettings:
    """With its format. A quality that is not typed is for formats that have one."""
    loses = file_format not in LOSSLESS_FORMATS
    quality = output.quality if loses or is_typed("quality") else None
    return replace(output, format=file_format, quality=quality)


def _apply_preset(name: str | None, picture: dict[str, Any]) -> dict[str, Any]:
    """The options, with the preset's for those given neither here nor in the environment."""
    if name is None:
        return picture
    from bgx.presets import complete, find_preset

    context = click.get_current_context()
    defaults = {
        option
        for option in picture
        if context.get_parameter_source("file_format" if option == "format" else option)
        is ParameterSource.DEFAULT
    }
    given = {option: value for option, value in picture.items() if option not in defaults}
    return {option: picture[option] for option in defaults} | complete(given, find_preset(name))


_NETWORK_OPTIONS = (
    option(
        "--model",
        "-m",
        help=f"Network: a name or FILE.onnx.  [default: {DEFAULT_MODEL}, else the best one here]",
    ),
    option(
        "--device",
        "-d",
        default="auto",
        metavar="DEVICE",
        help="auto, cpu, cuda[:N], tensorrt[:N], directml[:N], coreml, openvino or webgpu; several "
        "GPUs as cuda:0,1.",
    ),
    option("--threads", type=int, help="Threads of one network run.  [default: chosen]"),
    option(
        "--precision",
        type=click.Choice(get_args(Precision)),
        default="auto",
        help="int8 (CPU), fp16 (GPU): what `bgx models optimize` made; auto takes what passed.",
    ),
    option("--offline", is_flag=True, help="Never use the network."),
    option("--quiet", is_flag=True, help="Say nothing but errors."),
    option(
        "--verbose",
        "-v",
        count=True,
        show_default=False,
        help="Say more; -vv says everything.",
    ),
)

_PICTURE_OPTIONS = (
    option(
        "--format",
        "-f",
        "file_format",
        type=click.Choice(FORMATS),
        help="Of the output.  [default: as OUTPUT's suffix says, else png]",
    ),
    option(
        "--quality",
        "-q",
        type=click.IntRange(1, 100),
        help="For lossy JPEG, WebP, AVIF.  [default: JPEG 92, AVIF 80, WebP lossless]",
    ),
    option(
        "--png-level",
        type=click.Choice(get_args(PngLevel)),
        default="fast",
        help="fast, or mostly smaller in many times the time.",
    ),
    option(
        "--matte",
        type=click.Choice(get_args(MatteKind)),
        default="raw",
        help="raw is the network's own; clean takes specks and pin-holes out.",
    ),
    option(
        "--refine/--no-refine",
        default=False,
        help="Bring the matte to the photo's own edges, soft edges to the subject's own colours.",
    ),
    option(
        "--keep-colours",
        is_flag=True,
        help="With --refine, leave the old background's colours in soft edges.",
    ),
    option("--mask-only", is_flag=True, help="Write the matte instead of the cut-out."),
    option(
        "--background",
        "-b",
        metavar="WHAT",
        help="Put the subject on a colour (a name or #rrggbb), an image FILE, or the photo itself: "
        "blur[:RADIUS] or original-greyed.  [default for JPEG: white]",
    ),
    option(
        "--shadow",
        metavar="KIND",
        help="none, soft or contact, with a strength of its own as in soft:40%.  [default: none]",
    ),
    option("--crop", is_flag=True, help="Show the subject alone; the next three do so too."),
    option("--margin", metavar="3%|40px", help="Room around it, % of its longer side or pixels."),
    option(
        "--canvas",
        metavar="WxH|W:H|square",
        help="Put it on a canvas of this size, or of this shape around it.",
    ),
    option("--fill", metavar="85%", help="Its share of the canvas's width or height."),
    option(
        "--align",
        type=click.Choice(get_args(Align)),
        default="center",
        help="Where it stands on the canvas.",
    ),
    option(
        "--resize",
        metavar="N|WxH",
        help="Longer side, or box, that the result must fit in, pixels.",
    ),
    option("--upscale", is_flag=True, help="Enlarge where --canvas, --fill or --resize need it."),
    option(
        "--max-bytes",
        metavar="10MB",
        help="Lower the quality until the file is this small at most.",
    ),
    option(
        "--colour",
        type=click.Choice(get_args(ColourSpace)),
        default="keep",
        help="Keep the photo's colour profile or convert to sRGB.",
    ),
    option(
        "--keep-metadata", is_flag=True, help="Write the photo's EXIF and XMP too, place and all."
    ),
    option(
        "--preset",
        metavar="NAME",
        help="Options that a marketplace asks for; see: bgx presets.",
    ),
    option(
        "--existing",
        type=click.Choice(get_args(Existing)),
        default="skip",
        help="Where the target exists: leave it, redo it if the source is newer, or redo it.",
    ),
    option("--max-size", default=DEFAULT_MAX_SIZE, help="Long side of the working image, pixels."),
    option("--max-pixels", default=DEFAULT_MAX_PIXELS, help="Refuse larger pictures."),
    option("--report", metavar="FILE|-", help="Write a JSON line for each picture."),
)


def network_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of every command that runs a network."""
    for decorate in reversed(_NETWORK_OPTIONS):
        command = decorate(command)
    return command


def picture_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of every command that cuts out pictures."""
    for decorate in reversed(_PICTURE_OPTIONS):
        command = decorate(command)
    return network_options(command)


@dataclass(frozen=True, slots=True)
class Request:
    """The options of :func:`picture_options` or :func:`network_options`, checked."""

    model: str | None
    models: ModelSettings
    device: DeviceSettings
    read: ReadSettings
    output: OutputSettings
    existing: Existing
    report: str | None
    quiet: bool
    verbose: int

    @property
    def also_read(self) -> list[Path]:
        """Files that the run reads beside the pictures."""
        return [*([Path(self.model)] if self.model else []), *self.output.reads]

    @property
    def also_written(self) -> list[Path]:
        """Files that the run writes beside the results."""
        return [] if self.report in (None, "-") else [Path(self.report)]


def make_request(
    *,
    model: str | None,
    device: str,
    threads: int | None,
    offline: bool,
    quiet: bool,
    verbose: int,
    file_format: Format | None = None,
    existing: Existing = "skip",
    max_size: int = DEFAULT_MAX_SIZE,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    report: str | None = None,
    workers: int | None = None,
    batch_size: int | None = None,
    precision: Precision = "auto",
    preset: str | None = None,
    **picture: Unpack[PictureOptions],
) -> Request:
    """Raises UsageError."""
    chosen = _apply_preset(preset, {**picture, "format": file_format})
    if chosen["format"] in LOSSLESS_FORMATS and not is_typed("quality"):
        chosen["quality"] = None
    return Request(
        model=model,
        models=ModelSettings.from_environment(offline=offline),
        device=DeviceSettings(device, workers, threads, batch_size, precision),
        read=ReadSettings(max_size, max_pixels),
        output=make_output(**cast("PictureOptions", chosen)),
        existing=existing,
        report=report,
        quiet=quiet,
        verbose=verbose,
    )


def split_list(data: bytes, *, null: bool) -> list[str]:
    """File names of a list, one a line or NUL-separated; names keep bytes that are not text."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        # As PowerShell writes it.
        data = data.decode("utf-16", "replace").encode()
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        names = [os.fsdecode(name) for name in data.split(b"\0" if null else b"\n")]
    except UnicodeDecodeError:  # on Windows, whose names are always text
        raise UsageError("--files-from: the list is not UTF-8 text") from None
    if not null:
        names = [name.removesuffix("\r") for name in names]
        if any("\0" in name for name in names):
            raise UsageError("--files-from: the list is NUL-separated; add -0")
    return [name for name in names if name]
