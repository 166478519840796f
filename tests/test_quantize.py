"""Copies of networks in 8 bits and in half precision: as good as float32, or not there at all."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from bgx.errors import (
    BadModelError,
    DeviceUnavailableError,
    ExitCode,
    ModelError,
    UsageError,
)
from bgx.model import hardware
from bgx.model.engines import EnginePlan
from bgx.model.opening import open_session
from bgx.model.optimize import copies, gate
from bgx.model.optimize.fp16 import halve
from bgx.model.optimize.gate import Measurement, compare_mattes, measure
from bgx.model.optimize.int8 import Quantized, quantize
from bgx.model.prepare import prepare
from bgx.model.registry import load_registry
from bgx.model.session import Session
from bgx.model.store import ModelFile, Store
from bgx.run import optimize as room
from bgx.run.optimize import optimize
from bgx.settings import DeviceSettings, ModelSettings
from support.fakes import save_photo
from support.networks import tiny_network, u2net_network, written_network
from support.shell import bgx

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

U2NET = load_registry()["u2net"]
GOOD = Measurement(0.001, 0.99, 20.0, 10.0, 4)
INT8, FP16 = DeviceSettings(precision="int8"), DeviceSettings(precision="fp16")

# Between the last two convolutions a value in 0..1 decides and one of 300 goes by.
WIDE = """
spread (float[batch, 3, 16, 16] x) => (float[batch, 1, 16, 16] y)
<
  float[1, 3, 1, 1] first = {1, 0, 0}, float[2, 1, 1, 1] second = {1, 1},
  float[2] threshold = {0, -0.9}, float[1, 2, 1, 1] third = {1, 3000},
  float[1, 1, 1, 1] last = {20}, float[1] half = {-6}
>
{
  a = Conv (x, first)
  b = Conv (a, second, threshold)
  c = Relu (b)
  d = Conv (c, third)
  e = Relu (d)
  f = Conv (e, last, half)
  y = Sigmoid (f)
}
"""


def ignore(_: str) -> None: ...


def noise(count: int, side: int = 320) -> list[NDArray[np.float32]]:
    random = np.random.default_rng(5)
    blocks = random.uniform(-2, 2.5, (count, 1, 3, side // 16, side // 16)).astype(np.float32)
    return list(blocks.repeat(16, axis=3).repeat(16, axis=4))


def run(content: bytes, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    _, _, height, width = batch.shape
    entry = replace(U2NET, input=(width, height))
    plan = EnginePlan("cpu", batch_size=len(batch))
    return Session(content, plan, entry, name="it", output=0).run(batch)


def difference(content: bytes, other: bytes, pictures: list[NDArray[np.float32]]) -> float:
    batch = np.concatenate(pictures)
    return float(np.abs(run(content, batch) - run(other, batch)).mean())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return prepare(tiny_network(tmp_path_factory.mktemp("tiny") / "tiny.onnx"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(ModelSettings(folder=tmp_path / "store", offline=True))


@pytest.fixture
def file(store: Store, tmp_path: Path) -> ModelFile:
    return store.resolve(str(tiny_network(tmp_path / "tiny.onnx")), store.registry())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for number in range(10):
        save_photo(folder / f"{number}.jpg")
    return folder


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies win every race: what a network of milliseconds takes here is chance."""
    monkeypatch.setattr(gate, "race", lambda *_: (20.0, 10.0))


# The copy -----------------------------------------------------------------------------------------


def test_the_copy_gives_the_mattes_of_the_network(tiny: bytes) -> None:
    made = quantize(tiny, noise(4), progress=ignore)

    assert difference(made.content, tiny, noise(8)[4:]) < 0.01


def test_every_convolution_that_is_not_kept_has_8_bit_weights(tiny: bytes) -> None:
    made = quantize(tiny, noise(4), progress=ignore)

    graph = onnx.load_model_from_string(made.content).graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    sources = {node.output[0]: node.input[0] for node in graph.node}
    weights = [
        kinds.get(node.input[1], kinds.get(sources.get(node.input[1], "")))
        for node in graph.node
        if node.op_type == "Conv"
    ]
    assert Counter(weights)[TensorProto.INT8] == made.convolutions - len(made.kept) > 0


def test_the_copy_takes_any_batch(tiny: bytes) -> None:
    made = quantize(tiny, noise(4), progress=ignore)
    batch = np.concatenate(noise(3))

    together = run(made.content, batch)
    alone = [run(made.content, batch[index : index + 1]) for index in range(3)]
    assert np.array_equal(together, np.concatenate(alone))


def test_what_spoils_the_mattes_stays_in_float32(tmp_path: Path) -> None:
    path = written_network(tmp_path / "wide.onnx", WIDE)
    content = prepare(path)
    values = np.random.default_rng(1).uniform(0, 1, (4, 1, 3, 16, 16)).astype(np.float32)

    made = quantize(content, list(values), progress=ignore, enough=0.02)

    assert (made.kept, made.convolutions) == (("Conv_3", "Conv_5"), 4)
    assert difference(made.content, content, list(values)) < 0.02


def spoil_in_many_places(times: int, others: int) -> str:
    """A network that changes nothing: so many times a value of 10 goes by, then other layers."""
    steps, last = [], "x0"
    for index in range(times):
        steps += [
            f"a{index} = Conv ({last}, second, threshold)",
            f"b{index} = Relu (a{index})",
            f"c{index} = Conv (b{index}, third)",
            f"d{index} = Clip (c{index}, low, high)",
        ]
        last = f"d{index}"
    for index in range(others):
        steps += [f"e{index} = Conv ({last}, same)", f"f{index} = Relu (e{index})"]
        last = f"f{index}"
    body = "\n".join(steps)
    return f"""
    chain (float[batch, 3, 16, 16] x) => (float[batch, 1, 16, 16] y)
    <
      float[1, 3, 1, 1] first = {{1, 0, 0}}, float[2, 1, 1, 1] second = {{1, 1}},
      float[2] threshold = {{0, -0.9}}, float[1, 2, 1, 1] third = {{1, 100}},
      float[1, 1, 1, 1] same = {{1}}, float low = {{0}}, float high = {{1}}
    >
    {{ x0 = Conv (x, first) {body} y = Sigmoid ({last}) }}
    """


def test_where_no_few_convolutions_spoil_the_mattes_a_part_stays_in_float32(
    tmp_path: Path,
) -> None:
    path = written_network(tmp_path / "chain.onnx", spoil_in_many_places(times=4, others=40))
    values = np.random.default_rng(1).uniform(0, 1, (4, 1, 3, 16, 16)).astype(np.float32)

    made = quantize(prepare(path), list(values), progress=ignore)

    assert made.error <= 0.0015
    assert len(made.kept) < made.convolutions / 4


def test_the_true_graph_can_be_written_in_8_bits(tmp_path: Path) -> None:
    content = prepare(u2net_network(tmp_path / "u2netp.onnx"))
    pictures = noise(1)

    # Random weights: nothing to look for.
    made = quantize(content, pictures, progress=ignore, enough=1.0)

    assert made.convolutions == 119
    fine, coarse = run(content, pictures[0]), run(made.content, pictures[0])
    assert np.corrcoef(fine.ravel(), coarse.ravel())[0, 1] > 0.9


def test_a_network_without_convolutions_is_refused(tmp_path: Path) -> None:
    text = "none (float[batch, 1, 8, 8] x) => (float[batch, 1, 8, 8] y) { y = Sigmoid (x) }"

    with pytest.raises(BadModelError, match="no convolutions"):
        quantize(prepare(written_network(tmp_path / "none.onnx", text)), [], progress=ignore)


@pytest.mark.parametrize("network", [tiny_network, u2net_network])
def test_half_precision_inside_and_float32_at_both_ends(
    network: Callable[[Path], Path], tmp_path: Path
) -> None:
    content = prepare(network(tmp_path / "it.onnx"))

    halved = halve(content)

    graph = onnx.load_model_from_string(halved).graph
    ends = [value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)]
    assert ends == [TensorProto.FLOAT] * 2
    scales = {node.input[2] for node in graph.node if node.op_type == "Resize"}
    weights = [tensor for tensor in graph.initializer if tensor.name not in scales]
    assert {tensor.data_type for tensor in weights} == {TensorProto.FLOAT16}
    assert difference(halved, content, noise(2)) < 0.002


# The gate -----------------------------------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU beside the processor, which in truth does its work."""
    cuda = EnginePlan("cuda:0", batch_size=4, fixed_batch=False, memory="cpu")

    def plan_engines(device: DeviceSettings, *_: Any, **__: Any) -> list[EnginePlan]:
        found = {"cuda": [cuda], "cpu": [EnginePlan("cpu")]}
        return found.get(device.kind, [*found["cuda"], *found["cpu"]])

    monkeypatch.setattr("bgx.model.opening.plan_engines", plan_engines)


@pytest.mark.usefixtures("fast", "gpu")
def test_half_precision_that_passes_is_used_on_that_gpu_and_nowhere_else(
    file: ModelFile, store: Store, photos: Path
) -> None:
    assert open_session(file, DeviceSettings(), store).precision == "fp32"

    path, measured = optimize(file, store, photos, 4, FP16, progress=ignore)

    assert path.is_relative_to(store.optimized)
    assert not measured.faults
    for device, precision in (
        (DeviceSettings(), "fp16"),
        (DeviceSettings("cuda"), "fp16"),
        (DeviceSettings("cuda", precision="fp16"), "fp16"),
        (FP16, "fp16"),
        (DeviceSettings("cuda", precision="fp32"), "fp32"),
        (DeviceSettings("cpu"), "fp32"),
    ):
        assert open_session(file, device, store).precision == precision
    with pytest.raises(ModelError, match="int8"):
        open_session(file, INT8, store)


@pytest.mark.usefixtures("gpu")
def test_a_gpu_runs_a_race_of_whole_batches(
    file: ModelFile, store: Store, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raced: list[tuple[int, ...]] = []

    def race(_: Session, __: Session, batch: NDArray[np.float32]) -> tuple[float, float]:
        raced.append(batch.shape)
        return 10.0, 10.0

    monkeypatch.setattr(gate, "race", race)

    with pytest.raises(ModelError, match=r"no fp16 copy installed: it is not faster"):
        optimize(file, store, photos, 4, FP16, progress=ignore)

    assert raced == [(4, 3, 320, 320)]
    assert not list(store.folder.rglob("*fp16*"))


@pytest.mark.usefixtures("fast", "gpu")
def test_half_precision_that_spoils_the_mattes_is_not_installed(
    file: ModelFile, store: Store, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = prepare(tiny_network(tmp_path / "other.onnx", mean=(0.9, 0.9, 0.9)))
    monkeypatch.setattr(room, "halve", lambda _: other)

    with pytest.raises(ModelError, match=r"differ by .* agree to"):
        optimize(file, store, photos, 4, FP16, progress=ignore)

    assert open_session(file, DeviceSettings(), store).precision == "fp32"


@pytest.mark.usefixtures("fast")
def test_a_copy_that_passes_is_used_from_then_on(
    file: ModelFile, store: Store, photos: Path
) -> None:
    assert open_session(file, DeviceSettings("cpu"), store).precision == "fp32"

    path, measured = optimize(file, store, photos, 4, INT8, progress=ignore)

    assert path.is_relative_to(store.optimized)
    assert not measured.faults
    assert measured.photos == 4
    for device, precision in (
        (DeviceSettings(), "int8"),
        (DeviceSettings("cpu"), "int8"),
        (DeviceSettings("cpu", precision="int8"), "int8"),
        (DeviceSettings(precision="int8"), "int8"),
        (DeviceSettings("cpu", precision="fp32"), "fp32"),
    ):
        session = open_session(file, device, store)
        assert (session.precision, session.device) == (precision, "cpu")


@pytest.mark.parametrize(
    ("race", "spoil", "words"),
    [
        ((10.0, 10.0), False, "not faster"),
        ((20.0, 10.0), True, "differ by .* agree to"),
    ],
)
def test_a_copy_that_fails_is_not_installed(
    race: tuple[float, float],
    spoil: bool,
    words: str,
    file: ModelFile,
    store: Store,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gate, "race", lambda *_: race)
    if spoil:
        other = prepare(tiny_network(tmp_path / "other.onnx", mean=(0.9, 0.9, 0.9)))
        monkeypatch.setattr(room, "quantize", lambda *_, **__: Quantized(other, (), 7, 0.5))

    with pytest.raises(ModelError, match=words) as caught:
        optimize(file, store, photos, 4, INT8, progress=ignore)

    assert caught.value.exit_code == ExitCode.MODEL
    assert not list(store.folder.rglob("*int8*"))
    assert open_session(file, DeviceSettings("cpu"), store).precision == "fp32"


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        ({}, 0),
        ({"difference": 0.00501}, 1),
        ({"iou": 0.9849}, 1),
        ({"copy_ms": 20.0}, 1),
        ({"difference": float("nan"), "iou": float("nan"), "copy_ms": float("nan")}, 3),
    ],
)
def test_limits_of_the_gate(changes: dict[str, Any], faults: int) -> None:
    assert len(GOOD._replace(**changes).faults) == faults


def test_mattes_are_compared_by_their_values_and_their_masks() -> None:
    empty, full = np.zeros((4, 4)), np.ones((4, 4))
    half = full.copy()
    half[:2] = 0

    pairs = ((empty, empty), (full, half), (empty, full))
    assert [compare_mattes(*pair) for pair in pairs] == [(0, 1), (0.5, 0.5), (1, 0)]


@pytest.mark.usefixtures("fast")
def test_photos_that_cannot_be_read_are_said_and_left_out(
    file: ModelFile, store: Store, photos: Path
) -> None:
    (photos / "0.jpg").write_bytes(b"none")
    (photos / "notes.txt").write_text("none")
    said: list[str] = []

    _, measured = optimize(file, store, photos, 64, INT8, progress=said.append)

    assert measured.photos == 4
    assert [line for line in said if "0.jpg" in line]


def test_too_few_photos(file: ModelFile, store: Store, photos: Path) -> None:
    for number in range(3):
        (photos / f"{number}.jpg").unlink()

    with pytest.raises(UsageError, match="7 readable photos"):
        optimize(file, store, photos, 64, INT8, progress=ignore)


# The choice ---------------------------------------------------------------------------------------


def test_8_bits_asked_for_and_not_there(file: ModelFile, store: Store) -> None:
    with pytest.raises(ModelError, match="bgx models optimize") as caught:
        open_session(file, DeviceSettings(precision="int8"), store)

    assert caught.value.exit_code == ExitCode.MODEL


def test_8_bits_are_for_the_cpu() -> None:
    with pytest.raises(UsageError, match="CPU"):
        DeviceSettings("cuda:0", precision="int8")


@pytest.mark.usefixtures("gpu")
def test_half_precision_asked_for_and_not_there(file: ModelFile, store: Store) -> None:
    with pytest.raises(ModelError, match=r"on cuda:0; run: .* --device cuda:0") as caught:
        open_session(file, FP16, store)

    assert caught.value.exit_code == ExitCode.MODEL


@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_half_precision_is_for_gpus(device: str) -> None:
    with pytest.raises(UsageError, match="GPU"):
        DeviceSettings(device, precision="fp16")


def test_without_a_gpu_half_precision_is_an_error_of_the_device(
    file: ModelFile, store: Store, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bgx.model.opening.list_providers", lambda _: ["CPUExecutionProvider"])
    copies.install(file, store, halve(prepare(file.path)), GOOD, "cuda:0")

    for run_it in (
        lambda: open_session(file, FP16, store),
        lambda: optimize(file, store, photos, 4, FP16, progress=ignore),
    ):
        with pytest.raises(DeviceUnavailableError, match=r"fp16.*\[gpu\]") as caught:
            run_it()
        assert caught.value.exit_code == ExitCode.DEVICE
    assert open_session(file, DeviceSettings(), store).precision == "fp32"


def test_half_precision_is_for_the_gpu_it_was_measured_on(
    file: ModelFile, store: Store, tiny: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = tmp_path / "gpus" / "0000-01-00.0" / "information"
    monkeypatch.setattr(hardware, "NVIDIA", tmp_path / "gpus")
    card.parent.mkdir(parents=True)
    card.write_text("Model: \t\t One\nIRQ:   \t\t 1\n", encoding="utf-8")
    path = copies.install(file, store, tiny, GOOD, "cuda:0")

    assert copies.find(file, store, "cuda:0") == path
    assert copies.find(file, store, "cuda:1") is None
    assert copies.find(file, store) is None
    copies.install(file, store, tiny, GOOD)
    assert copies.list_copies(file, store) == ["fp16 on cuda:0", "int8"]
    card.write_text("Model: \t\t Another\nIRQ:   \t\t 1\n", encoding="utf-8")
    assert copies.find(file, store, "cuda:0") is None
    assert copies.list_copies(file, store) == ["int8"]


@pytest.mark.parametrize("field", ["cpu", "runtime"])
def test_a_copy_measured_elsewhere_is_not_used(
    field: str, file: ModelFile, store: Store, tiny: bytes
) -> None:
    path = copies.install(file, store, tiny, GOOD)
    assert copies.find(file, store) == path
    record = json.loads(path.with_suffix(".json").read_text())
    record["machine"][field] = "another"
    path.with_suffix(".json").write_text(json.dumps(record))

    assert copies.find(file, store) is None
    assert open_session(file, DeviceSettings("cpu"), store).precision == "fp32"


@pytest.mark.parametrize("record", [b"", b"[]", b"{}", b"\xff"])
def test_a_copy_with_a_damaged_record_is_not_used(
    record: bytes, file: ModelFile, store: Store, tiny: bytes
) -> None:
    copies.install(file, store, tiny, GOOD).with_suffix(".json").write_bytes(record)

    assert copies.find(file, store) is None


# The command line ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("fast")
def test_optimize_on_the_command_line(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BGX_HOME", str(tmp_path / "home"))
    bgx("models", "add", "mine", tiny_network(tmp_path / "mine.onnx"))
    asked = ("batch", photos, "-o", tmp_path / "cut", "-m", "mine", "--precision", "int8")

    refused = bgx(*asked)
    assert refused.code == ExitCode.MODEL
    assert "bgx models optimize mine" in refused.err

    done = bgx(
        "models", "optimize", "mine", "--precision", "int8", "--calibrate", photos, "-n", "4"
    )
    assert done.code == 0, done.err
    assert "times as fast" in done.out.decode()
    rows = {row["name"]: row for row in json.loads(bgx("models", "list", "--json").out)}
    assert {n: row["copies"] for n, row in rows.items() if row["copies"]} == {"mine": ["int8"]}
    assert bgx(*asked).code == 0

    bgx("models", "remove", "mine")
    assert not list((tmp_path / "home" / "optimized").iterdir())


def test_without_a_gpu_optimize_says_what_to_do(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BGX_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("bgx.model.opening.list_providers", lambda _: ["CPUExecutionProvider"])
    network = tiny_network(tmp_path / "mine.onnx")
    asked = ("models", "optimize", network, "--precision", "fp16", "--calibrate", photos)

    for device, code in (("auto", 4), ("cuda", 4), ("cpu", 2)):
        done = bgx(*asked, "--device", device)
        assert (done.code, done.out) == (code, b"")
        # A line may say first how the unknown file is fed.
        assert done.err.count("\n") == 1 + ("settings of u2net" in done.err)


def test_the_gate_compares_mattes_and_not_the_networks_output(
    file: ModelFile, store: Store, tmp_path: Path
) -> None:
    session = open_session(file, DeviceSettings("cpu"), store)
    other = prepare(tiny_network(tmp_path / "other.onnx", mean=(0.9, 0.9, 0.9)))

    unlike = measure(session, other, noise(2), lambda values: values)
    alike = measure(session, other, noise(2), np.zeros_like)

    assert (alike.difference, alike.iou) == (0, 1)
    assert unlike.difference > 0
