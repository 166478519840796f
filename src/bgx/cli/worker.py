"""``bgx worker``: cuts out pictures of batches that other machines start."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from bgx.cli.console import Console, print_result, set_up_logging
from bgx.cli.request import (
    as_family,
    batch_size_option,
    broker_option,
    need_cluster,
    option,
    quiet_option,
    threads_option,
    verbose_option,
)
from bgx.errors import BgxError, ExitCode
from bgx.machine import memory_limit
from bgx.parsers import parse_bytes
from bgx.settings import DeviceSettings, ModelSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bgx.cluster.settings import WorkerSettings

_SHARE = 0.9
"""Fraction of the machine's memory that all processes together may use."""


@click.command()
@broker_option(required=True, help="Where tasks come from: redis://HOST, rediss://, amqp(s)://.")
@option(
    "--allow",
    multiple=True,
    metavar="PLACE",
    show_default=False,
    help="A folder or bucket (s3://shop/photos) that tasks may read from and write to, with what "
    "lies below; several times.  [default: the buckets that its credentials open, no folder]",
)
@option(
    "--model", "-m", help="Run this network alone: a name or FILE.onnx.  [default: any by name]"
)
@option(
    "--device",
    "-d",
    default="auto",
    metavar="DEVICE",
    help="As in bgx batch; cuda:0,1 starts a process for each GPU.",
)
@as_family
@option("--workers", type=int, help="Pictures in work at once in a process.  [default: chosen]")
@threads_option
@batch_size_option
@option("--queues", default="bgx", metavar="NAME,…", help="Queues to take tasks from.")
@option(
    "--memory",
    metavar="4GB",
    help="Kill a process that uses more.  [default: 90% of the machine's, divided by processes]",
)
@option(
    "--task-limit",
    type=click.IntRange(min=3),
    default=900,
    help="Seconds a task may take, then its process is killed. After a third of it, pictures not "
    "yet begun go to other workers. Use one value for all workers of a broker.",
)
@option(
    "--check",
    is_flag=True,
    envvar=None,
    help="Check broker, storage and network, and exit.",
)
@option("--offline", is_flag=True, help="Never fetch a network.")
@quiet_option
@verbose_option
def worker(
    broker: str,
    allow: Sequence[str],
    model: str | None,
    device: str,
    family: str | None,
    workers: int | None,
    threads: int | None,
    batch_size: int | None,
    queues: str,
    memory: str | None,
    task_limit: int,
    check: bool,
    offline: bool,
    quiet: bool,
    verbose: int,
) -> ExitCode:
    """Cut out pictures of batches that other machines start with --broker.

    Ctrl-C or SIGTERM ends it: pictures in work are finished, the others go to other workers.
    """
    need_cluster()
    console = Console(quiet=quiet)
    set_up_logging(console, verbose)
    devices = _list_devices(DeviceSettings(device, workers, threads, batch_size))
    from bgx.cluster.settings import WorkerSettings

    settings = WorkerSettings(
        model=model,
        models=ModelSettings.from_environment(offline=offline, family=family),
        devices=devices,
        allow=tuple(allow),
        memory=parse_bytes(memory, flag="--memory")
        if memory is not None
        else int(_SHARE * memory_limit() / len(devices)),
        task_limit=task_limit,
        level=logging.getLogger("bgx").level,
    )
    names = [name.strip() for name in queues.split(",")]
    if check:
        return _check(broker, names, settings)
    from bgx.cluster.worker import run_worker

    return ExitCode(run_worker(broker, names, settings, console.print_note))


def _list_devices(device: DeviceSettings) -> tuple[DeviceSettings, ...]:
    """The device of each process: one process for each GPU."""
    if len(device.indices) < 2:
        return (device,)
    return tuple(replace(device, device=f"{device.kind}:{index}") for index in device.indices)


def _check(broker: str, queues: Sequence[str], settings: WorkerSettings) -> ExitCode:
    from bgx.cluster.worker import check_worker

    code = ExitCode.OK
    for name, found in check_worker(broker, queues, settings):
        failed = isinstance(found, BgxError)
        print_result(f"{name}: {'not usable: ' if failed else ''}{found}")
        if isinstance(found, BgxError):
            code = code or found.exit_code
    return code
