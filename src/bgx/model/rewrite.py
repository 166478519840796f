"""Rewrites a graph so that it computes the same in less time on a CPU.

ONNX Runtime's convolutions work on blocks of 16 channels, or 8 without AVX-512. Networks like
U²-Net spend a seventh of their time on concatenating maps that the next layer splits again, on
repeated computations in enlarged maps, and on blocks of which only one channel is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bgx.model.edit import (
    attributes,
    copy_node,
    find_links,
    is_plain,
    is_plain_3x3,
    replace_nodes,
    store,
)
from bgx.model.winograd import transform_large

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

    from bgx.model.edit import Shapes, Weights

BLOCK = 16
"""Number of channels in a block."""

SQUARE = 4
"""Side of the square of pixels that are computed as the channels of a block."""

ENLARGED = 2 * BLOCK
"""Fewest channels of an enlarged map for which :func:`_split_enlarged` saves time: it saves
a third with 64 channels and a sixth with 32, and costs time with 16."""


def rewrite(graph: GraphProto, shapes: Shapes) -> None:
    """Rewrite a graph for the CPU. shapes: of its tensors, by name.

    Weights that are no longer used remain in the graph.
    """
    from onnx import numpy_helper

    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    transform_large(graph, weights, shapes)
    _split_joined(graph, weights, shapes)
    _split_enlarged(graph, weights)
    _pack_single(graph, weights, shapes)


def _split_joined(graph: GraphProto, weights: Weights, shapes: Shapes) -> None:
    """Replace convolutions of concatenated maps by sums of convolutions: W [A, B] = W_A A + W_B B.

    ONNX Runtime fuses the sums into the convolutions, and the concatenated map, the largest of all,
    is never made.
    """
    from onnx import helper

    sources, readers = find_links(graph)
    nodes: list[NodeProto] = []
    split = set()
    for node in graph.node:
        join = sources.get(node.input[0]) if node.op_type == "Conv" else None
        if (
            join is None
            or readers[node.input[0]] > 1
            or node.input[1] not in weights
            or not _joins_blocks(join, shapes)
            or attributes(node).get("group", 1) != 1
        ):
            nodes.append(node)
            continue
        split.add(node.input[0])
        edges = np.cumsum([shapes[name][1] for name in join.input])[:-1]
        total = ""
        for number, part in enumerate(np.split(weights[node.input[1]], edges, axis=1)):
            name = f"{node.output[0]}_{number}"
            inputs = [join.input[number], store(graph, weights, f"{name}_weights", part)]
            convolution = copy_node(node, inputs if number else inputs + node.input[2:], name)
            nodes.append(convolution)
            if number:
                nodes.append(helper.make_node("Add", [total, name], [f"{name}_sum"]))
            total = nodes[-1].output[0]
        nodes[-1].output[0] = node.output[0]
    replace_nodes(graph, [node for node in nodes if node.output[0] not in split])


def _split_enlarged(graph: GraphProto, weights: Weights) -> None:
    """Make each 3x3 convolution of an enlarged map combine its channels before the map is widened.

    Enlarging is the same for all channels, so it can come after combining them. Let W_0, W_1, W_2
    be the columns of the kernel, x the map enlarged in height, E the enlargement in width, and S a
    shift by one pixel to the right. Then the convolution is S E(W_0 x) + E(W_1 x) + S⁻¹ E(W_2 x).
    If the map becomes twice as wide, this halves the arithmetic. Values beyond the borders are 0 in
    both forms.
    """
    sources, readers = find_links(graph)
    nodes: list[NodeProto] = []
    for node in graph.node:
        resize = sources.get(node.input[0]) if node.op_type == "Conv" else None
        if (
            resize is not None
            and readers[node.input[0]] == 1
            and _widens(resize, weights)
            and _mixes_blocks(node, weights)
        ):
            nodes += _mix_before_widening(graph, weights, resize, node)
        else:
            nodes.append(node)
    replace_nodes(graph, nodes)


def _mix_before_widening(
    graph: GraphProto, weights: Weights, resize: NodeProto, node: NodeProto
) -> list[NodeProto]:
    from onnx import helper

    output = node.output[0]
    kernel = weights[node.input[1]]
    channels = len(kernel)
    *_, taller, wider = weights[resize.input[2]]

    def enlarge(source: str, rows: float, columns: float, name: str) -> NodeProto:
        scales = np.array([1, 1, rows, columns], np.float32)
        inputs = [source, resize.input[1], store(graph, weights, f"{name}_scales", scales)]
        return copy_node(resize, inputs, name)

    def step(
        source: str, taken: tuple[int, int], pads: list[int], name: str, *bias: str
    ) -> NodeProto:
        one = np.tile(np.array(taken, kernel.dtype), (channels, 1, 1, 1))
        inputs = [source, store(graph, weights, f"{name}_weights", one), *bias]
        return copy_node(node, inputs, name, group=channels, kernel_shape=[1, 2], pads=pads)

    tall, *wide = f"{output}_tall", *(f"{output}_wide_{column}" for column in range(3))
    nodes = [enlarge(resize.input[0], taller, 1, tall)]
    for column, name in enumerate(wide):
        mixed = f"{output}_mixed_{column}"
        part = store(graph, weights, f"{mixed}_weights", kernel[..., column : column + 1])
        nodes.append(copy_node(node, [tall, part], mixed, kernel_shape=[3, 1], pads=[1, 0, 1, 0]))
        nodes.append(enlarge(mixed, 1, wider, name))
    right, left = f"{output}_right", f"{output}_left"
    nodes.append(step(wide[0], (1, 0), [0, 1, 0, 0], right, *node.input[2:]))
    nodes.append(helper.make_node("Add", [right, wide[1]], [f"{output}_sum"]))
    nodes.append(step(wide[2], (0, 1), [0, 0, 0, 1], left))
    nodes.append(helper.make_node("Add", [f"{output}_sum", left], [output]))
    return nodes


def _pack_single(graph: GraphProto, weights: Weights, shapes: Shapes) -> None:
    """Make each convolution with one output channel compute a square of pixels as a block.

    One output channel takes as long as a whole block. With a stride of SQUARE, and one kernel per
    pixel of the square (each enlarged by SQUARE - 1, with the original kernel at the pixel's
    place), the whole block is used: a quarter of the arithmetic for a 3x3 kernel.
    """
    from onnx import helper

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
        packed = squares.reshape(BLOCK, *squares.shape[2:])
        inputs = [node.input[0], store(graph, weights, f"{name}_weights", packed)]
        if len(node.input) > 2:
            bias = np.repeat(weights[node.input[2]], BLOCK)
            inputs.append(store(graph, weights, f"{name}_bias", bias))
        squares_node = copy_node(
            node, inputs, name, strides=[SQUARE] * 2, kernel_shape=squares.shape[3:]
        )
        nodes.append(squares_node)
        nodes.append(helper.make_node("DepthToSpace", [name], node.output, blocksize=SQUARE))
    replace_nodes(graph, nodes)


def _joins_blocks(join: NodeProto, shapes: Shapes) -> bool:
    return (
        join.op_type == "Concat"
        and attributes(join).get("axis") == 1
        and all(name in shapes and shapes[name][1] % BLOCK == 0 for name in join.input)
    )


def _widens(resize: NodeProto, weights: Weights) -> bool:
    """Whether a node enlarges maps by whole factors, and can be split into rows and columns."""
    if resize.op_type != "Resize" or len(resize.input) != 3:
        return False
    scales = weights.get(resize.input[2], np.ones(4))
    given = attributes(resize)
    return (
        scales.shape == (4,)
        and all(scales[:2] == 1)
        and all(scales == scales.round())
        and scales[3] > 1
        and "axes" not in given
        and given.get("mode", b"nearest") in {b"nearest", b"linear"}
        and given.get("coordinate_transformation_mode") != b"tf_crop_and_resize"
    )


def _mixes_blocks(node: NodeProto, weights: Weights) -> bool:
    """Whether a node is a plain 3x3 convolution whose inputs and outputs are whole blocks."""
    if not is_plain_3x3(node, weights):
        return False
    outputs, channels, *_ = weights[node.input[1]].shape
    return bool(outputs % BLOCK == channels % BLOCK == 0 and channels >= ENLARGED)


def _fills_squares(node: NodeProto, weights: Weights, shapes: Shapes) -> bool:
    if not is_plain(node, weights):
        return False
    outputs, channels, *kernel = weights[node.input[1]].shape
    shape = shapes.get(node.output[0], ())
    return (
        outputs == 1
        and channels % BLOCK == 0
        and len(kernel) == 2
        and max(kernel) > 1
        and len(shape) == 4
        and shape[2] % SQUARE == shape[3] % SQUARE == 0
    )
