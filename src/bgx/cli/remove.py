"""``bgx remove``: cuts out one picture on all cores."""

from __future__ import annotations

import sys
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import click

from bgx.cli.console import Console, set_up_logging
from bgx.cli.pipes import Stdin, Stdout
from bgx.cli.request import make_request, picture_options, refuse_network
from bgx.errors import ExitCode, PictureError, UsageError
from bgx.settings import DEFAULT_MODEL
from bgx.storage import explain_missing, look, open_file

if TYPE_CHECKING:
    from bgx.cli.request import Request
    from bgx.errors import BgxError
    from bgx.run.outcome import Job, Outcome
    from bgx.run.report import Report
    from bgx.storage.base import File


@click.command()
@click.argument("source", metavar="INPUT", type=click.Path(allow_dash=True))
@click.argument("target", metavar="[OUTPUT]", required=False, type=click.Path(allow_dash=True))
@picture_options
def remove(source: str, target: str | None, **options: Any) -> ExitCode:
    """Cut out one picture.

    INPUT and OUTPUT may be - for stdin and stdout. OUTPUT's suffix names the format; without OUTPUT
    photo.jpg gives photo-cut.png beside it.
    """
    refuse_network([source, target, options["report"]], offline=options["offline"])
    # Before the options: if OUTPUT is a folder, that is reported rather than its missing suffix.
    written = None if target in {None, "-"} else _open_target(str(target))
    request = make_request(target=None if written is None else str(written), **options)
    console = Console(quiet=request.quiet)
    set_up_logging(console, request.verbose)
    read = None if source == "-" else _open_source(source)
    if target is None and read is not None:
        written = _open_target(_name_target(read, request))
    _check(read, written, request)
    return _run(read, written, request, console)


def _open_source(name: str) -> File:
    file = open_file(name)
    status = look(name)
    if status is None:
        raise UsageError(explain_missing(name))
    if status.kind == "folder":
        raise UsageError(f"{name}: is a folder; use: bgx batch {name} -o FOLDER")
    return file


def _open_target(name: str) -> File:
    file = open_file(name)
    status = file.status()
    if status and status.kind == "folder":
        raise UsageError(f"{name}: is a folder; name a file, or use: bgx batch")
    if status and status.kind == "other":
        raise UsageError(f"{name}: not a regular file; for stdout use -")
    return file


def _name_target(source: File, request: Request) -> str:
    stem = PurePath(source.name).stem
    return str(source.folder.file(f"{stem}-cut.{request.output.format}"))


def _check(read: File | None, written: File | None, request: Request) -> None:
    """Raise UsageError if source, target and report cannot be combined."""
    from bgx.run.existing import refuse_overwriting

    if written is None and request.report == "-":
        raise UsageError("--report - and a picture on stdout: choose a file for one of them")
    if written is None and sys.stdout is not None and sys.stdout.isatty():
        raise UsageError("stdout is a terminal; name a file, or redirect it: > FILE")
    refuse_overwriting(
        [*map(open_file, request.also_read), *([read] if read else [])],
        [open_file(path) for path in request.also_written],
        targets=[written] if written else [],
    )


def _run(source: File | None, target: File | None, request: Request, console: Console) -> ExitCode:
    from bgx.cli.report_file import open_report
    from bgx.run.existing import skip_existing
    from bgx.run.outcome import Failed, Job, Skipped
    from bgx.run.report import Report

    job = Job(source or Stdin(), target or Stdout(), create=request.existing == "skip")
    if target:
        target.folder.remove_leftovers()
    with open_report(request.report) as stream:
        report = Report(request.model or DEFAULT_MODEL, stream=stream)
        try:
            reason = skip_existing(source, target, request.existing) if target else None
            outcome = Skipped(job, reason) if reason else _cut(job, request, report)
            gone = isinstance(outcome, Failed) and _is_reader_gone(outcome.error)
            report.add(Skipped(job, "stopped") if gone else outcome)
        finally:
            report.close()
    if gone:
        return ExitCode.OUTPUT  # no message: a reader such as `head` stops reading on purpose
    match outcome:
        case Skipped():
            console.print_note(f"{job.target}: exists; to redo it use --existing overwrite")
        case Failed(error=PictureError() as error):
            console.print_error(str(error))
        case Failed(error=error):
            raise error
    return report.exit_code


def _is_reader_gone(error: BgxError) -> bool:
    return isinstance(error.__cause__, BrokenPipeError)


def _cut(job: Job, request: Request, report: Report) -> Outcome:
    from bgx.cli.loading import note_network, open_network
    from bgx.run.outcome import Skipped

    try:
        network = open_network(request, pictures=1)
        # Imported while the network loads.
        from bgx.run.engine import Engine
        from bgx.run.recipe import Recipe
        from bgx.threads import wait_for

        engine = Engine(lambda _: network, workers=1)
        picture = engine.submit(job, Recipe(request.read, request.output), alone=True)
        # An error of the network is raised here, before that of the picture.
        note_network(report, request, network.wait())
        return wait_for(picture)
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        report.add(Skipped(job, "interrupted" if interrupted else "stopped"))
        raise
