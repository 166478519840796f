"""``bgx bench``: measures which options are the fastest on this machine."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bgx.allocator import keep_memory
from bgx.cli.console import Console, print_result, set_up_logging
from bgx.cli.request import make_request, network_options, option
from bgx.errors import ExitCode, UsageError
from bgx.storage import open_file, open_folder

if TYPE_CHECKING:
    from bgx.cli.request import Request
    from bgx.run.bench import Result
    from bgx.storage.base import Source


@click.command()
@click.argument("photos", nargs=-1, metavar="[PHOTOS]...")
@option("--count", "-n", type=click.IntRange(2), default=16, help="Number of photos in one round.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@option("--workers", type=int, help="Measure this number only.")
@option("--batch-size", type=int, help="Measure this size only.")
@network_options
def bench(photos: tuple[str, ...], count: int, as_json: bool, **options: Any) -> ExitCode:
    """Measure which options are the fastest on this machine, and how long each step takes.

    PHOTOS are files or folders like those that you want to cut out. Without PHOTOS, bgx draws some.
    """
    request = make_request(**options)
    console = Console(quiet=request.quiet)
    set_up_logging(console, request.verbose)
    with tempfile.TemporaryDirectory(prefix="bgx-photos-") as folder:
        results = _measure(_find(photos, count, Path(folder)), request)
    if as_json:
        print_result(json.dumps([result.as_dict() for result in results], indent=2))
    else:
        _print(results)
    return ExitCode.OK


def _find(photos: tuple[str, ...], count: int, folder: Path) -> list[Source]:
    """``count`` photos, some repeatedly if there are fewer. Raises UsageError if there are none."""
    from bgx.run.bench import draw_photos
    from bgx.run.plan import plan_batch
    from bgx.run.sources import expand_patterns

    if not photos:
        return [open_file(path) for path in draw_photos(folder, count)]
    plan = plan_batch(
        expand_patterns(photos), open_folder(folder), suffix=".png", existing="overwrite"
    )
    found = [job.source for job in plan.jobs]
    if not found:
        raise UsageError("no photos found to measure with; name others or none")
    return (found * count)[:count]


def _measure(photos: list[Source], request: Request) -> list[Result]:
    from bgx.cli.loading import find_network
    from bgx.image.read import prepare_process
    from bgx.machine import count_cores
    from bgx.model.opening import open_session
    from bgx.run.bench import make_policies, measure

    prepare_process()
    keep_memory()
    file, store = find_network(request)
    asked = request.device
    policies = [asked]
    if asked.workers is asked.threads is asked.batch_size is None:
        gpu = not open_session(file, asked, store).plan.on_cpu
        policies = make_policies(asked, count_cores(), gpu=gpu)
    return measure(
        photos,
        policies,
        lambda policy: open_session(file, policy, store),
        request.read,
        request.output,
    )


def _print(results: list[Result]) -> None:
    from bgx.run.bench import STEPS

    print_result(f"{'photos/s':>8}  {'read':>6} {'infer':>6} {'compose':>7} {'write':>6} ms  flags")
    for result in results:
        steps = [f"{result.milliseconds[step]:.0f}" for step in STEPS]
        print_result(
            f"{result.pictures_per_second:8.2f}  {steps[0]:>6} {steps[1]:>6} {steps[2]:>7} "
            f"{steps[3]:>6}     {result.flags}"
        )
    best = max(results, key=lambda result: result.pictures_per_second)
    print_result(f"best here: --device {best.device} {best.flags}")
