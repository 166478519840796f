"""Looks at the graph of a network's file, without running it."""

from __future__ import annotations

import json
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from bgx.errors import BadModelError, amount
from bgx.model.unknown.facts import DOUBLE, FLOAT, HALF, UINT8, Facts, Form
from bgx.model.unknown.forms import Place, choose_output, place_of
from bgx.model.unknown.scaling import Constants, find_pixels, is_bgr

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

_U2NET_OUTPUTS = 7
_TAKEN = {FLOAT, HALF, DOUBLE, UINT8}
_BOUNDED = {"Sigmoid", "HardSigmoid", "Softmax"}
_HANDS_ON = {"Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Resize", "Upsample", "Slice"}

# Parts of the names of layers or weights that occur in one family only.
_LAYERS = {
    "birefnet": ("squeeze_module", "bb.patch_embed", "/bb/"),
    "ben2": ("multifieldcrossatt",),
    "isnet": ("conv_in",),
    "u2net": ("rebnconv",),
}


def look(path: Path) -> Facts:
    """Find the facts about a file. The network is not run, and no other file is read."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        # With its format, because onnx would otherwise choose a parser by the suffix.
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except (DecodeError, ValueError, OSError, RecursionError):
        return Facts(outputs=0)
    if not model.graph.node:
        return Facts(outputs=0)
    table = _find_table(model)
    if table is not None:
        return Facts(table=table)
    try:
        return _look_at(model)
    except BadModelError as error:
        return Facts(fault=str(error))


def _find_table(model: ModelProto) -> dict[str, Any] | None:
    """Registry fields that `bgx train` stored in the metadata."""
    try:
        [text] = [pair.value for pair in model.metadata_props if pair.key == "bgx"]
        table = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return table if isinstance(table, dict) else None


def _look_at(model: ModelProto) -> Facts:
    """Find the facts in a graph. Raises BadModelError, without the file's name, if unusable."""
    graph = model.graph
    apart = _find_weights(graph)
    source = _find_input(graph)
    kind = source.type.tensor_type.elem_type
    size, last = _read_shape(_shape(source))
    family = _find_family(model)
    places = [place_of(_shape(port)) if _has_shape(port) else Place(0, 0) for port in graph.output]
    names = tuple(port.name for port in graph.output)
    output = choose_output(places, names)
    if output is None:
        raise BadModelError(explain_none(len(names)))
    place = places[output] or Place(0)
    others = [other for other in places if other]
    return Facts(
        apart=apart,
        size=size,
        output=output,
        names=names,
        outputs=len(names),
        bounded=_is_bounded(graph, names[output]),
        form=Form(last, kind, is_bgr(model)),
        settled=place in {Place(place.area, 1, 1), Place(place.area)}
        and graph.output[output].type.tensor_type.elem_type in {FLOAT, HALF}
        and (len(others) == 1 or bool(family) or all(other.area for other in others)),
        pixels=find_pixels(model, source),
        family=family,
    )


def _find_weights(graph: GraphProto) -> tuple[str, ...]:
    """Files with weights, relative to the network's folder; outside of it, raises BadModelError."""
    found = {
        pair.value
        for tensor in graph.initializer
        for pair in tensor.external_data
        if pair.key == "location"
    }
    for place in sorted(found):
        for kind in (PurePosixPath(place), PureWindowsPath(place)):
            if kind.is_absolute() or kind.drive or ".." in kind.parts:
                raise BadModelError(
                    f"its weights are said to be in {place[:100]!r}, outside of its folder; bgx "
                    "does not read them"
                )
    return tuple(sorted(found))


def _find_input(graph: GraphProto) -> ValueInfoProto:
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [port for port in graph.input if port.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(port.name for port in inputs[:4])
        raise BadModelError(f"has {len(inputs)} inputs ({names}); bgx needs networks with one")
    source: ValueInfoProto = inputs[0]
    if source.type.tensor_type.elem_type not in _TAKEN:
        raise BadModelError(
            "takes neither float32, float16, double nor uint8; export it with one of these"
        )
    return source


def _read_shape(shape: list[int]) -> tuple[tuple[int, int] | None, bool]:
    """Width and height of an input, and whether its channels come last. Raises BadModelError."""
    if len(shape) != 4:
        raise BadModelError(f"takes {_show(shape)}, not [batch, 3, height, width]")
    _, channels, height, width = shape
    last = width == 3 and channels != 3
    if last:
        height, width, channels = channels, height, width
    if channels not in {3, 0}:
        raise BadModelError(
            f"takes {_show(shape)}: {amount(channels, 'channel')}; bgx needs 3: red, green, blue"
        )
    if not (height or width):
        return None, last
    return (width or height, height or width), last


def _has_shape(port: ValueInfoProto) -> bool:
    return bool(port.type.tensor_type.HasField("shape"))


def explain_none(count: int) -> str:
    """The reason if no output is a matte."""
    outputs = amount(count, "output")
    return f"has {outputs}, none of them one matte per picture, [batch, 1, height, width]"


def _is_bounded(graph: GraphProto, name: str) -> bool | None:
    """Whether a tensor comes from a sigmoid or similar; None if the graph does not show it."""
    makers = {output: node for node in graph.node for output in node.output}
    constants = Constants(graph)
    seen: set[str] = set()
    while name in makers and name not in seen:
        seen.add(name)
        node: NodeProto = makers[name]
        if node.op_type in _BOUNDED or (node.op_type == "Clip" and _clips(node, constants)):
            return True
        if node.op_type not in _HANDS_ON or not node.input:
            return None
        name = node.input[0]
    return None


def _clips(node: NodeProto, constants: Constants) -> bool:
    """Whether a Clip has limits, and they are within 0..1."""
    limits = {attribute.name: attribute.f for attribute in node.attribute}
    for name, source in zip(("min", "max"), list(node.input)[1:], strict=False):
        value = constants.find(source)
        if value is not None and value.size == 1:
            limits[name] = float(value.flat[0])
    within: bool = limits.get("min", -1.0) >= 0 and limits.get("max", 2.0) <= 1
    return within


def _find_family(model: ModelProto) -> str:
    text = "\n".join(_names(model)).lower()
    for family, parts in _LAYERS.items():
        if any(part in text for part in parts):
            return family
    # Older U²-Net files have numbered layers; they return a matte and six side outputs.
    return "u2net" if len(model.graph.output) == _U2NET_OUTPUTS else ""


def _names(model: ModelProto) -> Iterator[str]:
    for node in model.graph.node:
        yield node.name
    for tensor in model.graph.initializer:
        yield tensor.name


def _shape(port: ValueInfoProto) -> list[int]:
    """The shape of an input or output; 0 for dimensions that are not fixed."""
    return [max(0, dim.dim_value) for dim in port.type.tensor_type.shape.dim]


def _show(shape: list[int]) -> str:
    return f"[{', '.join(str(side or '?') for side in shape)}]"
