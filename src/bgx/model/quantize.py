"""A network in 8-bit integers: activations unsigned per tensor, weights signed per channel.

A prepared network (see :mod:`bgx.model.prepare`) gets pairs of QuantizeLinear and DequantizeLinear
around its convolutions and what lies between them, which ONNX Runtime fuses into integer kernels.
Three things keep the mattes:

- Channels are brought to like ranges, exactly undone in the weights that read them: Nagel et al.,
  "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019, section 4.1, with
  measured ranges and the strength of Xiao et al., "SmoothQuant", 2023, equation 4.
- The mean error of rounded weights is taken out of the bias: Nagel et al., section 4.2.
- Convolutions that still spoil the mattes, found by measuring, stay in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bgx.errors import BadModelError
from bgx.model.cores import count_cores
from bgx.model.engines import EnginePlan
from bgx.model.providers import one_line, runtime_errors, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto, TensorProto

    Array = NDArray[Any]
    Measure = Callable[[frozenset[str]], float]

DAMAGE = 0.001
"""Mean difference from float32, in parts of a map's span, that needs no remedy."""

_OPSET = 13  # the first that quantises per channel
_STRENGTHS = (0.5, 0.65)
_SEARCHED = 8  # pictures that damage is measured on
_ROUNDS = 3  # groups of convolutions that may go back to float32
_GROUP = 4  # convolutions of one such group at most
_PARTS = 8  # that a search looks into at once
_REMEDY = 0.9  # a group that leaves more of the damage than this is none
_SHARE = 0.75  # of a group's gain that makes a part of it enough

_LEVELS = 255
_WEIGHT_LEVELS = 127
_BIAS_LEVELS = 2**30

# What passes 8-bit values on as they are.
_CARRIERS = frozenset({"Concat", "MaxPool", "Resize"})
# What passes the factor of a channel on as it is.
_HOMOGENEOUS = frozenset({"AveragePool", "Identity", "LeakyRelu", "MaxPool", "Relu", "Resize"})


@dataclass(frozen=True, slots=True)
class Quantized:
    """content: the ONNX file. kept: names of the convolutions left in float32. convolutions: how
    many there are. damage: mean difference from float32, in parts of a map's span.
    """

    content: bytes
    kept: tuple[str, ...]
    convolutions: int
    damage: float


def quantize(
    prepared: bytes, pictures: Sequence[NDArray[np.float32]], *, tell: Callable[[str], None]
) -> Quantized:
    """The 8-bit form of a prepared network of input (batch, 3, height, width) and one output.

    pictures: inputs [1, 3, height, width] to measure on, some dozens. tell: hears of the progress.
    Raises BadModelError where the network cannot be quantised.
    """
    network = _read(prepared)
    names = [node.name for node in network.nodes if network.is_convolution(node)]
    tell(f"measuring the ranges of {len(names)} convolutions on {len(pictures)} photos")
    plain = _Form(network, _observe(network, pictures), network.parameters())
    forms = [plain, *(_equalize(plain, strength) for strength in _STRENGTHS)]
    searched = pictures[:: -(-len(pictures) // _SEARCHED)]
    wanted = list(_run(prepared, searched))

    def measure(form: _Form, kept: frozenset[str]) -> float:
        return _difference(wanted, _run(_write(form, kept), searched))

    kept: frozenset[str] = frozenset()
    damages = [measure(form, kept) for form in forms]
    damage = min(damages)
    form = forms[damages.index(damage)]
    tell(f"all in 8 bits: difference {damage:.4f}")
    for _ in range(_ROUNDS):
        if damage <= DAMAGE or len(kept) == len(names):
            break

        def measure_with(group: frozenset[str], kept: frozenset[str] = kept) -> float:
            return measure(form, kept | group)

        more, left = _find_harmful([n for n in names if n not in kept], damage, measure_with)
        if left > _REMEDY * damage:
            break
        kept, damage = kept | more, left
        tell(f"{len(kept)} of {len(names)} convolutions in float32: difference {damage:.4f}")
    ordered = tuple(name for name in names if name in kept)
    return Quantized(_write(form, kept), ordered, len(names), damage)


def _find_harmful(
    names: Sequence[str], damage: float, measure: Measure
) -> tuple[frozenset[str], float]:
    """The few neighbours that do the most damage, and what is left of it with them in float32.

    The best of a few parts is looked into until it is small, and then for as long as a part of it
    brings nearly as much.
    """
    group, left = list(names), damage
    while True:
        # Two at least, at first: what goes from one to the next may be what suffers.
        size = max(2 if len(group) > 2 else 1, -(-len(group) // _PARTS))
        parts = [group[first : first + size] for first in range(0, len(group), size)]
        scores = [measure(frozenset(part)) for part in parts]
        best = scores.index(min(scores))
        if len(group) <= _GROUP and damage - scores[best] < _SHARE * (damage - left):
            break
        group, left = parts[best], scores[best]
        if len(group) == 1:
            break
    return frozenset(group), left


def _difference(wanted: Iterable[Array], given: Iterable[Array]) -> float:
    def compare(fine: Array, coarse: Array) -> float:
        return float(np.abs(coarse - fine).mean()) / max(float(np.ptp(fine)), 1e-6)

    return float(np.mean([compare(*pair) for pair in zip(wanted, given, strict=True)]))


def _run(content: bytes, pictures: Iterable[Array]) -> Iterator[Array]:
    engine = start(content, EnginePlan("cpu", threads=count_cores()), "the 8-bit network")
    [source] = engine.get_inputs()
    for picture in pictures:
        try:
            [output] = engine.run(None, {source.name: picture})
        except runtime_errors() as error:
            raise BadModelError(f"the 8-bit network does not run: {one_line(error)}") from None
        yield output


@dataclass(frozen=True, slots=True)
class _Network:
    """A graph of opset 13 or later, its nodes named.

    constants: by name. channels: of every activation of four dimensions. relus: by the output of
    the convolution that nothing else reads.
    """

    model: ModelProto
    constants: Mapping[str, Array]
    channels: Mapping[str, int]
    relus: Mapping[str, NodeProto]

    @property
    def nodes(self) -> list[NodeProto]:
        return list(self.model.graph.node)

    def is_convolution(self, node: NodeProto) -> bool:
        return node.op_type == "Conv" and all(name in self.constants for name in node.input[1:])

    def activations(self, node: NodeProto) -> list[str]:
        """Those of the node's inputs that come from the picture."""
        return [name for name in node.input if name in self.channels]

    def parameters(self) -> dict[str, _Parameters]:
        found = {}
        for node in self.nodes:
            if self.is_convolution(node):
                weight = self.constants[node.input[1]].astype(np.float64)
                bias = np.zeros(len(weight))
                if len(node.input) > 2:
                    bias = self.constants[node.input[2]].astype(np.float64)
                found[node.name] = _Parameters(weight, bias, _sources(node, weight.shape))
        return found


@dataclass(frozen=True, slots=True)
class _Parameters:
    """weight: [out, in, height, width]. bias: [out]. sources: [out, in], the channel each reads."""

    weight: Array
    bias: Array
    sources: Array


@dataclass(frozen=True, slots=True)
class _Range:
    """Lowest, highest and mean value of each channel over all pictures."""

    low: Array
    high: Array
    mean: Array


@dataclass(frozen=True, slots=True)
class _Form:
    """A network with the ranges of its activations and the parameters of its convolutions."""

    network: _Network
    ranges: Mapping[str, _Range]
    parameters: Mapping[str, _Parameters]


def _sources(node: NodeProto, shape: Sequence[int]) -> Array:
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    group = np.arange(shape[0]) // (shape[0] // groups)
    return group[:, None] * shape[1] + np.arange(shape[1])


def _read(prepared: bytes) -> _Network:
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
        # Exporters leave names out.
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
    network = _Network(
        model, constants, {n: c for n, c in channels.items() if n not in constants}, relus
    )
    if not any(network.is_convolution(node) for node in network.nodes):
        raise BadModelError("cannot be quantised: it has no convolutions of constant weights")
    return network


def _observe(network: _Network, pictures: Iterable[Array]) -> dict[str, _Range]:
    """Ranges of the activations that 8 bits may have to hold.

    They are gathered inside the graph, so that no activation is kept beyond its use.
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
        name: _Range(-np.max(low, axis=0), np.max(high, axis=0), np.mean(mean, axis=0))
        for name, low, high, mean in zip(
            names,
            zip(*lows, strict=True),
            zip(*highs, strict=True),
            zip(*means, strict=True),
            strict=True,
        )
    }


def _equalize(form: _Form, strength: float) -> _Form:
    """The same network with channels of like ranges.

    strength: 0..1, how much of the differences goes from the activations to the weights.
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

    def scale(name: str, node: NodeProto) -> _Parameters:
        old = form.parameters[name]
        given = factors[labels[node.input[0]]][old.sources]
        taken = factors[labels[node.output[0]]]
        weight = old.weight * given[:, :, None, None] / taken[:, None, None, None]
        return _Parameters(weight, old.bias / taken, old.sources)

    ranges = {}
    for name, values in form.ranges.items():
        factor = factors[labels[name]]
        ranges[name] = _Range(values.low / factor, values.high / factor, values.mean / factor)
    return _Form(network, ranges, {name: scale(name, node) for name, node in convolutions.items()})


_FIXED = 0  # label of the channels whose range has to stay


def _label_channels(network: _Network) -> dict[str, Array]:
    """A label for each channel of each activation; equal ones must be scaled by one factor."""
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


def _write(form: _Form, kept: AbstractSet[str]) -> bytes:
    """The file, with the convolutions of the names `kept` in float32."""
    import onnx

    network = form.network
    coarse = _choose_coarse(network, kept)
    writer = _Writer(form, coarse)
    fused = set()
    for node in network.nodes:
        relu = network.relus.get(node.output[0])
        if relu is not None and node.name in coarse:
            # 8 bits that begin at zero cut off what is below it.
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


def _choose_coarse(network: _Network, kept: AbstractSet[str]) -> set[str]:
    """Names of the nodes that work on 8-bit values.

    Those are convolutions, and what carries values to one: rounding them for any other reader
    would cost accuracy and bring nothing.
    """
    coarse: set[str] = set()
    wanted: set[str] = set()
    for node in reversed(network.nodes):
        carries = node.op_type in _CARRIERS and not wanted.isdisjoint(node.output)
        if carries or (network.is_convolution(node) and node.name not in kept):
            coarse.add(node.name)
            wanted.update(network.activations(node))
    return coarse


def _choose_steps(form: _Form, coarse: AbstractSet[str]) -> dict[str, tuple[np.float32, np.uint8]]:
    """Scale and zero point of each activation.

    What a carrier takes and gives share theirs, so that values pass through it unchanged.
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

    def __init__(self, form: _Form, coarse: AbstractSet[str]) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._form = form
        self._coarse = coarse
        self._steps = _choose_steps(form, coarse)
        self._rounded: set[str] = set()
        self._only_rounded: set[str] = set()

    def add(self, node: NodeProto, output: str) -> None:
        """Append a node. output: the activation it makes."""
        import onnx

        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        coarse = node.name in self._coarse
        for index, name in enumerate(node.input):
            if name in self._form.ranges and (coarse or name in self._only_rounded):
                copy.input[index] = self._round(name, name)
        if self._form.network.is_convolution(node):
            del copy.input[1:]
            copy.input.extend(self._weigh(node) if coarse else self._copy_parameters(node))
        self.nodes.append(copy)
        if coarse:
            copy.output[0] = f"{output}_exact"
            self._round(output, copy.output[0])
            self._only_rounded.add(output)

    def _round(self, name: str, exact: str) -> str:
        """Name of the activation's rounded values, made from those called `exact`."""
        rounded = f"{name}_rounded"
        if name not in self._rounded:
            self._rounded.add(name)
            scale, zero = self._steps[name]
            step = [self._keep(f"{name}_scale", scale), self._keep(f"{name}_zero", zero)]
            self._append("QuantizeLinear", [exact, *step], f"{name}_8bit")
            self._append("DequantizeLinear", [f"{name}_8bit", *step], rounded)
        return rounded

    def _weigh(self, node: NodeProto) -> list[str]:
        """Names of a convolution's rounded weight and bias."""
        parameters = self._form.parameters[node.name]
        weight, bias = parameters.weight, parameters.bias
        step = float(self._steps[node.input[0]][0])
        largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
        # A bias far above its weights would not fit into 32 bits of their product's step.
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

    def _append(self, kind: str, inputs: Sequence[str], output: str) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], name=output))
        return output

    def _keep(self, name: str, values: Array | np.generic) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name
