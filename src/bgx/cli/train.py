"""``bgx train``: fit the small network to one's own photos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bgx.cli.console import Console, print_result, set_up_logging
from bgx.cli.request import offline_option, option, quiet_option
from bgx.errors import ExitCode
from bgx.settings import ModelSettings
from bgx.storage import to_path

if TYPE_CHECKING:
    from bgx.train import Progress, TrainResult


@click.command()
@click.argument("photos", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument(
    "cutouts",
    metavar="[CUTOUTS]",
    required=False,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@option(
    "--output",
    "-o",
    required=True,
    metavar="PATH",
    type=to_path,
    envvar=None,  # BGX_OUTPUT is batch's folder
    help="File to write the network to, FILE.onnx.",
)
@option("--from", "start", default="lite", help="Start from lite, FILE.onnx, or nothing.")
@option(
    "--teacher",
    metavar="MODEL",
    help="Network that makes the cut-outs of photos that have none, and of mixtures of them.",
)
@option(
    "--epochs",
    type=click.IntRange(1),
    default=30,
    help="Pictures to show, as a multiple of the pairs.",
)
@option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    help="On a CPU, the same seed gives the same network.",
)
@option(
    "--device",
    "-d",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    envvar=None,  # BGX_DEVICE is a device of onnxruntime
    help="Where to train.",
)
@offline_option
@quiet_option
def train(
    photos: Path,
    cutouts: Path | None,
    output: Path,
    start: str,
    teacher: str | None,
    epochs: int,
    seed: int,
    device: str,
    offline: bool,
    quiet: bool,
) -> ExitCode:
    """Train a small network on your own photos and cut-outs.

    PHOTOS and CUTOUTS are folders. A cut-out is an RGBA picture or a black-and-white mask, and has
    the name of its photo. Some pairs are held back to measure the result. An interrupted run goes
    on when the same command is given again. Use the network with: bgx batch photos -o cut --model
    FILE.onnx
    """
    from bgx.image.read import prepare_process
    from bgx.train import TrainSettings
    from bgx.train import train as fit_network

    console = Console(quiet=quiet)
    set_up_logging(console, 0)
    prepare_process()
    settings = TrainSettings(
        photos=photos,
        cutouts=cutouts,
        output=output,
        start=start,
        teacher=teacher,
        epochs=epochs,
        seed=seed,
        device=device,  # type: ignore[arg-type]
        models=ModelSettings.from_environment(offline=offline),
    )

    def show(now: Progress) -> None:
        if now.step == now.steps or now.step % max(1, now.steps // 20) == 0:
            console.print_note(
                f"step {now.step} of {now.steps}, loss {now.loss:.3f}, held back: {now.score()}"
            )

    result = fit_network(settings, progress=show)
    for pair in result.bad:
        console.print_note(f"not used: {pair.name}: {pair.reason}")
    _print(result)
    return ExitCode.OK


def _print(result: TrainResult) -> None:
    print_result(
        f"{result.pairs} pairs trained on, {result.held_back} held back, {result.labelled} "
        f"labelled by the teacher, {result.mixtures} mixtures of those, "
        f"{len(result.bad)} not used, {result.seconds:.0f} s"
    )
    print_result(f"{'held back':10}{'max-F':>8}{'MAE':>8}")
    for name, score in (("before", result.before), ("after", result.after)):
        print_result(f"{name:10}{score.max_f:8.3f}{score.mae:8.3f}")
    print_result(str(result.output))
