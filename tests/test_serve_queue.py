"""The queue: its limits, which request is displaced, which is next, and Retry-After."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from bgx.serve.queue import FullError, Load, Pace, Queue, Ticket

MEGAPIXEL = 1_000_000


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Visitors:
    """Clients at a queue, and what became of their tickets."""

    def __init__(self, requests: int, megapixels: int = 1000, size: int = 10**9) -> None:
        self.clock = Clock()
        limit = Load(requests, megapixels * MEGAPIXEL, size)
        self.queue = Queue(limit, self.clock)
        self.displaced: list[str] = []

    def enter(self, client: str, megapixels: float = 1, size: int = 0) -> Ticket:
        def displace(error: FullError) -> None:
            assert error.retry_after >= 1
            self.displaced.append(client)

        load = Load(1, int(megapixels * MEGAPIXEL), size)
        ticket = self.queue.enter(client, load, displace)
        ticket.ready = True
        return ticket

    def enter_many(self, clients: str, megapixels: float = 1) -> str:
        """A letter a request; tells of each whether it was taken in."""
        told = ""
        for client in clients:
            try:
                self.enter(client, megapixels)
                told += client
            except FullError:
                told += "-"
        return told

    def turns(self, count: int = 10**6) -> str:
        """Whose picture goes to work, one behind the other."""
        order = ""
        while len(order) < count and (ticket := self.queue.next()):
            self.queue.start(ticket)
            order += ticket.client
        return order


def test_one_client_alone_may_fill_the_queue() -> None:
    visitors = Visitors(4)

    assert visitors.enter_many("aaaaaa") == "aaaa--"

    assert visitors.turns() == "aaaa"
    assert visitors.enter_many("aa") == "aa"


def test_a_newcomer_takes_the_place_of_who_holds_most() -> None:
    visitors = Visitors(4)
    visitors.enter_many("aaaa")

    assert visitors.enter_many("bbb") == "bb-"

    assert visitors.displaced == ["a", "a"]
    assert sorted(visitors.turns()) == ["a", "a", "b", "b"]


def test_the_latest_request_of_the_greedy_one_goes() -> None:
    visitors = Visitors(3)
    tickets = [visitors.enter("a") for _ in range(3)]

    visitors.enter("b")

    assert [visitors.queue.next(), visitors.queue.waiting.requests] == [tickets[0], 3]
    visitors.queue.leave(tickets[2])  # it has left already
    assert visitors.queue.waiting.requests == 3


def test_what_several_clients_wait_for_is_not_displaced() -> None:
    visitors = Visitors(2)
    for _ in range(2):
        visitors.enter("a").kept = True

    assert visitors.enter_many("b") == "-"


def test_pixels_and_bytes_are_bounded_too() -> None:
    visitors = Visitors(100, megapixels=50)
    assert visitors.enter_many("aaa", megapixels=20) == "aa-"

    visitors = Visitors(100, size=1000)
    visitors.enter("a", size=900)
    with pytest.raises(FullError):
        visitors.enter("b", size=200)
    visitors.enter("b", size=100)


def test_who_holds_many_pixels_is_displaced_by_who_holds_few() -> None:
    visitors = Visitors(100, megapixels=50)
    for _ in range(2):
        visitors.enter("a", megapixels=25)

    visitors.enter("b", megapixels=1)

    assert visitors.displaced == ["a"]


def test_a_load_that_becomes_known_later_is_bounded_as_well() -> None:
    visitors = Visitors(10, megapixels=50)
    tickets = [visitors.enter("a", megapixels=1) for _ in range(3)]

    visitors.queue.change(tickets[0], Load(1, 40 * MEGAPIXEL))
    with pytest.raises(FullError):
        visitors.queue.change(tickets[1], Load(1, 40 * MEGAPIXEL))

    assert visitors.queue.waiting == Load(2, 41 * MEGAPIXEL)
    visitors.queue.leave(tickets[1])
    assert visitors.queue.next() is tickets[0]


def test_a_turn_each_however_many_one_has_sent() -> None:
    visitors = Visitors(20)
    visitors.enter_many("aaaaaabbc")

    assert visitors.turns() == "abcabaaaa"


def test_turns_go_by_pixels() -> None:
    visitors = Visitors(20)
    for _ in range(3):
        visitors.enter("a", megapixels=12)
    for _ in range(12):
        visitors.enter("b", megapixels=3)

    order = visitors.turns()

    assert order[:10] == "abbbbabbbb"


def test_who_comes_later_is_not_paid_back_for_having_been_away() -> None:
    visitors = Visitors(100)
    visitors.enter_many("a" * 20)
    visitors.turns(10)

    visitors.enter_many("b" * 20)

    assert visitors.turns(6) in ("ababab", "bababa")


def test_a_load_that_becomes_known_later_gives_no_turns_for_having_been_away() -> None:
    visitors = Visitors(100)
    visitors.enter_many("a" * 20)
    visitors.turns(10)

    only = visitors.enter("b", megapixels=3)
    visitors.queue.change(only, Load(1, MEGAPIXEL))
    visitors.enter_many("b" * 19)

    assert visitors.turns(6) in ("ababab", "bababa")


def test_who_asks_for_one_at_a_time_does_not_overtake_by_it() -> None:
    visitors = Visitors(100)
    for _ in range(20):
        visitors.enter("a", megapixels=1)
    order = ""
    for _ in range(8):
        if "b" not in {ticket.client for ticket in waiting(visitors.queue)}:
            visitors.enter("b", megapixels=4)
        order += visitors.turns(1)

    assert order.count("b") == 2


def waiting(queue: Queue) -> list[Ticket]:
    """All that are ready, found by letting them go one by one."""
    tickets = []
    while ticket := queue.next():
        ticket.ready = False
        tickets.append(ticket)
    for ticket in tickets:
        ticket.ready = True
    return tickets


def test_only_what_is_ready_has_a_turn() -> None:
    visitors = Visitors(10)
    ticket = visitors.enter("a")
    ticket.ready = False

    assert visitors.queue.next() is None
    visitors.enter("b")
    assert visitors.turns() == "b"


def test_retry_after_follows_what_waits_and_the_pace() -> None:
    visitors = Visitors(1000, megapixels=100_000)
    pace = visitors.queue.pace
    for _ in range(300):  # five minutes at 10 megapixels a second
        pace.begin()
        visitors.clock.now += 1
        pace.end(10 * MEGAPIXEL)
    assert visitors.queue.retry_after() == 1

    for _ in range(40):
        visitors.enter("a", megapixels=10)

    assert visitors.queue.retry_after() == pytest.approx(20, abs=1)


def test_idle_time_does_not_slow_the_pace_down() -> None:
    clock = Clock()
    pace = Pace(clock)
    for _ in range(100):
        pace.begin()
        pace.begin()
        clock.now += 2
        pace.end(10 * MEGAPIXEL)
        pace.end(10 * MEGAPIXEL)
        clock.now += 50

    assert pace.pixels_per_second == pytest.approx(10 * MEGAPIXEL, rel=0.05)


def test_the_pace_follows_a_change() -> None:
    clock = Clock()
    pace = Pace(clock)
    for megapixels in [10] * 100 + [1] * 300:
        pace.begin()
        clock.now += 1
        pace.end(megapixels * MEGAPIXEL)

    assert pace.pixels_per_second == pytest.approx(1 * MEGAPIXEL, rel=0.5)


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order: the bounds hold, and nobody keeps more than a share."""

    @initialize(requests=st.integers(1, 8), megapixels=st.integers(10, 60))
    def begin(self, requests: int, megapixels: int) -> None:
        self.visitors = Visitors(requests, megapixels, 100)
        self.queue = self.visitors.queue
        self.tickets: list[Ticket] = []

    @rule(client=st.sampled_from("abc"), megapixels=st.integers(0, 10), size=st.integers(0, 100))
    def enter(self, client: str, megapixels: int, size: int) -> None:
        before = self.loads()
        try:
            ticket = self.queue.enter(client, Load(1, megapixels * MEGAPIXEL, size), lambda _: None)
        except FullError:
            assert self.loads() == before
            asked = Load(1, megapixels * MEGAPIXEL, size)
            # Not even without what others hold beyond the newcomer's share would there be room.
            mine = before.get(client, Load(0)) + asked
            others = (self.without_surplus(other, mine) for other in before if other != client)
            assert sum(others, mine).share(self.queue.limit) > 1
        else:
            self.tickets.append(ticket)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), megapixels=st.integers(0, 10))
    def change(self, data: Any, megapixels: int) -> None:
        ticket = data.draw(st.sampled_from(self.tickets))
        if ticket in self.present():
            try:
                self.queue.change(ticket, Load(1, megapixels * MEGAPIXEL, ticket.load.bytes))
                ticket.ready = True
            except FullError:
                assert ticket not in self.present()

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def leave(self, data: Any) -> None:
        ticket = data.draw(st.sampled_from(self.tickets))
        self.queue.leave(ticket)
        assert ticket not in self.present()

    @rule()
    def start(self) -> None:
        ticket = self.queue.next()
        assert (ticket is None) == (not any(one.ready for one in self.present()))
        if ticket:
            self.queue.start(ticket)
            assert ticket not in self.present()

    def present(self) -> list[Ticket]:
        return self.queue.tickets

    def loads(self) -> dict[str, Load]:
        loads: dict[str, Load] = {}
        for ticket in self.present():
            loads[ticket.client] = loads.get(ticket.client, Load(0)) + ticket.load
        return loads

    def without_surplus(self, client: str, mine: Load) -> Load:
        """What a client holds without its latest requests that are beyond another's share."""
        loads = [ticket.load for ticket in self.present() if ticket.client == client]
        while loads and sum(loads[:-1], Load(0)).share(self.queue.limit) >= mine.share(
            self.queue.limit
        ):
            del loads[-1]
        return sum(loads, Load(0))

    @invariant()
    def bounds_hold(self) -> None:
        if hasattr(self, "queue"):
            assert self.queue.waiting.share(self.queue.limit) <= 1
            assert 1 <= self.queue.retry_after() <= 600


TestAnyOrder = AnyOrder.TestCase


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 20)), min_size=40, max_size=120))
def test_clients_with_work_left_are_served_alike(sent: list[tuple[str, int]]) -> None:
    visitors = Visitors(1000, megapixels=10_000)
    left = dict.fromkeys("abcd", 0)
    for client, megapixels in sent:
        visitors.enter(client, megapixels)
        left[client] += 1
    served = dict.fromkeys("abcd", 0.0)
    while ticket := visitors.queue.next():
        visitors.queue.start(ticket)
        served[ticket.client] += ticket.load.pixels / MEGAPIXEL
        left[ticket.client] -= 1
        busy = [served[client] for client in "abcd" if left[client]]
        # At most one picture apart, the largest.
        assert not busy or max(busy) - min(busy) <= 20
    assert math.fsum(served.values()) == sum(megapixels for _, megapixels in sent)
