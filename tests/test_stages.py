"""Overlapping stages: one outcome each, never more in work than allowed, an end in every case."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgx.run.stages import Bound, Stage, run_stages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

WIDE = Bound(items=1000, weight=10**9)
PATIENCE = 60  # seconds until a test that hangs fails


class BrokenError(Exception):
    """What a broken item ends as."""


@dataclass(frozen=True)
class Item:
    """One value on its way. fails_in: number of the stage it breaks in, None for none."""

    weight: int = 0
    fails_in: int | None = None
    slow: bool = False


@dataclass
class Recorder:
    """Stages that record what they are given, and the consumer's side of the same run."""

    shape: Sequence[tuple[int, int]]  # workers and batch of each stage
    lock: threading.Lock = field(default_factory=threading.Lock)
    calls: list[tuple[int, int]] = field(default_factory=list)
    started: list[int] = field(default_factory=list)
    in_work: dict[int, int] = field(default_factory=dict)
    heaviest: list[tuple[int, int]] = field(default_factory=list)  # (items, weight), at each start
    busy: list[int] = field(default_factory=list)
    busiest: list[int] = field(default_factory=list)

    def stages(self) -> list[Stage]:
        self.busy = [0] * len(self.shape)
        self.busiest = [0] * len(self.shape)
        return [
            Stage(f"test-{number}", self._operation(number), workers, batch)
            for number, (workers, batch) in enumerate(self.shape)
        ]

    def _operation(self, number: int) -> Callable[[list[Any]], list[Any]]:
        def operate(values: list[tuple[int, Item]]) -> list[Any]:
            with self.lock:
                self.calls.append((number, len(values)))
                self.busy[number] += 1
                self.busiest[number] = max(self.busiest[number], self.busy[number])
                if number == 0:
                    for index, item in values:
                        self.started.append(index)
                        self.in_work[index] = item.weight
                    self.heaviest.append((len(self.in_work), sum(self.in_work.values())))
            if any(item.slow for _, item in values):
                time.sleep(0.001)  # only mixes the order
            with self.lock:
                self.busy[number] -= 1
            return [
                BrokenError(index) if item.fails_in == number else (index, item)
                for index, item in values
            ]

        return operate

    def consume(self, items: Sequence[Item], bound: Bound, **options: Any) -> list[tuple[int, Any]]:
        outcomes = []
        flow = run_stages(
            list(enumerate(items)),
            self.stages(),
            bound,
            weigh=lambda value: value[1].weight,
            **options,
        )
        for index, value in flow:
            with self.lock:
                self.in_work.pop(index)
            outcomes.append((index, value))
        return outcomes


shapes = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), min_size=1, max_size=3)
bounds = st.builds(Bound, items=st.integers(1, 6), weight=st.integers(0, 20))
item_lists = st.lists(
    st.builds(
        Item,
        weight=st.integers(0, 12),
        fails_in=st.none() | st.integers(0, 2),
        slow=st.booleans(),
    ),
    max_size=20,
)


@given(item_lists, shapes, bounds, st.booleans())
def test_every_item_has_exactly_one_outcome_within_the_bound(
    items: list[Item], shape: list[tuple[int, int]], bound: Bound, in_order: bool
) -> None:
    recorder = Recorder(shape)

    outcomes = recorder.consume(items, bound, in_order=in_order)

    indices = [index for index, _ in outcomes]
    assert sorted(indices) == list(range(len(items)))
    if in_order:
        assert indices == sorted(indices)
    for index, value in outcomes:
        fails_in = items[index].fails_in
        if fails_in is not None and fails_in < len(shape):
            assert isinstance(value, BrokenError)
        else:
            assert value == (index, items[index])
    for in_work, weight in recorder.heaviest:
        assert in_work <= bound.items
        assert weight <= bound.weight or in_work == 1
    assert all(size <= shape[number][1] for number, size in recorder.calls)
    assert all(
        busiest <= workers for busiest, (workers, _) in zip(recorder.busiest, shape, strict=True)
    )


@given(item_lists, shapes, bounds, st.integers(1, 5), st.booleans())
def test_after_a_stop_what_was_started_is_finished_and_nothing_else(
    items: list[Item], shape: list[tuple[int, int]], bound: Bound, after: int, in_order: bool
) -> None:
    recorder = Recorder(shape)
    stop = threading.Event()
    outcomes = []
    flow = run_stages(
        list(enumerate(items)), recorder.stages(), bound, stop=stop, in_order=in_order
    )
    for outcome in flow:
        outcomes.append(outcome)
        if len(outcomes) == after:
            stop.set()

    indices = [index for index, _ in outcomes]
    assert len(set(indices)) == len(indices)
    assert set(indices) == set(recorder.started)
    assert len(indices) <= after + bound.items
    if in_order:
        assert indices == sorted(indices)


@given(shapes, bounds, st.integers(0, 12))
def test_the_source_is_pulled_no_further_than_the_bound(
    shape: list[tuple[int, int]], bound: Bound, number: int
) -> None:
    ahead = 0
    furthest = 0

    def source() -> Iterator[tuple[int, Item]]:
        nonlocal ahead, furthest
        for index in range(number):
            ahead += 1
            furthest = max(furthest, ahead)
            yield index, Item()

    for _ in run_stages(source(), Recorder(shape).stages(), bound):
        ahead -= 1

    assert ahead == 0
    assert furthest <= bound.items


def test_a_stopped_flow_starts_nothing() -> None:
    recorder = Recorder([(2, 1)])
    stop = threading.Event()
    stop.set()

    assert recorder.consume([Item()] * 5, WIDE, stop=stop) == []
    assert recorder.calls == []


def test_batches_are_full_as_long_as_they_can_be() -> None:
    recorder = Recorder([(3, 1), (1, 4)])

    recorder.consume([Item()] * 10, WIDE)

    assert [size for number, size in recorder.calls if number == 1] == [4, 4, 2]


def test_a_bound_smaller_than_a_batch_gives_smaller_batches() -> None:
    recorder = Recorder([(3, 1), (1, 4)])

    recorder.consume([Item()] * 7, Bound(items=3, weight=0))

    assert [size for number, size in recorder.calls if number == 1] == [3, 3, 1]


def test_a_batch_is_flushed_when_what_could_fill_it_has_failed() -> None:
    recorder = Recorder([(1, 1), (1, 4)])
    items = [Item(), Item(), Item(fails_in=0), Item(fails_in=0)]

    assert len(recorder.consume(items, WIDE)) == 4
    assert [size for number, size in recorder.calls if number == 1] == [2]


def test_an_item_heavier_than_the_bound_goes_alone() -> None:
    recorder = Recorder([(4, 1)])
    items = [Item(weight=1), Item(weight=50), Item(weight=1), Item(weight=1)]

    outcomes = recorder.consume(items, Bound(items=4, weight=2))

    assert len(outcomes) == 4
    assert (1, 50) in recorder.heaviest
    assert max(count for count, weight in recorder.heaviest if weight >= 50) == 1


def test_workers_of_a_stage_work_at_once() -> None:
    meeting = threading.Barrier(3)

    def meet(values: list[Any]) -> list[Any]:
        meeting.wait(PATIENCE)
        return values

    assert len(list(run_stages(range(3), [Stage("test", meet, 3)], WIDE))) == 3


def test_stages_overlap() -> None:
    """The second stage holds the first item until the first stage has the second one."""
    meeting = threading.Barrier(2)

    def meet_at(index: int) -> Callable[[list[int]], list[int]]:
        def operate(values: list[int]) -> list[int]:
            if values == [index]:
                meeting.wait(PATIENCE)
            return values

        return operate

    stages = [Stage("test-first", meet_at(1), 1), Stage("test-second", meet_at(0), 1)]

    assert sorted(value for _, value in run_stages(range(3), stages, WIDE)) == [0, 1, 2]


def test_what_is_finished_first_comes_first() -> None:
    """The first item is held until the second has come out."""
    second_came = threading.Event()

    def hold_the_first(values: list[int]) -> list[int]:
        assert values != [0] or second_came.wait(PATIENCE)
        return values

    order = []
    for index, _ in run_stages(range(2), [Stage("test", hold_the_first, 2)], WIDE):
        order.append(index)
        second_came.set()

    assert order == [1, 0]


def test_in_order_the_first_comes_first() -> None:
    """The first item is held until the second is done."""
    second_is_done = threading.Event()

    def hold_the_first(values: list[int]) -> list[int]:
        if values == [1]:
            second_is_done.set()
        assert second_is_done.wait(PATIENCE)
        return values

    flow = run_stages(range(2), [Stage("test", hold_the_first, 2)], WIDE, in_order=True)

    assert [index for index, _ in flow] == [0, 1]


def test_what_a_stage_raises_is_raised_after_the_rest() -> None:
    seen: list[int] = []

    def operate(values: list[int]) -> list[int]:
        if values == [3]:
            raise RuntimeError("a stage is broken")
        return values

    flow = run_stages(range(100), [Stage("test", operate, 1)], Bound(8, 0))
    with pytest.raises(RuntimeError, match="a stage is broken"):
        seen.extend(index for index, _ in flow)

    assert {0, 1, 2} <= set(seen)
    assert 3 not in seen
    assert len(seen) <= 3 + 8


def test_what_the_source_raises_is_raised_and_the_threads_end() -> None:
    def source() -> Iterator[int]:
        yield 0
        raise RuntimeError("the source is broken")

    with pytest.raises(RuntimeError, match="the source is broken"):
        list(run_stages(source(), [Stage("test-source", lambda values: values, 2)], WIDE))

    assert threads_of("test-source") == []


def test_a_consumer_that_leaves_ends_the_threads() -> None:
    recorder = Recorder([(2, 1), (1, 2)])
    flow = run_stages(list(enumerate([Item()] * 50)), recorder.stages(), Bound(4, 0))
    next(flow)

    flow.close()  # type: ignore[attr-defined]

    assert threads_of("test-0") == threads_of("test-1") == []
    assert len(recorder.started) <= 5


def threads_of(stage: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(stage)]
