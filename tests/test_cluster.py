"""Batches on workers with a real Redis: killed workers, a lost broker, cut connections."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from copy import copy
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from bgx.errors import ExitCode
from bgx.run.outcome import Job
from bgx.run.recipe import Recipe
from bgx.settings import ReadSettings
from bgx.storage import open_file, open_folder
from support.fakes import draw_photo
from support.networks import tiny_network
from support.services import Line, ObjectStore, Redis
from support.shell import bgx, bgx_process, command, read_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

pytestmark = pytest.mark.programs("redis-server", "redis-cli")

PATIENCE = 240  # seconds until a run that does not end fails its test
PHOTOS = 150


@pytest.fixture(scope="module")
def _redis() -> Iterator[Redis]:
    server = Redis()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis(
    _redis: Redis, stocked_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Redis:
    """An empty Redis that BGX_BROKER names; the working folder is an empty one."""
    monkeypatch.setenv("BGX_BROKER", _redis.url)
    monkeypatch.chdir(tmp_path)
    _redis.ask("FLUSHALL")
    return _redis


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 150 photos and a broken one, which no test writes to."""
    folder = tmp_path_factory.mktemp("photos") / "in"
    for number in range(PHOTOS):
        path = folder / f"{number % 4}" / f"ä {number:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_photo((640 + number, 480)).save(path)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    return folder


@contextmanager
def without_memory(redis: Redis) -> Iterator[None]:
    """Redis refuses what would take memory."""
    redis.ask("CONFIG", "SET", "maxmemory", "1")
    try:
        yield
    finally:
        redis.ask("CONFIG", "SET", "maxmemory", "0")


@contextmanager
def as_replica(redis: Redis) -> Iterator[None]:
    """Redis is a replica, of a server that is not there, and refuses every write."""
    redis.ask("REPLICAOF", "127.0.0.1", "1")
    try:
        yield
    finally:
        redis.ask("REPLICAOF", "NO", "ONE")


class Worker:
    """A running ``bgx worker``, in a process group of its own."""

    def __init__(self, *arguments: str | Path) -> None:
        self.log = Path(f"worker-{os.urandom(3).hex()}.log").absolute()
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command("worker", *arguments), stderr=log, stdout=log, start_new_session=True
            )

    def send(self, number: signal.Signals, *, alone: bool = False) -> None:
        """Send a signal to the process group; alone: only to the parent process."""
        (os.kill if alone else os.killpg)(self._process.pid, number)

    def wait(self) -> int:
        return self._process.wait(PATIENCE)

    def end(self) -> None:
        if self._process.poll() is None:
            self.send(signal.SIGKILL)
            self._process.wait()


@contextmanager
def workers(*arguments: str | Path, count: int = 1, **options: str) -> Iterator[list[Worker]]:
    started: list[Worker] = []
    try:
        for _ in range(count):
            started.append(Worker(*arguments))
        yield started
    finally:
        for worker in started:
            worker.end()


class Batch:
    """A running ``bgx batch`` that writes a report."""

    def __init__(self, *arguments: str | Path, report: str = "report.jsonl") -> None:
        self.inputs = arguments[: arguments.index("-o")]
        self.report = Path(report).absolute()
        self.report.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            command("batch", *arguments, "--report", self.report),
            stderr=subprocess.PIPE,
            text=True,
        )
        self.err = ""

    def wait_for_rows(self, count: int) -> None:
        """Wait until the report has this many rows."""
        self.wait_until(lambda: self.report.exists() and len(self._lines()) >= count)

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not is_so():
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < end
            time.sleep(0.02)

    def end(self) -> list[dict[str, Any]]:
        """Wait for its end; returns the report's rows of pictures."""
        _, self.err = self.process.communicate(timeout=PATIENCE)
        return read_rows(self.report)[:-1]

    @property
    def code(self) -> int:
        return self.process.returncode

    def _lines(self) -> list[bytes]:
        return self.report.read_bytes().splitlines()


def contents(folder: str | Path) -> dict[str, bytes]:
    """The bytes of all files below the folder, by relative name."""
    paths = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def pixels(folder: str | Path) -> dict[str, bytes]:
    found = {}
    for path in Path(folder).rglob("*.png"):
        with Image.open(path) as image:
            found[path.relative_to(folder).as_posix()] = image.tobytes()
    return found


def statuses(rows: list[dict[str, Any]]) -> Counter[str]:
    return Counter(row["status"] for row in rows)


@pytest.fixture(scope="module")
def alone(photos: Path, _stocked_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a batch without workers."""
    cut = tmp_path_factory.mktemp("alone") / "cut"
    env = os.environ | {"BGX_HOME": str(_stocked_home), "BGX_MODEL": "u2netp"}
    done = subprocess.run(command("batch", photos, "-o", cut, "--quiet"), env=env, timeout=PATIENCE)
    assert done.returncode == ExitCode.PICTURES
    return cut


def plain() -> dict[str, str]:
    """The environment of a batch without workers."""
    return {name: value for name, value in os.environ.items() if name != "BGX_BROKER"}


def assert_all_there(batch: Batch, rows: list[dict[str, Any]], alone: Path) -> None:
    """Assert that the results are those of one machine: 150 files, and 151 rows with 1 failure."""
    assert batch.code == ExitCode.PICTURES, batch.err
    # A worker that is killed may leave a temporary file, which the next run removes.
    again = command("batch", *batch.inputs, "-o", "cut", "--quiet")
    assert subprocess.run(again, env=plain(), timeout=PATIENCE).returncode == ExitCode.PICTURES
    assert contents("cut") == contents(alone)
    assert len({row["source"] for row in rows}) == len(rows) == PHOTOS + 1
    [failed] = (row for row in rows if row["status"] == "failed")
    assert failed["error"]["code"] == "unreadable"


def test_a_worker_is_killed_and_the_broker_is_emptied(
    redis: Redis, photos: Path, alone: Path
) -> None:
    with workers("--allow", photos.parent, "--allow", Path.cwd(), count=2) as (first, _):
        batch = Batch(photos, "-o", "cut")
        batch.wait_for_rows(20)
        first.send(signal.SIGKILL)
        with workers("--allow", photos.parent, "--allow", Path.cwd()):
            batch.wait_for_rows(60)
            redis.ask("FLUSHALL")
            rows = batch.end()

    assert_all_there(batch, rows, alone)
    # Results that the killed worker wrote and did not report count as skipped.
    assert statuses(rows)["done"] >= PHOTOS - 8


def test_the_broker_is_restarted_and_a_worker_stands_still_beyond_its_time(
    redis: Redis, photos: Path, alone: Path
) -> None:
    allow = ("--allow", photos.parent, "--allow", Path.cwd(), "--task-limit", "3")
    with workers(*allow, count=2) as (first, _):
        batch = Batch(photos, "-o", "cut")
        batch.wait_for_rows(20)
        first.send(signal.SIGSTOP)
        batch.wait_for_rows(50)
        redis.stop()
        redis.start()
        # The stopped worker's task runs a second time, and a third where the first goes on.
        batch.wait_for_rows(PHOTOS - 20)
        first.send(signal.SIGCONT)
        rows = batch.end()

    assert_all_there(batch, rows, alone)


def test_a_broker_without_memory_is_tried_again(redis: Redis) -> None:
    from bgx.cluster.connection import ProducerConnection

    warnings: list[str] = []
    connection = ProducerConnection(
        os.environ["BGX_BROKER"], "bgx", "reply", print, warn=warnings.append
    )
    for most, refused in (("1", 1), ("0", 1)):
        redis.ask("CONFIG", "SET", "maxmemory", most)
        with connection.reconnecting():
            connection.receive(0.1)
        assert len(warnings) == refused
    connection.close()


def test_a_broker_without_memory_ends_no_worker(redis: Redis, photos: Path) -> None:
    with workers("--allow", photos.parent, "--allow", Path.cwd()):
        batch = Batch(photos / "0", "-o", "cut")
        batch.wait_for_rows(3)
        redis.ask("CONFIG", "RESETSTAT")
        with without_memory(redis):
            # The worker acknowledges its first task.
            batch.wait_until(lambda: "zrem:calls=0," in redis.ask("INFO", "commandstats"))
        rows = batch.end()

    assert batch.code == ExitCode.OK, batch.err
    assert len(rows) == len(contents("cut")) == 38


def test_a_worker_says_that_the_broker_refuses(redis: Redis) -> None:
    draw_photo((48, 36)).save("a.png")
    refused = r"errorstat_READONLY:count=\d\d"  # ten times or more

    with workers("--allow", Path.cwd()) as [worker]:
        first = Batch("a.png", "-o", "first")
        assert statuses(first.end()) == {"done": 1}
        with as_replica(redis):
            end = time.monotonic() + PATIENCE
            while not re.search(refused, redis.ask("INFO", "errorstats")):
                assert time.monotonic() < end
                time.sleep(0.05)
            log = worker.log.read_text()
        second = Batch("a.png", "-o", "second")
        assert statuses(second.end()) == {"done": 1}

    assert log.count("read only replica") == 1
    assert "Traceback" not in log


def test_a_process_that_cannot_send_its_answers_ends(redis: Redis) -> None:
    script = """
from bgx.cluster.answers import Answers
from bgx.cluster.broker import make_app
answers = Answers(make_app(os.environ["BGX_BROKER"], ["bgx"]))
task = answers.start_task("a", "bgx.reply.a")
answers.send(task, rows=object())  # no JSON
answers.wait_for_others(answers.start_task("b", "bgx.reply.a"))
"""
    done = subprocess.run(
        [sys.executable, "-c", f"import os{script}"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )

    assert done.returncode == -signal.SIGKILL
    assert "cannot send its answers" in done.stderr


def test_tasks_wait_whose_sending_again_fails(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bgx.cluster import producer
    from bgx.cluster.connection import ProducerConnection
    from bgx.cluster.order import make_order

    sends = count()
    really_send = ProducerConnection.send

    def send(*arguments: Any) -> None:
        if next(sends) == 3:  # the first of three tasks that are sent a second time
            raise ConnectionError
        really_send(*arguments)

    def find_waiting() -> set[int]:
        """Numbers of the pictures in the broker's queue."""
        found = redis.ask("LRANGE", "bgx", "0", "-1").splitlines()
        tasks = (json.loads(base64.b64decode(json.loads(one)["body"]))[0][0] for one in found)
        return {picture[0] for task in tasks for picture in task["pictures"]}

    monkeypatch.setattr(producer, "SILENCE_S", 0.1)
    monkeypatch.setattr(ProducerConnection, "send", send)
    order = make_order(
        ("u2netp", "sha256:" + 64 * "0"),
        *("auto", ReadSettings(), ({}, {}, {})),
        create=True,
        preview=False,
    )
    cluster = producer.Cluster(os.environ["BGX_BROKER"], "bgx", order, warn=print)
    recipe = Recipe(order.read, order.output)
    names = [f"{number}.png" for number in range(48)]
    futures = [
        cluster.submit(Job(open_file(name), open_file(f"cut/{name}"), create=True), recipe)
        for name in names
    ]
    end = time.monotonic() + 20
    while next(copy(sends)) < 6 or find_waiting() != set(range(1, 49)):
        assert time.monotonic() < end
        time.sleep(0.05)
    cluster.close()

    assert all(future.cancelled() for future in futures)


def test_the_producer_is_killed_and_repeated(redis: Redis, photos: Path, alone: Path) -> None:
    with workers("--allow", photos.parent, "--allow", Path.cwd()):
        killed = Batch(photos, "-o", "cut")
        killed.wait_for_rows(10)
        killed.process.kill()
        killed.process.communicate()
        batch = Batch(photos, "-o", "cut")
        rows = batch.end()

    assert_all_there(batch, rows, alone)
    assert statuses(rows)["skipped"] >= 9


def test_ctrl_c_takes_back_what_waits(redis: Redis, photos: Path, alone: Path) -> None:
    with workers("--allow", photos.parent, "--allow", Path.cwd()):
        stopped = Batch(photos, "-o", "cut")
        stopped.wait_for_rows(5)
        stopped.process.send_signal(signal.SIGINT)
        rows = stopped.end()

        assert stopped.code == ExitCode.INTERRUPTED, stopped.err
        assert len(rows) == PHOTOS + 1
        reasons = Counter(row.get("reason") for row in rows)
        assert reasons["interrupted"] >= PHOTOS // 2
        made = {row["target"] for row in rows if row["status"] == "done"}
        assert {f"cut/{name}" for name in contents("cut")} == made
        assert redis.ask("LLEN", "bgx") == "0"

        batch = Batch(photos, "-o", "cut")
        rows = batch.end()
    assert_all_there(batch, rows, alone)
    assert statuses(rows)["skipped"] == len(made)


@pytest.mark.parametrize("refusing", [as_replica, without_memory])
def test_ctrl_c_while_the_broker_refuses_everything(
    redis: Redis, photos: Path, refusing: Callable[[Redis], AbstractContextManager[None]]
) -> None:
    batch = Batch(photos, "-o", "cut")
    batch.wait_until(lambda: redis.ask("LLEN", "bgx") != "0")
    with refusing(redis):
        batch.process.send_signal(signal.SIGINT)
        rows = batch.end()

    assert batch.code == ExitCode.INTERRUPTED, batch.err
    assert Counter(row.get("reason") for row in rows) == {"interrupted": PHOTOS + 1}


def test_two_batches_at_once_make_each_picture_once(redis: Redis, photos: Path) -> None:
    with workers("--allow", photos.parent, "--allow", Path.cwd(), count=2):
        batches = [Batch(photos, "-o", "cut", report=f"{number}.jsonl") for number in range(2)]
        reports = [batch.end() for batch in batches]

    assert [len(rows) for rows in reports] == [PHOTOS + 1] * 2
    done = [row["target"] for rows in reports for row in rows if row["status"] == "done"]
    assert sorted(done) == sorted(f"cut/{name}" for name in contents("cut"))
    assert len(done) == PHOTOS


def test_a_worker_that_is_asked_to_end_gives_the_rest_back(
    redis: Redis, photos: Path, alone: Path
) -> None:
    with workers("--allow", photos.parent, "--allow", Path.cwd()) as [first]:
        batch = Batch(photos, "-o", "cut")
        batch.wait_for_rows(5)
        first.send(signal.SIGTERM, alone=True)
        assert first.wait() == ExitCode.OK
        told = len(batch._lines())
        with workers("--allow", photos.parent, "--allow", Path.cwd()):
            rows = batch.end()

    assert told < PHOTOS
    assert_all_there(batch, rows, alone)
    # Each once: nothing was lost on the way.
    assert statuses(rows)["done"] == PHOTOS


def test_a_picture_that_ends_its_process_takes_no_other_along(redis: Redis) -> None:
    for number in range(20):
        draw_photo((320, 240)).save(f"{number:02}.jpg")
    Image.new("L", (14_000, 14_000)).save("10-huge.png")  # 2 GB in work
    photos = sorted(str(path) for path in Path().glob("*.[jp]*g"))

    with workers("--allow", Path.cwd(), "--memory", "700MB") as [worker]:
        batch = Batch(*photos, "-o", "cut")
        rows = batch.end()
        log = worker.log.read_text()

    assert batch.code == ExitCode.PICTURES
    assert len(contents("cut")) == 20
    [failed] = (row for row in rows if row["status"] != "done")
    assert failed["source"] == "10-huge.png"
    assert failed["error"]["code"] == "crashed"
    assert "given up after 3 tries: its process ended" in failed["error"]["message"]
    assert log.count("more than --memory") == 3


def test_all_that_a_batch_can_ask_for_is_done_by_workers_too(redis: Redis, photos: Path) -> None:
    some = sorted(photos.rglob("*.jpg"))[:20]
    draw_photo((64, 64)).save("paper.png")
    asked = ("--background", "paper.png", "--canvas", "square", "--preset", "amazon", "-f", "webp")
    outputs = ("--review", "look", "--sheet", "sheet.html", "--existing", "overwrite")
    subprocess.run(
        command("batch", *some, "-o", "here", *asked, *outputs), env=plain(), capture_output=True
    )
    sheet = Path("sheet.html").read_text()
    looked = contents("look")

    with workers("--allow", photos.parent, "--allow", Path.cwd()):
        batch = Batch(*some, "-o", "there", *asked, *outputs)
        rows = batch.end()

    assert len(rows) == 20
    assert contents("there") == contents("here") != {}
    assert contents("look") == looked
    assert Path("sheet.html").read_text() == sheet.replace("here/", "there/")


@pytest.mark.skipif(sys.platform != "linux", reason="names that are no text")
def test_names_that_are_no_text_and_folders_that_cannot_be_searched(redis: Redis) -> None:
    Path("in").mkdir()
    for name in (b"in/\xff b.png", "in/ü+c.png".encode()):
        draw_photo((48, 36)).save(os.fsdecode(name))

    with workers("--allow", Path.cwd()):
        batch = Batch("in", "-o", "cut")
        rows = batch.end()

    assert (batch.code, statuses(rows)) == (0, {"done": 2}), batch.err
    assert {os.fsencode(name) for name in contents("cut")} == {b"\xff b.png", "ü+c.png".encode()}


def test_a_bucket_to_a_bucket_whose_line_is_cut_in_mid_run(
    redis: Redis, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_photo((900, 700)).save("photo.png")
    names = ["ä b+c.png", *(f"{number % 3}/{number:02}.png" for number in range(39))]
    for name in names:
        open_file(f"s3://shop/in/{name}").write(Path("photo.png").read_bytes())

    with Line(object_store.port) as line, monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{line.port}")
        with workers(count=2):
            batch = Batch("s3://shop/in", "-o", "s3://shop/cut")
            batch.wait_for_rows(3)
            line.cut()
            threading.Timer(10.0, line.mend).start()
            rows = batch.end()

    assert (batch.code, statuses(rows)) == (0, {"done": 40}), batch.err
    assert sorted(found.below for found in open_folder("s3://shop/cut").walk()) == sorted(names)


def test_two_machines(redis: Redis, photos: Path, alone: Path) -> None:
    """Two network namespaces with a shared folder."""
    with two_machines() as (here, there):
        options = ("--bind", "10.213.0.1", "--protected-mode", "no", "--save", "")
        server = subprocess.Popen([*here, "redis-server", *options], stdout=subprocess.DEVNULL)
        url = "redis://10.213.0.1"
        allow = ("--allow", photos.parent, "--allow", Path.cwd(), "--broker", url)
        worker = subprocess.Popen([*there, *command("worker", *allow)])
        try:
            done = subprocess.run(
                [*here, *command("batch", photos, "-o", "cut", "--broker", url)], timeout=PATIENCE
            )
        finally:
            for process in (worker, server):
                process.terminate()
                process.wait(PATIENCE)

    assert done.returncode == ExitCode.PICTURES
    assert contents("cut") == contents(alone)


@contextmanager
def two_machines() -> Iterator[tuple[list[str], list[str]]]:
    """Yields, for each of two network namespaces, the words before a command that runs in it."""
    names = [f"bgx-{os.urandom(3).hex()}" for _ in range(2)]

    def ip(*words: str) -> None:
        done = subprocess.run(["ip", *words], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no network namespaces here: {done.stderr.strip()}")

    if shutil.which("ip") is None:
        pytest.skip("needs ip, of iproute2")
    try:
        for name in names:
            ip("netns", "add", name)
        ip("-n", names[0], "link", "add", "eth0", "type", "veth", "peer", "eth0", "netns", names[1])
        for number, name in enumerate(names, 1):
            ip("-n", name, "addr", "add", f"10.213.0.{number}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield ["ip", "netns", "exec", names[0]], ["ip", "netns", "exec", names[1]]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def test_a_watched_folder(redis: Redis) -> None:
    Path("in").mkdir()
    with workers("--allow", Path.cwd()):
        watching = subprocess.Popen(command("watch", "in", "-o", "cut", "--poll"))
        try:
            for name in ("a.png", "b.png"):
                draw_photo((48, 36)).save(f"in/{name}")
                end = time.monotonic() + PATIENCE
                while not Path("cut", name).exists():
                    assert watching.poll() is None
                    assert time.monotonic() < end
                    time.sleep(0.05)
        finally:
            watching.terminate()
            assert watching.wait(PATIENCE) == ExitCode.OK


def test_a_worker_goes_nowhere_else_than_it_may(redis: Redis, photos: Path) -> None:
    with workers("--allow", Path.cwd()):
        done = bgx_process("batch", photos, "-o", "cut")

    assert done.code == ExitCode.USAGE
    assert "the worker may not go there; start it with --allow" in done.err
    assert done.err.count("refuses a task") == 1
    assert not contents("cut")


def test_malformed_messages_end_neither_worker_nor_batch(redis: Redis, photos: Path) -> None:
    def message(body: str, **headers: object) -> str:
        properties = {
            "body_encoding": "base64",
            "delivery_info": {"exchange": "", "routing_key": "bgx"},
            "delivery_tag": "a",
        }
        return json.dumps(
            {"content-type": "application/json", "content-encoding": "utf-8"}
            | {"body": base64.b64encode(body.encode()).decode()}
            | {"headers": headers, "properties": properties}
        )

    task: dict[str, object] = {"task": "bgx.cut", "id": "a"}
    parts = ("{", "[]", "null", "[5, {}, {}]", "[[{}], {}, 5]", '[[{}], {}, {"callbacks": [5]}]')
    others = ({"id": {}}, {"expires": {}}, {"timelimit": "x"}, {"eta": "9999-12-31"})
    anywhere = ["{", "", "null", "{}", '{"__type__": "bytes", "__value__": 5}', "[" * 100_000]
    malformed = [
        *anywhere,
        *(message(body, **task) for body in parts),
        *(message("[[{}], {}, {}]", **(task | other)) for other in others),
        message("[[{}], {}, {}]", **task).replace("delivery_info", "other"),
    ]
    for one in malformed:
        redis.ask("LPUSH", "bgx", one)
    batch = Batch(photos / "0", "-o", "cut")
    batch.wait_until(lambda: int(redis.ask("LLEN", "bgx")) > len(malformed))
    [order] = json.loads(base64.b64decode(json.loads(redis.ask("LINDEX", "bgx", "0"))["body"]))[0]
    endless = '{"answers": [{"task": "a", "rows": [[1, {"done": {"trust": {"touches_border": []}, '
    endless += '"bbox": null, "width": 1e999}}]]}]}'
    for one in (*anywhere, message("{"), message("[]"), message(endless)):
        redis.ask("LPUSH", order["reply"], one)
    with workers("--allow", "/") as [worker]:
        rows = batch.end()
        worker.send(signal.SIGTERM)
        assert worker.wait() == ExitCode.OK

    assert batch.code == ExitCode.OK, batch.err
    assert len(rows) == len(contents("cut")) == 38
    assert worker.log.read_text().count("a malformed message of the broker was dropped") > 1


def test_another_network_is_refused(redis: Redis, tmp_path: Path) -> None:
    draw_photo((48, 36)).save("a.png")
    other = tiny_network(tmp_path / "other.onnx", note="of another hash")

    with workers("--allow", Path.cwd()):
        done = bgx_process("batch", "a.png", "-o", "cut", "--model", other, "--report", "r")

    assert done.code == ExitCode.MODEL
    assert "refuses a task" in done.err
    assert not contents("cut")


def test_without_a_worker_it_is_said_and_waited_for_one(redis: Redis) -> None:
    draw_photo((48, 36)).save("a.png")

    batch = Batch("a.png", "-o", "cut")
    assert batch.process.stderr is not None
    assert "no worker takes a task" in batch.process.stderr.readline()
    with workers("--allow", Path.cwd()):
        rows = batch.end()

    assert (batch.code, statuses(rows)) == (0, {"done": 1})


def test_a_broker_that_is_not_there(stocked_home: Path, tmp_path: Path) -> None:
    draw_photo((48, 36)).save(tmp_path / "a.png")
    gone = "redis://:secret@127.0.0.1:1/0"

    for arguments in (("batch", tmp_path / "a.png", "-o", tmp_path / "cut"), ("worker",)):
        done = bgx_process(*arguments, "--broker", gone)
        assert done.code == ExitCode.USAGE
        assert "127.0.0.1:1/0: does not answer" in done.err
        assert "secret" not in done.err


def test_without_the_extra_the_remedy_is_told() -> None:
    for arguments in (
        ["batch", "in", "-o", "cut", "--broker", "redis://h"],
        ["worker", "--broker", "redis://h"],
    ):
        script = (
            "import sys; sys.modules['celery'] = None; from bgx.cli.main import run;"
            f"sys.exit(run([*{arguments!r}, '--broker', 'redis://h']))"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

        assert done.returncode == ExitCode.USAGE
        assert '[cluster]"' in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--device", "cpu"), "--device: is the workers' own"),
        (("--workers", "2"), "--workers: is the workers' own"),
        (("--broker", "http://h"), "use redis://HOST"),
        (("--broker", "redis://h:99999"), "--broker: cannot be read as a URL"),
        (("--broker", "redis://:pass/word@h"), "/ # ? @ of a password as %2F"),
        (("--broker", "redis://h/zero"), "redis://h/zero: Database is int"),
        (("--broker", "redis://h?no=1"), "redis://h/: a parameter after the ? is unknown"),
        (("--queue", "a b"), "queue 'a b': use letters"),
    ],
)
def test_what_cannot_be_is_told(redis: Redis, arguments: tuple[str, ...], message: str) -> None:
    draw_photo((48, 36)).save("a.png")

    done = bgx("batch", "a.png", "-o", "cut", *arguments)

    assert (done.code, message in done.err) == (ExitCode.USAGE, True), done.err
    assert "pass/word" not in done.err


def test_a_look_at_what_a_worker_needs(redis: Redis) -> None:
    good = bgx("worker", "--check", "--allow", Path.cwd())
    assert good.code == ExitCode.OK
    lines = good.out.decode().splitlines()
    assert [line.partition(":")[0] for line in lines] == ["broker", "storage", "network"]
    assert "0 tasks in bgx" in lines[0]
    assert "u2netp sha256:" in lines[2]

    bad = bgx("worker", "--check", "--allow", "none", "--model", "none.onnx")
    assert bad.code == ExitCode.USAGE
    assert bad.out.count(b"not usable") == 2

    for refusing, reason in (
        (without_memory, "used memory > 'maxmemory'"),
        (as_replica, "can't write against a read only replica"),
    ):
        with refusing(redis):
            refused = bgx("worker", "--check", "--allow", Path.cwd())
        assert refused.code == ExitCode.USAGE
        [line, *_] = refused.out.decode().splitlines()
        assert line.startswith(f"broker: not usable: --broker {redis.url}: refuses to serve")
        assert reason in line
    assert redis.ask("KEYS", "bgx.reply.*") == ""
