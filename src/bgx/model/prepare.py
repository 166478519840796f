"""Makes the prepared copy of a network: any batch size, one output, Resize with constant scales.

Published U²-Net files take one picture, return seven mattes, and compute the sizes for each Resize
in every run, which prevents ONNX Runtime from using its fast memory layout in the decoder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bgx.model.float32 import drop_identities, sort_nodes, uses_half, widen
from bgx.model.rewrite import rewrite

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableSequence, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto, NodeProto

PREPARE_VERSION = 6
"""Part of the file name: to be raised when copies are made in another way."""

BATCH = "batch"
"""Name of the copy's first dimension."""

# Operators that process each picture of a batch independently.
_PER_PICTURE = frozenset(
    {
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Cast",
        "Clip",
        "Concat",
        "Constant",
        "Conv",
        "ConvTranspose",
        "Div",
        "GlobalAveragePool",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "MaxPool",
        "Mul",
        "PRelu",
        "Relu",
        "Resize",
        "Sigmoid",
        "Sub",
    }
)

# Operators with which exported graphs compute the sizes for a Resize.
_ARITHMETIC = frozenset(
    {"Add", "Cast", "Concat", "Constant", "Div", "Floor", "Gather", "Mul", "Slice", "Squeeze"}
    | {"Unsqueeze"}
)

_NO_ROI = "bgx_no_roi"


class DoesNotFit(Exception):  # noqa: N818 - an answer, not an error: the original is used
    """The graph has a form that cannot be prepared; the message says why."""


def prepare(original: bytes | Path, output: int = 0, *, for_cpu: bool = False) -> bytes:
    """Make the prepared copy of an ONNX file, with input [batch, 3, height, width] and one output.

    output: index of the output to keep. for_cpu: in float32 throughout, and with rewrites that only
    help the CPU's kernels. Raises DoesNotFit.
    """
    import onnx
    from google.protobuf.message import (  # type: ignore[import-untyped]
        DecodeError,
        EncodeError,
    )

    try:
        model = onnx.load_model_from_string(
            original if isinstance(original, bytes) else original.read_bytes()
        )
        _fix_weights(model)
        sort_nodes(model.graph)
        if for_cpu:
            widen(model)
        drop_identities(model.graph)
        _check_form(model, output)
        _keep_output(model.graph, output)
        _fix_batch(model.graph, 1)
        _scale_resizes(model)
        _check_per_picture(model.graph)
        if for_cpu:
            rewrite(model.graph, _static_shapes(model))
            _drop_unused(model.graph)
        _free_batch(model)
        copy: bytes = model.SerializeToString()
        onnx.checker.check_model(copy, full_check=True)
    except (
        OSError,
        ValueError,
        DecodeError,
        EncodeError,
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
    ) as error:
        raise DoesNotFit(f"cannot be read or written: {error}") from None
    return copy


def is_half(path: Path) -> bool:
    """Whether a network uses half precision anywhere."""
    import onnx

    return uses_half(onnx.load(path, format="protobuf", load_external_data=False).graph)


def to_float32(content: bytes) -> bytes:
    """Convert a prepared copy to float32 throughout; one without half precision is unchanged."""
    import onnx

    model = onnx.load_model_from_string(content)
    if not uses_half(model.graph):
        return content
    widen(model)
    drop_identities(model.graph)
    widened: bytes = model.SerializeToString()
    return widened


def _fix_weights(model: ModelProto) -> None:
    """Remove weights from the graph's inputs, where they had to be before IR version 4.

    Otherwise ONNX Runtime cannot precompute anything from them, as callers might replace them.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    _drop(model.graph.input, [value.name not in weights for value in model.graph.input])
    model.ir_version = max(model.ir_version, 4)


def _check_form(model: ModelProto, output: int) -> None:
    graph = model.graph
    if any(tensor.external_data for tensor in graph.initializer):
        raise DoesNotFit("weights in a separate file")
    if len(graph.input) != 1:
        raise DoesNotFit(f"{len(graph.input)} inputs")
    dims = graph.input[0].type.tensor_type.shape.dim
    if len(dims) != 4 or any(dim.dim_value < 1 for dim in list(dims)[1:]):
        raise DoesNotFit("input is not (batch, channels, height, width) of fixed size")
    if dims[0].dim_value > 1:
        raise DoesNotFit(f"input is fixed at batch {dims[0].dim_value}")
    if output >= len(graph.output):
        raise DoesNotFit(f"no output {output}")


def _keep_output(graph: GraphProto, output: int) -> None:
    """Remove all other outputs, and the nodes and weights that only these need."""
    kept = type(graph.output[output])()
    kept.CopyFrom(graph.output[output])
    del graph.output[:]
    graph.output.append(kept)
    if graph.input[0].name not in _drop_unused(graph):
        raise DoesNotFit(f"output {kept.name} does not depend on the input")


def _drop_unused(graph: GraphProto) -> set[str]:
    """Remove nodes and weights that no output depends on; returns the names that remain in use."""
    needed = {value.name for value in graph.output}
    used = []
    for node in reversed(graph.node):
        used.append(not needed.isdisjoint(node.output))
        if used[-1]:
            needed.update(node.input)
    _drop(graph.node, used[::-1])
    _drop(graph.initializer, [tensor.name in needed for tensor in graph.initializer])
    return needed


def _drop(field: MutableSequence[Any], kept: Sequence[bool]) -> None:
    """Delete the elements of a repeated field that are not kept."""
    for index in range(len(kept) - 1, -1, -1):
        if not kept[index]:
            del field[index]


def _fix_batch(graph: GraphProto, size: int) -> None:
    dim = graph.input[0].type.tensor_type.shape.dim[0]
    dim.Clear()
    dim.dim_value = size


def _scale_resizes(model: ModelProto) -> None:
    """Give every Resize constant scales instead of sizes that the graph computes."""
    pending = [node for node in model.graph.node if node.op_type == "Resize" and _sizes(node)]
    while pending:
        shapes = _static_shapes(model)
        values = _constant_sizes(model, shapes, {_sizes(node) for node in pending})
        known = [node for node in pending if _sizes(node) in values and node.input[0] in shapes]
        if not known:
            raise DoesNotFit(f"{pending[0].name}: its size depends on more than the input's size")
        for node in known:
            _set_scales(model.graph, node, shapes[node.input[0]], values[_sizes(node)])
        # In the next round, the shapes after these nodes are known too.
        pending = [node for node in pending if _sizes(node)]
    _drop_unused(model.graph)


def _sizes(node: NodeProto) -> str:
    return node.input[3] if len(node.input) > 3 else ""


def _static_shapes(model: ModelProto) -> dict[str, tuple[int, ...]]:
    import onnx

    inferred = onnx.shape_inference.infer_shapes(_without_weights(model), data_prop=True).graph
    shapes = {}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            if all(dim.HasField("dim_value") for dim in dims):
                shapes[value.name] = tuple(dim.dim_value for dim in dims)
    return shapes


def _without_weights(model: ModelProto) -> ModelProto:
    """The model with inputs in place of kernels, which would be copied each time it is looked at.

    Of weights with fewer dimensions, such as scales, the values may decide shapes.
    """
    from onnx import helper

    graph = type(model.graph)()
    for field in ("node", "input", "output", "value_info"):
        getattr(graph, field).extend(getattr(model.graph, field))
    graph.name = model.graph.name
    for tensor in model.graph.initializer:
        if len(tensor.dims) < 2:
            graph.initializer.append(tensor)
        else:
            value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            graph.input.append(value)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _constant_sizes(
    model: ModelProto, shapes: Mapping[str, tuple[int, ...]], wanted: set[str]
) -> dict[str, NDArray[Any]]:
    """The values of those `wanted` tensors that depend only on weights and static shapes."""
    import onnx
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    constants = [tensor for tensor in model.graph.initializer if len(tensor.dims) < 2]
    known = {"", *(tensor.name for tensor in constants)}
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Shape" and not node.attribute and node.input[0] in shapes:
            shape = np.array(shapes[node.input[0]], np.int64)
            constants.append(numpy_helper.from_array(shape, node.output[0]))
        elif node.op_type in _ARITHMETIC and known.issuperset(node.input):
            nodes.append(node)
        else:
            continue
        known.update(node.output)
    names = sorted(wanted & known)
    outputs = [helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None) for name in names]
    arithmetic = helper.make_model(
        helper.make_graph(nodes, "sizes", [], outputs, constants),
        opset_imports=model.opset_import,
    )
    try:
        return dict(zip(names, ReferenceEvaluator(arithmetic).run(None, {}), strict=True))
    except Exception as error:  # noqa: BLE001 - operators may raise anything
        raise DoesNotFit(f"its sizes cannot be computed: {error!r}") from None


def _set_scales(
    graph: GraphProto, node: NodeProto, source: tuple[int, ...], sizes: NDArray[Any]
) -> None:
    from onnx import helper, numpy_helper

    target = tuple(int(size) for size in sizes)
    if len(source) != 4 or len(target) != 4 or source[:2] != target[:2]:
        raise DoesNotFit(f"{node.name}: resizes {source} to {target}")
    if any(large % small for large, small in zip(target, source, strict=True)):
        raise DoesNotFit(f"{node.name}: {source} to {target} is not a whole multiple")
    scales = np.array(target, np.float32) / np.array(source, np.float32)
    name = f"bgx_scales_{node.output[0]}"
    graph.initializer.append(numpy_helper.from_array(scales, name))
    if not any(tensor.name == _NO_ROI for tensor in graph.initializer):
        # Opset 11 requires this input, even if it is empty.
        graph.initializer.append(numpy_helper.from_array(np.empty(0, np.float32), _NO_ROI))
    del node.input[1:]
    node.input.extend([_NO_ROI, name])
    for attribute in node.attribute:
        # The two modes differ only for an output of one pixel.
        if (
            attribute.name == "coordinate_transformation_mode"
            and attribute.s == b"pytorch_half_pixel"
            and min(target[2:]) > 1
        ):
            attribute.CopyFrom(helper.make_attribute(attribute.name, "half_pixel"))


def _check_per_picture(graph: GraphProto) -> None:
    for node in graph.node:
        if node.op_type not in _PER_PICTURE or node.domain not in {"", "ai.onnx"}:
            raise DoesNotFit(f"{node.name}: {node.op_type} may mix the pictures of a batch")
        for attribute in node.attribute:
            if node.op_type == "Concat" and attribute.name == "axis" and attribute.i in {0, -4}:
                raise DoesNotFit(f"{node.name}: joins along the batch")


def _free_batch(model: ModelProto) -> None:
    """Make the first dimension of input and output dynamic, and remove shapes for batch size 1."""
    from onnx import helper

    graph = model.graph
    output = graph.output[0]
    shape = _static_shapes(model).get(output.name)
    if not shape or shape[0] != 1:
        raise DoesNotFit(f"output {output.name} is {shape}")
    element = output.type.tensor_type.elem_type
    output.CopyFrom(helper.make_tensor_value_info(output.name, element, (BATCH, *shape[1:])))
    dim = graph.input[0].type.tensor_type.shape.dim[0]
    dim.Clear()
    dim.dim_param = BATCH
    del graph.value_info[:]
