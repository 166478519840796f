"""What goes wrong between servers and their clients, tried on a running server.

Lying and endless bodies, clients that go away, addresses of the inside, bombs, full queues, the
same picture asked for by many, signals in the middle of work, servers killed beside each other.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import random
import signal
import socket
import struct
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from support.containers import container
from support.http import multipart
from support.networks import u2net_network
from support.pictures import encode
from support.serving import PATIENCE, serving
from support.shell import bgx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.serving import Answer, Server

PHOTO = encode(Image.new("RGB", (120, 80), "white"), "JPEG")

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and permissions of POSIX")


def noise(seed: int, size: tuple[int, int] = (1200, 800)) -> bytes:
    """A photo that takes a while to read and to write."""
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return encode(Image.fromarray(values), "JPEG", quality=60)


@pytest.fixture(scope="module")
def slow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BGX_HOME with a network that takes its time: U²-Net's true small graph."""
    from bgx.model.opening import open_session
    from bgx.model.store import Store
    from bgx.model.trial import check_network
    from bgx.settings import DeviceSettings, ModelSettings

    folder = tmp_path_factory.mktemp("slow")
    store = Store(ModelSettings(folder=folder))
    file = u2net_network(folder / "slow.onnx")
    added = store.add("u2netp", file, store.registry(), check=check_network)
    open_session(added, DeviceSettings("cpu"), store)
    return folder


@pytest.fixture
def slow(slow_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of this test have the slow network, and one worker."""
    monkeypatch.setenv("BGX_HOME", str(slow_home))
    monkeypatch.setenv("BGX_SERVE_MODEL", "u2netp")
    monkeypatch.setenv("BGX_SERVE_WORKERS", "1")


@pytest.fixture(scope="module")
def server(_stocked_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(
        *("--model", "u2netp", "--cache", tmp_path_factory.mktemp("cache"), "--fetch-urls"),
        *("--timeout", "2", "--max-body", "22MB"),
        env={"BGX_HOME": str(_stocked_home)},
    ) as running:
        yield running


def idle(server: Server) -> bool:
    """Whether nothing is left of any request."""
    return (
        server.figure("bgx_waiting") == 0
        and server.figure("bgx_working") == 0
        and server.figure("bgx_open") == 1  # this very question
    )


@contextlib.contextmanager
def connection(server: Server) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as opened:
        yield opened


def head(path: str, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: image/jpeg", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def read_status(opened: socket.socket) -> int:
    with opened.makefile("rb") as stream:
        return int(stream.readline().split()[1])


# Bodies -------------------------------------------------------------------------------------------


def test_a_body_shorter_than_it_says_gives_its_place_back(server: Server) -> None:
    with connection(server) as opened:
        opened.sendall(head("/cutouts", "Content-Length: 100000") + PHOTO)
        server.wait_for(lambda: server.figure("bgx_waiting") == 1, "it waits")

    server.wait_for(lambda: idle(server), "its place is free")


def test_a_length_beyond_the_limit_is_refused_before_the_body_is_sent(server: Server) -> None:
    with connection(server) as opened:
        opened.sendall(head("/cutouts", "Content-Length: 22000001", "Expect: 100-continue"))
        # Not 100: nothing needs to be sent.
        assert read_status(opened) == 413


def test_a_body_without_length_is_read_to_the_limit_and_no_further(server: Server) -> None:
    with connection(server) as opened:
        opened.sendall(head("/cutouts", "Transfer-Encoding: chunked"))
        with contextlib.suppress(OSError):
            for _ in range(100):
                opened.sendall(b"100000\r\n" + b"x" * 0x100000 + b"\r\n")
        assert read_status(opened) == 413
    server.wait_for(lambda: idle(server), "it is over")


def test_a_body_in_chunks_is_taken(server: Server) -> None:
    with connection(server) as opened:
        opened.sendall(head("/cutouts", "Transfer-Encoding: chunked", "Connection: close"))
        for start in range(0, len(PHOTO), 100):
            piece = PHOTO[start : start + 100]
            opened.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        opened.sendall(b"0\r\n\r\n")
        assert read_status(opened) == 200


def test_a_body_that_drips_is_left(server: Server) -> None:
    with connection(server) as opened:
        opened.sendall(head("/cutouts", "Content-Length: 100000"))
        stop = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not stop.wait(0.1):
                    opened.sendall(b"x")

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            assert read_status(opened) == 408
        finally:
            stop.set()
            dripping.join()


@pytest.mark.parametrize("sent", [10, 1000], ids=["a part", "all"])
def test_a_connection_that_is_answered_before_its_body_has_come_is_closed(
    server: Server, sent: int
) -> None:
    """Clients such as Node's may stop sending then, and wait for the server."""
    with connection(server) as opened:
        opened.sendall(head("/nowhere", "Content-Length: 1001") + b"x")
        answer = opened.recv(65536)
        while b"no-route" not in answer:
            answer += opened.recv(65536)
        opened.sendall(b"x" * sent)

        assert opened.recv(65536) == b""

    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"\r\nconnection: close\r\n" in answer


def test_base64_may_be_longer_than_other_fields_and_no_longer_than_a_photo(
    server: Server,
) -> None:
    rows = np.random.default_rng(1).integers(0, 256, (900, 2000, 3), np.uint8)
    large = encode(Image.fromarray(rows), "BMP")  # over 5 MB
    text = base64.b64encode(large).decode()

    def ask(value: str) -> Answer:
        body = json.dumps({"image_file_b64": value}).encode()
        kind = {"Content-Type": "application/json"}
        return server.request("POST", "/v1.0/removebg", body, kind)

    assert ask(text).status in (200, 400)
    assert ask(text).status == 200 or ask(text).json["errors"][0]["code"] == "unknown_foreground"
    refused = ask("A" * 34_000_000)
    assert (refused.status, refused.json["errors"][0]["code"]) == (400, "file_too_large")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (
            b"--x\r\nContent-Disposition: form-data\r\n\r\nx\r\n--x--",
            "multipart/form-data;boundary=x",
        ),
        (b"--y--\r\n", "multipart/form-data; boundary=x"),
        (b"x" * 1000, "multipart/form-data; boundary=" + "y" * 900),
        (b"x" * 1000, "multipart/form-data"),
        (b"\xff" * 1000, "application/json"),
        (b"[" * 100_000, "application/json"),
        (b'{"size": {"a": 1}}', "application/json"),
        (b"&" * 100_000, "application/x-www-form-urlencoded"),
        (PHOTO, "text/plain"),
    ],
)
def test_what_is_no_form_is_an_error_in_the_form_asked_for(
    server: Server, body: bytes, kind: str
) -> None:
    answer = server.request("POST", "/v1.0/removebg", body, {"Content-Type": kind})

    assert answer.status == 400
    assert answer.json["errors"][0]["code"]


# Bombs --------------------------------------------------------------------------------------------


def test_a_small_file_of_two_gigapixels_is_refused_unread(server: Server) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 40_000, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(bytes(30_000_000)))
        + chunk(b"IEND", b"")
    )
    assert len(bomb) < 40_000
    before = server.figure("bgx_memory_bytes")

    answer = server.send(bomb)
    background = server.post("/cutouts", {}, {"image": PHOTO, "background": bomb})

    assert answer.status == 413
    assert background.status == 400
    assert server.figure("bgx_memory_bytes") < before + 50_000_000


def test_a_canvas_of_gigapixels_is_refused(server: Server) -> None:
    answer = server.send(PHOTO, "?canvas=30000x30000&upscale=true")

    assert answer.status in (413, 422)


def test_a_zip_bomb_as_text_does_not_unpack(server: Server) -> None:
    packed = zlib.compress(bytes(50_000_000))
    answer = server.request(
        "POST",
        "/cutouts",
        packed,
        {"Content-Type": "image/jpeg", "Content-Encoding": "deflate"},
    )

    assert answer.status == 415


# Addresses of the inside --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "0.0.0.0"],
)
def test_a_request_does_not_reach_what_listens_inside(server: Server, host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as inside:
        inside.settimeout(0.0)
        port = inside.getsockname()[1]
        answers = [
            server.post("/v1.0/removebg", {"image_url": f"http://{host}:{port}/a.jpg"}),
            server.post(
                "/v1.0/removebg",
                {"bg_image_url": f"http://{host}:{port}/a.jpg"},
                {"image_file": PHOTO},
            ),
            server.get(f"/api/remove?url=http://{host}:{port}/a.jpg"),
        ]
        with pytest.raises(BlockingIOError):
            inside.accept()
    codes = [answer.json["errors"][0]["code"] for answer in answers[:2]]
    assert codes == ["invalid_image_url", "invalid_bg_image_url"]
    assert [answer.status for answer in answers] == [400, 400, 400]


# A full queue -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("slow")
def test_more_than_may_wait_are_told_when_to_come_again(tmp_path: Path) -> None:
    with serving("--queue", "2", "--no-cache") as server:
        alive: list[float] = []
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(0.05):
                start = time.monotonic()
                assert server.get("/livez").status == 200
                alive.append(time.monotonic() - start)

        watching = threading.Thread(target=watch)
        watching.start()
        start = time.monotonic()
        answers = server.send_many([noise(seed) for seed in range(30)])
        pictures = time.monotonic() - start
        stop.set()
        watching.join()

        statuses = [answer.status for answer in answers]
        assert set(statuses) == {200, 429}
        refused = [answer for answer in answers if answer.status == 429]
        assert all(1 <= int(answer.headers["retry-after"]) <= 600 for answer in refused)
        assert refused[0].json["code"] == "queue-full"
        # Not one of these had to wait for the pictures.
        assert len(alive) >= 3
        assert max(alive) < pictures / 2
        # Afterwards it is as before.
        server.wait_for(lambda: idle(server), "all is over")
        assert [answer.status for answer in server.send_many([PHOTO, noise(99)])] == [200, 200]


@pytest.mark.usefixtures("slow")
def test_a_client_with_one_photo_does_not_stand_behind_one_with_many() -> None:
    with serving(
        *("--queue", "20", "--no-cache", "--api-key", "many", "--api-key", "one")
    ) as server:
        order: list[str] = []

        def ask(key: str, seed: int) -> int:
            answer = server.send(noise(seed, (300, 200)), x_api_key=key)
            order.append(key)
            return answer.status

        with ThreadPoolExecutor(32) as threads:
            many = [threads.submit(ask, "many", seed) for seed in range(14)]
            server.wait_for(lambda: server.figure("bgx_waiting") >= 8, "the queue is long")
            one = threads.submit(ask, "one", 100)
            assert one.result() == 200
            assert {done.result() for done in many} <= {200, 429}
        # Those that were at work already, and a turn each.
        assert order.index("one") < 8


@pytest.mark.usefixtures("slow")
def test_a_turn_that_does_not_come_in_time_is_told() -> None:
    with serving("--timeout", "0.5", "--no-cache") as server:
        answers = server.send_many([noise(seed) for seed in range(20)])

        late = [answer for answer in answers if answer.status == 503]
        assert late
        assert {answer.status for answer in answers} == {200, 503}
        assert late[0].json["code"] == "timeout"
        assert int(late[0].headers["retry-after"]) >= 1


@pytest.mark.usefixtures("slow")
def test_uploads_health_and_hits_answer_while_the_cores_are_busy(tmp_path: Path) -> None:
    with serving("--cache", tmp_path / "cache") as server:
        address = server.send(PHOTO).headers["content-location"]
        with ThreadPoolExecutor(20) as threads:
            busy = [threads.submit(server.send, noise(seed)) for seed in range(12)]
            server.wait_for(lambda: server.figure("bgx_waiting") >= 6, "it is busy")
            start = time.monotonic()
            assert server.get("/livez").status == 200
            assert server.get(address).status == 200
            assert server.send(PHOTO).headers["x-cache"] == "hit"
            assert time.monotonic() - start < 3
            assert server.figure("bgx_waiting") >= 1, "it still was"
            assert {done.result().status for done in busy} == {200}


# The same, asked for by many ----------------------------------------------------------------------


@pytest.mark.usefixtures("stocked_home")
def test_results_that_were_answered_take_no_memory() -> None:
    """Fifty of two or three megabytes each, beside what the first of them took."""
    size = (1000, 800)
    with serving("--no-cache") as server:
        server.send_many([noise(seed, size) for seed in range(8)], "?refine=false", 8)
        before = server.figure("bgx_memory_bytes")

        answers = server.send_many([noise(seed, size) for seed in range(50)], "?refine=false", 8)

        assert {answer.status for answer in answers} == {200}
        assert sum(len(answer.body) for answer in answers) > 100_000_000
        assert server.figure("bgx_memory_bytes") < before + 70_000_000


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("most", [1, 2, 3])
def test_where_threads_are_refused_pictures_are_made_all_the_same(
    tmp_path: Path, most: int
) -> None:
    """most: threads of the process, its first one counted."""
    photo = encode(Image.new("RGB", (90, 60), "white"), "JPEG")
    text = json.dumps({"image_file_b64": base64.b64encode(photo).decode()}).encode()
    options = ("--cache", tmp_path / "cache")
    with (
        container("pids", {"pids.max": str(most)}) as group,
        serving(*options, env={"OPENBLAS_NUM_THREADS": "1"}, group=group) as server,
    ):
        answers = [
            *(server.send(photo) for _ in range(2)),
            server.request("POST", "/v1.0/removebg", text, {"Content-Type": "application/json"}),
        ]
        assert [answer.status for answer in answers] == [200, 200, 200]
        assert answers[0].body == answers[1].body
        assert server.stop() == 0


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("cached", [True, False])
def test_fifty_who_ask_for_the_same_share_one_run(tmp_path: Path, cached: bool) -> None:
    options = ["--cache", tmp_path / "cache"] if cached else ["--no-cache"]
    with serving(*options) as server:
        photo = noise(1)

        answers = server.send_many([photo] * 50)

        assert {answer.status for answer in answers} == {200}
        assert len({answer.body for answer in answers}) == 1
        assert server.figure('bgx_step_seconds_count{step="infer"}') == 1
        again = server.send(photo)
        assert again.headers["x-cache"] == ("hit" if cached else "miss")


# Clients that go away -----------------------------------------------------------------------------


@pytest.mark.usefixtures("slow")
def test_who_goes_away_while_waiting_gives_the_place_back(tmp_path: Path) -> None:
    with serving("--cache", tmp_path / "cache") as server:
        before = 5
        with ThreadPoolExecutor(before) as threads:
            busy = [threads.submit(server.send, noise(seed)) for seed in range(before)]
            server.wait_for(lambda: server.figure("bgx_working") >= 1, "it works")
            photo = noise(100)
            with connection(server) as opened:
                opened.sendall(head("/cutouts", f"Content-Length: {len(photo)}") + photo)
                server.wait_for(
                    lambda: server.figure("bgx_waiting") + server.figure("bgx_working") == 6,
                    "it waits beside them",
                )
            assert {done.result().status for done in busy} == {200}
        server.wait_for(lambda: idle(server), "all is over")
        # It was dropped: nobody worked on it.
        assert server.figure('bgx_step_seconds_count{step="infer"}') == before
        assert server.send(photo).headers["x-cache"] == "miss"


@pytest.mark.usefixtures("slow")
def test_what_is_at_work_when_its_client_goes_is_finished_into_the_cache(tmp_path: Path) -> None:
    with serving("--cache", tmp_path / "cache") as server:
        photo = noise(1)
        with connection(server) as opened:
            opened.sendall(head("/cutouts", f"Content-Length: {len(photo)}") + photo)
            server.wait_for(lambda: server.figure("bgx_working") == 1, "it works")
        server.wait_for(lambda: idle(server), "it is finished")

        assert server.send(photo).headers["x-cache"] == "hit"


@pytest.mark.usefixtures("slow")
def test_one_of_two_who_wait_for_the_same_may_go(tmp_path: Path) -> None:
    with serving("--cache", tmp_path / "cache") as server, ThreadPoolExecutor(8) as threads:
        busy = [threads.submit(server.send, noise(seed)) for seed in range(5)]
        server.wait_for(lambda: server.figure("bgx_waiting") >= 1, "it is busy")
        photo = noise(100)
        with connection(server) as opened:
            opened.sendall(head("/cutouts", f"Content-Length: {len(photo)}") + photo)
            server.wait_for(lambda: server.figure("bgx_open") == 7, "the first waits")
            second = threads.submit(server.send, photo)
            server.wait_for(lambda: server.figure("bgx_open") == 8, "the second too")
        assert second.result().status == 200
        assert {done.result().status for done in busy} == {200}


# Signals ------------------------------------------------------------------------------------------


@posix
@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_answers_what_was_accepted_and_nothing_more(name: str, tmp_path: Path) -> None:
    number = getattr(signal, name)
    with serving("--cache", tmp_path / "cache") as server, ThreadPoolExecutor(16) as threads:
        accepted = [threads.submit(server.send, noise(seed)) for seed in range(6)]
        server.wait_for(
            lambda: server.figure("bgx_waiting") + server.figure("bgx_working") == 6, "accepted"
        )

        server.process.send_signal(number)

        server.wait_for(lambda: server.get("/readyz").status == 503, "it drains")
        if name == "SIGHUP":  # a terminal that is closed may say so twice
            server.process.send_signal(number)
        assert server.get("/readyz").body == b"draining\n"
        assert server.send(PHOTO).json["code"] == "draining"
        assert {done.result().status for done in accepted} == {200}
        assert server.process.wait(PATIENCE) == 0


@posix
@pytest.mark.usefixtures("slow")
def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    with serving("--no-cache") as server, ThreadPoolExecutor(16) as threads:
        cut_off = [threads.submit(server.send, noise(seed)) for seed in range(8)]
        server.wait_for(lambda: server.figure("bgx_waiting") >= 4, "there is work")
        server.process.send_signal(signal.SIGTERM)
        server.wait_for(lambda: server.get("/readyz").status == 503, "it drains")

        assert server.stop(signal.SIGINT) == 130

        for done in cut_off:
            with contextlib.suppress(Exception):
                done.result()


@posix
def test_a_server_that_starts_is_not_ready_yet_and_ends_on_a_signal(
    slow_home: Path, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    home = {"BGX_HOME": str(slow_home)}
    with serving(
        "--model", "u2netp", "--port", str(port), "--no-cache", env=home, ready=False
    ) as server:
        server.port = port
        seen = set()

        def look() -> bool:
            with contextlib.suppress(ConnectionError):
                seen.add((server.get("/readyz").body, server.get("/livez").status))
            return (b"ready\n", 200) in seen

        server.wait_for(look, "it is ready")
        assert seen <= {(b"starting\n", 200), (b"ready\n", 200)}
        assert server.stop() == 0


# Two servers on one cache -------------------------------------------------------------------------


def test_servers_killed_at_random_beside_each_other_never_serve_a_wrong_picture(
    stocked_home: Path, tmp_path: Path
) -> None:
    chance = random.Random(2)
    photos = [encode(Image.new("RGB", (160 + n, 90), (n * 20, 255, 90)), "PNG") for n in range(8)]
    with serving("--no-cache") as alone:
        made = [alone.send(photo).body for photo in photos]
    right = [hashlib.sha256(body).digest() for body in made]
    limit = sum(map(len, made)) // 2
    options = ("--cache", tmp_path / "cache", "--cache-size", str(limit))
    wrong: list[int] = []
    counts = {"hit": 0, "miss": 0}
    stop = threading.Event()

    def ask(server: Server) -> None:
        number = chance.randrange(len(photos))
        with contextlib.suppress(Exception):
            answer = server.send(photos[number])
            counts[answer.headers["x-cache"]] += 1
            if answer.status != 200 or hashlib.sha256(answer.body).digest() != right[number]:
                wrong.append(number)

    def live() -> None:
        while not stop.is_set():
            with serving(*options, "--workers", "1") as server:
                end = time.monotonic() + chance.uniform(0.3, 1.5)
                while time.monotonic() < end:
                    ask(server)

    lives = [threading.Thread(target=live) for _ in range(2)]
    for one in lives:
        one.start()
    time.sleep(20)
    stop.set()
    for one in lives:
        one.join()

    assert wrong == []
    assert min(counts.values()) > 10
    with serving(*options) as server:
        for _ in range(2 * len(photos)):
            ask(server)
    assert wrong == []


# Rules that only a running server can break -------------------------------------------------------


def test_the_key_of_a_result_cannot_be_reckoned_from_the_photo(server: Server) -> None:
    key = server.send(PHOTO).headers["content-location"].removeprefix("/cutouts/")

    assert len(key) == 64
    assert key != hashlib.sha256(PHOTO).hexdigest()
    assert server.get(f"/cutouts/{hashlib.sha256(PHOTO).hexdigest()}").status == 404


def test_an_answer_to_a_post_is_not_to_be_stored(server: Server) -> None:
    assert server.send(PHOTO).headers["cache-control"] == "no-store"
    assert server.send(b"no picture").headers["cache-control"] == "no-store"


def test_many_open_connections_that_say_nothing_do_not_count(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(400):
            stack.enter_context(connection(server))
        assert server.send(PHOTO).status == 200


@posix
def test_photos_are_written_nowhere_but_into_the_cache(
    stocked_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    scratch.chmod(0o500)
    monkeypatch.setenv("TMPDIR", str(scratch))
    large = noise(1, (3000, 2000))
    body, kind = multipart({}, {"image_file": large})
    assert len(large) > 1_500_000
    with serving("--no-cache") as server:
        answer = server.request("POST", "/v1.0/removebg", body, {"Content-Type": kind})
        found = [path for path in (tmp_path, stocked_home) for path in path.rglob("*.jpg")]

    assert answer.status in (200, 400)
    assert list(scratch.iterdir()) == found == []


def test_the_command_line_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h11", None)
    done = bgx("serve")

    assert (done.code, "[serve]" in done.err) == (2, True)


def test_pictures_come_whole_however_slowly_they_are_read(server: Server) -> None:
    photo = noise(7, (240, 160))
    whole = server.send(photo).body
    with connection(server) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        opened.sendall(
            head("/cutouts", f"Content-Length: {len(photo)}", "Connection: close") + photo
        )
        stream = io.BytesIO()
        while piece := opened.recv(30_000):
            stream.write(piece)
    assert stream.getvalue().endswith(whole)
