"""Gives networks of other forms the usual one: a photo with channels first in, one matte out.

Nodes are added in front of the graph and behind it; those between are not changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bgx.errors import BadModelError
from bgx.model.facts import FLOAT, UINT8

if TYPE_CHECKING:
    from pathlib import Path

    from onnx import GraphProto, NodeProto

    from bgx.model.facts import Form

_PHOTO, _MATTE = "bgx_photo", "bgx_matte"


class _Chain:
    """Nodes that are appended one after the other, and their constants."""

    def __init__(self, graph: GraphProto, name: str) -> None:
        self.nodes: list[NodeProto] = []
        self.end = name
        self._graph = graph

    def add(self, kind: str, *others: object, source: str | None = None, **attributes: Any) -> str:
        """Append a node that reads the chain's end, or `source`. others: names or constants."""
        from onnx import helper

        names = [other if isinstance(other, str) else self._constant(other) for other in others]
        output = f"{source or self.end}_{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(kind, [source or self.end, *names], [output], **attributes)
        )
        self.end = output
        return output

    def finish(self, name: str) -> None:
        """Give the chain's end this name."""
        self.nodes[-1].output[0] = name

    def _constant(self, value: object) -> str:
        from onnx import numpy_helper

        name = f"{self.end}_constant_{len(self._graph.initializer)}"
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name


def adapt(path: Path, form: Form, output: int | None = None) -> bytes:
    """The network with the usual input and, if `output` is its index, the matte as only output.

    The result's input is float32 [batch, 3, height, width], its matte [batch, height, width] or
    [batch, 1, height, width]. Weights in other files are put into it. Raises BadModelError, without
    the file's name.
    """
    import onnx
    from google.protobuf.message import EncodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(path, format="protobuf")
        # Before this version, constants would have to be inputs too.
        model.ir_version = max(model.ir_version, 4)
        if not form.usual_input:
            _adapt_input(model.graph, form)
        if output is not None:
            _adapt_output(model.graph, form, output)
        adapted: bytes = model.SerializeToString()
    except (OSError, ValueError, EncodeError, onnx.checker.ValidationError) as error:
        raise BadModelError(f"cannot be given the usual form: {error}") from None
    return adapted


def _adapt_input(graph: GraphProto, form: Form) -> None:
    from onnx import helper

    weights = {tensor.name for tensor in graph.initializer}
    [port] = [port for port in graph.input if port.name not in weights]
    name, dims = port.name, [dim.dim_value or None for dim in port.type.tensor_type.shape.dim]
    if form.last:
        dims = [dims[0], dims[3], *dims[1:3]]
    chain = _Chain(graph, _PHOTO)
    if form.bgr:
        chain.add("Gather", np.array([2, 1, 0]), axis=1)
    if form.kind == UINT8:
        chain.add("Relu")  # negative numbers have no uint8
    if form.kind != FLOAT:
        chain.add("Cast", to=form.kind)
    if form.last:
        chain.add("Transpose", perm=[0, 2, 3, 1])
    chain.finish(name)
    port.CopyFrom(helper.make_tensor_value_info(_PHOTO, FLOAT, dims))
    nodes = [*chain.nodes, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _adapt_output(graph: GraphProto, form: Form, output: int) -> None:
    from onnx import helper

    chain = _Chain(graph, graph.output[output].name)
    if graph.output[output].type.tensor_type.elem_type != FLOAT:
        chain.add("Cast", to=FLOAT)
    if form.pair:
        both = chain.end
        other = chain.add("Gather", np.array(1 - form.channel), source=both, axis=form.axis)
        chain.add("Gather", np.array(form.channel), source=both, axis=form.axis)
        # The softmax of two classes is the sigmoid of their difference.
        chain.add("Sub", other)
        chain.add("Sigmoid")
    elif form.axis is not None:
        chain.add("Gather", np.array(form.channel), axis=form.axis)
    if form.plain:
        chain.add("Expand", np.array([1, 1, 1]))
    if form.labels:
        chain.add("Min", np.float32(1))
    if (form.low, form.high) != (0, 1):
        chain.add("Sub", np.float32(form.low))
        chain.add("Mul", np.float32(1 / (form.high - form.low)))
    chain.finish(_MATTE)
    graph.node.extend(chain.nodes)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(_MATTE, FLOAT, None))
