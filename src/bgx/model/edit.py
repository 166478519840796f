"""What the rewrites of a graph share: links between nodes, new weights, copies of nodes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from onnx import GraphProto, NodeProto

    Shapes = Mapping[str, tuple[int, ...]]
    Weights = dict[str, NDArray[Any]]


def find_links(graph: GraphProto) -> tuple[dict[str, NodeProto], Counter[str]]:
    """For each tensor, the node that makes it, and the number of nodes that read it."""
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(value.name for value in graph.output)
    return {name: node for node in graph.node for name in node.output}, readers


def store(graph: GraphProto, weights: Weights, name: str, values: NDArray[Any]) -> str:
    """Add a constant to the graph and to `weights`; returns its name."""
    from onnx import numpy_helper

    weights[name] = np.ascontiguousarray(values)
    graph.initializer.append(numpy_helper.from_array(weights[name], name))
    return name


def attributes(node: NodeProto) -> dict[str, Any]:
    """A node's attributes by name."""
    from onnx import helper

    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def copy_node(node: NodeProto, inputs: Sequence[str], output: str, **changed: Any) -> NodeProto:
    """A node with other inputs and another output, and with some attributes changed."""
    from onnx import helper

    return helper.make_node(
        node.op_type, inputs, [output], name=output, **attributes(node) | changed
    )


def replace_nodes(graph: GraphProto, nodes: Sequence[NodeProto]) -> None:
    """Make `nodes` the nodes of the graph."""
    del graph.node[:]
    graph.node.extend(nodes)


class NodeMaker:
    """Makes nodes one after the other; they are named after a prefix and their numbers."""

    def __init__(self, graph: GraphProto, prefix: str) -> None:
        self.nodes: list[NodeProto] = []
        self._graph = graph
        self._prefix = prefix

    def add(self, kind: str, *inputs: str | NDArray[Any] | np.generic, **given: Any) -> str:
        """Make a node; returns the name of its output.

        inputs: names, or constants, which are added to the graph. given: the node's attributes.
        """
        from onnx import helper

        name = f"{self._prefix}_{len(self.nodes)}"
        names = [
            value if isinstance(value, str) else self._store(f"{name}_constant_{index}", value)
            for index, value in enumerate(inputs)
        ]
        self.nodes.append(helper.make_node(kind, names, [name], name=name, **given))
        return name

    def _store(self, name: str, value: NDArray[Any] | np.generic) -> str:
        from onnx import numpy_helper

        self._graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name


def is_plain(node: NodeProto, weights: Weights) -> bool:
    """Whether a convolution has constant weights, explicit padding, and group, strides and
    dilations of 1."""
    given = attributes(node)
    return (
        weights.keys() >= set(node.input[1:])
        and given.get("group", 1) == 1
        and all(set(given.get(name, [1])) == {1} for name in ("strides", "dilations"))
        and given.get("auto_pad", b"NOTSET") == b"NOTSET"
    )


def is_plain_3x3(node: NodeProto, weights: Weights) -> bool:
    """Whether a node is such a convolution of 3x3 whose output has the size of its input."""
    return (
        node.op_type == "Conv"
        and is_plain(node, weights)
        and weights[node.input[1]].shape[2:] == (3, 3)
        and attributes(node).get("pads") == [1] * 4
    )
