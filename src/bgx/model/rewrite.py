"""Rewrites of a graph that change nothing of what it computes but what that costs on a CPU.

ONNX Runtime's convolutions work on blocks of 16 channels, or 8 without AVX-512. Around them a
network of U²-Net's kind spends a tenth of its time joining maps that the next layer takes apart
again and filling blocks of which one channel is used.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from onnx import GraphProto, NodeProto

    Shapes = Mapping[str, tuple[int, ...]]

BLOCK = 16
"""Channels of a block."""

SQUARE = 4
"""Side of the square of pixels that a block holds as channels."""


def split_joined(graph: GraphProto, shapes: Shapes) -> None:
    """Let each convolution of joined maps be a sum of convolutions: W [A, B] = W_A A + W_B B.

    ONNX Runtime adds up inside the convolutions, and the joined map, the largest of all, is never
    made. shapes: of the graph's tensors, by name. Leaves joins that nothing needs any more.
    """
    from onnx import helper

    sources = {name: node for node in graph.node for name in node.output}
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(value.name for value in graph.output)
    weights = _read_weights(graph)
    nodes: list[NodeProto] = []
    for node in graph.node:
        join = sources.get(node.input[0]) if node.op_type == "Conv" else None
        if (
            join is None
            or readers[node.input[0]] > 1
            or node.input[1] not in weights
            or not _joins_blocks(join, shapes)
            or _attributes(node).get("group", 1) != 1
        ):
            nodes.append(node)
            continue
        edges = np.cumsum([shapes[name][1] for name in join.input])[:-1]
        total = ""
        for number, part in enumerate(np.split(weights[node.input[1]], edges, axis=1)):
            name = f"{node.output[0]}_{number}"
            inputs = [join.input[number], _store(graph, f"{name}_weights", part)]
            convolution = _copy(node, inputs if number else inputs + node.input[2:], name)
            nodes.append(convolution)
            if number:
                nodes.append(helper.make_node("Add", [total, name], [f"{name}_sum"]))
            total = nodes[-1].output[0]
        nodes[-1].output[0] = node.output[0]
    _replace_nodes(graph, nodes)


def pack_single(graph: GraphProto, shapes: Shapes) -> None:
    """Let each convolution of one output channel give a square of pixels as a block of channels.

    One output channel costs as much as a block of them. With a stride of SQUARE and a kernel larger
    by SQUARE - 1, which holds the true one at each place of the square, none of the block is
    padding: a quarter of the arithmetic for a kernel of 3 x 3.
    """
    from onnx import helper

    weights = _read_weights(graph)
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.op_type != "Conv" or not _fills_squares(node, weights, shapes):
            nodes.append(node)
            continue
        kernel = weights[node.input[1]]
        _, channels, height, width = kernel.shape
        squares = np.zeros(
            (SQUARE, SQUARE, channels, height + SQUARE - 1, width + SQUARE - 1), kernel.dtype
        )
        for row in range(SQUARE):
            for column in range(SQUARE):
                squares[row, column, :, row : row + height, column : column + width] = kernel[0]
        name = f"{node.output[0]}_squares"
        inputs = [
            node.input[0],
            _store(graph, f"{name}_weights", squares.reshape(BLOCK, *squares.shape[2:])),
        ]
        if len(node.input) > 2:
            bias = np.repeat(weights[node.input[2]], BLOCK)
            inputs.append(_store(graph, f"{name}_bias", bias))
        squares_node = _copy(
            node, inputs, name, strides=[SQUARE] * 2, kernel_shape=squares.shape[3:]
        )
        nodes.append(squares_node)
        nodes.append(
            helper.make_node("DepthToSpace", [name], node.output, blocksize=SQUARE, mode="DCR")
        )
    _replace_nodes(graph, nodes)


def _joins_blocks(join: NodeProto, shapes: Shapes) -> bool:
    return (
        join.op_type == "Concat"
        and _attributes(join).get("axis") == 1
        and all(name in shapes and shapes[name][1] % BLOCK == 0 for name in join.input)
    )


def _fills_squares(node: NodeProto, weights: Mapping[str, NDArray[Any]], shapes: Shapes) -> bool:
    attributes = _attributes(node)
    plain = (
        all(set(attributes.get(name, [1])) == {1} for name in ("strides", "dilations"))
        and attributes.get("auto_pad", b"NOTSET") == b"NOTSET"
    )
    if not plain or not weights.keys() >= set(node.input[1:]):
        return False
    outputs, channels, *kernel = weights[node.input[1]].shape
    shape = shapes.get(node.output[0], ())
    return (
        outputs == 1
        and channels % BLOCK == 0
        and attributes.get("group", 1) == 1
        and len(kernel) == 2
        and max(kernel) > 1
        and len(shape) == 4
        and shape[2] % SQUARE == shape[3] % SQUARE == 0
    )


def _read_weights(graph: GraphProto) -> dict[str, NDArray[Any]]:
    from onnx import numpy_helper

    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def _store(graph: GraphProto, name: str, values: NDArray[Any]) -> str:
    from onnx import numpy_helper

    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
    return name


def _attributes(node: NodeProto) -> dict[str, Any]:
    from onnx import helper

    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def _copy(node: NodeProto, inputs: Sequence[str], output: str, **changed: Any) -> NodeProto:
    from onnx import helper

    return helper.make_node(
        node.op_type, inputs, [output], name=output, **_attributes(node) | changed
    )


def _replace_nodes(graph: GraphProto, nodes: Sequence[NodeProto]) -> None:
    del graph.node[:]
    graph.node.extend(nodes)
