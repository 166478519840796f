"""The cache of finished pictures: what it keeps, what it drops, and what it never serves."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bgx.errors import OutputError
from bgx.files import temporary
from bgx.serve.cache import Cache, compute_address, make_entry
from bgx.serve.orders import make_order
from bgx.serve.requests import CutoutRequest
from bgx.settings import ReadSettings
from support.pictures import encode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Clock:
    """Time that goes on by one second a look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture
def open_cache(tmp_path: Path) -> Callable[..., Cache]:
    clock = Clock()

    def make(limit: int = 1000, folder: Path = tmp_path / "cache") -> Cache:
        return Cache(folder, limit, touch_after=0, clock=clock)

    return make


def files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("contents/*/*") if path.is_file()]


def stored(folder: Path) -> int:
    """Bytes that the index counts, two entries of the same content once."""
    with closing(sqlite3.connect(folder / "index.sqlite3")) as index:
        rows = index.execute("SELECT DISTINCT content, size FROM entries").fetchall()
    return sum(size for _, size in rows)


def test_an_entry_comes_back_as_it_was_put(open_cache: Callable[..., Cache]) -> None:
    cache = open_cache()

    cache.put("k", make_entry(b"data", "image/png", {"width": 3, "box": [1, 2]}))

    entry = cache.get("k")
    assert entry is not None
    assert (entry.data, entry.media, entry.facts) == (
        b"data",
        "image/png",
        {"width": 3, "box": [1, 2]},
    )
    assert entry.digest == hashlib.sha256(b"data").hexdigest()
    assert cache.get("other") is None


def test_another_server_on_the_folder_sees_it(open_cache: Callable[..., Cache]) -> None:
    first, second = open_cache(), open_cache()

    first.put("k", make_entry(b"data", "image/png", {}))

    entry = second.get("k")
    assert entry is not None
    assert entry.data == b"data"
    assert first.address(a=1, b=[2]) == second.address(b=[2], a=1)


def test_addresses_of_two_folders_differ(open_cache: Callable[..., Cache], tmp_path: Path) -> None:
    one, other = open_cache(), open_cache(folder=tmp_path / "other")

    assert one.address(source="x") != other.address(source="x")
    assert one.address(source="x") != one.address(source="y")


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_the_secret_is_the_owners_alone(open_cache: Callable[..., Cache], tmp_path: Path) -> None:
    open_cache()

    assert stat.S_IMODE((tmp_path / "cache" / "secret").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700


operations = st.lists(
    st.tuples(
        st.sampled_from(["put", "get"]),
        st.integers(0, 9),
        st.integers(0, 5).map(lambda n: bytes([n]) * (n * 100 + 50)),
        st.integers(0, 1),
    ),
    max_size=40,
)


@given(operations=operations)
def test_it_holds_the_most_recently_used_that_fit(
    operations: list[tuple[str, int, bytes, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    clock = Clock()
    caches = [Cache(folder, 1000, touch_after=0, clock=clock) for _ in range(2)]
    kept: dict[str, bytes] = {}  # least recently used first

    def size() -> int:
        return sum(len(data) for data in set(kept.values()))

    for operation, number, data, server in operations:
        key = f"key{number}"
        if operation == "put":
            caches[server].put(key, make_entry(data, "x/y", {"n": number}))
            kept.pop(key, None)
            kept[key] = data
            while size() > 1000:
                del kept[next(iter(kept))]
        else:
            entry = caches[server].get(key)
            assert (entry.data if entry else None) == kept.get(key)
            if entry:
                kept[key] = kept.pop(key)
    assert stored(folder) == size()
    # A put over another content leaves the old file for the next clean-up.
    caches[0].clean()
    assert {path.read_bytes() for path in files(folder)} == set(kept.values())
    for cache in caches:
        cache.close()


def test_what_is_larger_than_the_cache_is_served_and_not_kept(
    open_cache: Callable[..., Cache], tmp_path: Path
) -> None:
    cache = open_cache(limit=10)
    cache.put("small", make_entry(b"1234", "x/y", {}))

    cache.put("large", make_entry(b"x" * 11, "x/y", {}))

    assert cache.get("large") is None
    assert cache.get("small") is not None


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "swapped"])
def test_damaged_content_is_a_miss_and_goes(
    open_cache: Callable[..., Cache], tmp_path: Path, damage: str
) -> None:
    cache = open_cache()
    cache.put("k", make_entry(b"right bytes", "x/y", {}))
    cache.put("other", make_entry(b"other bytes", "x/y", {}))
    [file] = [path for path in files(tmp_path / "cache") if path.read_bytes() == b"right bytes"]
    match damage:
        case "cut":
            file.write_bytes(b"right")
        case "changed":
            file.write_bytes(b"wrong bytes")
        case "gone":
            file.unlink()
        case "swapped":
            file.write_bytes(b"other bytes")

    assert cache.get("k") is None

    assert not file.exists()
    assert stored(tmp_path / "cache") == len(b"other bytes")
    cache.put("k", make_entry(b"right bytes", "x/y", {}))
    assert cache.get("k") is not None


def test_a_smaller_limit_is_kept_from_the_start(
    open_cache: Callable[..., Cache], tmp_path: Path
) -> None:
    cache = open_cache(limit=1000)
    for number in range(10):
        cache.put(f"{number}", make_entry(bytes([number]) * 100, "x/y", {}))
    cache.close()

    smaller = open_cache(limit=250)

    assert stored(tmp_path / "cache") == 200
    assert len(files(tmp_path / "cache")) == 2
    assert smaller.get("9") is not None


def test_a_damaged_index_is_started_anew(
    open_cache: Callable[..., Cache], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = open_cache()
    cache.put("k", make_entry(b"data", "x/y", {}))
    key = cache.address(source="x")
    cache.close()
    (tmp_path / "cache" / "index.sqlite3").write_bytes(b"no database at all" * 1000)

    again = open_cache()

    assert again.get("k") is None
    assert files(tmp_path / "cache") == []
    assert again.address(source="x") == key
    again.put("k", make_entry(b"data", "x/y", {}))
    assert again.get("k") is not None


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(OutputError, match=r"--cache .*file.*cannot be used"):
        Cache(tmp_path / "file", 1000)


def test_what_killed_writers_left_goes_and_what_is_being_written_stays(
    open_cache: Callable[..., Cache], tmp_path: Path
) -> None:
    folder = tmp_path / "cache"
    open_cache()
    left = folder / ".0123456789abcdef.bgx-tmp"
    left.write_bytes(b"half")
    os.utime(left, (0, 0))

    with temporary(folder) as written:
        open_cache()

        assert written.exists()
    assert not left.exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows deletes no open file")
def test_a_folder_that_is_emptied_is_filled_again(
    open_cache: Callable[..., Cache], tmp_path: Path
) -> None:
    cache, entry = open_cache(), make_entry(b"data", "image/png", {})
    cache.put("k", entry)
    for path in (tmp_path / "cache").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert cache.get("k") is None

    cache.put("k", entry)

    assert cache.get("k") == entry
    # The next server counts what it finds from nothing.
    assert open_cache().get("k") is None
    assert files(tmp_path / "cache") == []


def test_what_decides_on_a_result_decides_on_its_address() -> None:
    photo = encode(Image.new("RGB", (40, 30), "red"), "PNG")
    same = {"network": "a", "feed": "b", "precision": "fp32", "device": "cpu", "code": "c"}

    def address(
        source: bytes = photo,
        background: bytes | None = None,
        *,
        max_size: int = 800,
        changed: str = "",
    ) -> str:
        order = make_order(
            CutoutRequest(source),
            source,
            background,
            model=None,
            identity=same | ({changed: "other"} if changed else {}),
            read=ReadSettings(max_size),
            address=partial(compute_address, b"secret"),
        )
        return order.key

    assert address() == address()
    others = [
        *(address(changed=name) for name in same),
        address(max_size=900),
        address(background=photo),
        address(encode(Image.new("RGB", (40, 30), "blue"), "PNG")),
    ]
    assert len({address(), *others}) == 1 + len(others)


_WORKER = """
import hashlib, random, sys
from pathlib import Path
from bgx.serve.cache import Cache, make_entry

cache = Cache(Path(sys.argv[1]), 60_000, touch_after=0)
chance = random.Random(int(sys.argv[2]))
print("started", flush=True)
while True:
    key = str(chance.randrange(40))
    # Ten contents for forty keys: files are shared.
    data = hashlib.sha512(key[-1].encode()).digest() * (20 + 40 * int(key[-1]))
    entry = cache.get(key)
    if entry is None:
        cache.put(key, make_entry(data, "x/y", {"key": key}))
    elif entry.data != data or entry.facts != {"key": key}:
        print("WRONG", key, flush=True)
    else:
        print("hit", flush=True)
"""


def _next_line(lines: TextIO, process: subprocess.Popen[bytes]) -> str:
    while not (line := lines.readline()):
        assert process.poll() is None
        time.sleep(0.005)
    return line.strip()


def test_servers_killed_at_random_leave_nothing_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    chance = random.Random(1)
    output = [(tmp_path / f"out{number}").open("wb") for number in range(3)]
    told: list[str] = []

    def start(number: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(folder), str(chance.random())[2:9]],
            stdout=output[number],
            stderr=subprocess.STDOUT,
        )

    with contextlib.ExitStack() as stack:
        for stream in output:
            stack.enter_context(stream)
        lines = [stack.enter_context(open(stream.name, encoding="utf-8")) for stream in output]
        running = [start(number) for number in range(3)]
        try:
            for _ in range(25):
                number = chance.randrange(3)
                for _ in range(chance.randrange(1, 30)):
                    told.append(_next_line(lines[number], running[number]))
                time.sleep(chance.uniform(0, 0.02))  # so that it is killed anywhere
                running[number].kill()
                running[number].wait()
                running[number] = start(number)
        finally:
            for process in running:
                process.kill()
                process.wait()
        for left in lines:
            told += left.read().split("\n")
    assert set(told) <= {"started", "hit", ""}
    assert told.count("hit") > 100

    cache = Cache(folder, 60_000)
    database = sqlite3.connect(folder / "index.sqlite3")
    keys = [key for (key,) in database.execute("SELECT key FROM entries")]
    database.close()
    assert stored(folder) <= 60_000
    # A server killed while it removed an entry may leave the row: a miss.
    entries = [entry for key in keys if (entry := cache.get(key))]
    assert len(entries) >= len(keys) - 25
    assert {path.name for path in files(folder)} == {entry.digest for entry in entries}
    cache.close()
