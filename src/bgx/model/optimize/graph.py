"""Reads a network for quantisation: its graph, the convolutions' parameters, activation ranges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bgx.errors import BadModelError
from bgx.machine import count_cores
from bgx.model.engines import EnginePlan
from bgx.model.providers import one_line, runtime_errors, start

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

    Array = NDArray[Any]

_OPSET = 13
"""The first opset with quantisation per channel."""


@dataclass(frozen=True, slots=True)
class Network:
    """A graph of opset 13 or later whose nodes all have names.

    constants: by name. channels: number of channels of each 4-dimensional activation. relus: Relu
    nodes that are the only reader of another node's output, by that output.
    """

    model: ModelProto
    constants: Mapping[str, Array]
    channels: Mapping[str, int]
    relus: Mapping[str, NodeProto]

    @property
    def nodes(self) -> list[NodeProto]:
        """In topological order."""
        return list(self.model.graph.node)

    def is_convolution(self, node: NodeProto) -> bool:
        """Whether it is a convolution with constant weights, which can be quantised."""
        return node.op_type == "Conv" and all(name in self.constants for name in node.input[1:])

    def activations(self, node: NodeProto) -> list[str]:
        """The node's inputs that are activations."""
        return [name for name in node.input if name in self.channels]

    def parameters(self) -> dict[str, Parameters]:
        """The parameters of each convolution, by name."""
        found = {}
        for node in self.nodes:
            if self.is_convolution(node):
                weight = self.constants[node.input[1]].astype(np.float64)
                bias = np.zeros(len(weight))
                if len(node.input) > 2:
                    bias = self.constants[node.input[2]].astype(np.float64)
                found[node.name] = Parameters(weight, bias, _sources(node, weight.shape))
        return found


@dataclass(frozen=True, slots=True)
class Parameters:
    """weight: [out, in, height, width]. bias: [out]. sources: [out, in], the input channel that
    each weight reads."""

    weight: Array
    bias: Array
    sources: Array


@dataclass(frozen=True, slots=True)
class Range:
    """Lowest, highest and mean value of each channel of an activation, over all pictures."""

    low: Array
    high: Array
    mean: Array


@dataclass(frozen=True, slots=True)
class Form:
    """A network with the ranges of its activations and the parameters of its convolutions."""

    network: Network
    ranges: Mapping[str, Range]
    parameters: Mapping[str, Parameters]


def _sources(node: NodeProto, shape: Sequence[int]) -> Array:
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    group = np.arange(shape[0]) // (shape[0] // groups)
    return group[:, None] * shape[1] + np.arange(shape[1])


def read_network(prepared: bytes) -> Network:
    """Read a prepared network's file. Raises BadModelError if it cannot be quantised."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load_model_from_string(prepared)
    opset = next(entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"})
    try:
        if opset < _OPSET:
            model = onnx.version_converter.convert_version(model, _OPSET)
        inferred = onnx.shape_inference.infer_shapes(model).graph
    except (RuntimeError, onnx.shape_inference.InferenceError) as error:
        raise BadModelError(f"cannot be quantised: {one_line(error)}") from None
    graph = model.graph
    channels = {}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        dims = value.type.tensor_type.shape.dim
        if len(dims) == 4 and dims[1].dim_value:
            channels[value.name] = dims[1].dim_value
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for index, node in enumerate(graph.node):
        # Exporters may leave names out.
        node.name = node.name or f"{node.op_type}_{index}"
    readers = [name for node in graph.node for name in node.input]
    results = {value.name for value in graph.output}
    relus = {
        node.input[0]: node
        for node in graph.node
        if node.op_type == "Relu"
        and readers.count(node.input[0]) == 1
        and node.input[0] not in results
    }
    network = Network(
        model, constants, {n: c for n, c in channels.items() if n not in constants}, relus
    )
    if not any(network.is_convolution(node) for node in network.nodes):
        raise BadModelError("cannot be quantised: it has no convolutions of constant weights")
    return network


def observe(network: Network, pictures: Iterable[Array]) -> dict[str, Range]:
    """Measure the ranges of the activations on some pictures.

    Pooling nodes are added to the graph for it, so that the activations themselves need not be kept
    in memory.
    """
    import onnx
    from onnx import TensorProto, helper

    names = [name for name in network.channels if name not in network.relus]
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    graph = model.graph
    outputs = []
    for index, name in enumerate(names):
        low, high, mean, negative = (
            f"bgx_{what}_{index}" for what in ("low", "high", "mean", "neg")
        )
        graph.node.extend(
            [
                helper.make_node("GlobalMaxPool", [name], [high]),
                helper.make_node("Neg", [name], [negative]),
                helper.make_node("GlobalMaxPool", [negative], [low]),
                helper.make_node("GlobalAveragePool", [name], [mean]),
            ]
        )
        outputs += [low, high, mean]
    del graph.output[:]
    graph.output.extend(helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs)
    engine = start(
        model.SerializeToString(), EnginePlan("cpu", threads=count_cores()), "the network"
    )
    [source] = engine.get_inputs()
    lows, highs, means = [], [], []
    for picture in pictures:
        try:
            values = engine.run(outputs, {source.name: picture})
        except runtime_errors() as error:
            raise BadModelError(f"the network does not run: {one_line(error)}") from None
        flat = [value.reshape(-1).astype(np.float64) for value in values]
        lows.append(flat[0::3])
        highs.append(flat[1::3])
        means.append(flat[2::3])
    return {
        name: Range(-np.max(low, axis=0), np.max(high, axis=0), np.mean(mean, axis=0))
        for name, low, high, mean in zip(
            names,
            zip(*lows, strict=True),
            zip(*highs, strict=True),
            zip(*means, strict=True),
            strict=True,
        )
    }
