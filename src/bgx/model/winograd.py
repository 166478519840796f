"""Computes 3x3 convolutions of many channels with a quarter of the multiplications.

Winograd's minimal filtering F(4x4, 3x3) as in A. Lavin and S. Gray, "Fast algorithms for
convolutional neural networks", 2015: Y = A^T [(G g G^T) * (B^T d B)] A, where d is a tile of 6x6
pixels of the input, g a kernel, and Y the 4x4 pixels of the output. ONNX Runtime's CPU kernels do
not use it. Here it is written as nodes of the graph: a convolution with the 36 products of B's
columns, one matrix product for each of the 36 places of a tile, and a product with those of A's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bgx.model.edit import (
    NodeMaker,
    copy_node,
    find_links,
    is_plain_3x3,
    replace_nodes,
    store,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from onnx import GraphProto, NodeProto

    from bgx.model.edit import Shapes, Weights

STEP = 4
"""Side of the square of output pixels that are computed together."""

TILE = 36
"""Pixels of the 6x6 tile of the input that the square depends on."""

# For the points 0, 1, -1, 2, -2 and infinity.
_B = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    np.float64,
)
_G = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
_A = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    np.float64,
)

MIN_PIXELS = 32 * 32
"""Smallest map: the transformed kernels take four times the memory, and with fewer pixels reading
them takes as long as multiplying."""

CHANNEL_COST = 300
"""Time to transform one pixel of a channel, in multiplications; measured with AVX2."""


def transform_large(graph: GraphProto, weights: Weights, shapes: Shapes) -> None:
    """Replace those 3x3 convolutions that take less time this way. shapes: of tensors, by name."""
    sources, _ = find_links(graph)
    nodes: list[NodeProto] = []
    for node in graph.node:
        if is_plain_3x3(node, weights) and _is_worth_it(node, weights, shapes, sources):
            *_, height, width = shapes[node.input[0]]
            nodes += _transform(graph, weights, node, height, width)
        else:
            nodes.append(node)
    replace_nodes(graph, nodes)


def _is_worth_it(
    node: NodeProto, weights: Weights, shapes: Shapes, sources: Mapping[str, NodeProto]
) -> bool:
    [name, *_] = node.input
    shape = shapes.get(name, ())
    if len(shape) != 4 or shape[2] % STEP or shape[3] % STEP or shape[2] * shape[3] < MIN_PIXELS:
        return False
    outputs, channels, *_ = weights[node.input[1]].shape
    parts = sources[name].input if name in sources and sources[name].op_type == "Concat" else [name]
    enlarged = sum(
        shapes[part][1]
        for part in parts
        if part in shapes and part in sources and sources[part].op_type == "Resize"
    )
    # rewrite._split_enlarged halves the multiplications for enlarged channels.
    direct = 9 * outputs * (channels - enlarged / 2)
    products = TILE / STEP**2 * outputs * channels
    return bool(direct > products + CHANNEL_COST * (outputs + channels))


def _transform(
    graph: GraphProto, weights: Weights, node: NodeProto, height: int, width: int
) -> list[NodeProto]:
    [output] = node.output
    kernel = weights[node.input[1]]
    outputs, channels, *_ = kernel.shape
    rows, columns = height // STEP, width // STEP
    tiles = rows * columns
    maker = NodeMaker(graph, output)

    def reshape(source: str, *shape: int) -> str:
        return maker.add("Reshape", source, np.array(shape, np.int64))

    maps = reshape(node.input[0], -1, 1, height, width)
    tile = {"kernel_shape": [6, 6], "strides": [STEP] * 2, "pads": [1] * 4}
    spread = maker.add("Conv", maps, _square(_B).reshape(TILE, 1, 6, 6), **tile)
    pixels = maker.add("Transpose", reshape(spread, -1, channels, TILE, tiles), perm=[0, 2, 1, 3])
    # ONNX Runtime computes the transformed kernels once, so the file need not have them.
    flat = np.moveaxis(kernel, (2, 3), (0, 1)).reshape(9, outputs * channels)
    kernels = reshape(maker.add("MatMul", _square(_G), flat), TILE, outputs, channels)
    products = reshape(maker.add("MatMul", kernels, pixels), -1, TILE, outputs * tiles)
    squares = maker.add("MatMul", _square(_A), products)
    blocks = reshape(squares, -1, STEP**2 * outputs, rows, columns)
    joined = maker.add("DepthToSpace", blocks, blocksize=STEP)
    # Fused with what follows, and the bias costs nothing more.
    one = store(graph, weights, f"{output}_one", np.ones((outputs, 1, 1, 1), np.float32))
    bias = {"group": outputs, "kernel_shape": [1, 1], "pads": [0] * 4}
    return [*maker.nodes, copy_node(node, [joined, one, *node.input[2:]], output, **bias)]


def _square(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    """The matrix that does in both dimensions of a square what `rows` does in one."""
    return np.kron(rows, rows).astype(np.float32)
