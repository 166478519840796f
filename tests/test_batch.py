"""Many pictures: one outcome each whatever happens, the end of a run, and the order."""

from __future__ import annotations

import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bgx.errors import (
    BadModelError,
    BugError,
    InferenceError,
    OutputError,
    TooLargeError,
    UnreadableError,
    UnwritableError,
)
from bgx.model.engines import EnginePlan
from bgx.model.prepare import prepare
from bgx.model.registry import load_registry
from bgx.model.session import Session
from bgx.run import picture as picture_room
from bgx.run.batch import cut_in_order, run_batch
from bgx.run.outcome import Done, Failed, Job, Outcome, Skipped
from bgx.storage.memory import InMemory
from bgx.threads import wait_for
from support.fakes import (
    CrashingNetwork,
    FakeNetwork,
    GatedNetwork,
    cpu_plan,
    draw_photo,
    gpu_plan,
    save_photo,
)
from support.networks import tiny_network
from support.running import (
    by_job,
    cut,
    make_engine,
    make_job,
    make_recipe,
    run_all,
    target_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from bgx.run.picture import Network
    from bgx.storage.base import File

PATIENCE = 60  # seconds until a test that hangs fails


def run(
    jobs: Sequence[Job], network: Network, *, workers: int = 2, **options: Any
) -> dict[Job, Outcome]:
    """The outcome of each job; fails where a job has none or two."""
    return by_job(jobs, run_all(jobs, network, workers=workers, **options))


def make_jobs(folder: Path, subjects: Sequence[int]) -> list[Job]:
    """A job a photo; subjects: grey level of each photo's subject."""
    return [
        make_job(
            save_photo(folder / f"in/{number}.png", subject=subject),
            folder / f"out/{number}.png",
        )
        for number, subject in enumerate(subjects)
    ]


def is_bright(picture: NDArray[np.float32]) -> bool:
    """Whether the subject is white."""
    return float(picture.max()) > 0.99


def cut_many(
    pictures: Iterator[Image.Image | bytes], network: Network, workers: int = 2
) -> Iterator[Done | Failed]:
    jobs = (Job(InMemory(picture)) for picture in pictures)
    return cut_in_order(jobs, make_recipe(), make_engine(network, workers=workers))


PLANS = [cpu_plan(), gpu_plan(4)]


# One outcome each ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A photo of each fate."""
    folder = tmp_path_factory.mktemp("sources")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return {
        "good": save_photo(folder / "good.png", subject=200),
        "refused by the network": save_photo(folder / "bright.png", subject=255),
        "unreadable": folder / "broken.jpg",
        "gone": folder / "gone.jpg",
        "target is a folder": save_photo(folder / "fine.png", subject=200),
    }


EXPECTED = {
    "good": None,
    "refused by the network": InferenceError,
    "unreadable": UnreadableError,
    "gone": UnreadableError,
    "target is a folder": UnwritableError,
}


@settings(max_examples=40)
@given(
    fates=st.lists(st.sampled_from(sorted(EXPECTED)), max_size=9),
    batch_size=st.integers(1, 4),
    workers=st.integers(1, 3),
)
def test_every_job_has_its_outcome_whatever_happens_to_the_others(
    sources: dict[str, Path], fates: list[str], batch_size: int, workers: int
) -> None:
    plan = cpu_plan(workers) if batch_size == 1 else gpu_plan(batch_size)
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        jobs = []
        for number, fate in enumerate(fates):
            jobs.append(make_job(sources[fate], out / f"{number}.png"))
            if fate == "target is a folder":
                (target_of(jobs[-1]) / "full").mkdir(parents=True)

        outcomes = run(jobs, CrashingNetwork(plan, refuse=is_bright), workers=workers)

        for job, fate in zip(jobs, fates, strict=True):
            outcome = outcomes[job]
            expected = EXPECTED[fate]
            if expected is None:
                assert isinstance(outcome, Done)
                with Image.open(target_of(job)) as written:
                    assert written.mode == "RGBA"
            else:
                assert isinstance(outcome, Failed)
                assert type(outcome.error) is expected
                assert str(job.source if fate != "target is a folder" else job.target) in str(
                    outcome.error
                )
                assert not target_of(job).is_file()
        assert not list(out.glob(".*"))


@pytest.mark.parametrize("plan", PLANS, ids=["cpu", "gpu"])
def test_what_was_there_stays_when_a_picture_fails(tmp_path: Path, plan: EnginePlan) -> None:
    [job] = make_jobs(tmp_path, [255])
    target_of(job).parent.mkdir()
    target_of(job).write_bytes(b"yesterday's")

    run([job], CrashingNetwork(plan))

    assert target_of(job).read_bytes() == b"yesterday's"


@pytest.mark.parametrize("plan", PLANS, ids=["cpu", "gpu"])
def test_an_unexpected_error_is_a_bug_on_that_picture_alone(
    tmp_path: Path, plan: EnginePlan
) -> None:
    jobs = make_jobs(tmp_path, [200, 255, 200])
    network = CrashingNetwork(plan, refuse=is_bright, error=ZeroDivisionError("by zero"))

    outcomes = run(jobs, network)

    bug = outcomes[jobs[1]]
    assert [type(outcomes[job]) for job in jobs] == [Done, Failed, Done]
    assert isinstance(bug, Failed)
    assert isinstance(bug.error, BugError)
    assert str(bug.error).startswith(f"{jobs[1].source}: unexpected ZeroDivisionError('by zero')")
    assert isinstance(bug.error.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("plan", PLANS, ids=["cpu", "gpu"])
def test_a_bug_beside_the_network_too(
    tmp_path: Path, plan: EnginePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = make_jobs(tmp_path, [200, 255])

    def multiply(*_: object) -> None:
        raise KeyError("compose")

    monkeypatch.setattr(picture_room, "multiply_alpha", multiply)

    for job, outcome in run(jobs, FakeNetwork(plan)).items():
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, BugError)
        assert str(outcome.error).startswith(f"{job.source}: unexpected KeyError")


# Batches of a GPU ---------------------------------------------------------------------------------


def test_in_a_failing_batch_only_the_culprit_fails(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, [200, 255, 100, 200])

    outcomes = run(jobs, CrashingNetwork(gpu_plan(4), refuse=is_bright))

    assert [type(outcomes[job]) for job in jobs] == [Done, Failed, Done, Done]


@pytest.mark.parametrize("plan", PLANS, ids=["cpu", "gpu"])
def test_too_little_memory_for_a_picture_is_said_of_it(tmp_path: Path, plan: EnginePlan) -> None:
    jobs = make_jobs(tmp_path, [200, 255])
    network = CrashingNetwork(plan, refuse=is_bright, error=MemoryError())

    outcomes = run(jobs, network)

    failed = outcomes[jobs[1]]
    assert isinstance(outcomes[jobs[0]], Done)
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, TooLargeError)
    assert str(failed.error).startswith(f"{jobs[1].source}: not enough memory")


@given(st.lists(st.integers(0, 255), min_size=1, max_size=7), st.integers(2, 4))
@settings(max_examples=15)
def test_a_picture_in_a_batch_gets_the_matte_it_gets_alone(
    subjects: list[int], batch_size: int
) -> None:
    photos = [
        Image.new("RGB", (40 + number, 30), (subject, 255 - subject, 9))
        for number, subject in enumerate(subjects)
    ]
    together = cut_many(iter(photos), FakeNetwork(gpu_plan(batch_size)))

    for photo, outcome in zip(photos, together, strict=True):
        assert isinstance(outcome, Done)
        assert outcome.cutout is not None
        alone = cut(photo, FakeNetwork(cpu_plan()))
        assert outcome.cutout.matte.tobytes() == alone.matte.tobytes()


def open_tiny(path: Path, batch_size: int) -> Session:
    """A real session that takes batches as on a GPU, on the CPU."""
    plan = EnginePlan("cpu", (("CPUExecutionProvider", {}),), batch_size=batch_size)
    return Session(prepare(path), plan, load_registry()["u2netp"], name="tiny", output=0)


def test_onnxruntime_gives_a_picture_in_a_batch_the_matte_it_gets_alone(tmp_path: Path) -> None:
    path = tiny_network(tmp_path / "tiny.onnx")
    photos = [draw_photo((90, 60), 255), draw_photo((50, 99), 150), draw_photo((64, 64), 90)]
    alone = open_tiny(path, 1)

    together = cut_many(iter(photos), open_tiny(path, 4))

    for photo, outcome in zip(photos, together, strict=True):
        assert isinstance(outcome, Done)
        assert outcome.cutout is not None
        expected = np.asarray(cut(photo, alone).matte, np.int16)
        assert np.ptp(expected) > 100
        assert np.abs(np.asarray(outcome.cutout.matte, np.int16) - expected).max() <= 1


# The end of a run ---------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", PLANS, ids=["cpu", "gpu"])
def test_a_run_wide_error_ends_the_run_with_every_job_accounted_for(
    tmp_path: Path, plan: EnginePlan
) -> None:
    jobs = make_jobs(tmp_path, [255] * 40)
    outcomes: list[Outcome] = []

    with pytest.raises(BadModelError, match="not one matte"):
        outcomes.extend(run_all(jobs, CrashingNetwork(plan, error=BadModelError("not one matte"))))

    by_job(jobs, outcomes)
    failed = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
    skipped = [outcome for outcome in outcomes if isinstance(outcome, Skipped)]
    assert 1 <= len(failed) <= 2 * 4 + 6
    assert len(failed) + len(skipped) == len(jobs)
    assert {outcome.reason for outcome in skipped} == {"stopped"}


def test_a_part_is_asked_for_when_it_is_needed_and_not_after_a_stop(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, [255] * 40)
    stop = threading.Event()
    asked: list[int] = []

    def parts() -> Iterator[list[Job]]:
        for start in range(0, 40, 10):
            asked.append(start)
            yield jobs[start : start + 10]

    outcomes = []
    for outcome in run_batch(parts(), make_recipe(), make_engine(FakeNetwork()), stop=stop.is_set):
        outcomes.append(outcome)
        if len(outcomes) == 12:
            stop.set()

    assert asked == [0, 10]
    assert sorted(map(str, (o.job for o in outcomes))) == sorted(map(str, jobs[:20]))
    assert {outcome.reason for outcome in outcomes if isinstance(outcome, Skipped)} == {
        "interrupted"
    }


def test_a_part_that_cannot_be_found_ends_the_run(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, [255] * 8)

    def parts() -> Iterator[list[Job]]:
        yield jobs
        raise OutputError("out: cannot be listed")

    outcomes: list[Outcome] = []
    run = run_batch(parts(), make_recipe(), make_engine(FakeNetwork()))
    with pytest.raises(OutputError, match="cannot be listed"):
        outcomes.extend(run)

    made, left = (
        [outcome for outcome in outcomes if isinstance(outcome, kind)] for kind in (Done, Skipped)
    )
    assert len(made) + len(left) == 8
    assert {outcome.reason for outcome in left} <= {"stopped"}


def save_theirs(job: Job) -> None:
    target_of(job).parent.mkdir()
    target_of(job).write_bytes(b"theirs")


def test_a_target_made_since_the_plan_stays(tmp_path: Path) -> None:
    [job] = make_jobs(tmp_path, [255])
    save_theirs(job)

    [outcome] = run_all([job._replace(create=True)], FakeNetwork())

    assert outcome == Skipped(job._replace(create=True), "exists")
    assert target_of(job).read_bytes() == b"theirs"


def test_a_target_made_while_its_picture_is_in_work_stays(tmp_path: Path) -> None:
    [job] = make_jobs(tmp_path, [255])
    job = job._replace(create=True)
    network = GatedNetwork()
    engine = make_engine(network)
    future = engine.submit(job, make_recipe())
    assert network.started.acquire(timeout=60)
    save_theirs(job)
    network.gate.set()

    assert wait_for(future) == Skipped(job, "exists")
    assert target_of(job).read_bytes() == b"theirs"
    engine.close()


@dataclass(frozen=True)
class FullDisk:
    """A target without space."""

    name: str

    def __str__(self) -> str:
        return self.name

    def link(self, page: File) -> str:
        return ""

    def write(self, *pieces: bytes, create: bool = False) -> bool:
        raise OutputError(f"{self.name}: cannot be written: no space")

    def is_there(self) -> bool:
        return False


@pytest.mark.parametrize("plan", PLANS, ids=["cpu", "gpu"])
def test_a_full_disk_ends_the_run(tmp_path: Path, plan: EnginePlan) -> None:
    jobs = [
        Job(job.source, FullDisk(f"{number}.png"))
        for number, job in enumerate(make_jobs(tmp_path, [255] * 40))
    ]
    outcomes: list[Outcome] = []

    with pytest.raises(OutputError, match="no space"):
        outcomes.extend(run_all(jobs, FakeNetwork(plan)))

    by_job(jobs, outcomes)
    assert sum(isinstance(outcome, Skipped) for outcome in outcomes) > 20


@pytest.mark.parametrize("plan", PLANS, ids=["cpu", "gpu"])
def test_after_a_stop_what_is_in_work_is_written_and_the_rest_is_skipped(
    tmp_path: Path, plan: EnginePlan
) -> None:
    jobs = make_jobs(tmp_path, [255] * 40)
    network = GatedNetwork(plan)
    stop = threading.Event()

    def interrupt() -> None:
        assert network.started.acquire(timeout=PATIENCE)
        stop.set()
        network.gate.set()

    user = threading.Thread(target=interrupt)
    user.start()
    engine = make_engine(network, workers=2)
    outcomes = by_job(jobs, run_batch([jobs], make_recipe(), engine, stop=stop.is_set))
    user.join()

    done = [job for job, outcome in outcomes.items() if isinstance(outcome, Done)]
    skipped = [outcome for outcome in outcomes.values() if isinstance(outcome, Skipped)]
    assert 1 <= len(done) <= 2 * 4 + 6
    assert len(done) + len(skipped) == len(jobs)
    assert {outcome.reason for outcome in skipped} == {"interrupted"}
    assert sorted((tmp_path / "out").iterdir()) == sorted(map(target_of, done))


def test_a_run_stopped_before_it_begins_does_nothing(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, [255] * 3)
    stop = threading.Event()
    stop.set()

    outcomes = list(run_batch([jobs], make_recipe(), make_engine(FakeNetwork()), stop=stop.is_set))

    assert outcomes == [Skipped(job, "interrupted") for job in jobs]


def test_nothing_to_do_is_nothing_done() -> None:
    assert list(run_all([], FakeNetwork())) == []


# In order -----------------------------------------------------------------------------------------


@given(st.lists(st.booleans(), max_size=9), st.integers(1, 4))
@settings(max_examples=25)
def test_cut_outs_come_in_order_with_errors_in_their_places(
    good: list[bool], batch_size: int
) -> None:
    plan = cpu_plan() if batch_size == 1 else gpu_plan(batch_size)
    pictures = [
        Image.new("RGB", (20 + number, 20), "white") if is_good else b"no picture"
        for number, is_good in enumerate(good)
    ]

    results = list(cut_many(iter(pictures), FakeNetwork(plan), workers=3))

    assert len(results) == len(pictures)
    for number, (is_good, result) in enumerate(zip(good, results, strict=True)):
        if is_good:
            assert isinstance(result, Done)
            assert result.cutout is not None
            assert result.cutout.image.width == 20 + number
        else:
            assert isinstance(result, Failed)
            assert isinstance(result.error, UnreadableError)


def test_pictures_are_taken_only_as_far_ahead_as_fits() -> None:
    taken = 0

    def photos() -> Any:
        nonlocal taken
        for _ in range(50):
            taken += 1
            yield Image.new("RGB", (20, 20))

    results = cut_many(photos(), FakeNetwork())
    next(results)

    assert taken <= 5
    assert sum(1 for _ in results) == 49
