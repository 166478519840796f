"""Downloading from a real server on this machine, with the real pooch."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bgx.errors import BadModelError, MissingModelError, ModelError
from bgx.model.fetch import FIRST_ANSWER_S, fetch
from bgx.model.registry import ModelEntry, load_registry
from bgx.model.store import RETRY_S, Store
from bgx.settings import ModelSettings
from support.shell import PATIENCE

CONTENT = bytes(range(256)) * 4096
ENTRY = replace(
    load_registry()["u2netp"],
    name="tiny",
    url="https://models.invalid/v1/tiny-epoch_1.onnx",
    hash=f"sha256:{hashlib.sha256(CONTENT).hexdigest()}",
    bytes=len(CONTENT),
)

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Server:
    """A server that answers every request as told. release: ends answers that wait."""

    url: str
    answer: Answer
    paths: list[str] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.paths.append(self.path)
            try:
                told.answer(self)
            except ConnectionError:
                # The client has heard enough.
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        told = Server(f"http://127.0.0.1:{http.server_port}", send(CONTENT))
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield told
        told.release.set()
        http.shutdown()
        thread.join()


def send(content: bytes, *, announced: int | None = None) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        size = len(content) if announced is None else announced
        request.send_header("Content-Length", str(size))
        request.end_headers()
        request.wfile.write(content)

    return answer


def fetch_from(server: Server, folder: Path, entry: ModelEntry = ENTRY, **options: Any) -> Path:
    return fetch(entry, folder, mirror=f"{server.url}/mirror/", **options)


def start_fetch(server: Server, folder: Path) -> subprocess.Popen[str]:
    """A process of its own that fetches."""
    code = (
        # A shell starts what runs in the background with Ctrl-C ignored, and children inherit that.
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "sys.path[:0] = sys.argv[3:];"
        "from test_fetch import ENTRY; from pathlib import Path; from bgx.model.fetch import fetch;"
        "fetch(ENTRY, Path(sys.argv[2]), mirror=sys.argv[1])"
    )
    here = str(Path(__file__).parent)
    arguments = [sys.executable, "-c", code, server.url, str(folder), here]
    return subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_the_file_arrives_whole_under_its_name(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "not" / "there" / "yet"
    path = fetch_from(server, folder, progress=True)
    assert path == folder / "tiny.onnx"
    assert path.read_bytes() == CONTENT
    assert left_in(folder) == ["tiny.onnx"]
    # A mirror has the published files under the published names.
    assert server.paths == ["/mirror/tiny-epoch_1.onnx"]
    # Stderr is no terminal here, and nobody but bgx speaks to the user.
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_the_file_is_as_readable_as_any_other(server: Server, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        path = fetch_from(server, tmp_path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_published_md5_is_checked_as_well(server: Server, tmp_path: Path) -> None:
    good = replace(ENTRY, hash=f"md5:{hashlib.md5(CONTENT).hexdigest()}")
    assert fetch_from(server, tmp_path, good).read_bytes() == CONTENT
    with pytest.raises(BadModelError):
        fetch_from(server, tmp_path / "other", replace(ENTRY, hash="md5:" + "0" * 32))


def test_a_wrong_hash_keeps_nothing(server: Server, tmp_path: Path) -> None:
    server.answer = send(bytes(len(CONTENT)))
    with pytest.raises(BadModelError, match="hash"):
        fetch_from(server, tmp_path)
    assert left_in(tmp_path) == []


def test_a_wrong_hash_leaves_the_file_that_was_there(server: Server, tmp_path: Path) -> None:
    (tmp_path / "tiny.onnx").write_bytes(b"the old one")
    server.answer = send(bytes(len(CONTENT)))
    with pytest.raises(BadModelError):
        fetch_from(server, tmp_path)
    assert (tmp_path / "tiny.onnx").read_bytes() == b"the old one"


def test_a_damaged_file_is_replaced(server: Server, tmp_path: Path) -> None:
    (tmp_path / "tiny.onnx").write_bytes(b"half of it")
    assert fetch_from(server, tmp_path).read_bytes() == CONTENT


def test_too_large_by_its_own_account_is_not_begun(server: Server, tmp_path: Path) -> None:
    server.answer = send(b"", announced=10**15)
    with pytest.raises(BadModelError, match="larger than"):
        fetch_from(server, tmp_path)
    assert left_in(tmp_path) == []


def test_a_server_without_end_does_not_fill_the_disk(server: Server, tmp_path: Path) -> None:
    sent = 0

    def answer(request: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        request.send_response(200)
        request.end_headers()
        while True:
            sent += request.wfile.write(CONTENT)

    server.answer = answer
    with pytest.raises(BadModelError, match="larger than"):
        fetch_from(server, tmp_path)
    assert left_in(tmp_path) == []
    # What lay in the buffers between, not what the server would have liked to send.
    assert sent < 100 * len(CONTENT)


def test_a_truncated_transfer_keeps_nothing(server: Server, tmp_path: Path) -> None:
    server.answer = send(CONTENT[:100], announced=len(CONTENT))
    with pytest.raises(MissingModelError, match="broke off"):
        fetch_from(server, tmp_path)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_a_refusal_is_told_with_its_number(server: Server, tmp_path: Path, status: int) -> None:
    server.answer = lambda request: request.send_error(status)
    with pytest.raises(MissingModelError, match=str(status)) as caught:
        fetch_from(server, tmp_path)
    assert "bgx models add tiny FILE.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert left_in(tmp_path) == []


def test_a_transfer_that_stalls_ends(server: Server, tmp_path: Path) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        send(CONTENT[:100], announced=len(CONTENT))(request)
        server.release.wait()

    server.answer = answer
    with pytest.raises(MissingModelError, match="stalled"):
        fetch_from(server, tmp_path, stall=0.2)
    assert left_in(tmp_path) == []


def test_a_server_that_never_answers_is_given_up(server: Server, tmp_path: Path) -> None:
    def answer(_: BaseHTTPRequestHandler) -> None:
        server.release.wait()

    server.answer = answer
    with pytest.raises(MissingModelError, match="no answer in time"):
        fetch_from(server, tmp_path, first_answer=1.0)
    assert left_in(tmp_path) == []
    # With the time a start of bgx takes, a machine without internet has its error in 15 s.
    assert FIRST_ANSWER_S <= 10


def test_a_look_up_of_names_that_hangs_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: hanging.wait())
    try:
        with pytest.raises(MissingModelError, match="no answer in time"):
            fetch(ENTRY, tmp_path, first_answer=1.0)
    finally:
        hanging.set()
    assert left_in(tmp_path) == []


def test_nobody_there(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        mirror = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(MissingModelError, match="no connection") as caught:
            fetch(ENTRY, tmp_path, mirror=mirror)
    assert "BGX_MODEL_MIRROR" in str(caught.value)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("host", ["a..b", "x" * 70, "a:b"])
def test_an_address_that_is_none_is_no_wrong_hash(tmp_path: Path, host: str) -> None:
    with pytest.raises(MissingModelError, match="cannot be downloaded") as caught:
        fetch(ENTRY, tmp_path, mirror=f"http://me:secret@{host}")
    assert "secret" not in str(caught.value)


def test_a_certificate_file_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "nosuch.pem"))
    with pytest.raises(MissingModelError, match=r"nosuch\.pem"):
        fetch(ENTRY, tmp_path, mirror="https://127.0.0.1:9")


def test_without_a_stderr_there_is_no_bar(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer = send(CONTENT)
    monkeypatch.setattr(sys, "stderr", None)
    assert fetch(ENTRY, tmp_path, mirror=server.url, progress=True).read_bytes() == CONTENT


def test_what_a_killed_download_left_goes_when_nobody_writes_to_it(
    server: Server, tmp_path: Path
) -> None:
    server.answer = send(CONTENT)
    for name, age in ((".fetch-dead", 2 * 3600), (".fetch-alive", 60)):
        part = tmp_path / name / "part"
        part.parent.mkdir()
        part.write_bytes(b"half")
        for path in (part, part.parent):
            os.utime(path, (time.time() - age,) * 2)
    fetch_from(server, tmp_path)
    assert left_in(tmp_path) == [".fetch-alive", "part", "tiny.onnx"]


def test_a_login_in_the_mirrors_address_is_not_shown(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        mirror = f"http://me:secret@127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(MissingModelError) as caught:
            fetch(ENTRY, tmp_path, mirror=mirror)
    assert "secret" not in str(caught.value)


def test_no_address_in_the_registry(tmp_path: Path) -> None:
    with pytest.raises(MissingModelError, match="bgx models add tiny FILE"):
        fetch(replace(ENTRY, url=None), tmp_path)


def test_a_full_disk_is_told_so(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("shutil.move", full)
    with pytest.raises(ModelError, match=r"the disk is full.*BGX_HOME") as caught:
        fetch_from(server, tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert left_in(tmp_path) == []


def test_a_folder_that_is_a_file(server: Server, tmp_path: Path) -> None:
    occupied = tmp_path / "occupied"
    occupied.write_bytes(b"")
    with pytest.raises(ModelError, match="BGX_HOME"):
        fetch_from(server, occupied)


def test_two_processes_at_once_both_end_well(server: Server, tmp_path: Path) -> None:
    both = threading.Barrier(2)

    def answer(request: BaseHTTPRequestHandler) -> None:
        both.wait(60)
        send(CONTENT)(request)
        both.wait(60)

    server.answer = answer
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        # Not a function of this module, which a new process can import only from some folders.
        ask = partial(fetch, mirror=server.url)
        fetching = pool.starmap_async(ask, [(ENTRY, tmp_path)] * 2, chunksize=1)
        paths = fetching.get(PATIENCE)
    assert paths == [tmp_path / "tiny.onnx"] * 2
    assert left_in(tmp_path) == ["tiny.onnx"]
    assert (tmp_path / "tiny.onnx").read_bytes() == CONTENT


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is sent as a POSIX signal")
def test_ctrl_c_in_the_middle_leaves_nothing(server: Server, tmp_path: Path) -> None:
    half = threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        send(CONTENT[: len(CONTENT) // 2], announced=len(CONTENT))(request)
        half.set()
        server.release.wait()

    server.answer = answer
    process = start_fetch(server, tmp_path)
    assert half.wait(60)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in said
    assert left_in(tmp_path) == []


def test_the_store_fetches_what_is_missing_and_only_once(server: Server, tmp_path: Path) -> None:
    store = Store(ModelSettings(folder=tmp_path, mirror=server.url))
    registry = {"u2net": ENTRY, "tiny": ENTRY}
    first = store.resolve("tiny", registry)
    assert (first.origin, first.digest) == ("fetched", ENTRY.hash)
    assert store.resolve("tiny", registry) == first
    assert store.download(ENTRY) == first
    assert len(server.paths) == 1


def test_download_replaces_a_damaged_file(server: Server, tmp_path: Path) -> None:
    store = Store(ModelSettings(folder=tmp_path, mirror=server.url))
    store.download(ENTRY).path.write_bytes(b"damaged")
    with pytest.raises(BadModelError, match="bgx models download tiny"):
        store.resolve("tiny", {"tiny": ENTRY})
    assert store.download(ENTRY).path.read_bytes() == CONTENT


def test_offline_asks_no_server(server: Server, tmp_path: Path) -> None:
    store = Store(ModelSettings(folder=tmp_path, mirror=server.url, offline=True))
    with pytest.raises(MissingModelError, match="offline"):
        store.resolve("tiny", {"tiny": ENTRY})
    assert server.paths == []


def test_the_default_network_is_not_waited_for_again_and_again(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Behind a firewall that drops packets each command would take ten seconds longer."""
    server.answer = lambda _: server.release.wait()
    settings = ModelSettings(folder=tmp_path, mirror=server.url)
    registry = load_registry()

    for _ in range(3):
        store = Store(settings, first_answer=1.0)
        assert store.resolve(None, registry).entry.name == "lite"
    assert len(server.paths) == 1
    assert caplog.text.count("using lite") == 3
    assert "u2net: its server did not answer" in caplog.text

    # One that is named is asked for, and so is another server.
    with pytest.raises(MissingModelError, match="no answer in time"):
        Store(settings, first_answer=1.0).resolve("u2net", registry)
    moved = replace(settings, mirror=f"{server.url}/other")
    Store(moved, first_answer=1.0).resolve(None, registry)
    assert len(server.paths) == 3

    # After a while it is tried again.
    note = tmp_path / "stamps" / "no-answer"
    os.utime(note, (note.stat().st_mtime - RETRY_S,) * 2)
    Store(moved, first_answer=1.0).resolve(None, registry)
    assert len(server.paths) == 4


def test_a_refusal_is_asked_again_each_time(server: Server, tmp_path: Path) -> None:
    server.answer = lambda request: request.send_error(503)
    for _ in range(2):
        store = Store(ModelSettings(folder=tmp_path, mirror=server.url))
        assert store.resolve(None, load_registry()).entry.name == "lite"
    assert len(server.paths) == 2
