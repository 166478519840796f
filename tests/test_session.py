"""A session: mattes that do not depend on the batch, the device or concurrent calls."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from bgx.errors import BadModelError, DeviceUnavailableError, ExitCode, InferenceError
from bgx.install import install_hint
from bgx.model import hardware
from bgx.model.engines import EnginePlan
from bgx.model.mapped import save_mapped
from bgx.model.opening import PendingSession, open_session
from bgx.model.prepare import prepare
from bgx.model.providers import load_runtime
from bgx.model.registry import ModelEntry, load_registry
from bgx.model.session import Session
from bgx.model.store import ModelFile, Store
from bgx.model.trial import check_network
from bgx.settings import DeviceSettings, ModelSettings
from support.networks import plain_network, tiny_network, u2net_network, written_network

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

CPU = DeviceSettings("cpu")
U2NET = load_registry()["u2net"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(ModelSettings(folder=tmp_path / "store", offline=True))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_network(tmp_path_factory.mktemp("network") / "tiny.onnx")


def file_of(store: Store, path: Path, **changes: Any) -> ModelFile:
    found = store.resolve(str(path), load_registry())
    return found._replace(entry=replace(found.entry, **changes))


def noise(count: int, side: int = 320) -> NDArray[np.float32]:
    return np.random.default_rng(3).standard_normal((count, 3, side, side), np.float32)


def fixed(path: Path, plan: EnginePlan, entry: ModelEntry = U2NET) -> Session:
    return Session(path, plan, entry, name=str(path), output=entry.output)


def picture() -> NDArray[np.float32]:
    """A white and a red square on black, as the network is fed."""
    rgb = np.zeros((320, 320, 3))
    rgb[40:120, 40:120] = 1
    rgb[200:280, 200:280] = (1, 0, 0)
    fed = (rgb - U2NET.mean) / U2NET.std
    return np.ascontiguousarray(fed.transpose(2, 0, 1)[None], np.float32)


def test_a_matte_is_float_of_the_inputs_size(store: Store, network: Path) -> None:
    session = open_session(file_of(store, network), CPU, store)
    matte = session.run(picture())
    assert matte.shape == (1, 320, 320)
    assert matte.dtype == np.float32
    assert matte.flags.c_contiguous
    assert matte[0, 80, 80] > 0.9
    assert matte[0, 240, 240] > 0.9
    assert matte[0, 160, 160] < 0.1
    assert (session.device, session.provider) == ("cpu", "CPUExecutionProvider")
    assert session.entry is not None


def test_no_pictures_no_mattes(store: Store, network: Path) -> None:
    session = open_session(file_of(store, network), CPU, store)
    assert session.run(noise(0)).shape == (0, 320, 320)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9])
def test_in_a_batch_each_picture_has_the_matte_it_has_alone(
    store: Store, network: Path, count: int
) -> None:
    copy = open_session(file_of(store, network), CPU, store)
    content = prepare(network, for_cpu=True)
    batch = noise(count)
    alone = np.concatenate([copy.run(one[None]) for one in batch])
    for fixed_batch in (True, False):
        plan = EnginePlan("cpu", batch_size=4, fixed_batch=fixed_batch)
        together = Session(content, plan, U2NET, name="it", output=0).run(batch)
        assert together.shape == (count, 320, 320)
        assert np.abs(together - alone).max() <= 1e-6
    assert np.array_equal(copy.run(batch), alone)


@pytest.mark.parametrize("fixed_batch", [True, False])
def test_a_batch_in_the_devices_memory_has_the_mattes_it_has_elsewhere(
    network: Path, monkeypatch: pytest.MonkeyPatch, fixed_batch: bool
) -> None:
    content = prepare(network)
    values = load_runtime().OrtValue
    allocate = values.ortvalue_from_shape_and_type
    allocated: list[tuple[int, ...]] = []

    def count(shape: tuple[int, ...], *others: Any) -> Any:
        allocated.append(shape)
        return allocate(shape, *others)

    monkeypatch.setattr(values, "ortvalue_from_shape_and_type", count)
    plan = EnginePlan("cpu", batch_size=4, fixed_batch=fixed_batch)
    plain, bound = (
        Session(content, part, U2NET, name="it", output=0)
        for part in (plan, replace(plan, memory="cpu"))
    )
    batches = [noise(count) + count for count in (4, 1, 9, 3, 4)]
    # All of them first: a Run must not write into the mattes of an earlier one.
    mattes = [bound.run(batch) for batch in batches]
    for batch, given in zip(batches, mattes, strict=True):
        assert np.abs(given - plain.run(batch)).max() <= 1e-6
    assert allocated == [(4, 3, 320, 320), (4, 1, 320, 320)]


def test_what_a_bound_engine_refuses_is_an_error_of_the_picture(network: Path) -> None:
    plan = EnginePlan("cpu", memory="cpu")
    session = Session(prepare(network), plan, U2NET, name="it", output=0)
    with pytest.raises(InferenceError):
        session.run(noise(1, 64))
    assert session.run(picture()).shape == (1, 320, 320)


def test_a_network_of_open_shapes_runs_unbound(network: Path) -> None:
    expected = fixed(network, EnginePlan("cpu")).run(picture())
    given = fixed(network, EnginePlan("cpu", memory="cpu")).run(picture())
    assert np.array_equal(given, expected)


def test_memory_that_is_not_there_is_an_error_of_the_device(network: Path) -> None:
    if "CUDAExecutionProvider" in load_runtime().get_available_providers():
        pytest.skip("this runtime has CUDA")
    plan = EnginePlan("cpu", memory="cuda")
    with pytest.raises(DeviceUnavailableError, match="memory"):
        Session(prepare(network), plan, U2NET, name="it", output=0)


def test_the_published_form_runs_one_picture_at_a_time(network: Path) -> None:
    session = fixed(network, EnginePlan("cpu", batch_size=16))
    assert session.plan.batch_size == 1
    assert session.run(noise(3)).shape == (3, 320, 320)


def test_many_threads_get_their_own_mattes(store: Store, network: Path) -> None:
    session = open_session(file_of(store, network), CPU, store)
    batch = noise(24)
    expected = session.run(batch)
    with ThreadPoolExecutor(8) as pool:
        mattes = list(pool.map(lambda one: session.run(one[None])[0], batch))
    assert np.array_equal(np.stack(mattes), expected)


@pytest.mark.parametrize("pictures", [1, 2, None])
def test_however_many_pictures_the_mattes_are_the_same(
    store: Store, network: Path, pictures: int | None
) -> None:
    file = file_of(store, network)
    expected = open_session(file, CPU, store).run(picture())
    given = open_session(file, CPU, store, pictures=pictures).run(picture())
    assert np.abs(given - expected).max() <= 1e-6


def test_the_copy_is_made_once(store: Store, network: Path) -> None:
    file = file_of(store, network)
    first = open_session(file, CPU, store).run(picture())
    states = {path: path.stat() for path in store.prepared.iterdir()}
    assert sorted(path.suffix for path in states) == [".onnx", ".weights"]
    again = open_session(file, CPU, store).run(picture())
    assert np.array_equal(first, again)
    for path in store.prepared.iterdir():
        now, then = path.stat(), states[path]
        assert (now.st_ino, now.st_mtime_ns) == (then.st_ino, then.st_mtime_ns)


@pytest.mark.parametrize("suffix", [".onnx", ".weights"])
def test_a_damaged_copy_is_made_anew(
    store: Store, network: Path, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    file = file_of(store, network)
    first = open_session(file, CPU, store).run(picture())
    [damaged] = store.prepared.glob(f"*{suffix}")
    os.truncate(damaged, damaged.stat().st_size // 2)
    again = open_session(file, CPU, store).run(picture())
    assert np.array_equal(first, again)
    [copy] = store.prepared.glob("*.onnx")
    assert f"{copy}: damaged and made again" in caplog.text
    assert len(list(store.prepared.iterdir())) == 2

    caplog.clear()
    open_session(file, CPU, store)
    assert "damaged" not in caplog.text


def test_a_copy_without_its_weights_is_made_anew(store: Store, network: Path) -> None:
    file = file_of(store, network)
    first = open_session(file, CPU, store).run(picture())
    [weights] = store.prepared.glob("*.weights")
    weights.unlink()
    assert np.array_equal(open_session(file, CPU, store).run(picture()), first)
    assert len(list(store.prepared.iterdir())) == 2


def test_a_copy_is_only_for_the_cpu_and_runtime_it_was_made_on(
    store: Store, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = file_of(store, network)
    first = open_session(file, CPU, store).run(picture())
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name : another\nflags : sse4_2\n", encoding="ascii")
    monkeypatch.setattr(hardware, "CPUINFO", cpuinfo)
    assert np.array_equal(open_session(file, CPU, store).run(picture()), first)
    assert len(list(store.prepared.glob("*.onnx"))) == 2


def test_instruction_sets_count_where_the_system_does_not_list_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "CPUINFO", tmp_path / "none")
    *_, digest = hardware.describe_machine()["cpu"].split()
    assert digest != hashlib.sha256(b"").hexdigest()[:16]


def test_processes_that_make_the_same_copy_at_once_leave_one(store: Store, network: Path) -> None:
    file = file_of(store, network)
    target = store.prepared / "copy.onnx"
    content = prepare(network, for_cpu=True)

    def other(_: Path) -> None:  # is finished while this one is being checked
        assert save_mapped(content, target, lambda _: None)

    assert save_mapped(content, target, other)
    names = sorted(path.name for path in store.prepared.iterdir())
    assert len(names) == 2
    session = Session(target, EnginePlan("cpu"), file.entry, name="it", output=0)
    expected = open_session(file, CPU, store).run(picture())
    assert np.array_equal(session.run(picture()), expected)


def test_a_damaged_copy_that_cannot_be_deleted_is_not_used(
    store: Store, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = file_of(store, network)
    open_session(file, CPU, store)
    [copy] = store.prepared.glob("*.onnx")
    copy.write_bytes(b"damaged")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "unlink", refuse)
    original = fixed(network, EnginePlan("cpu"))
    assert np.array_equal(open_session(file, CPU, store).run(picture()), original.run(picture()))


def test_a_run_that_fails_while_a_copy_is_tried_is_not_remembered(
    store: Store, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: NDArray[np.float32]) -> NDArray[np.float32]:
        raise MemoryError

    with monkeypatch.context() as short:
        short.setattr("bgx.model.session.start", lambda *_: FakeEngine(fail))
        open_session(file_of(store, network), CPU, store)
    assert not list(store.prepared.iterdir())
    open_session(file_of(store, network), CPU, store)
    assert list(store.prepared.glob("*.onnx"))


def test_a_file_that_is_replaced_while_it_is_opened_gets_no_copy_under_the_old_name(
    store: Store, network: Path, tmp_path: Path
) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(network.read_bytes())
    file = file_of(store, path)
    tiny_network(path, mean=(0, 0, 0))

    with pytest.raises(BadModelError, match=r"mine\.onnx: was replaced"):
        open_session(file, CPU, store)
    assert not list(store.prepared.iterdir())

    path.write_bytes(network.read_bytes())
    expected = fixed(network, EnginePlan("cpu")).run(picture())
    assert np.abs(open_session(file, CPU, store).run(picture()) - expected).max() <= 1e-4


def test_where_no_thread_can_be_started_the_caller_opens_the_session(
    store: Store, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    expected = open_session(file_of(store, network), CPU, store).run(picture())
    monkeypatch.setattr(threading.Thread, "start", refuse)

    pending = PendingSession(file_of(store, network), CPU, store)

    assert np.array_equal(pending.run(picture()), expected)
    assert pending.wait().device == pending.plan.device == "cpu"


@pytest.mark.parametrize("threads", [True, False])
def test_what_opening_raises_is_raised_where_the_session_is_needed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: bool
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    model = onnx.load(plain_network(tmp_path / "none.onnx"))
    model.graph.node[0].op_type = "NoOperator"
    path = tmp_path / "none.onnx"
    path.write_bytes(model.SerializeToString())
    if not threads:
        monkeypatch.setattr(threading.Thread, "start", refuse)

    file = file_of(store, path)
    pending = PendingSession(file, CPU, store)

    assert pending.entry == file.entry
    with pytest.raises(BadModelError, match=r"none\.onnx"):
        pending.wait()


# A process of its own, since a limit cannot be raised again. It is set when all is imported.
LIMITED = """
import logging, resource, sys
import numpy as np
from onnx import helper, numpy_helper
from bgx.install import install_hint
from bgx.model.engines import EnginePlan
from bgx.model.providers import load_runtime, start
logging.basicConfig(format="%(message)s")
load_runtime()
shape = [1, 1, 4096, 4096]
value = lambda name: helper.make_tensor_value_info(name, 1, shape)
weights = numpy_helper.from_array(np.ones(shape, np.float32), "w")
node = helper.make_node("Add", ["x", "w"], ["y"])
graph = helper.make_graph([node], "g", [value("x")], [value("y")], [weights])
opset = [helper.make_opsetid("", 13)]
content = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
"""


def run_limited(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LIMITED + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
@pytest.mark.parametrize("megabytes", [4, 48, 100])
def test_too_little_memory_for_a_network_is_no_fault_of_its_file(megabytes: int) -> None:
    code = """
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = used + (int(sys.argv[1]) << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    start(content, EnginePlan("cpu"), "big.onnx")
except Exception as error:
    print(type(error).__name__, error.exit_code.value, error)
"""
    done = run_limited(code, megabytes)

    assert done.stdout.startswith("NoMemoryError 4 big.onnx: too little memory"), done
    assert "ulimit -v" in done.stdout
    assert done.stdout.count("\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="the number of threads is limited on Linux")
def test_a_network_runs_on_one_thread_where_the_system_gives_no_more() -> None:
    code = """
import os
import re
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
if os.getuid() == 0:  # whom the limit does not concern
    os.setuid(65534)
engine = start(content, EnginePlan("cpu", threads=4), "big.onnx")
[sums] = engine.run(None, {"x": np.ones(shape, np.float32)})
print(sums.min(), sums.max())
"""
    done = run_limited(code)

    assert done.stdout == "2.0 2.0\n", done
    assert "big.onnx: the system refuses more threads; the network runs on one" in done.stderr


def test_a_program_that_has_an_arena_of_its_own_may_use_networks() -> None:
    code = """
import onnxruntime
from bgx.model.providers import start
place = onnxruntime.OrtMemoryInfo(
    "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
)
onnxruntime.create_and_register_allocator(place, None)
engine = start(content, EnginePlan("cpu", arena=True), "big.onnx")
[sums] = engine.run(None, {"x": np.ones(shape, np.float32)})
print(sums.min(), sums.max())
"""
    done = run_limited(code)

    assert done.stdout == "2.0 2.0\n", done


def test_another_file_has_a_copy_of_its_own(store: Store, network: Path, tmp_path: Path) -> None:
    open_session(file_of(store, network), CPU, store)
    other = tiny_network(tmp_path / "other.onnx", note="another file")
    open_session(file_of(store, other), CPU, store)
    open_session(file_of(store, network, output=6), CPU, store)
    assert len(list(store.prepared.glob("*.onnx"))) == 3


def test_a_copy_that_differs_is_not_used(
    store: Store,
    network: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wrong = tiny_network(tmp_path / "wrong.onnx", mean=(0, 0, 0)).read_bytes()
    monkeypatch.setattr("bgx.model.prepared.prepare", lambda *_, **__: wrong)
    with caplog.at_level(logging.DEBUG):
        session = open_session(file_of(store, network), CPU, store)
    original = fixed(network, EnginePlan("cpu"))
    assert np.array_equal(session.run(picture()), original.run(picture()))
    assert "differ from the original's" in caplog.text
    assert not list(store.prepared.glob("*.onnx"))


MIXING = """net (float[1,3,320,320] x) => (float[1,1,320,320] y)
    <int64[3] whole = {1, 1, -1}, int64[4] square = {1, 1, 320, 320}>
    {
        sum = ReduceMean <axes = [1]> (x)
        flat = Reshape (sum, whole)
        soft = Softmax <axis = 2> (flat)
        y = Reshape (soft, square)
    }"""


def test_a_graph_of_another_form_runs_as_it_is(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = file_of(store, written_network(tmp_path / "mixing.onnx", MIXING))
    with caplog.at_level(logging.DEBUG):
        session = open_session(file, CPU, store)
    assert "ReduceMean may mix the pictures" in caplog.text
    batch = noise(3)
    together = session.run(batch)
    for index in range(3):
        assert np.array_equal(together[index], session.run(batch[index : index + 1])[0])
    # What was found out once is remembered.
    [refusal] = store.prepared.iterdir()
    assert "ReduceMean" in refusal.read_text(encoding="utf-8")
    assert np.array_equal(open_session(file, CPU, store).run(batch), together)
    refusal.write_bytes(b"\xff")
    assert np.array_equal(open_session(file, CPU, store).run(batch), together)


def test_a_folder_that_cannot_be_written_costs_time_and_nothing_else(
    store: Store, network: Path
) -> None:
    file = file_of(store, network)
    store.prepared.write_bytes(b"a file where the folder should be")
    session = open_session(file, CPU, store)
    expected = fixed(network, EnginePlan("cpu")).run(picture())
    assert np.abs(session.run(picture()) - expected).max() <= 1e-4


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits the size of files")
def test_a_copy_that_a_full_disk_cuts_off_is_not_used(store: Store, tmp_path: Path) -> None:
    import resource

    file = file_of(store, u2net_network(tmp_path / "u2netp.onnx"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))  # the weights have 5 MB
    try:
        given = open_session(file, CPU, store).run(picture())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(store.prepared.iterdir())
    assert np.abs(open_session(file, CPU, store).run(picture()) - given).max() <= 1e-6
    assert len(list(store.prepared.iterdir())) == 2


def test_logits_become_the_same_matte_by_sigmoid(
    store: Store, network: Path, tmp_path: Path
) -> None:
    raw = tiny_network(tmp_path / "logits.onnx", logits=True)
    logits = open_session(file_of(store, raw, activation="sigmoid"), CPU, store)
    plain = open_session(file_of(store, network), CPU, store)
    assert np.abs(logits.run(picture()) - plain.run(picture())).max() <= 1e-6


def test_sigmoid_of_huge_values_is_no_overflow(store: Store, tmp_path: Path) -> None:
    text = """net (float[1,3,8,8] x) => (float[1,1,8,8] y) <float[1,3,1,1] w = {1e9, 0.0, 0.0}>
        { y = Conv (x, w) }"""
    path = written_network(tmp_path / "huge.onnx", text)
    session = open_session(file_of(store, path, input=(8, 8), activation="sigmoid"), CPU, store)
    matte = session.run(noise(1, 8))
    assert set(np.unique(matte)) == {0.0, 1.0}


def test_values_that_are_no_numbers_are_an_error_of_the_picture(network: Path) -> None:
    session = fixed(network, EnginePlan("cpu"))
    with pytest.raises(InferenceError, match="NaN or infinity") as caught:
        session.run(np.full((1, 3, 320, 320), np.nan, np.float32))
    assert caught.value.exit_code is ExitCode.PICTURES


def test_what_the_runtime_refuses_is_an_error_of_the_picture(network: Path) -> None:
    session = fixed(network, EnginePlan("cpu"))
    with pytest.raises(InferenceError) as caught:
        session.run(noise(1, 64))
    assert "\n" not in str(caught.value)
    assert session.run(picture()).shape == (1, 320, 320)


WRONG = {
    r"takes \[1, 3, 64, 64\].*BGX_MODELS": "net (float[1,3,64,64] x) => (float[1,3,64,64] y)",
    r"takes \[1, 1, 320, 320\]": "net (float[1,1,320,320] x) => (float[1,1,320,320] y)",
    r"takes tensor\(double\)": "net (double[1,3,320,320] x) => (double[1,3,320,320] y)",
    r"not one matte per picture": "net (float[1,3,320,320] x) => (float[1,3,320,320] y)",
    r"takes \['n', 3\]": "net (float[n,3] x) => (float[n,3] y)",
}


@pytest.mark.parametrize("reason", WRONG)
def test_a_network_of_another_signature_is_named_with_the_reason(
    tmp_path: Path, reason: str
) -> None:
    path = written_network(tmp_path / "wrong.onnx", WRONG[reason] + " { y = Relu (x) }")
    with pytest.raises(BadModelError, match=reason) as caught:
        check_network(path, U2NET, str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_inputs_are_one_too_many(tmp_path: Path) -> None:
    text = """net (float[1,3,320,320] x, float[1] z) => (float[1,3,320,320] y)
        { y = Add (x, z) }"""
    path = written_network(tmp_path / "two.onnx", text)
    with pytest.raises(BadModelError, match="2 inputs"):
        check_network(path, U2NET, str(path))


def test_an_output_that_is_not_there(store: Store, network: Path) -> None:
    with pytest.raises(BadModelError, match=r"7 outputs.*no number 7"):
        open_session(file_of(store, network, output=7), CPU, store)


def test_an_input_of_open_size_takes_the_entrys(tmp_path: Path) -> None:
    text = "net (float[n,3,h,w] x) => (float[n,1,h,w] y) { y = ReduceMean <axes = [1]> (x) }"
    path = written_network(tmp_path / "open.onnx", text)
    session = fixed(path, EnginePlan("cpu", batch_size=2), replace(U2NET, input=(64, 64)))
    batch = noise(3, 64)
    assert np.abs(session.run(batch) - batch.mean(axis=1)).max() <= 1e-6


def test_weights_beside_the_file_are_found(store: Store, network: Path, tmp_path: Path) -> None:
    split = tmp_path / "split.onnx"
    onnx.save(
        onnx.load(network),
        split,
        save_as_external_data=True,
        location="split.bin",
        size_threshold=0,
    )
    session = open_session(file_of(store, split), CPU, store)
    expected = fixed(network, EnginePlan("cpu")).run(picture())
    assert np.array_equal(session.run(picture()), expected)


def test_auto_takes_what_there_is(store: Store, network: Path) -> None:
    session = open_session(file_of(store, network), DeviceSettings(), store)
    assert session.run(picture())[0, 80, 80] > 0.9


def test_a_device_asked_for_by_name_is_delivered_or_refused(store: Store, network: Path) -> None:
    if "CUDAExecutionProvider" in load_runtime().get_available_providers():
        pytest.skip("this runtime has CUDA")
    with pytest.raises(DeviceUnavailableError, match=re.escape(install_hint("gpu"))) as caught:
        open_session(file_of(store, network), DeviceSettings("cuda"), store)
    assert caught.value.exit_code is ExitCode.DEVICE


@pytest.fixture
def two_flavours(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"onnxruntime": "1", "onnxruntime-gpu": "1"}
    monkeypatch.setattr("bgx.model.opening.find_flavours", lambda: both)


@pytest.mark.usefixtures("two_flavours")
def test_two_flavours_are_the_reason_given_for_a_device_that_is_not_there(
    store: Store, network: Path
) -> None:
    with pytest.raises(
        DeviceUnavailableError, match="pip uninstall -y onnxruntime onnxruntime-gpu"
    ):
        open_session(file_of(store, network), DeviceSettings("tensorrt"), store)


@pytest.mark.usefixtures("two_flavours")
def test_two_flavours_are_told_and_the_cpu_still_works(
    store: Store, network: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert open_session(file_of(store, network), CPU, store).device == "cpu"
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in caplog.text


def test_auto_walks_down_to_what_loads_and_says_why(
    store: Store,
    network: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cpu = ("CPUExecutionProvider", {})
    plans = [EnginePlan("cuda:0", (("CUDAExecutionProvider", {}), cpu)), EnginePlan("cpu")]
    monkeypatch.setattr("bgx.model.opening.plan_engines", lambda *_, **__: plans)
    with (
        caplog.at_level(logging.INFO),
        pytest.warns(UserWarning, match="not in available provider"),
    ):
        session = open_session(file_of(store, network), DeviceSettings(), store)
    assert session.device == "cpu"
    assert "--device cuda:0: CUDAExecutionProvider" in caplog.text


@dataclass
class FakeEngine:
    """Stands in for an ``onnxruntime.InferenceSession``. serve: what a Run does."""

    serve: Callable[[NDArray[np.float32]], NDArray[np.float32]]

    def get_providers(self) -> list[str]:
        return ["FakeExecutionProvider"]

    def get_inputs(self) -> list[SimpleNamespace]:
        shape = ["batch", 3, 320, 320]
        return [SimpleNamespace(name="input.1", type="tensor(float)", shape=shape)]

    def get_outputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="matte")]

    def run(self, _: list[str], feed: dict[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        return [self.serve(feed["input.1"])]


@pytest.mark.parametrize("runs", [1, 2, 4])
def test_as_many_runs_at_once_as_planned_and_never_more(
    monkeypatch: pytest.MonkeyPatch, network: Path, runs: int
) -> None:
    together = threading.Barrier(runs, timeout=60)
    lock = threading.Lock()
    running = most = 0

    def serve(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        # Passes only when `runs` of them are here at once.
        together.wait()
        with lock:
            running -= 1
        return batch[:, :1]

    monkeypatch.setattr("bgx.model.session.start", lambda *_: FakeEngine(serve))
    session = fixed(network, EnginePlan("directml:0", runs=runs))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(session.run, [noise(1)] * 16))
    assert most == runs


def test_several_devices_share_the_pictures(monkeypatch: pytest.MonkeyPatch, network: Path) -> None:
    together = threading.Barrier(2, timeout=60)
    served: dict[str, int] = {"cuda:0": 0, "cuda:1": 0}
    parts = tuple(EnginePlan(device) for device in served)

    def serve(device: str, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        served[device] += 1
        # Passes only when both devices are at work.
        together.wait()
        return batch[:, :1]

    monkeypatch.setattr(
        "bgx.model.session.start",
        lambda _, part, __: FakeEngine(partial(serve, part.device)),
    )
    session = fixed(network, EnginePlan("cuda:0,1", runs=2, parts=parts))
    batch = noise(10)
    with ThreadPoolExecutor(4) as pool:
        mattes = list(pool.map(session.run, batch[:, None]))
    assert np.array_equal(np.concatenate(mattes), batch[:, 0])
    assert served == {"cuda:0": 5, "cuda:1": 5}
    assert session.device == "cuda:0,1"


@pytest.mark.parametrize("trouble", [MemoryError("bad allocation"), RuntimeError("CUDA failure 2")])
def test_a_batch_that_fails_can_be_taken_apart(
    monkeypatch: pytest.MonkeyPatch, network: Path, trouble: Exception
) -> None:
    shapes = []

    def serve(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        shapes.append(len(batch))
        if len(batch) > 1:
            raise trouble
        return batch[:, :1]

    monkeypatch.setattr("bgx.model.session.start", lambda *_: FakeEngine(serve))
    session = fixed(network, EnginePlan("cuda:0", batch_size=8, fixed_batch=False))
    with pytest.raises(InferenceError, match=str(trouble)):
        session.run(noise(3))
    assert session.run(noise(1)).shape == (1, 320, 320)
    # Padded to the planned batch, then one alone as one.
    assert shapes == [8, 1]


def test_nothing_is_printed(store: Store, network: Path, capfd: pytest.CaptureFixture[str]) -> None:
    open_session(file_of(store, network), CPU, store).run(picture())
    assert capfd.readouterr() == ("", "")


def test_u2nets_true_graph_takes_any_batch(store: Store, tmp_path: Path) -> None:
    path = u2net_network(tmp_path / "u2netp.onnx")
    session = open_session(file_of(store, path), CPU, store)
    plan = EnginePlan("cpu", threads=os.cpu_count() or 1, batch_size=2)
    batch = noise(2)
    content = prepare(path, for_cpu=True)
    together = Session(content, plan, U2NET, name="it", output=0).run(batch)
    assert np.abs(together - session.run(batch)).max() <= 1e-4


@pytest.mark.weights
def test_the_real_u2netp_gives_what_its_file_gives(store: Store, weights: Path) -> None:
    session = open_session(file_of(store, weights), CPU, store)
    assert list(store.prepared.glob("*.onnx"))
    expected = fixed(weights, EnginePlan("cpu")).run(picture())
    assert np.abs(session.run(picture()) - expected).max() <= 1e-4
