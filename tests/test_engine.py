"""The engine: admission, waiting, batches for a GPU, and how its threads end."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bgx.errors import DeviceUnavailableError, InferenceError
from bgx.options import CanvasSettings, OutputSettings
from bgx.run.engine import Engine
from bgx.run.gather import Gatherer
from bgx.run.memory import Memory, estimate_memory, plan_memory
from bgx.run.outcome import Done, Job
from bgx.run.recipe import Recipe
from bgx.settings import ReadSettings
from bgx.storage.memory import InMemory
from bgx.threads import wait_for
from support.fakes import (
    CrashingNetwork,
    FakeNetwork,
    GatedNetwork,
    SmallMemoryNetwork,
    cpu_plan,
    draw_photo,
    gpu_plan,
)
from support.running import make_engine, make_recipe, run_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bgx.model.engines import EnginePlan
    from bgx.run.picture import Network
    from bgx.storage.base import File

PATIENCE = 60  # seconds until a test that hangs fails


def make_job(subject: int = 255) -> Job:
    return Job(InMemory(draw_photo(subject=subject)))


# Admission by number ------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", [cpu_plan(1), cpu_plan(2), gpu_plan(3)])
def test_who_comes_to_a_full_engine_waits_for_a_place_and_gets_it(plan: EnginePlan) -> None:
    network = GatedNetwork(plan)
    engine = make_engine(network, workers=2)
    recipe = make_recipe()
    places = engine.places()
    with ThreadPoolExecutor(3 * places) as callers:
        futures = [callers.submit(engine.submit, make_job(), recipe) for _ in range(3 * places)]
        taken, waiting = wait(futures, 0.5)
        assert (len(taken), len(waiting), engine.admitted) == (places, 2 * places, places)
        network.gate.set()
        assert all(isinstance(wait_for(future.result(PATIENCE)), Done) for future in futures)
    assert engine.admitted == 0
    engine.close()


def test_a_cancelled_picture_gives_its_place_back() -> None:
    network = GatedNetwork(cpu_plan(1))
    engine = make_engine(network)
    recipe = make_recipe()
    first, *others = [engine.submit(make_job(), recipe) for _ in range(engine.places())]
    assert network.started.acquire(timeout=PATIENCE)

    assert all(other.cancel() for other in others)

    assert engine.admitted == 1
    network.gate.set()
    assert isinstance(wait_for(first), Done)
    engine.close()


def test_closing_finishes_what_was_submitted() -> None:
    network = GatedNetwork(cpu_plan(1))
    engine = make_engine(network)
    futures = [engine.submit(make_job(), make_recipe()) for _ in range(engine.places())]
    opener = threading.Thread(target=network.gate.set)
    opener.start()

    engine.close()

    opener.join()
    assert all(isinstance(future.result(0), Done) for future in futures)


# Waiting for storage ------------------------------------------------------------------------------


@dataclass
class SlowSource:
    """A photo of an object store that answers when it is told to."""

    asked: threading.Event = field(default_factory=threading.Event)
    answer: threading.Event = field(default_factory=threading.Event)

    def __str__(self) -> str:
        return "slow"

    def link(self, page: File) -> str:
        return ""

    def open(self) -> Image.Image:
        self.asked.set()
        assert self.answer.wait(PATIENCE)
        return draw_photo()


def test_while_a_picture_waits_for_an_object_store_others_are_in_work() -> None:
    engine = make_engine(FakeNetwork(cpu_plan(1)), workers=1, remote=True)
    slow = SlowSource()
    waiting = engine.submit(Job(slow), make_recipe())
    assert slow.asked.wait(PATIENCE)

    assert isinstance(wait_for(engine.submit(make_job(), make_recipe())), Done)

    slow.answer.set()
    assert isinstance(wait_for(waiting), Done)
    engine.close()


def test_no_more_pictures_of_an_object_store_are_computed_than_there_are_workers() -> None:
    network = GatedNetwork(cpu_plan(2))
    engine = make_engine(network, workers=2, remote=True)
    futures = [engine.submit(make_job(), make_recipe()) for _ in range(engine.places())]
    assert network.started.acquire(timeout=PATIENCE)
    assert network.started.acquire(timeout=PATIENCE)

    assert not network.started.acquire(timeout=0.2)

    network.gate.set()
    assert all(isinstance(wait_for(future), Done) for future in futures)
    engine.close()


@pytest.mark.parametrize("plan", [cpu_plan(2), gpu_plan(2)], ids=["cpu", "gpu"])
def test_who_waits_for_memory_keeps_no_core_from_who_has_it(plan: EnginePlan) -> None:
    engine = make_engine(FakeNetwork(plan), workers=1, memory=1, remote=True)
    with ThreadPoolExecutor(8) as callers:
        futures = [callers.submit(engine.submit, make_job(), make_recipe()) for _ in range(24)]
        assert all(isinstance(future.result(PATIENCE).result(PATIENCE), Done) for future in futures)
    engine.close()


# One picture alone, and several -------------------------------------------------------------------


def test_one_picture_alone_has_its_own_network_and_others_share_one() -> None:
    alone, shared = GatedNetwork(cpu_plan(1)), FakeNetwork(cpu_plan(2))
    engine = Engine(lambda by_itself: alone if by_itself else shared)
    recipe = make_recipe()

    first = engine.submit(make_job(), recipe, alone=True)
    assert alone.started.acquire(timeout=PATIENCE)
    second = engine.submit(make_job(), recipe, alone=True)
    assert isinstance(wait_for(second), Done)
    alone.gate.set()
    assert isinstance(wait_for(first), Done)

    assert (alone.batches, shared.batches) == ([1], [1])
    engine.close()


@pytest.mark.parametrize("both", [False, True])
def test_a_picture_that_comes_alone_later_has_all_cores_again_where_both_are_kept(
    both: bool,
) -> None:
    single, shared = FakeNetwork(cpu_plan(1)), FakeNetwork(cpu_plan(2))
    engine = Engine(lambda alone: single if alone else shared, both=both)
    engine.places()  # several may come

    for _ in range(3):
        assert isinstance(wait_for(engine.submit(make_job(), make_recipe(), alone=True)), Done)

    assert (single.batches, shared.batches) == (([1] * 3, []) if both else ([], [1] * 3))
    engine.close()


def test_a_network_that_cannot_be_loaded_is_the_submitters_error() -> None:
    def load(_: bool) -> Network:
        raise DeviceUnavailableError("no such device")

    engine = Engine(load)

    for _ in range(2):
        with pytest.raises(DeviceUnavailableError, match="no such device"):
            engine.submit(make_job(), make_recipe())
    assert engine.admitted == 0


def test_workers() -> None:
    assert cpu_plan(3).count_workers(None, cores=8) == 3
    assert gpu_plan().count_workers(None, cores=8) == 8
    assert cpu_plan(3).count_workers(5, cores=8) == 5


def test_a_photo_is_read_while_the_network_runs_the_one_before_on_several_cores() -> None:
    @dataclass
    class WaitingNetwork(FakeNetwork):
        """The first run waits until another picture asks for one."""

        asked: list[None] = field(default_factory=list)
        second: threading.Event = field(default_factory=threading.Event)

        def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
            self.asked.append(None)
            if len(self.asked) == 1:
                assert self.second.wait(PATIENCE)
            self.second.set()
            return super().run(batch)

    engine = make_engine(WaitingNetwork(replace(cpu_plan(1), threads=2)))

    futures = [engine.submit(make_job(), make_recipe()) for _ in range(2)]

    assert all(isinstance(wait_for(future), Done) for future in futures)
    engine.close()


# Memory -------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=12),
    st.integers(1, 10),
    st.integers(1, 6),
)
def test_memory_is_never_granted_twice(amounts: list[int], size: int, threads: int) -> None:
    memory = Memory(size)
    lock = threading.Lock()
    held: list[int] = []
    seen: list[tuple[int, int]] = []

    def use(amount: int) -> None:
        with memory.hold(amount):
            with lock:
                held.append(amount)
                seen.append((len(held), sum(held)))
            with lock:
                held.remove(amount)

    with ThreadPoolExecutor(threads) as users:
        list(users.map(use, amounts))

    assert len(seen) == len(amounts)
    assert all(total <= size or count == 1 for count, total in seen if total)


def test_who_needs_much_memory_is_not_passed_over_for_ever() -> None:
    memory = Memory(10)
    order: list[str] = []
    inside, leave = threading.Event(), threading.Event()

    def hold_first() -> None:
        with memory.hold(6):
            inside.set()
            assert leave.wait(PATIENCE)

    def hold(name: str, amount: int, queued: threading.Event) -> None:
        queued.set()
        with memory.hold(amount):
            order.append(name)

    threads = [threading.Thread(target=hold_first)]
    threads[0].start()
    assert inside.wait(PATIENCE)
    large_came = threading.Event()
    threads.append(threading.Thread(target=hold, args=("large", 10, large_came)))
    threads[1].start()
    assert large_came.wait(PATIENCE)
    while not memory.waiting:
        pass
    threads.append(threading.Thread(target=hold, args=("small", 1, threading.Event())))
    threads[2].start()
    while memory.waiting < 2:
        pass
    leave.set()
    for thread in threads:
        thread.join(PATIENCE)

    assert order == ["large", "small"]


@dataclass
class CountingNetwork(FakeNetwork):
    """Counts runs at once."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    now: int = 0
    most: int = 0

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        mattes = super().run(batch)
        with self.lock:
            self.now -= 1
        return mattes


def test_photos_that_fill_the_memory_are_done_one_at_a_time() -> None:
    network = CountingNetwork(cpu_plan(4))
    engine = make_engine(network, workers=4, memory=1)

    futures = [engine.submit(make_job(), make_recipe()) for _ in range(24)]

    assert all(isinstance(wait_for(future), Done) for future in futures)
    assert network.most == 1
    engine.close()


def test_a_large_canvas_weighs_as_much_as_a_large_photo() -> None:
    def count(canvas: CanvasSettings, size: tuple[int, int] = (640, 480)) -> int:
        return Recipe(ReadSettings(), OutputSettings(canvas=canvas)).count_pixels(size)

    assert count(CanvasSettings()) == 640 * 480
    assert count(CanvasSettings(size=(14_000, 14_000))) == 14_000**2
    assert count(CanvasSettings(aspect=(4, 1))) == 1920 * 480
    assert count(CanvasSettings(size=(100, 100))) == 640 * 480


def test_a_photo_with_a_region_weighs_more() -> None:
    plain, part = (make_recipe(**options) for options in ({}, {"region": "0,0,50%,50%"}))
    assert part.count_pixels((600, 400)) == pytest.approx(4 / 3 * plain.count_pixels((600, 400)))


def test_memory_is_planned_within_the_limit_of_a_container(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = (320, 320)
    roomy = plan_memory(2, entry)
    assert roomy >= 2 * estimate_memory(24_000_000, entry)

    small = plan_memory(8, entry, limit=1 << 30, used=300 << 20)

    assert small <= (1 << 30) - (300 << 20)
    assert plan_memory(8, entry, limit=1 << 30, used=2 << 30) >= 1


# Batches of a GPU ---------------------------------------------------------------------------------


def run_together(
    network: Network, tensors: Sequence[NDArray[np.float32]], given_up: int = 0
) -> list[NDArray[np.float32] | Exception]:
    """What each picture gets of a network that is told of all of them first."""
    gatherer = Gatherer(network, patience=PATIENCE)
    expected = [gatherer.expect(contextlib.nullcontext()) for _ in tensors]
    gone = [gatherer.expect(contextlib.nullcontext()) for _ in range(given_up)]

    def run(number: int) -> NDArray[np.float32] | Exception:
        try:
            with expected[number]:
                return expected[number].run(tensors[number])
        except InferenceError as error:
            return error

    with ThreadPoolExecutor(len(tensors)) as threads:
        futures = [threads.submit(run, number) for number in range(len(tensors))]
        for picture in gone:
            with picture:
                pass
        results = [future.result(PATIENCE) for future in futures]
    gatherer.close()
    return results


def make_tensors(values: Sequence[float]) -> list[NDArray[np.float32]]:
    return [np.full((1, 3, 4, 4), value, np.float32) for value in values]


@given(st.integers(1, 9), st.integers(2, 4), st.integers(0, 2))
def test_pictures_meet_in_full_batches_and_get_their_own_values(
    count: int, batch_size: int, given_up: int
) -> None:
    network = FakeNetwork(gpu_plan(batch_size))

    values = run_together(network, make_tensors(range(count)), given_up)

    full, rest = divmod(count, batch_size)
    assert sorted(network.batches, reverse=True) == [batch_size] * full + [rest] * bool(rest)
    for number, value in enumerate(values):
        assert isinstance(value, np.ndarray)
        assert value.shape == (1, 4, 4)
        assert (value == number).all()


@pytest.mark.parametrize("error", [InferenceError("out of memory"), MemoryError()])
def test_a_batch_out_of_memory_is_done_one_by_one(error: Exception) -> None:
    network = SmallMemoryNetwork(gpu_plan(4), error=error)

    values = run_together(network, make_tensors(range(4)))

    assert network.batches == [4, 1, 1, 1, 1]
    assert all(isinstance(value, np.ndarray) for value in values)


def test_in_a_failing_batch_only_the_culprit_fails() -> None:
    network = CrashingNetwork(gpu_plan(4), refuse=lambda picture: bool(picture.max() == 2))

    values = run_together(network, make_tensors(range(4)))

    assert [isinstance(value, InferenceError) for value in values] == [False, False, True, False]


def test_a_picture_that_is_long_in_coming_does_not_hold_up_the_others() -> None:
    network = FakeNetwork(gpu_plan(4))
    gatherer = Gatherer(network, patience=0.01)
    picture, slow = (gatherer.expect(contextlib.nullcontext()) for _ in range(2))

    with picture:
        assert picture.run(*make_tensors([7])).max() == 7

    with slow:
        pass
    gatherer.close()


def test_pictures_may_be_run_again_while_others_wait() -> None:
    network = FakeNetwork(gpu_plan(2))
    gatherer = Gatherer(network, patience=PATIENCE)
    expected = [gatherer.expect(contextlib.nullcontext()) for _ in range(4)]

    def run_twice(number: int) -> list[float]:
        with expected[number] as one:
            return [float(one.run(*make_tensors([value])).max()) for value in (number, number + 10)]

    with ThreadPoolExecutor(4) as threads:
        futures = [threads.submit(run_twice, number) for number in range(4)]
        values = [future.result(PATIENCE) for future in futures]
    gatherer.close()

    assert values == [[number, number + 10] for number in range(4)]
    assert sum(network.batches) == 8


def test_small_subjects_of_a_batch_are_all_looked_at_again() -> None:
    photo = Image.new("RGB", (200, 150))
    photo.paste("white", (20, 20, 50, 50))
    network = FakeNetwork(gpu_plan(4))

    outcomes = list(run_all([Job(InMemory(photo)) for _ in range(9)], network, refine=True))

    assert [type(outcome) for outcome in outcomes] == [Done] * 9
    assert sum(network.batches) == 18


# Threads ------------------------------------------------------------------------------------------


def test_an_engine_that_is_forgotten_leaves_no_threads() -> None:
    before = threading.active_count()
    engine = make_engine(FakeNetwork(cpu_plan(2)))
    assert isinstance(wait_for(engine.submit(make_job(), make_recipe())), Done)
    assert threading.active_count() > before

    del engine

    assert threading.active_count() == before


def test_a_program_that_forgets_its_engine_ends() -> None:
    script = """
from PIL import Image
from bgx.run.engine import Engine
from bgx.run.outcome import Job
from support.fakes import FakeNetwork
from support.running import make_recipe
from bgx.storage.memory import InMemory

engine = Engine(lambda alone: FakeNetwork())
future = engine.submit(Job(InMemory(Image.new("RGB", (64, 48)))), make_recipe())
print(type(future.result()).__name__)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert (done.returncode, done.stdout) == (0, "Done\n"), done.stderr
