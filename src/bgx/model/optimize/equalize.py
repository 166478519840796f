"""Equalisation: scales channels to similar ranges, and the weights that read them back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bgx.model.optimize.graph import Form, Network, Parameters, Range

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from onnx import NodeProto

    Array = NDArray[Any]

# Operators whose output is scaled by the same factor as their input.
_HOMOGENEOUS = frozenset({"AveragePool", "Identity", "LeakyRelu", "MaxPool", "Relu", "Resize"})


def equalize(form: Form, strength: float) -> Form:
    """An equivalent network whose channels have similar ranges.

    strength: 0..1, how much of the differences in range is moved from activations to weights.
    """
    network = form.network
    labels = _label_channels(network)
    count = 1 + max(int(label.max()) for label in labels.values())
    spans, readers = np.zeros(count), np.zeros(count)
    for name, values in form.ranges.items():
        np.maximum.at(spans, labels[name], np.maximum(np.abs(values.low), np.abs(values.high)))
    convolutions = {node.name: node for node in network.nodes if network.is_convolution(node)}
    for name, node in convolutions.items():
        parameters = form.parameters[name]
        label = labels[node.input[0]][parameters.sources]
        np.maximum.at(readers, label, np.abs(parameters.weight).max(axis=(2, 3)))
    known = (spans > 0) & (readers > 0)
    factors = np.ones(count)
    factors[known] = spans[known] ** strength / readers[known] ** (1 - strength)
    factors = factors.clip(1e-4, 1e4)
    factors[_FIXED] = 1

    def scale(name: str, node: NodeProto) -> Parameters:
        old = form.parameters[name]
        given = factors[labels[node.input[0]]][old.sources]
        taken = factors[labels[node.output[0]]]
        weight = old.weight * given[:, :, None, None] / taken[:, None, None, None]
        return Parameters(weight, old.bias / taken, old.sources)

    ranges = {}
    for name, values in form.ranges.items():
        factor = factors[labels[name]]
        ranges[name] = Range(values.low / factor, values.high / factor, values.mean / factor)
    return Form(network, ranges, {name: scale(name, node) for name, node in convolutions.items()})


_FIXED = 0
"""Label of channels that must not be scaled."""


def _label_channels(network: Network) -> dict[str, Array]:
    """A label for each channel of each activation; channels of one label need the same factor."""
    parents = [_FIXED]

    def find(label: int) -> int:
        while parents[label] != label:
            label = parents[label]
        return label

    def join(some: Iterable[int], others: Iterable[int]) -> None:
        for one, other in zip(some, others, strict=True):
            low, high = sorted((find(one), find(other)))
            parents[high] = low

    def fix(names: Iterable[str]) -> None:
        for name in names:
            join(labels[name], [_FIXED] * len(labels[name]))

    def fresh(name: str) -> Array:
        first = len(parents)
        parents.extend(range(first, first + network.channels[name]))
        return np.arange(first, len(parents))

    graph = network.model.graph
    labels: dict[str, Array] = {
        name: np.full(network.channels[name], _FIXED)
        for name in (value.name for value in graph.input)
        if name in network.channels
    }
    for node in network.nodes:
        sources = network.activations(node)
        outputs = [name for name in node.output if name in network.channels]
        channels = [network.channels[name] for name in (*sources, *outputs)]
        if len(outputs) == 1 and network.is_convolution(node):
            labels[outputs[0]] = fresh(outputs[0])
        elif len(outputs) == 1 and node.op_type in _HOMOGENEOUS:
            labels[outputs[0]] = labels[sources[0]]
        elif node.op_type == "Concat" and channels[-1] == sum(channels[:-1]):
            labels[outputs[0]] = np.concatenate([labels[name] for name in sources])
        elif node.op_type == "Add" and channels == [channels[0]] * 3:
            join(labels[sources[0]], labels[sources[1]])
            labels[outputs[0]] = labels[sources[0]]
        else:
            fix(sources)
            labels |= {name: np.full(network.channels[name], _FIXED) for name in outputs}
    fix(value.name for value in graph.output)
    return {name: np.array([find(label) for label in of]) for name, of in labels.items()}
