"""``bgx watch``: cuts out pictures as they arrive in a folder."""

from __future__ import annotations

import contextlib
import logging
import signal
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from bgx.cli.console import Console, set_up_logging
from bgx.cli.request import (
    batch_size_option,
    cluster_options,
    find_broker,
    make_request,
    option,
    picture_options,
    refuse_network,
    review_option,
    workers_option,
)
from bgx.errors import ExitCode, PictureError, UsageError
from bgx.install import install_hint
from bgx.settings import DEFAULT_MODEL
from bgx.storage import open_folder

if TYPE_CHECKING:
    from bgx.cli.request import Broker, Request
    from bgx.run.hot import HotFolder
    from bgx.run.outcome import Outcome
    from bgx.run.report import Stream


@click.command()
@click.argument("folder", metavar="FOLDER")
@option("--output", "-o", required=True, metavar="FOLDER", help="Output folder.")
@option("--poll", is_flag=True, help="Search it every second; for network folders.")
@option("--done", metavar="FOLDER", help="Move finished photos to this folder.")
@option("--failed", metavar="FOLDER", help="Move photos that failed to this folder.")
@workers_option
@batch_size_option
@review_option
@cluster_options
@picture_options
def watch(
    folder: str,
    output: str,
    poll: bool,
    done: str | None,
    failed: str | None,
    review: str | None,
    broker: str | None,
    queue: str,
    **options: Any,
) -> ExitCode:
    """Cut out pictures as they arrive in a folder.

    Existing pictures are cut out first. Subfolders are watched too, and kept in the output. Ctrl-C
    or SIGTERM stops it; the same command continues.
    """
    request = make_request(**options)
    refuse_network([output, review, broker], offline=request.models.offline)
    console = Console(quiet=request.quiet)
    set_up_logging(console, request.verbose)
    logging.getLogger("bgx").handlers[0].addFilter(_Once())
    workers = find_broker(broker, queue)
    if not poll and find_spec("watchfiles") is None:
        raise UsageError(
            f"bgx watch needs one more package; run: {install_hint('watch')}, or add --poll"
        )
    from bgx.run.hot import open_hot_folder

    hot = open_hot_folder(
        folder,
        open_folder(output),
        console.print_note,
        suffix=f".{request.output.format}",
        existing=request.existing,
        review=open_folder(review) if review is not None else None,
        done=done,
        failed=failed,
        read=request.also_read,
        written=request.also_written,
        poll=poll,
    )
    return _run(hot, folder, output, request, console, workers)


class _Once(logging.Filter):
    """Passes each message once, because the folder is searched again and again."""

    _MOST = 10_000

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        line = record.getMessage()
        if line in self._said:
            return False
        if len(self._said) >= self._MOST:
            self._said.clear()
        self._said.add(line)
        return True


def _run(
    hot: HotFolder,
    folder: str,
    output: str,
    request: Request,
    console: Console,
    broker: Broker | None,
) -> ExitCode:
    from bgx.cli.interrupt import interruptible
    from bgx.cli.loading import open_engine
    from bgx.run.report import Report

    with interruptible(console.print_error) as interruption, contextlib.ExitStack() as opened:
        with interruption.raising():
            stream = opened.enter_context(_open_report(request.report))
            report = Report(request.model or DEFAULT_MODEL, stream=stream)
            engine, recipe = opened.enter_context(
                open_engine(request, report, console, broker, pictures=None, remote=hot.remote)
            )
            from bgx.run.batch import run_batch

        opened.enter_context(hot)
        where = f" on {report.device}" if report.device else ""
        console.print_note(f"watching {folder}{where}; results go to {output}")
        try:
            for outcome in run_batch(hot.parts(), recipe, engine, stop=interruption.stopped):
                final = hot.settle(outcome)
                if final is not None:
                    report.add(final)
                    _show(final, console)
        finally:
            report.ignored = hot.ignored
            report.close()
            console.print_note(str(report))
    # A service, which has no end of its own, is stopped by SIGTERM.
    return ExitCode.OK if interruption.number == signal.SIGTERM else ExitCode.INTERRUPTED


def _open_report(name: str | None) -> contextlib.AbstractContextManager[Stream | None]:
    from bgx.cli.report_file import RollingReport, open_report

    if name is None or name == "-":
        return open_report(name)
    return contextlib.closing(RollingReport(name))


def _show(outcome: Outcome, console: Console) -> None:
    from bgx.run.outcome import Done, Failed, Skipped

    job = outcome.job
    match outcome:
        case Done():
            console.print_note(f"{job.source} -> {job.target}")
        # Other errors end the run, and are raised and printed at its end.
        case Failed(error=PictureError() as error):
            console.print_error(str(error))
        case Skipped(reason="exists" | "current"):
            logging.getLogger(__name__).info("%s: is done already: %s", job.source, job.target)
