"""The command and its subcommands; turns exceptions into messages and exit codes."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar

import click

from bgx import __version__
from bgx.cli.console import write_stderr
from bgx.errors import BgxError, ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO


class Commands(click.Group):
    """The subcommands. Each is in a module of the same name, which is imported when it is used."""

    names: ClassVar[dict[str, str]] = {
        "batch": "Cut out files and folders into a folder.",
        "bench": "Measure which options are the fastest on this machine.",
        "info": "Show versions, devices that work, cores, folders and networks.",
        "models": "List, download, check and add networks.",
        "presets": "Show the presets, the rule each stands for, and its options.",
        "remove": "Cut out one picture.",
        "serve": "Serve pictures over HTTP, with a page for people at /.",
        "train": "Train a small network on your own photos and cut-outs.",
        "watch": "Cut out pictures as they arrive in a folder.",
        "worker": "Cut out pictures of batches that other machines start with --broker.",
    }
    """The subcommands' help for ``bgx --help``, which would take longer if it imported them all."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.names)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self.names.items()))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.names:
            return None
        command: click.Command = getattr(import_module(f"bgx.cli.{cmd_name}"), cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand; for a photo or a command of rembg, suggest the right one."""
        given = args[0]
        if given in self.names or not (meant := _OF_REMBG.get(given) or _guess(given)):
            return super().resolve_command(ctx, args)
        raise click.UsageError(f"{given} is not a command; use: bgx {meant}", ctx)


_OF_REMBG = {"i": "remove INPUT OUTPUT", "p": "batch FOLDER -o FOLDER", "s": "serve"}


def _guess(given: str) -> str | None:
    if os.path.isdir(given):  # noqa: PTH112 - Path's own raises
        return f"batch {given} -o FOLDER"
    return f"remove {given}" if os.path.lexists(given) else None


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 all done, 1 some pictures failed, 2 usage, 3 model, 4 device, "
    "5 output not writable, 70 a bug, 130 interrupted.",
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def bgx() -> None:
    """Remove photo backgrounds in batches, fast."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Never raises."""
    code = _run(arguments)
    _settle(sys.stderr)
    return code if _settle(sys.stdout) else code or ExitCode.OUTPUT


def _settle(stream: TextIO | None) -> bool:
    """Flush a stream; returns whether that worked.

    If not, the stream is redirected to nowhere, so that Python does not try again when it exits.
    """
    if stream is None:
        return True
    try:
        stream.flush()
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return False
    return True


def _run(arguments: Sequence[str] | None) -> int:
    try:
        result = bgx.main(arguments, prog_name="bgx", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return ExitCode.USAGE
    except BgxError as error:
        write_stderr(f"bgx: {error}")
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        write_stderr("bgx: interrupted")
        return ExitCode.INTERRUPTED
    except SystemExit:
        # Raised by Click if the reader of stdout went away, as `head` does.
        return ExitCode.OUTPUT
    except MemoryError:
        write_stderr("bgx: not enough memory; close other programs, or raise the limit")
        return ExitCode.DEVICE
    except Exception as error:  # noqa: BLE001 - reported as a bug
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            write_stderr(f"bgx: output cannot be written: {error.strerror}")
            return ExitCode.OUTPUT
        if "BGX_DEBUG" in os.environ:
            import traceback

            traceback.print_exc()
        write_stderr(
            f"bgx: unexpected {error!r}; please report this as a bug (BGX_DEBUG=1 shows where)"
        )
        return ExitCode.BUG
    return int(result or ExitCode.OK)
