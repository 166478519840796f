"""Finds out which values of pixels a network takes, where its graph or its metadata tell that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bgx.model.unknown.facts import UINT8

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

    from bgx.model.unknown.facts import Pixels

# Metadata of Windows ML: learn.microsoft.com/windows/ai/windows-ml, "Image feature descriptor".
_RANGES: Mapping[str, Pixels] = {
    "NominalRange_0_255": "0..255",
    "Normalized_0_1": "0..1",
    "Normalized_1_1": "-1..1",
}

_HANDS_ON = {"Cast", "Gather", "Identity", "Resize", "Transpose", "Upsample"}

_SPAN = (0.5, 8.0)
"""Range of what networks compute with: 1 for 0..1, 2 for -1..1, 4.4 with ImageNet's deviation."""


def find_pixels(model: ModelProto, source: ValueInfoProto) -> Pixels:
    """The values that a network takes, by its metadata, its input's type, or its first nodes.

    A graph that begins by subtracting a mean or by dividing does the scaling itself.
    """
    told = {pair.key: pair.value for pair in model.metadata_props}
    if named := _RANGES.get(told.get("Image.NominalPixelRange", "")):
        return named
    if source.type.tensor_type.elem_type == UINT8:
        return "0..255"
    factor, offset = _follow(model.graph, source.name)
    low, high = _SPAN
    if (factor, offset) == (1, 0):
        return ""
    # Without a division, the mean tells what it is the mean of.
    if (factor == 1 and abs(offset) > 20) or low <= abs(factor) * 255 <= high:
        return "0..255"
    return "0..1" if low <= abs(factor) <= high or factor == 255 else ""


def is_bgr(model: ModelProto) -> bool:
    """Whether the metadata say that blue comes first."""
    return any(
        pair.key == "Image.BitmapPixelFormat" and pair.value.lower().startswith("bgr")
        for pair in model.metadata_props
    )


def _follow(graph: GraphProto, name: str) -> tuple[float, float]:
    """Factor and offset, means over the channels, of what the first nodes do with the input."""
    constants = Constants(graph)
    factor, offset = 1.0, 0.0
    seen: set[str] = set()
    while name not in seen:
        seen.add(name)
        readers = [node for node in graph.node if name in node.input and node.op_type != "Shape"]
        if len(readers) != 1 or readers[0].domain not in {"", "ai.onnx"}:
            break
        [node] = readers
        if node.op_type not in _HANDS_ON:
            step = _read_step(node, name, constants)
            if step is None:
                break
            factor, offset = factor * step[0], offset * step[0] + step[1]
        name = node.output[0] if node.output else ""
    return factor, offset


def _read_step(node: NodeProto, name: str, constants: Constants) -> tuple[float, float] | None:
    """Factor and offset of a node; None if it does something else."""
    if node.op_type == "BatchNormalization":
        values = [constants.find(each) for each in node.input[1:5]]
        found = [value.astype(float) for value in values if value is not None and value.size == 3]
        if len(found) != 4:
            return None
        scale, bias, mean, variance = found
        factors = scale / np.sqrt(variance + 1e-5)
        return float(factors.mean()), float((bias - mean * factors).mean())
    if len(node.input) != 2:
        return None
    first = node.input[0] == name
    value = constants.find(node.input[1 if first else 0])
    # One number for all, or one for each channel: other constants are no scaling.
    if value is None or value.size not in {1, 3} or not value.all():
        return None
    number = float(value.mean(dtype=float))
    match node.op_type:
        case "Add":
            return 1, number
        case "Sub":
            return (1, -number) if first else (-1, number)
        case "Mul":
            return number, 0
        case "Div" if first:
            return float((1 / value.astype(float)).mean()), 0
    return None


class Constants:
    """The constants of a graph, by name."""

    def __init__(self, graph: GraphProto) -> None:
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            for attribute in node.attribute if node.op_type == "Constant" else ():
                if attribute.HasField("t"):
                    self._tensors.update(dict.fromkeys(node.output, attribute.t))

    def find(self, name: str) -> NDArray[Any] | None:
        """The constant's values; None if the file has none of this name, or a damaged one."""
        from onnx import numpy_helper

        tensor = self._tensors.get(name)
        if tensor is None or tensor.external_data:
            return None
        try:
            return numpy_helper.to_array(tensor)
        except (KeyError, TypeError, ValueError):
            return None
