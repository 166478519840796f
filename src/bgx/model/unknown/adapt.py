"""Gives networks of other forms the usual one: a photo with channels first in, one matte out.

Nodes are added in front of the graph and behind it; those between are not changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bgx.errors import BadModelError
from bgx.model.edit import NodeMaker, replace_nodes
from bgx.model.unknown.facts import FLOAT, UINT8

if TYPE_CHECKING:
    from pathlib import Path

    from onnx import GraphProto

    from bgx.model.unknown.facts import Form

_PHOTO, _MATTE = "bgx_photo", "bgx_matte"


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
    maker, end = NodeMaker(graph, _PHOTO), _PHOTO
    if form.bgr:
        end = maker.add("Gather", end, np.array([2, 1, 0]), axis=1)
    if form.kind == UINT8:
        end = maker.add("Relu", end)  # negative numbers have no uint8
    if form.kind != FLOAT:
        end = maker.add("Cast", end, to=form.kind)
    if form.last:
        maker.add("Transpose", end, perm=[0, 2, 3, 1])
    maker.nodes[-1].output[0] = name
    port.CopyFrom(helper.make_tensor_value_info(_PHOTO, FLOAT, dims))
    replace_nodes(graph, [*maker.nodes, *graph.node])


def _adapt_output(graph: GraphProto, form: Form, output: int) -> None:
    from onnx import helper

    maker, end = NodeMaker(graph, _MATTE), graph.output[output].name
    if graph.output[output].type.tensor_type.elem_type != FLOAT:
        end = maker.add("Cast", end, to=FLOAT)
    if form.pair:
        other = maker.add("Gather", end, np.array(1 - form.channel), axis=form.axis)
        subject = maker.add("Gather", end, np.array(form.channel), axis=form.axis)
        # The softmax of two classes is the sigmoid of their difference.
        end = maker.add("Sigmoid", maker.add("Sub", subject, other))
    elif form.axis is not None:
        end = maker.add("Gather", end, np.array(form.channel), axis=form.axis)
    if form.plain:
        end = maker.add("Expand", end, np.array([1, 1, 1]))
    if form.labels:
        end = maker.add("Min", end, np.float32(1))
    if (form.low, form.high) != (0, 1):
        end = maker.add("Sub", end, np.float32(form.low))
        maker.add("Mul", end, np.float32(1 / (form.high - form.low)))
    maker.nodes[-1].output[0] = _MATTE
    graph.node.extend(maker.nodes)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(_MATTE, FLOAT, None))
