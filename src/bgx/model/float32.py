"""Normalises graphs: nodes in topological order, float32 throughout.

Converters to half precision put the conversions that they insert after the nodes that read them,
and insert one before and after each operator that they leave in float32. On a CPU, where ONNX
Runtime computes in float32 anyway, these conversions prevent fused and blocked convolutions.
"""

from __future__ import annotations

from graphlib import TopologicalSorter
from typing import TYPE_CHECKING

import numpy as np

from bgx.model.edit import replace_nodes

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

_FLOAT, _HALF = 1, 10
"""ONNX's numbers for the types, ``TensorProto.FLOAT`` and ``FLOAT16``."""


def sort_nodes(graph: GraphProto) -> None:
    """Sort the nodes topologically. Raises ValueError if they form a cycle."""
    maker = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    read = [[maker[name] for name in node.input if name in maker] for node in graph.node]
    if all(source < index for index, sources in enumerate(read) for source in sources):
        return
    nodes = list(graph.node)
    order = list(TopologicalSorter(dict(enumerate(read))).static_order())
    replace_nodes(graph, [nodes[index] for index in order])


def uses_half(graph: GraphProto) -> bool:
    """Whether a graph has half-precision weights or tensors."""
    return (
        any(tensor.data_type == _HALF for tensor in graph.initializer)
        or any(port.type.tensor_type.elem_type == _HALF for port in (*graph.input, *graph.output))
        or any(
            (attribute.name == "to" and attribute.i == _HALF)
            or (attribute.HasField("t") and attribute.t.data_type == _HALF)
            for node in graph.node
            for attribute in node.attribute
        )
    )


def widen(model: ModelProto) -> None:
    """Convert a sorted graph from half precision to float32, including its inputs and outputs.

    A model without half precision is not changed.
    """
    import onnx

    graph = model.graph
    if not uses_half(graph):
        return
    inferred = onnx.shape_inference.infer_shapes(model).graph
    real = {
        value.name
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
        if value.type.tensor_type.elem_type in {_FLOAT, _HALF}
    }
    real.update(tensor.name for tensor in graph.initializer if tensor.data_type in {_FLOAT, _HALF})
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _widen_tensor(attribute.t)
            elif attribute.name == "to" and attribute.i == _HALF:
                attribute.i = _FLOAT
        if node.op_type == "Cast" and node.input[0] in real and node.attribute[0].i == _FLOAT:
            node.op_type = "Identity"
            del node.attribute[:]
    for port in (*graph.input, *graph.output):
        if port.type.tensor_type.elem_type == _HALF:
            port.type.tensor_type.elem_type = _FLOAT
    del graph.value_info[:]


def drop_identities(graph: GraphProto) -> None:
    """Let readers read what a node of kind Identity would hand on."""
    if any(attribute.HasField("g") for node in graph.node for attribute in node.attribute):
        return  # a graph within may read any name
    fixed = {tensor.name for tensor in graph.initializer}
    fixed.update(port.name for port in (*graph.input, *graph.output))
    results = {port.name for port in graph.output}
    renamed: dict[str, str] = {}

    def name(old: str) -> str:
        while old in renamed:
            old = renamed[old]
        return old

    for node in graph.node:
        if node.op_type == "Identity" and not node.domain:
            source, output = name(node.input[0]), node.output[0]
            if output not in results:
                renamed[output] = source
            elif source not in fixed:
                # What the graph returns keeps its name: its maker takes it over.
                renamed[source] = output
    kept: list[NodeProto] = []
    for node in graph.node:
        for names in (node.input, node.output):
            for index, old in enumerate(names):
                names[index] = name(old)
        if node.op_type != "Identity" or node.input[0] != node.output[0]:
            kept.append(node)
    replace_nodes(graph, kept)


def _widen_tensor(tensor: TensorProto) -> None:
    from onnx import numpy_helper

    if tensor.data_type == _HALF:
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
