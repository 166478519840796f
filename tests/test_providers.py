"""Devices, threads and precision: planned from given data, and with the real ONNX Runtime."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgx.errors import BadModelError, DeviceUnavailableError, ExitCode, RuntimeMissingError
from bgx.install import install_hint
from bgx.model import providers
from bgx.model.engines import OPENVINO, PROVIDERS_BY_DEVICE, EnginePlan, plan_engines
from bgx.model.inspection import inspect_runtime
from bgx.model.providers import (
    explain_conflict,
    find_flavours,
    list_providers,
    load_runtime,
    one_line,
    runtime_errors,
    start,
)
from bgx.settings import DEVICES, DeviceSettings
from support.networks import tiny_network

if TYPE_CHECKING:
    from collections.abc import Iterator

CACHE = Path("cache")
EVERYTHING = [*chain.from_iterable(PROVIDERS_BY_DEVICE.values()), "AzureExecutionProvider"]
SMALL, LARGE = 320 * 320, 1024 * 1024


def plan(
    device: str = "cpu",
    *,
    cores: int = 8,
    pictures: int | None = None,
    pixels: int = SMALL,
    workers: int | None = None,
    threads: int | None = None,
    batch_size: int | None = None,
) -> EnginePlan:
    settings = DeviceSettings(device, workers, threads, batch_size)
    [only] = plan_engines(
        settings, EVERYTHING, cores, pictures=pictures, cache=CACHE, pixels=pixels
    )
    return only


def test_many_pictures_on_a_cpu_run_single_threaded_one_a_core() -> None:
    for pictures in (None, 8, 1000):
        many = plan(pictures=pictures)
        assert (many.runs, many.threads, many.batch_size) == (8, 1, 1)


def test_one_picture_on_a_cpu_has_all_cores() -> None:
    one = plan(pictures=1)
    assert (one.runs, one.threads, one.pool_size) == (1, 8, 8)


def test_few_pictures_share_the_cores() -> None:
    few = plan(pictures=3)
    assert (few.runs, few.threads) == (3, 2)


def test_workers_and_threads_are_taken_as_told() -> None:
    assert (plan(workers=2).runs, plan(workers=2).threads) == (2, 4)
    assert (plan(threads=4).runs, plan(threads=4).threads) == (2, 4)
    assert (plan(workers=3, threads=5).runs, plan(workers=3, threads=5).threads) == (3, 5)
    assert plan(workers=16).runs == 16


def test_large_inputs_take_more_cores_each_so_that_memory_does_not_grow_with_cores() -> None:
    large = plan(cores=64, pixels=LARGE)
    assert large.runs * LARGE <= 64 * SMALL
    assert large.threads >= LARGE // SMALL


@given(
    cores=st.integers(1, 256),
    pictures=st.none() | st.integers(0, 1000),
    pixels=st.integers(1, 4096 * 4096),
)
def test_left_to_itself_bgx_never_uses_more_threads_than_cores(
    cores: int, pictures: int | None, pixels: int
) -> None:
    for device in DEVICES[1:]:
        made = plan(device, cores=cores, pictures=pictures, pixels=pixels)
        assert 1 <= made.runs * made.threads <= cores
        assert 1 <= made.pool_size <= cores
        assert made.batch_size >= 1


def test_a_thread_of_the_pool_spins_only_where_it_disturbs_nobody() -> None:
    assert plan(pictures=1).config["session.intra_op.allow_spinning"] == "1"
    assert plan(pictures=9, workers=1).config["session.intra_op.allow_spinning"] == "0"


def test_cuda() -> None:
    made = plan("cuda:1")
    name, options = made.providers[0]
    assert (made.device, name) == ("cuda:1", "CUDAExecutionProvider")
    assert options == {"device_id": "1", "cudnn_conv_algo_search": "HEURISTIC"}
    assert made.providers[-1][0] == "CPUExecutionProvider"
    assert made.batch_size > 1
    assert not made.fixed_batch


def test_tensorrt_keeps_its_engines_and_timings_and_has_cuda_for_the_rest() -> None:
    made = plan("tensorrt")
    names = [name for name, _ in made.providers]
    assert names == [PROVIDERS_BY_DEVICE[kind][0] for kind in ("tensorrt", "cuda", "cpu")]
    options = made.providers[0][1]
    assert options["trt_engine_cache_path"] == options["trt_timing_cache_path"] == str(CACHE)
    assert options["trt_engine_cache_enable"] == options["trt_timing_cache_enable"] == "True"
    assert made.fixed_batch


def test_nvidias_gpus_keep_a_batch_in_their_memory_and_run_one_at_a_time() -> None:
    for device in DEVICES[1:]:
        made = plan(device)
        assert made.memory == ("cuda" if device in {"cuda", "tensorrt"} else None)
    for part in plan("cuda:0,2").parts:
        assert (part.memory, part.runs) == ("cuda", 1)


def test_directml_runs_one_at_a_time_without_a_memory_pattern() -> None:
    made = plan("directml:2")
    assert made.providers[0] == ("DmlExecutionProvider", {"device_id": "2"})
    assert (made.runs, made.memory_pattern) == (1, False)
    assert all(plan(kind).memory_pattern for kind in DEVICES[1:] if kind not in {"cpu", "directml"})


def test_the_cpu_gives_memory_back_as_soon_as_it_can() -> None:
    assert (plan("cpu").memory_pattern, plan("cpu").memory_reuse) == (False, False)


def test_coreml_has_a_program_of_static_shapes() -> None:
    made = plan("coreml")
    assert made.providers[0][1] == {"ModelFormat": "MLProgram", "RequireStaticInputShapes": "1"}
    assert made.fixed_batch
    assert (made.device, made.batch_size, made.runs) == ("coreml", 1, 1)


def test_openvino_has_the_cpus_threads() -> None:
    made = plan("openvino")
    assert made.providers == ((OPENVINO, {}),)
    assert (made.runs, made.threads, made.batch_size, made.fixed_batch) == (8, 1, 1, True)
    alone = plan("openvino", pictures=1)
    assert (alone.runs, alone.threads) == (1, 8)
    assert {kind for kind in DEVICES[1:] if plan(kind).on_cpu} == {"cpu", "openvino"}


def test_openvino_inside_onnxruntime_computes_in_fp32_on_the_cores_there_are() -> None:
    inside = ["OpenVINOExecutionProvider", "CPUExecutionProvider"]
    for pictures, streams in ((None, "8"), (1, "1")):
        [made] = plan_engines(DeviceSettings("openvino"), inside, 8, pictures=pictures, cache=CACHE)
        name, options = made.providers[0]
        assert (name, options["precision"]) == ("OpenVINOExecutionProvider", "FP32")
        assert (options["num_of_threads"], options["num_streams"]) == ("8", streams)


def test_webgpu_takes_batches_one_at_a_time() -> None:
    made = plan("webgpu")
    assert made.providers[0] == ("WebGpuExecutionProvider", {})
    assert (made.device, made.runs, made.fixed_batch) == ("webgpu", 1, True)
    assert made.batch_size > 1


@pytest.mark.parametrize("kind", ["cuda", "tensorrt", "directml"])
def test_several_gpus_are_one_queue(kind: str) -> None:
    made = plan(f"{kind}:0,2", pictures=20)
    assert (made.device, made.runs) == (f"{kind}:0,2", 2)
    assert list(made.parts) == [plan(f"{kind}:{index}", pictures=10) for index in (0, 2)]
    # A batch leaves something to do for the other.
    assert made.batch_size == 10


def test_a_gpus_batch_is_no_larger_than_the_job_and_smaller_for_large_inputs() -> None:
    assert plan("cuda", pictures=3).batch_size == 3
    assert plan("cuda", batch_size=5).batch_size == 5
    assert plan("cuda", pixels=LARGE).batch_size < plan("cuda").batch_size
    assert plan(batch_size=5).batch_size == 1


def test_auto_tries_the_best_first_and_ends_on_the_cpu() -> None:
    plans = plan_engines(DeviceSettings(), EVERYTHING, 4, pictures=None, cache=CACHE)
    assert [made.device for made in plans] == ["cuda:0", "directml:0", "cpu"]
    [only] = plan_engines(DeviceSettings(), ["CPUExecutionProvider"], 4, pictures=None, cache=CACHE)
    assert only.device == "cpu"


@pytest.mark.parametrize("device", [name for name in DEVICES[1:] if name != "cpu"])
def test_a_device_that_is_not_there_is_an_error_with_the_remedy(device: str) -> None:
    with pytest.raises(DeviceUnavailableError, match=r"pip .*install") as caught:
        plan_engines(
            DeviceSettings(device), ["CPUExecutionProvider"], 4, pictures=None, cache=CACHE
        )
    assert f"--device {device}" in str(caught.value)
    assert caught.value.exit_code is ExitCode.DEVICE


def test_a_provider_that_does_not_load_is_never_silently_the_cpu(tmp_path: Path) -> None:
    network = tiny_network(tmp_path / "tiny.onnx")
    absent = EnginePlan("cuda:0", (("CUDAExecutionProvider", {}), ("CPUExecutionProvider", {})))
    with (
        pytest.warns(UserWarning, match="not in available provider"),
        pytest.raises(DeviceUnavailableError, match="--device cuda:0") as caught,
    ):
        start(network, absent, "tiny")
    assert "\n" not in str(caught.value)


def test_tensorrts_wheel_loads_its_libraries_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorrt.py").write_text("", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    network = tiny_network(tmp_path / "tiny.onnx")
    with (
        pytest.warns(UserWarning, match="not in available provider"),
        pytest.raises(DeviceUnavailableError, match="--device tensorrt:0"),
    ):
        start(network, plan("tensorrt"), "tiny")
    assert sys.modules.pop("tensorrt", None) is not None


@pytest.fixture
def plug_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Stands in for the wheel of WebGPU; the libraries registered for it."""
    registered: list[str] = []
    wheel = SimpleNamespace(get_library_path=lambda: "webgpu.so")
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_webgpu", wheel)
    monkeypatch.setattr(
        load_runtime(),
        "register_execution_provider_library",
        lambda _, path: registered.append(path),
        raising=False,
    )
    providers._register.cache_clear()
    yield registered
    providers._register.cache_clear()


def test_a_plug_in_is_registered_once_and_only_for_its_device(plug_in: list[str]) -> None:
    assert "WebGpuExecutionProvider" not in list_providers(["auto"])
    assert plug_in == []
    for _ in range(2):
        assert "WebGpuExecutionProvider" in list_providers(["webgpu"])
    assert plug_in == ["webgpu.so"]


@pytest.mark.usefixtures("plug_in")
def test_a_plug_in_that_cannot_be_registered_is_not_there(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: str) -> None:
        raise RuntimeError("ORT runtime version is below the minimum")

    monkeypatch.setattr(load_runtime(), "register_execution_provider_library", refuse)
    assert "WebGpuExecutionProvider" not in list_providers(["webgpu"])
    assert "below the minimum" in caplog.text


def test_a_plug_in_without_a_device_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    network = tiny_network(tmp_path / "tiny.onnx")
    absent = EnginePlan("webgpu", (("WebGpuExecutionProvider", {}), ("CPUExecutionProvider", {})))
    with pytest.raises(DeviceUnavailableError, match=r"--device webgpu: .*finds no device"):
        start(network, absent, "tiny")


@pytest.mark.parametrize("content", [b"", b"no network", bytes(999)])
def test_what_is_no_network_is_not_blamed_on_the_device(
    tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "garbage.onnx"
    file.write_bytes(content)
    with pytest.raises(BadModelError, match="the file: not a network") as caught:
        start(file, EnginePlan("cpu"), "the file")
    assert "\n" not in str(caught.value)
    # Raised and said once; ONNX Runtime does not print it as well.
    assert capfd.readouterr() == ("", "")


def test_the_report_of_this_machine() -> None:
    report = inspect_runtime()
    assert report.version == metadata.version(next(iter(report.flavours)))
    assert "cpu" in report.loads
    assert report.auto in report.loads
    assert report.why
    assert set(report.loads).isdisjoint(report.fails)
    assert report.trouble is None


def test_telemetry_is_off_before_the_runtime_is_imported() -> None:
    code = """
import os, sys
os.environ.pop("ORT_DISABLE_TELEMETRY", None)
class Watch:
    def find_spec(self, name, *_):
        if name == "onnxruntime":
            print(os.environ.get("ORT_DISABLE_TELEMETRY"))
sys.meta_path.insert(0, Watch())
import bgx.model.providers, bgx.model.session, bgx.model.store
assert "onnxruntime" not in sys.modules
bgx.model.providers.load_runtime()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def install(folder: Path, name: str) -> None:
    """Make Python's own metadata say that a distribution is installed in `folder`."""
    info = folder / f"{name.replace('-', '_')}-1.2.3.dist-info"
    info.mkdir(parents=True)
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2.3\n"
    (info / "METADATA").write_text(text, encoding="utf-8")


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A folder to install into, the only one that counts."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for name in [name for name in sys.modules if name.split(".")[0] == "onnxruntime"]:
        monkeypatch.delitem(sys.modules, name)
    yield tmp_path
    sys.modules.pop("onnxruntime", None)


def test_without_any_flavour_one_line_says_what_to_install(nothing_installed: Path) -> None:
    with pytest.raises(RuntimeMissingError) as caught:
        load_runtime()
    assert str(caught.value) == (f"no onnxruntime flavour is installed; run: {install_hint('cpu')}")
    assert caught.value.exit_code is ExitCode.DEVICE
    report = inspect_runtime()
    assert (report.version, report.auto, report.flavours) == (None, None, {})
    assert report.trouble == str(caught.value)


def test_two_flavours_are_detected_and_explained(nothing_installed: Path) -> None:
    install(nothing_installed, "onnxruntime")
    assert explain_conflict(find_flavours()) is None
    install(nothing_installed, "onnxruntime-gpu")
    said = explain_conflict(find_flavours())
    assert said is not None
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in said
    with pytest.raises(RuntimeMissingError, match="overwrite each other"):
        load_runtime()
    assert inspect_runtime().trouble == said


def test_the_ruins_of_an_uninstalled_flavour_are_explained(nothing_installed: Path) -> None:
    install(nothing_installed, "onnxruntime-gpu")
    # Uninstalling the other flavour took the files and left the folder.
    (nothing_installed / "onnxruntime").mkdir()
    with pytest.raises(RuntimeMissingError, match="--force-reinstall onnxruntime-gpu"):
        load_runtime()


def test_every_exception_of_the_runtime_is_known() -> None:
    from onnxruntime.capi import onnxruntime_pybind11_state as binding

    for name in ("Fail", "RuntimeException", "InvalidArgument", "EPFail"):
        assert getattr(binding, name) in runtime_errors()


@given(st.text())
def test_messages_of_the_runtime_become_one_short_line(text: str) -> None:
    said = one_line(RuntimeError(text))
    assert len(said.splitlines()) == 1 or not text.strip()
    assert len(said) <= 300


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got a wrong shape\nat x",
            "Got a wrong shape",
        ),
        (
            "/src/state.cc:729 void ns::Register(Options&, const Map&) Please install",
            "Please install",
        ),
        ("[ONNXRuntimeError] : 1 : FAIL : /src/a.cu:3 bool f() out of memory", "out of memory"),
        (
            "/a.cc:7 P f(A&) Bad: [ONNXRuntimeError] : 1 : FAIL : /b.cc:9 g()::<> r was false. No",
            "No",
        ),
        (
            "Load model from x failed:/s/c/utils.h:46 void f(const std::map<int, int>&) Opset 99",
            "Load model from x failed:Opset 99",
        ),
        (
            "Status Message: D:\\a\\_work\\help.h:9 ns::F(A&, bool) size == wanted was false. No",
            "Status Message: No",
        ),
        ("", "RuntimeError"),
    ],
)
def test_numbers_and_source_lines_of_the_runtime_are_left_out(text: str, said: str) -> None:
    assert one_line(RuntimeError(text)) == said
