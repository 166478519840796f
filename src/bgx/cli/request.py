"""Options that several commands share, and how they become settings.

An option can be set by the environment variable ``BGX_`` and its name, unless it has
``envvar=None``.
"""

from __future__ import annotations

import codecs
import os
import re
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import click
from click.core import ParameterSource

from bgx.errors import UsageError
from bgx.install import install_hint
from bgx.options import OPTIONS, settle
from bgx.settings import (
    DEFAULT_MAX_PIXELS,
    DEFAULT_MAX_SIZE,
    DEFAULT_MODEL,
    DeviceSettings,
    Existing,
    ModelSettings,
    Precision,
    ReadSettings,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from bgx.options import Option, OutputSettings, PictureOptions

_ON_NETWORK = re.compile(r"[a-z][a-z0-9+]+://")


def option(*names: str, **attributes: Any) -> Callable[[Any], Any]:
    """A Click option with an environment variable, whose help shows the default."""
    long = next(name for name in names if name.startswith("--")).partition("/")[0]
    variable = "BGX_" + long.removeprefix("--").replace("-", "_").upper()
    defaults: dict[str, Any] = {"envvar": variable, "show_default": True}
    return click.option(*names, **(defaults | attributes))


def _picture_option(row: Option) -> Callable[[Any], Any]:
    """A Click option for a row of the table of picture options."""
    names = [row.flag if row.kind is not bool else f"{row.flag}/--no-{row.flag[2:]}"]
    names += [row.short] if row.short else []
    attributes: dict[str, Any] = {"type": row.kind}
    if row.choices:
        attributes["type"] = click.Choice(row.choices)
    elif row.bounds:
        attributes["type"] = click.IntRange(*row.bounds)
    return option(
        *names,
        **attributes,
        metavar=row.metavar,
        default=row.default,
        show_default=not row.fallback and bool(row.default),
        help=row.help + (f"  [default: {row.fallback}]" if row.fallback else ""),
    )


as_family = option(
    "--as",
    "family",
    metavar="FAMILY",
    help="How a FILE.onnx is fed: u2net, isnet, birefnet, ben2, or as a network of the list.  "
    "[default: as its graph tells]",
)

threads_option = option(
    "--threads", type=int, help="Threads of one network run.  [default: chosen]"
)
offline_option = option("--offline", is_flag=True, help="Never connect to other machines.")
quiet_option = option("--quiet", is_flag=True, help="Print only errors.")
verbose_option = option(
    "--verbose",
    "-v",
    count=True,
    show_default=False,
    help="Print more; -vv prints everything.",
)

_NETWORK_OPTIONS = (
    option(
        "--model",
        "-m",
        help=f"Network: a name or FILE.onnx.  [default: {DEFAULT_MODEL}, else the best one here]",
    ),
    as_family,
    option(
        "--device",
        "-d",
        default="auto",
        metavar="DEVICE",
        help="auto, cpu, cuda[:N], tensorrt[:N], directml[:N], coreml, openvino or webgpu; several "
        "GPUs as cuda:0,1.",
    ),
    threads_option,
    option(
        "--precision",
        type=click.Choice(get_args(Precision)),
        default="auto",
        help="int8 (CPU), fp16 (GPU): what `bgx models optimize` made; auto takes what passed.",
    ),
    offline_option,
    quiet_option,
    verbose_option,
)

_PICTURE_OPTIONS = (
    *map(_picture_option, OPTIONS.values()),
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


workers_option = option("--workers", type=int, help="Pictures in work at once.  [default: chosen]")
batch_size_option = option(
    "--batch-size", type=int, help="Pictures of one network run on a GPU.  [default: chosen]"
)
review_option = option("--review", metavar="FOLDER", help="Folder for copies of doubtful results.")


def broker_option(**attributes: Any) -> Callable[[Any], Any]:
    """The option --broker, which has workers on other machines cut the pictures out."""
    return option("--broker", metavar="URL", show_default=False, **attributes)


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of commands that can send their pictures to workers."""
    command = option(
        "--queue", default="bgx", help="Queue of the broker that the workers take tasks from."
    )(command)
    named = broker_option(help="Send pictures to the workers of this broker, such as redis://HOST.")
    decorated: Callable[..., Any] = named(command)
    return decorated


class Broker(NamedTuple):
    """The broker's URL, and the name of the queue for tasks."""

    url: str
    queue: str


def find_broker(url: str | None, queue: str) -> Broker | None:
    """The broker that :func:`cluster_options` name; None without --broker.

    Raises UsageError if packages are missing, or an option is given that only workers have.
    """
    if url is None:
        return None
    need_cluster()
    context = click.get_current_context()
    for name in ("device", "workers", "threads", "batch_size"):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag}: is the workers' own; give it to bgx worker")
    return Broker(url, queue)


def need_cluster() -> None:
    """Raise UsageError if the packages for more than one machine are not installed."""
    if any(find_spec(name) is None for name in ("celery", "redis")):
        raise UsageError(f"--broker needs more packages; run: {install_hint('cluster')}")


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


class Request(NamedTuple):
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
    layers: tuple[PictureOptions, PictureOptions, PictureOptions]
    """The picture options behind ``output``: typed, from the environment, from a preset."""

    @property
    def also_read(self) -> list[str | Path]:
        """Files other than pictures that the run reads."""
        return [*([self.model] if self.model else []), *self.output.reads]

    @property
    def also_written(self) -> list[str]:
        """Files other than results that the run writes."""
        return [] if self.report in (None, "-") else [self.report]


def make_request(
    *,
    model: str | None,
    device: str,
    threads: int | None,
    offline: bool,
    quiet: bool,
    verbose: int,
    existing: Existing = "skip",
    max_size: int = DEFAULT_MAX_SIZE,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    report: str | None = None,
    workers: int | None = None,
    batch_size: int | None = None,
    precision: Precision = "auto",
    family: str | None = None,
    preset: str | None = None,
    target: str | None = None,
    **picture: Any,
) -> Request:
    """Check the options of a command. Raises UsageError.

    target: the single file to write, whose suffix names the format; else None. picture: the picture
    options by name.
    """
    context = click.get_current_context()

    def given(source: ParameterSource) -> Any:
        return {
            name: value
            for name, value in picture.items()
            if context.get_parameter_source(name) is source
        }

    named: PictureOptions = {}
    if preset is not None:
        from bgx.presets import find_preset

        named = find_preset(preset).options
    typed, environment = given(ParameterSource.COMMANDLINE), given(ParameterSource.ENVIRONMENT)
    return Request(
        model=model,
        models=ModelSettings.from_environment(offline=offline, family=family),
        device=DeviceSettings(device, workers, threads, batch_size, precision),
        read=ReadSettings(max_size, max_pixels),
        output=settle(typed, environment=environment, preset=named, target=target),
        existing=existing,
        report=report,
        quiet=quiet,
        verbose=verbose,
        layers=(typed, environment, named),
    )


def refuse_network(names: Iterable[str | None], *, offline: bool) -> None:
    """Raise UsageError for the first name on the network, if offline."""
    for name in names if offline else ():
        if name is not None and _ON_NETWORK.match(name):
            raise UsageError(f"{name}: is on the network, which --offline forbids; leave out one")


def split_list(data: bytes, *, null: bool) -> list[str]:
    """The file names in a list, one per line or NUL-separated; undecodable bytes are kept."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        # PowerShell writes UTF-16.
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
