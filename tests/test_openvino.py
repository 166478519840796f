"""OpenVINO by itself: the mattes that ONNX Runtime gives, its refusals, and nothing sent home."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest

from bgx.errors import BadModelError, DeviceUnavailableError, ExitCode, InferenceError
from bgx.model.engines import OPENVINO, EnginePlan
from bgx.model.inspection import inspect_runtime
from bgx.model.opening import open_session
from bgx.model.optimize import copies
from bgx.model.optimize.gate import Measurement
from bgx.model.prepare import prepare
from bgx.model.registry import load_registry
from bgx.model.session import Session
from bgx.model.store import Store
from bgx.settings import DeviceSettings, ModelSettings
from support.networks import tiny_network, u2net_network, written_network

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from bgx.settings import Precision

U2NET = load_registry()["u2net"]

installed = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="openvino is not installed"
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(ModelSettings(folder=tmp_path / "store", offline=True))


def noise(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(3).standard_normal((count, 3, 320, 320), np.float32)


def opened(store: Store, path: Path, device: str, pictures: int | None = None) -> Session:
    file = store.resolve(str(path), load_registry())
    return open_session(file, DeviceSettings(device), store, pictures=pictures)


@installed
@pytest.mark.parametrize("pictures", [1, None])
def test_the_mattes_are_those_of_the_cpu(
    store: Store, tmp_path: Path, pictures: int | None
) -> None:
    network = u2net_network(tmp_path / "u2netp.onnx")
    session = opened(store, network, "openvino", pictures)
    assert (session.device, session.provider) == ("openvino", "OpenVINO")
    batch = noise(2)
    expected = opened(store, network, "cpu").run(batch)
    # Half precision would differ by more than this.
    assert np.abs(session.run(batch) - expected).max() <= 1e-4


@installed
@pytest.mark.parametrize("precision", ["auto", "int8"])
def test_it_runs_the_8_bit_copy_where_one_passed(
    store: Store, tmp_path: Path, precision: Precision
) -> None:
    file = store.resolve(str(tiny_network(tmp_path / "tiny.onnx")), load_registry())
    passed = Measurement(0.0, 1.0, 20.0, 10.0, 8)
    copies.install(file, store, prepare(file.path), passed)
    session = open_session(file, DeviceSettings("openvino", precision=precision), store)
    assert (session.provider, session.precision) == ("OpenVINO", "int8")


@installed
def test_many_threads_get_their_own_mattes(store: Store, tmp_path: Path) -> None:
    network = tiny_network(tmp_path / "tiny.onnx")
    session = opened(store, network, "openvino")
    batch = noise(24)
    expected = session.run(batch)
    with ThreadPoolExecutor(8) as pool:
        mattes = list(pool.map(lambda one: session.run(one[None])[0], batch))
    assert np.array_equal(np.stack(mattes), expected)


@installed
def test_the_published_form_runs_as_it_is(tmp_path: Path) -> None:
    network = tiny_network(tmp_path / "tiny.onnx")
    plans = [EnginePlan("openvino", ((OPENVINO, {}),), batch_size=16), EnginePlan("cpu")]
    openvino, cpu = (Session(network, plan, U2NET, name="tiny", output=0) for plan in plans)
    assert openvino.plan.batch_size == 1
    batch = noise(2)
    assert np.abs(openvino.run(batch) - cpu.run(batch)).max() <= 1e-5


@installed
@pytest.mark.parametrize("content", [b"", b"no network", bytes(999)])
def test_what_is_no_network_is_said_in_one_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "garbage.onnx"
    file.write_bytes(content)
    plan = EnginePlan("openvino", ((OPENVINO, {}),))
    for source in (file, content):
        with pytest.raises(BadModelError, match="the file: not a network") as caught:
            Session(source, plan, U2NET, name="the file", output=0)
        assert "\n" not in str(caught.value)


@installed
def test_a_network_of_another_signature_is_named_with_the_reason(tmp_path: Path) -> None:
    plan = EnginePlan("openvino", ((OPENVINO, {}),))
    for text, reason in (
        ("net (float[1,3,64,64] x) => (float[1,3,64,64] y)", r"takes \[1, 3, 64, 64\]"),
        ("net (float16[1,3,320,320] x) => (float16[1,3,320,320] y)", r"takes tensor\(f16\)"),
    ):
        path = written_network(tmp_path / "wrong.onnx", text + " { y = Relu (x) }")
        with pytest.raises(BadModelError, match=reason):
            Session(path, plan, U2NET, name="wrong", output=0)


@installed
def test_what_openvino_refuses_is_an_error_of_the_picture(store: Store, tmp_path: Path) -> None:
    session = opened(store, tiny_network(tmp_path / "tiny.onnx"), "openvino", pictures=1)
    with pytest.raises(InferenceError) as caught:
        session.run(np.zeros((1, 3, 64, 64), np.float32))
    assert "\n" not in str(caught.value)
    # The next picture finds the engine free.
    assert session.run(noise(1)).shape == (1, 320, 320)


@installed
def test_nothing_is_sent_home(tmp_path: Path) -> None:
    network = tiny_network(tmp_path / "tiny.onnx")
    code = f"""
import pathlib, socket, sys
pathlib.Path.home = classmethod(lambda _: pathlib.Path({str(tmp_path / "home")!r}))
def refuse(*_): raise SystemExit("a connection")
socket.socket.connect = socket.getaddrinfo = refuse
from bgx.model.optimize import copies
from bgx.model.optimize.gate import Measurement
from bgx.model.prepare import prepare
from bgx.model.engines import OPENVINO, EnginePlan
from bgx.model.providers import start
start(pathlib.Path({str(network)!r}), EnginePlan("openvino", ((OPENVINO, {{}}),)), "tiny")
print(*[name for name in sys.modules if name.startswith("openvino_telemetry.")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
    assert not (tmp_path / "home").exists()


@installed
def test_the_report_of_this_machine_has_it() -> None:
    assert "openvino" in inspect_runtime().loads


def test_without_openvino_the_remedy_is_said(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(DeviceUnavailableError, match=r"\[openvino\]") as caught:
        opened(store, tiny_network(tmp_path / "tiny.onnx"), "openvino")
    assert caught.value.exit_code is ExitCode.DEVICE


def test_an_openvino_that_does_not_load_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    plan = EnginePlan("openvino", ((OPENVINO, {}),))
    with pytest.raises(DeviceUnavailableError, match="--force-reinstall openvino") as caught:
        Session(tmp_path / "any.onnx", plan, U2NET, name="any", output=0)
    assert "\n" not in str(caught.value)
