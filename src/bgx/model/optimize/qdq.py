"""Writes the 8-bit graph: which nodes are quantised, with which scales, and the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from numpy.typing import NDArray
    from onnx import NodeProto, TensorProto

    from bgx.model.optimize.graph import Form, Network

    Array = NDArray[Any]

_LEVELS = 255
_WEIGHT_LEVELS = 127
_BIAS_LEVELS = 2**30

# Operators that pass 8-bit values on unchanged.
_CARRIERS = frozenset({"Concat", "MaxPool", "Resize"})


def write_network(form: Form, kept: AbstractSet[str]) -> bytes:
    """The quantised network's file. kept: names of the convolutions that stay in float32."""
    import onnx

    network = form.network
    coarse = _choose_coarse(network, kept)
    writer = _Writer(form, coarse)
    fused = set()
    for node in network.nodes:
        relu = network.relus.get(node.output[0])
        if relu is not None and node.name in coarse:
            # Quantising to a range that begins at 0 does what the Relu does.
            fused.add(relu.name)
            writer.add(node, relu.output[0])
        elif node.name not in fused:
            writer.add(node, node.output[0])
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    graph = model.graph
    needed = {name for node in writer.nodes for name in node.input}
    others = [t for t in network.model.graph.initializer if t.name in needed]
    del graph.node[:]
    del graph.initializer[:]
    del graph.value_info[:]
    graph.node.extend(writer.nodes)
    graph.initializer.extend([*others, *writer.constants])
    content: bytes = model.SerializeToString()
    return content


def _choose_coarse(network: Network, kept: AbstractSet[str]) -> set[str]:
    """Names of the nodes that work on 8-bit values.

    These are the convolutions, and carriers whose output goes to one: quantising for other nodes
    would cost accuracy without making anything faster.
    """
    coarse: set[str] = set()
    wanted: set[str] = set()
    for node in reversed(network.nodes):
        carries = node.op_type in _CARRIERS and not wanted.isdisjoint(node.output)
        if carries or (network.is_convolution(node) and node.name not in kept):
            coarse.add(node.name)
            wanted.update(network.activations(node))
    return coarse


def _choose_steps(form: Form, coarse: AbstractSet[str]) -> dict[str, tuple[np.float32, np.uint8]]:
    """Scale and zero point of each activation.

    The inputs and the output of a carrier have the same, so that values pass through unchanged.
    """
    groups = {name: {name} for name in form.ranges}
    for node in form.network.nodes:
        if node.op_type in _CARRIERS and node.name in coarse:
            joined = set().union(
                *(groups[name] for name in (*form.network.activations(node), node.output[0]))
            )
            groups |= dict.fromkeys(joined, joined)
    steps = {}
    for name, group in groups.items():
        low = min(0.0, *(float(form.ranges[other].low.min()) for other in group))
        high = max(0.0, *(float(form.ranges[other].high.max()) for other in group))
        scale = np.float32(max(high - low, 1e-6) / _LEVELS)
        steps[name] = scale, np.uint8(round(-low / float(scale)))
    return steps


class _Writer:
    """Collects the nodes and constants of the 8-bit graph."""

    def __init__(self, form: Form, coarse: AbstractSet[str]) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._form = form
        self._coarse = coarse
        self._steps = _choose_steps(form, coarse)
        self._rounded: set[str] = set()
        self._only_rounded: set[str] = set()

    def add(self, node: NodeProto, output: str) -> None:
        """Append a node. output: the name of its output."""
        import onnx

        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        coarse = node.name in self._coarse
        for index, name in enumerate(node.input):
            if name in self._form.ranges and (coarse or name in self._only_rounded):
                copy.input[index] = self._round(name, name)
        if self._form.network.is_convolution(node):
            del copy.input[1:]
            copy.input.extend(
                self._quantize_parameters(node) if coarse else self._copy_parameters(node)
            )
        self.nodes.append(copy)
        if coarse:
            copy.output[0] = f"{output}_exact"
            self._round(output, copy.output[0])
            self._only_rounded.add(output)

    def _round(self, name: str, exact: str) -> str:
        """Quantise and dequantise the values called `exact`; returns the result's name."""
        rounded = f"{name}_rounded"
        if name not in self._rounded:
            self._rounded.add(name)
            scale, zero = self._steps[name]
            step = [self._keep(f"{name}_scale", scale), self._keep(f"{name}_zero", zero)]
            self._append("QuantizeLinear", [exact, *step], f"{name}_8bit")
            self._append("DequantizeLinear", [f"{name}_8bit", *step], rounded)
        return rounded

    def _quantize_parameters(self, node: NodeProto) -> list[str]:
        """Quantise a convolution's weight and bias; returns their names."""
        parameters = self._form.parameters[node.name]
        weight, bias = parameters.weight, parameters.bias
        step = float(self._steps[node.input[0]][0])
        largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
        # With a bias much larger than the weights, the quantised bias would overflow 32 bits.
        scale = np.maximum(largest / _WEIGHT_LEVELS, np.abs(bias) / (step * _BIAS_LEVELS))
        scale = np.maximum(scale, 1e-12).astype(np.float32).astype(np.float64)
        levels = np.rint(weight / scale[:, None, None, None])
        error = (weight - levels * scale[:, None, None, None]).sum(axis=(2, 3))
        bias = bias + (error * self._form.ranges[node.input[0]].mean[parameters.sources]).sum(
            axis=1
        )
        bias_scale = (scale * step).astype(np.float32)
        return [
            self._dequantize(f"{node.name}_weight", levels.astype(np.int8), scale),
            self._dequantize(
                f"{node.name}_bias", np.rint(bias / bias_scale).astype(np.int32), bias_scale
            ),
        ]

    def _copy_parameters(self, node: NodeProto) -> list[str]:
        parameters = self._form.parameters[node.name]
        return [
            self._keep(f"{node.name}_weight", parameters.weight.astype(np.float32)),
            self._keep(f"{node.name}_bias", parameters.bias.astype(np.float32)),
        ]

    def _dequantize(self, name: str, levels: Array, scale: Array) -> str:
        from onnx import helper

        inputs = [
            self._keep(f"{name}_levels", levels),
            self._keep(f"{name}_scale", scale.astype(np.float32)),
            self._keep(f"{name}_zero", np.zeros(len(scale), levels.dtype)),
        ]
        self._append("DequantizeLinear", inputs, name)
        self.nodes[-1].attribute.append(helper.make_attribute("axis", 0))
        return name

    def _append(self, kind: str, inputs: Sequence[str], output: str) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], name=output))

    def _keep(self, name: str, values: Array | np.generic) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name
