"""``bgx serve``: cuts out pictures over HTTP."""

from __future__ import annotations

import logging
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from bgx.cli.console import Console, set_up_logging
from bgx.errors import ExitCode, UsageError
from bgx.install import install_hint
from bgx.parsers import parse_bytes
from bgx.serve.settings import DEFAULT_CACHE_SIZE, DEFAULT_MAX_BODY, ServeSettings
from bgx.settings import (
    DEFAULT_MAX_SIZE,
    DEFAULT_MODEL,
    DeviceSettings,
    ModelSettings,
    Precision,
    ReadSettings,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_NEEDED = ("starlette", "uvicorn", "python_multipart", "h11", "prometheus_client")
_DEFAULTS = ServeSettings()
_OWN_MACHINE = {"127.0.0.1", "::1", "localhost"}


def _option(*names: str, shared: bool = False, **attributes: Any) -> Callable[[Any], Any]:
    """A Click option with the variable BGX_SERVE_…; shared: with BGX_… too, as other commands."""
    long = next(name for name in names if name.startswith("--")).partition("/")[0]
    name = long.removeprefix("--").replace("-", "_").upper()
    variables = [f"BGX_SERVE_{name}", *([f"BGX_{name}"] if shared else [])]
    defaults: dict[str, Any] = {"envvar": variables, "show_default": True}
    return click.option(*names, **(defaults | attributes))


@click.command()
@_option("--host", default=_DEFAULTS.host, help="Address to listen on; 0.0.0.0 is all of them.")
@_option(
    "--port",
    type=click.IntRange(0, 65535),
    default=_DEFAULTS.port,
    help="Port; 0 takes a free one.",
)
@_option(
    "--model",
    "-m",
    "models",
    multiple=True,
    shared=True,
    help="Network: a name or FILE.onnx. Several times: the first is the default, a request may ask "
    f"for the others.  [default: {DEFAULT_MODEL}, else the best one here]",
)
@_option("--device", "-d", default="auto", metavar="DEVICE", shared=True, help="As in bgx batch.")
@_option("--threads", type=int, shared=True, help="Threads of one network run.  [default: chosen]")
@_option(
    "--precision",
    type=click.Choice(get_args(Precision)),
    default="auto",
    shared=True,
    help="int8 (CPU), fp16 (GPU): what `bgx models optimize` made; auto takes what passed.",
)
@_option(
    "--as",
    "family",
    metavar="FAMILY",
    shared=True,
    help="How a FILE.onnx is fed: u2net, isnet, birefnet, ben2.  [default: as its graph tells]",
)
@_option("--workers", type=int, help="Pictures in work at once.  [default: chosen]")
@_option("--batch-size", type=int, help="Pictures of one network run on a GPU.  [default: chosen]")
@_option(
    "--queue", default=_DEFAULTS.queue, metavar="N", help="Requests that may wait; more get 429."
)
@_option(
    "--timeout",
    default=_DEFAULTS.timeout,
    help="Seconds a request may wait, and a body take to arrive.",
)
@_option(
    "--max-body", default=DEFAULT_MAX_BODY, metavar=DEFAULT_MAX_BODY, help="Refuse larger photos."
)
@_option("--max-pixels", default=_DEFAULTS.read.max_pixels, help="Refuse photos of more pixels.")
@_option("--max-size", default=DEFAULT_MAX_SIZE, help="Long side of the working image, pixels.")
@_option(
    "--api-key",
    "keys",
    multiple=True,
    show_default=False,
    help="A key that requests must carry, as X-API-Key; several times for several.",
)
@_option("--api-keys", metavar="FILE", help="Read keys from a file, one a line.")
@_option("--cache", metavar="FOLDER", help="Folder for results.  [default: beside the networks]")
@_option(
    "--cache-size",
    default=DEFAULT_CACHE_SIZE,
    metavar=DEFAULT_CACHE_SIZE,
    help="Limit; the least recently used results are deleted.",
)
@_option("--no-cache", is_flag=True, help="Keep no finished pictures.")
@_option("--fetch-urls", is_flag=True, help="Fetch pictures from public addresses in requests.")
@_option(
    "--cors", multiple=True, metavar="ORIGIN", help="Site whose pages may send requests; * for any."
)
@_option("--no-page", is_flag=True, help="Serve no page for people at /.")
@_option(
    "--trust-proxy",
    "proxies",
    multiple=True,
    default=_DEFAULTS.trusted_proxies,
    metavar="ADDRESS",
    help="A proxy or network whose X-Forwarded-For is trusted.",
)
@_option("--log-json", is_flag=True, help="Write the line of each request as JSON.")
@_option("--offline", is_flag=True, shared=True, help="Never fetch a network.")
@_option("--quiet", is_flag=True, shared=True, help="Print only errors.")
@_option(
    "--verbose",
    "-v",
    count=True,
    show_default=False,
    shared=True,
    help="Print more; -vv prints everything.",
)
def serve(*, quiet: bool, verbose: int, **options: Any) -> ExitCode:
    """Serve pictures over HTTP, with a page for people at /.

    Takes the requests of remove.bg's API (POST /v1.0/removebg), of rembg's server (/api/remove) and
    bgx's own (POST /cutouts); /api describes them. Every option can be set in the environment as
    BGX_SERVE_ and its name.
    """
    if any(find_spec(name) is None for name in _NEEDED):
        raise UsageError(f"bgx serve needs more packages; run: {install_hint('serve')}")
    console = Console(quiet=quiet)
    set_up_logging(console, verbose)
    # Their warnings look as bgx's own; what python-multipart logs is told to the client.
    for library in ("asyncio", "uvicorn"):
        logging.getLogger(library).handlers = logging.getLogger("bgx").handlers
    logging.getLogger("python_multipart").handlers = [logging.NullHandler()]
    _log_requests(quiet=quiet)
    settings = _make_settings(**options)
    if settings.host not in _OWN_MACHINE and not settings.keys:
        console.print_error(
            f"--host {settings.host}: other machines may send pictures, and no --api-key is set"
        )
    from bgx.allocator import keep_memory
    from bgx.image.read import prepare_process
    from bgx.serve.server import serve as run

    prepare_process()
    keep_memory()
    run(settings, console.print_note)
    return ExitCode.OK


def _make_settings(
    *,
    models: tuple[str, ...],
    device: str,
    threads: int | None,
    precision: Precision,
    family: str | None,
    workers: int | None,
    batch_size: int | None,
    max_body: str,
    max_pixels: int,
    max_size: int,
    keys: tuple[str, ...],
    api_keys: str | None,
    cache: str | None,
    cache_size: str,
    no_cache: bool,
    no_page: bool,
    proxies: tuple[str, ...],
    offline: bool,
    **same: Any,
) -> ServeSettings:
    """Raises UsageError. same: options that are settings of the same names."""
    from bgx.model.store import Store
    from bgx.serve.keys import read_keys

    files = ModelSettings.from_environment(offline=offline, family=family)
    if files.offline and same["fetch_urls"]:
        raise UsageError("--fetch-urls and --offline: leave one of them out")
    if no_cache and cache is not None:
        raise UsageError("--cache and --no-cache: leave one of them out")
    for flag, name in (("--cache", cache), ("--api-keys", api_keys)):
        if name == "":
            raise UsageError(f"{flag}: the name is empty; is a variable of the command unset?")
    folder = None if no_cache else Path(cache) if cache else Store(files).folder / "serve"
    return ServeSettings(
        models=models or (None,),
        model_files=files,
        device=DeviceSettings(device, workers, threads, batch_size, precision),
        read=ReadSettings(max_size, max_pixels),
        keys=frozenset([*keys, *(read_keys(Path(api_keys)) if api_keys else [])]),
        max_body=parse_bytes(max_body, flag="--max-body"),
        cache=folder,
        cache_size=parse_bytes(cache_size, flag="--cache-size"),
        page=not no_page,
        trusted_proxies=proxies,
        **same,
    )


def _log_requests(*, quiet: bool) -> None:
    """Write the access log to stderr without a prefix: other programs may parse it."""
    logger = logging.getLogger("bgx.access")
    logger.propagate = False
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    if sys.stderr is not None:
        logger.handlers = [logging.StreamHandler(sys.stderr)]
