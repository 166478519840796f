"""The prepared copy: the same mattes, any batch, a graph that runs fast."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgx.model.engines import EnginePlan
from bgx.model.prepare import DoesNotFit, prepare
from bgx.model.providers import start
from support.networks import (
    random_network,
    tiny_network,
    u2net_network,
    written_network,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

TOLERANCE = 1e-4
LAYERS = {"Conv": 119, "Concat": 51, "Resize": 38, "MaxPool": 33, "Add": 11}


def count_nodes(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def run(source: Path | bytes, batch: NDArray[np.float32], output: int = 0) -> NDArray[np.float32]:
    engine = start(source, EnginePlan("cpu", threads=2, fixed_batch=False), "the network")
    [first] = engine.get_inputs()
    name = engine.get_outputs()[output].name
    [result] = engine.run([name], {first.name: batch})
    return np.asarray(result)


def noise(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(7).standard_normal(shape, np.float32)


def check_same(original: Path, copy: bytes, batch: NDArray[np.float32], output: int = 0) -> None:
    """Each picture of a batch has in the copy what it alone has in the original."""
    together = run(copy, batch)
    for index in range(len(batch)):
        alone = run(original, batch[index : index + 1], output)
        assert np.abs(together[index] - alone[0]).max() <= TOLERANCE


def test_the_true_graph_is_what_the_support_builds(tmp_path: Path) -> None:
    built = count_nodes(onnx.load(u2net_network(tmp_path / "u2netp.onnx")))
    # Each Resize brings two small joins of sizes beside the 51 joins of features.
    assert {**LAYERS, "Concat": 51 + 2 * 38}.items() <= built.items()


@pytest.mark.weights
def test_the_support_builds_the_published_graph(tmp_path: Path, weights: Path) -> None:
    built = onnx.load(u2net_network(tmp_path / "u2netp.onnx"))
    published = onnx.load(weights)
    assert count_nodes(built) == count_nodes(published)
    assert sorted(tuple(tensor.dims) for tensor in built.graph.initializer) == sorted(
        tuple(tensor.dims) for tensor in published.graph.initializer
    )


def check_form(copy: bytes, layers: dict[str, int]) -> None:
    model = onnx.load_model_from_string(copy)
    counted = count_nodes(model)
    assert layers.items() <= counted.items()
    # Nothing computes a size any more, and the side outputs' sigmoids are gone.
    assert set(counted) <= {*layers, "Relu", "Sigmoid", "Constant"}
    assert counted["Sigmoid"] == 1
    [source], [result] = model.graph.input, model.graph.output
    assert source.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert result.type.tensor_type.shape.dim[0].dim_param == "batch"
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Resize":
            scales = onnx.numpy_helper.to_array(weights[node.input[2]])
            assert scales[0] == scales[1] == 1
            assert scales[2] == scales[3] in {2, 4, 8, 16, 32}
            modes = [attribute.s for attribute in node.attribute]
            assert b"half_pixel" in modes
            assert b"pytorch_half_pixel" not in modes


def test_u2netps_true_graph(tmp_path: Path) -> None:
    original = u2net_network(tmp_path / "u2netp.onnx")
    copy = prepare(original)
    check_form(copy, LAYERS)
    check_same(original, copy, noise(2, 3, 320, 320))


@pytest.mark.parametrize(
    ("model", "enlarged", "large", "joined"), [("u2netp", 5, 0, 0), ("u2net", 23, 10, 5)]
)
def test_for_the_cpu_no_arithmetic_is_wasted(
    tmp_path: Path, model: str, enlarged: int, large: int, joined: int
) -> None:
    original = u2net_network(tmp_path / f"{model}.onnx", model)
    copy = prepare(original, for_cpu=True)
    counted = count_nodes(onnx.load_model_from_string(copy))
    # Convolutions of many channels are products of matrices, and their inputs are joined still.
    assert counted["MatMul"] == 3 * large
    # So are the six side maps of one channel each; 10 x 10 is no whole squares.
    assert counted["Concat"] == joined + 1
    assert counted["DepthToSpace"] == 5 + large
    # Two for one of many channels or of a joined map, five for one of an enlarged map of 32
    # channels or more.
    assert counted["Conv"] == 119 + large + (50 - joined) + 4 * enlarged
    assert counted["Resize"] == 38 + 3 * enlarged
    check_same(original, copy, noise(1, 3, 320, 320))


def test_u2nets_true_graph(tmp_path: Path) -> None:
    original = u2net_network(tmp_path / "u2net.onnx", "u2net")
    copy = prepare(original)
    check_form(copy, LAYERS)
    check_same(original, copy, noise(1, 3, 320, 320))


@pytest.mark.weights
def test_the_real_u2netp(weights: Path) -> None:
    copy = prepare(weights)
    check_form(copy, LAYERS)
    check_same(weights, copy, noise(2, 3, 320, 320))
    check_same(weights, prepare(weights, for_cpu=True), noise(2, 3, 320, 320))


def test_a_batch_gives_each_picture_what_it_has_alone(tmp_path: Path) -> None:
    copy = prepare(tiny_network(tmp_path / "tiny.onnx"))
    batch = noise(5, 3, 320, 320)
    together = run(copy, batch)
    for index in range(5):
        assert np.array_equal(run(copy, batch[index : index + 1])[0], together[index])


@pytest.mark.parametrize("output", [1, 6])
def test_another_output_can_be_the_one_kept(tmp_path: Path, output: int) -> None:
    original = tiny_network(tmp_path / "tiny.onnx")
    check_same(original, prepare(original, output), noise(2, 3, 320, 320), output)


def test_bytes_do_as_well_as_a_path(tmp_path: Path) -> None:
    original = tiny_network(tmp_path / "tiny.onnx")
    assert prepare(original.read_bytes()) == prepare(original)


def test_preparing_twice_changes_nothing_more(tmp_path: Path) -> None:
    original = tiny_network(tmp_path / "tiny.onnx")
    once = prepare(original)
    check_same(original, prepare(once), noise(2, 3, 320, 320))


@settings(max_examples=25)
@given(
    for_cpu=st.booleans(),
    channels=st.sampled_from([32, 128]),
    seed=st.integers(0, 2**32 - 1),
    steps=st.lists(st.sampled_from(["step", "pool", "up", "join", "add"]), min_size=1, max_size=9),
)
def test_any_such_graph_keeps_its_mattes(
    tmp_path_factory: pytest.TempPathFactory,
    for_cpu: bool,
    channels: int,
    seed: int,
    steps: list[str],
) -> None:
    original = tmp_path_factory.getbasetemp() / "random.onnx"
    random_network(original, steps, seed=seed, side=48, channels=channels)
    check_same(original, prepare(original, for_cpu=for_cpu), noise(3, 3, 48, 48))


@pytest.mark.parametrize(
    ("channels", "side", "products"),
    [(128, 32, 6), (128, 64, 6), (32, 64, 0), (128, 28, 0), (128, 42, 0)],
    ids=["large", "larger", "few channels", "few pixels", "no whole tiles"],
)
def test_large_convolutions_become_products_of_matrices(
    tmp_path: Path, channels: int, side: int, products: int
) -> None:
    original = tmp_path / "net.onnx"
    random_network(original, ["step", "join"], seed=3, side=side, channels=channels)
    copy = prepare(original, for_cpu=True)
    assert count_nodes(onnx.load_model_from_string(copy))["MatMul"] == products
    check_same(original, copy, noise(2, 3, side, side))


def test_a_side_output_of_another_form_is_in_nobodys_way(tmp_path: Path) -> None:
    text = """net (float[1,3,8,8] x) => (float[1,3,8,8] y, float[3,1,8,8] z)
        { y = Relu (x)  z = Transpose <perm = [1, 0, 2, 3]> (x) }"""
    file = written_network(tmp_path / "two.onnx", text)
    check_same(file, prepare(file), noise(2, 3, 8, 8))


def test_files_of_the_oldest_form_list_their_weights_as_inputs(tmp_path: Path) -> None:
    original = tiny_network(tmp_path / "tiny.onnx")
    model = onnx.load(original)
    model.ir_version = 3
    for weight in model.graph.initializer:
        model.graph.input.append(
            onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
        )
    copy = prepare(model.SerializeToString())
    assert len(onnx.load_model_from_string(copy).graph.input) == 1
    check_same(original, copy, noise(2, 3, 320, 320))


IN = "float[1,3,8,8] x"
MISFITS = {
    "does not depend": f"net ({IN}) => (float[1] y) {{ y = Constant <value_float = 1.0> () }}",
    "2 inputs": f"net ({IN}, float[1] z) => (float[1,3,8,8] y) {{ y = Add (x, z) }}",
    "fixed at batch 2": "net (float[2,3,8,8] x) => (float[2,3,8,8] y) { y = Relu (x) }",
    "of fixed size": "net (float[1,3,h,w] x) => (float[1,3,h,w] y) { y = Relu (x) }",
    "no output 1": f"net ({IN}) => (float[1,3,8,8] y) {{ y = Relu (x) }}",
    "Softmax may mix": f"net ({IN}) => (float[1,3,8,8] y) {{ y = Softmax <axis = 0> (x) }}",
    "joins along the batch": f"net ({IN}) => (float[2,3,8,8] y) {{ y = Concat <axis = 0> (x, x) }}",
    "not a whole multiple": f"""net ({IN}) => (float[1,3,12,12] y) <int64[4] s = {{1, 3, 12, 12}}>
        {{ y = Resize <mode = "linear"> (x, , , s) }}""",
    "resizes": f"""net ({IN}) => (float[1,6,8,8] y) <int64[4] s = {{1, 6, 8, 8}}>
        {{ y = Resize <mode = "linear"> (x, , , s) }}""",
    "depends on more than": f"""net ({IN}) => (float[1,3,h,w] y)
        {{ n = NonZero (x)  t = Shape (n)  s = Concat <axis = 0> (t, t)
           y = Resize <mode = "linear"> (x, , , s) }}""",
}


@pytest.mark.parametrize("reason", MISFITS)
def test_a_graph_of_another_form_is_left_alone_with_the_reason(tmp_path: Path, reason: str) -> None:
    file = written_network(tmp_path / "misfit.onnx", MISFITS[reason])
    with pytest.raises(DoesNotFit, match=reason):
        prepare(file, output=1 if reason == "no output 1" else 0)


@pytest.mark.parametrize("content", [b"", b"no network", bytes(1000)])
def test_what_is_no_network_does_not_fit(content: bytes) -> None:
    with pytest.raises(DoesNotFit):
        prepare(content)


def test_weights_in_a_file_of_their_own_do_not_fit(tmp_path: Path) -> None:
    model = onnx.load(tiny_network(tmp_path / "tiny.onnx"))
    path = tmp_path / "split.onnx"
    onnx.save(model, path, save_as_external_data=True, location="split.bin", size_threshold=0)
    with pytest.raises(DoesNotFit, match="separate file"):
        prepare(path)
