"""Networks in half precision, and graphs as converters leave them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bgx.model.opening import open_session
from bgx.model.prepare import DoesNotFit, prepare, to_float32
from bgx.model.prepared import read_prepared
from bgx.model.registry import load_registry
from bgx.model.store import ModelFile, Store
from bgx.settings import DeviceSettings, ModelSettings
from support.networks import halved, tiny_network, u2net_network, written_network

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from bgx.model.session import Session

ENTRY = load_registry()["u2net"]


def find_file(path: Path, folder: Path) -> tuple[ModelFile, Store]:
    store = Store(ModelSettings(folder=folder, offline=True))
    file = store.resolve(str(path), {"u2net": ENTRY})
    return ModelFile(ENTRY, file.path, file.digest, "file"), store


def open_file(path: Path, folder: Path) -> Session:
    file, store = find_file(path, folder)
    return open_session(file, DeviceSettings("cpu"), store)


def noise(count: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(3).standard_normal((count, 3, 320, 320), np.float32)


def kinds(content: bytes) -> set[str]:
    return {node.op_type for node in onnx.load_model_from_string(content).graph.node}


@pytest.mark.parametrize("ports", [False, True])
def test_a_network_in_half_precision_gives_the_mattes_of_float32(
    tmp_path: Path, ports: bool
) -> None:
    """ports: its input and outputs are in half precision too."""
    fine = tiny_network(tmp_path / "fine.onnx")
    half = halved(fine, tmp_path / "half.onnx", ports=ports)
    mattes = [open_file(path, tmp_path / "home").run(noise(2)) for path in (fine, half)]
    assert mattes[1].dtype == np.float32
    assert np.abs(mattes[0] - mattes[1]).max() < 0.01


def test_the_true_graph_in_half_precision_is_prepared_as_in_float32(tmp_path: Path) -> None:
    fine = u2net_network(tmp_path / "u2netp.onnx")
    half = halved(fine, tmp_path / "half.onnx", ports=False)
    copy = prepare(half, for_cpu=True)
    assert kinds(copy) == kinds(prepare(fine, for_cpu=True))
    assert "Cast" in kinds(prepare(half))  # a GPU runs it in half precision


@pytest.mark.parametrize("ports", [False, True])
def test_the_copy_of_a_network_in_half_precision_differs_no_more_than_that_rounds(
    tmp_path: Path, ports: bool
) -> None:
    half = halved(u2net_network(tmp_path / "u2netp.onnx"), tmp_path / "half.onnx", ports=ports)

    assert "Cast" not in kinds(read_prepared(*find_file(half, tmp_path / "home")))


def test_the_form_that_8_bit_copies_are_made_of_is_float32(tmp_path: Path) -> None:
    half = halved(tiny_network(tmp_path / "fine.onnx"), tmp_path / "half.onnx", ports=True)
    wide = onnx.load_model_from_string(to_float32(prepare(half)))
    onnx.checker.check_model(wide, full_check=True)
    types = {tensor.data_type for tensor in wide.graph.initializer}
    types |= {port.type.tensor_type.elem_type for port in (*wide.graph.input, *wide.graph.output)}
    assert TensorProto.FLOAT16 not in types
    fine = prepare(tmp_path / "fine.onnx")
    assert to_float32(fine) == fine


def test_nodes_in_any_order_are_sorted(tmp_path: Path) -> None:
    model = onnx.load(tiny_network(tmp_path / "tiny.onnx"))
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    copy = prepare(model.SerializeToString(), for_cpu=True)
    assert kinds(copy) == kinds(prepare(tmp_path / "tiny.onnx", for_cpu=True))


def test_a_ring_of_nodes_does_not_fit(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in "xb"]
    model = helper.make_model(helper.make_graph(nodes, "ring", ports[:1], ports[1:]))
    with pytest.raises(DoesNotFit):
        prepare(model.SerializeToString())


@pytest.mark.parametrize(
    "graph",
    [
        "{ a = Identity (x)  b = Identity (a)  y = Relu (b) }",
        "{ a = Relu (x)  b = Identity (a)  y = Identity (b) }",
        "{ a = Relu (x)  y = Identity (a)  z = Identity (y)  u = Sigmoid (z) }",
        "{ a = Relu (x)  b = Identity (a)  c = Sigmoid (b)  d = Add (c, a)  y = Add (d, b) }",
    ],
)
def test_nodes_that_hand_on_what_they_get_go(tmp_path: Path, graph: str) -> None:
    results = "float[1,3,8,8] y" + (", float[1,3,8,8] u" if "u =" in graph else "")
    file = written_network(tmp_path / "n.onnx", f"n (float[1,3,8,8] x) => ({results}) {graph}")
    original = onnx.load(file)
    values = np.random.default_rng(0).standard_normal((1, 3, 8, 8), np.float32)
    copy = prepare(file)
    assert "Identity" not in kinds(copy)
    expected = onnx.reference.ReferenceEvaluator(original).run(None, {"x": values})[0]
    got = onnx.reference.ReferenceEvaluator(onnx.load_model_from_string(copy)).run(
        None, {"x": values}
    )[0]
    assert np.array_equal(expected, got)


def test_a_network_that_returns_its_input_or_a_weight_is_left_whole(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((1, 1, 8, 8), np.float32), "w")
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["m"]),
        helper.make_node("Identity", ["w"], ["v"]),
        helper.make_node("Mul", ["m", "v"], ["y"]),
        helper.make_node("Identity", ["x"], ["u"]),
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in "xyu"]
    model = helper.make_model(
        helper.make_graph(nodes, "n", ports[:1], ports[1:], [weight]),
        opset_imports=[helper.make_opsetid("", 13)],
    )
    values = np.random.default_rng(0).standard_normal((1, 3, 8, 8), np.float32)
    for output in (0, 1):
        copy = onnx.load_model_from_string(prepare(model.SerializeToString(), output))
        [got] = onnx.reference.ReferenceEvaluator(copy).run(None, {"x": values})
        assert np.array_equal(got, values)
