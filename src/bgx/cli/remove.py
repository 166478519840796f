"""``bgx remove``: one picture, on all cores."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bgx.cli.console import Console, put_bytes, set_up_logging
from bgx.cli.options import make_request, picture_options
from bgx.errors import BgxError, BugError, ExitCode, OutputError, PictureError, UsageError
from bgx.settings import DEFAULT_MODEL

if TYPE_CHECKING:
    from bgx.cli.options import Request
    from bgx.run.outcome import Job
    from bgx.run.report import Report

_PIPE = Path("-")


@click.command()
@click.argument("source", metavar="INPUT", type=click.Path(allow_dash=True))
@click.argument("target", metavar="[OUTPUT]", required=False, type=click.Path(allow_dash=True))
@picture_options
def remove(source: str, target: str | None, **options: Any) -> ExitCode:
    """Cut out one picture.

    INPUT and OUTPUT may be - for stdin and stdout. OUTPUT's suffix names the format; without OUTPUT
    photo.jpg gives photo-cut.png beside it.
    """
    named = None if target in (None, "-") else target
    request = make_request(target=named, **options)
    console = Console(quiet=request.quiet)
    set_up_logging(console, request.verbose)
    job = _plan(_to_path(source), _to_path(target) if target else None, request)
    return _run(job, request, console)


def _to_path(name: str) -> Path:
    """`_PIPE` for ``-`` alone: ``./-`` is a file."""
    path = Path(name)
    return path.absolute() if path == _PIPE and name != "-" else path


def _plan(source: Path, target: Path | None, request: Request) -> Job:
    from bgx.run.outcome import Job
    from bgx.run.plan import refuse_overwriting

    if source != _PIPE:
        _check_source(source)
    if target is None:
        name = f"{source.stem}-cut.{request.output.format}"
        target = _PIPE if source == _PIPE else source.with_name(name)
    if target == _PIPE:
        if request.report == "-":
            raise UsageError("--report - and a picture on stdout: choose a file for one of them")
    else:
        _check_target(target)
    refuse_overwriting(
        [path for path in (source, *request.also_read) if path != _PIPE],
        request.also_written,
        targets=[] if target == _PIPE else [target],
    )
    return Job(source, target)


def _check_source(source: Path) -> None:
    from bgx.run.plan import status_of

    status = status_of(source)
    if status is None:
        raise UsageError(f"{source}: no such file")
    if stat.S_ISDIR(status.st_mode):
        raise UsageError(f"{source}: is a folder; use: bgx batch {source} -o FOLDER")


def _check_target(target: Path) -> None:
    from bgx.run.plan import status_of

    status = status_of(target)
    if status and stat.S_ISDIR(status.st_mode):
        raise UsageError(f"{target}: is a folder; name a file, or use: bgx batch")
    if status and not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{target}: is no ordinary file; for stdout name -")


def _run(job: Job, request: Request, console: Console) -> ExitCode:
    from bgx.cli.session import open_report
    from bgx.image.write import remove_leftovers
    from bgx.run.outcome import Failed, Skipped
    from bgx.run.plan import skip_existing
    from bgx.run.report import Report

    with open_report(request.report) as stream:
        report = Report(request.model or DEFAULT_MODEL, stream=stream)
        skipped = None if job.target == _PIPE else skip_existing(job, request.existing)
        if skipped:
            report.add(skipped)
            console.tell(f"{job.target}: exists; to redo it use --existing overwrite")
            report.close()
        else:
            if job.target != _PIPE:
                remove_leftovers([job.target.parent])
            try:
                _cut(job, request, report)
            except PictureError as error:
                report.add(Failed(job, error))
                console.complain(str(error))
            except OutputError as error:
                report.add(Failed(job, error))
                raise
            except (BgxError, BrokenPipeError):
                report.add(Skipped(job, "stopped"))
                raise
            except KeyboardInterrupt:
                report.add(Skipped(job, "interrupted"))
                raise
            except Exception as error:
                report.add(Failed(job, BugError(f"{job.source}: unexpected {error!r}")))
                raise
            finally:
                report.close()
    return report.exit_code


def _cut(job: Job, request: Request, report: Report) -> None:
    from bgx.cli.session import note_network, open_network, read_stdin
    from bgx.machine import count_cores
    from bgx.run.outcome import Done

    data = read_stdin() if job.source == _PIPE else None
    network = open_network(request, pictures=1)
    # While it loads.
    from bgx.run.pipeline import Pipeline

    pipeline = Pipeline(
        network, request.read, request.output, codec_threads=request.device.threads or count_cores()
    )
    name = "stdin" if job.source == _PIPE else str(job.source)
    try:
        cutout = pipeline.cut(job.source if data is None else data, name)
    finally:
        # Of two errors that of the network is the one to be told.
        note_network(report, request, network.wait())
    if job.target == _PIPE:
        pieces, measured = pipeline.encode(cutout, "stdout")
        put_bytes(*pieces)
    else:
        measured = pipeline.write(cutout, job.target)
    report.add(Done(job, measured))
