"""Looking up results of workers in the storage."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, cast

from bgx.cluster.inflight import PendingPicture
from bgx.cluster.lookup import ResultLookup
from bgx.run.outcome import Job
from bgx.storage import open_file

if TYPE_CHECKING:
    from pathlib import Path

    from bgx.storage.base import File

PATIENCE = 30  # seconds until a lookup that does not end fails its test


class SlowFile:
    """A file whose storage answers once it is released."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.asked = 0

    def is_there(self) -> bool:
        self.asked += 1
        assert self.released.wait(PATIENCE)
        return True


def test_a_picture_whose_lookup_is_pending_is_not_looked_up_again(tmp_path: Path) -> None:
    target = SlowFile()
    job = Job(open_file(tmp_path / "a.jpg"), cast("File", target), None)
    picture = PendingPicture(job, Future(), number=1)
    lookup = ResultLookup()
    for _ in range(3):
        lookup.request(picture)
        lookup.start()

    assert lookup.pending == {picture}
    target.released.set()
    found: list[tuple[PendingPicture, bool]] = []
    end = time.monotonic() + PATIENCE
    while not found and time.monotonic() < end:
        found += lookup.collect()
    lookup.close()

    assert [*found, *lookup.collect()] == [(picture, True)]
    assert (target.asked, lookup.pending) == (1, set())
