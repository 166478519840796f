"""Pictures through the engine, for tests that need no ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bgx.options import settle
from bgx.run.batch import run_batch
from bgx.run.engine import Engine
from bgx.run.outcome import Failed, Job
from bgx.run.recipe import Recipe
from bgx.settings import ReadSettings
from bgx.storage import open_file
from bgx.storage.memory import InMemory
from bgx.threads import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from PIL import Image

    from bgx.options import OutputSettings
    from bgx.run.cutout import Cutout
    from bgx.run.outcome import Outcome
    from bgx.run.picture import Network


def make_recipe(*, preview: bool = False, **options: Any) -> Recipe:
    """A recipe of picture options; the network's own matte where nothing else is asked for."""
    return Recipe(ReadSettings(), settle({"refine": False, **options}), preview=preview)


def make_engine(network: Network, **options: Any) -> Engine:
    return Engine(lambda alone: network, **options)


def make_job(source: Path, target: Path | None = None, review: Path | None = None) -> Job:
    return Job(
        open_file(str(source)),
        open_file(str(target)) if target else None,
        open_file(str(review)) if review else None,
    )


def source_of(job: Job) -> Path:
    return Path(str(job.source))


def target_of(job: Job) -> Path:
    return Path(str(job.target))


def cut(
    picture: Image.Image | bytes | Path, network: Network, *, name: str = "picture", **options: Any
) -> Cutout:
    """One picture, in memory; raises what it failed with."""
    return cut_as(picture, network, make_recipe(**options).output, name=name)


def cut_as(
    picture: Image.Image | bytes | Path,
    network: Network,
    output: OutputSettings,
    *,
    name: str = "picture",
) -> Cutout:
    """As :func:`cut`, by settled options."""
    source = open_file(str(picture)) if isinstance(picture, Path) else InMemory(picture, name)
    engine = make_engine(network)
    recipe = Recipe(ReadSettings(), output)
    outcome = wait_for(engine.submit(Job(source), recipe, alone=True))
    engine.close()
    if isinstance(outcome, Failed):
        raise outcome.error
    return cast("Cutout", outcome.cutout)


def run_all(
    jobs: Sequence[Job], network: Network, *, workers: int = 2, **options: Any
) -> Iterator[Outcome]:
    """A batch's outcomes as they come."""
    engine = make_engine(network, workers=workers)
    try:
        yield from run_batch([jobs], make_recipe(**options), engine)
    finally:
        engine.close()


def by_job(jobs: Sequence[Job], outcomes: Iterable[Outcome]) -> dict[Job, Outcome]:
    """The outcome of each job; fails where a job has none or two."""
    listed = list(outcomes)
    assert sorted(str(outcome.job) for outcome in listed) == sorted(str(job) for job in jobs)
    return {outcome.job: outcome for outcome in listed}
