"""Networks made on the spot, of the form U²-Net is published in.

That form: opset 11, one input ``input.1`` fixed at (1, 3, height, width), seven outputs of the
input's size of which the first is the fused map, every Resize linear, ``pytorch_half_pixel``, by
``sizes`` that the graph computes from shapes on each run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
import onnx.parser
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def tiny_network(
    path: Path,
    *,
    size: tuple[int, int] = (320, 320),
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    logits: bool = False,
    note: str = "",
) -> Path:
    """Write a network of a few milliseconds that finds a bright or colourful object on dark.

    Its first output is, for a picture in 0..1 fed as (picture - mean) / std,

        sigmoid(12 * (mean of r, g, b + half the sum of |r - g|, |g - b|, |b - r| - 0.5))

    computed on the means of 4 x 4 blocks and enlarged linearly: near 0 on black and dark grey
    (below 0.3), near 1 on white, light grey (above 0.7) and any saturated colour, half where the
    sum is 0.5, with edges some 4 pixels wide. The other six outputs are the same and ever coarser
    maxima of it.

    size: width and height, multiples of 64. logits: leave the last sigmoid out. note: text that
    changes the file and nothing else.
    """
    width, height = size
    graph = _Graph(seed=0)
    pairs = [(0, 1), (1, 0), (1, 2), (2, 1), (2, 0), (0, 2)]
    mix = np.zeros((1 + len(pairs), 3), np.float32)
    mix[0] = 1 / 3
    for row, (plus, minus) in enumerate(pairs, start=1):
        mix[row, plus], mix[row, minus] = 1, -1
    scaled = mix * np.asarray(std, np.float32)
    weight = np.repeat(scaled[:, :, None, None], 4, axis=2).repeat(4, axis=3) / 16
    features = graph.relu(
        graph.conv_of("input.1", weight, mix @ np.asarray(mean, np.float32), strides=[4, 4])
    )
    sum_up = np.array([1, *[0.5] * len(pairs)], np.float32).reshape(1, -1, 1, 1)
    coarse = [graph.conv_of(features, 12 * sum_up, np.array([-6], np.float32))]
    while len(coarse) < 5:
        coarse.append(graph.pool(coarse[-1]))
    sides = [graph.enlarge(side, "input.1") for side in (coarse[0], *coarse)]
    fuse = np.array([1, 0, 0, 0, 0, 0], np.float32).reshape(1, 6, 1, 1)
    fused = graph.conv_of(graph.concat(sides), fuse, np.zeros(1, np.float32))
    outputs = [fused, *sides]
    if not logits:
        outputs = [graph.sigmoid(output) for output in outputs]
    return graph.save(path, (width, height), outputs, note)


def written_network(path: Path, text: str) -> Path:
    """Write a network given in ONNX's own text form, opset 13 if the text names none."""
    if "opset_import" not in text:
        text = f'<ir_version: 7, opset_import: ["" : 13]>\n{text}'
    onnx.save(onnx.parser.parse_model(text), path)
    return path


def u2net_network(path: Path, size: Literal["u2netp", "u2net"] = "u2netp", seed: int = 0) -> Path:
    """Write U²-Net's true graph at 320 x 320 with random weights.

    Layers and channels after Qin et al., "U²-Net: Going Deeper with Nested U-Structure for Salient
    Object Detection", 2020, table 1, batch normalisation folded into the convolutions.
    """
    stages = _STAGES[size]
    graph = _Graph(seed)
    level = "input.1"
    encoded = []
    for index, stage in enumerate(stages[:6]):
        if index:
            level = graph.pool(level)
        level = graph.rsu(level, stage)
        encoded.append(level)
    decoded = [encoded[5]]
    for stage, skip in zip(stages[6:], encoded[4::-1], strict=True):
        level = graph.rsu(graph.concat([graph.enlarge(decoded[-1], skip), skip]), stage)
        decoded.append(level)
    sides = [graph.conv(level, 1) for level in reversed(decoded)]
    sides = [sides[0], *(graph.enlarge(side, sides[0]) for side in sides[1:])]
    fused = graph.conv(graph.concat(sides), 1, kernel=1)
    outputs = [graph.sigmoid(output) for output in (fused, *sides)]
    return graph.save(path, (320, 320), outputs)


def random_network(
    path: Path, steps: Sequence[str], *, seed: int, side: int, channels: int = 32
) -> Path:
    """Write a small network of U²-Net's parts in any order, with random weights.

    steps: ``step`` (convolution and Relu), ``pool``, ``up`` (back to the size before the last
    pool), ``join`` and ``add`` (with the last map of the same size). The network ends at the size
    of its input, (1, 3, side, side).
    """
    graph = _Graph(seed)
    level = graph.conv("input.1", channels)
    above: list[str] = []
    for step in steps:
        if step == "step":
            level = graph.step(level, channels)
        elif step == "pool" and len(above) < 4:
            above.append(level)
            level = graph.pool(level)
        elif step == "up" and above:
            level = graph.enlarge(level, above.pop())
        elif step == "join":
            level = graph.conv(graph.concat([level, graph.relu(level)]), channels)
        elif step == "add":
            level = graph.node("Add", [level, graph.sigmoid(level)])
    matte = graph.sigmoid(graph.conv(graph.enlarge(level, "input.1"), 1))
    return graph.save(path, (side, side), [matte])


@dataclass(frozen=True)
class _Stage:
    """A residual U-block: levels below the first, 0 for the dilated kind that keeps its size."""

    depth: int
    middle: int
    out: int


_STAGES = {
    "u2netp": [
        *(_Stage(depth, 16, 64) for depth in (5, 4, 3, 2, 0, 0)),
        *(_Stage(depth, 16, 64) for depth in (0, 2, 3, 4, 5)),
    ],
    "u2net": [
        _Stage(5, 32, 64),
        _Stage(4, 32, 128),
        _Stage(3, 64, 256),
        _Stage(2, 128, 512),
        _Stage(0, 256, 512),
        _Stage(0, 256, 512),
        _Stage(0, 256, 512),
        _Stage(2, 128, 256),
        _Stage(3, 64, 128),
        _Stage(4, 32, 64),
        _Stage(5, 16, 64),
    ],
}


@dataclass
class _Graph:
    """Nodes appended one by one; every method returns the name of what its node gives."""

    seed: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    channels: dict[str, int] = field(default_factory=lambda: {"input.1": 3})

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        self.channels[name] = self.channels.get(inputs[0], 0) if inputs else 0
        return name

    def conv_of(
        self,
        source: str,
        weight: NDArray[Any],
        bias: NDArray[Any],
        **attributes: Any,
    ) -> str:
        names = [f"weight_{len(self.weights)}", f"bias_{len(self.weights)}"]
        for name, values in zip(names, (weight, bias), strict=True):
            self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        output = self.node("Conv", [source, *names], **attributes)
        self.channels[output] = len(weight)
        return output

    def conv(self, source: str, out: int, *, kernel: int = 3, dilation: int = 1) -> str:
        """A convolution that keeps the size, with random weights.

        Their variance is somewhat below He's, which the residual sums would drive into the flat
        ends of the sigmoids.
        """
        shape = (out, self.channels[source], kernel, kernel)
        deviation = np.float32(np.sqrt(1.3 / (shape[1] * kernel * kernel)))
        pad = dilation * (kernel // 2)
        return self.conv_of(
            source,
            self.random.standard_normal(shape, np.float32) * deviation,
            self.random.standard_normal(out, np.float32) * np.float32(0.1),
            kernel_shape=[kernel, kernel],
            dilations=[dilation, dilation],
            pads=[pad] * 4,
        )

    def relu(self, source: str) -> str:
        return self.node("Relu", [source])

    def sigmoid(self, source: str) -> str:
        return self.node("Sigmoid", [source])

    def pool(self, source: str) -> str:
        return self.node("MaxPool", [source], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)

    def concat(self, sources: Sequence[str]) -> str:
        output = self.node("Concat", sources, axis=1)
        self.channels[output] = sum(self.channels[source] for source in sources)
        return output

    def constant(self, values: object, dtype: type) -> str:
        return self.node("Constant", [], value=numpy_helper.from_array(np.array(values, dtype)))

    def enlarge(self, source: str, like: str) -> str:
        """Resize to the size of `like` the way PyTorch exports interpolation to a shape."""
        sides = [
            self.node(
                "Unsqueeze",
                [
                    self.node(
                        "Gather",
                        [self.node("Shape", [like]), self.constant(axis, np.int64)],
                        axis=0,
                    )
                ],
                axes=[0],
            )
            for axis in (2, 3)
        ]
        size = self.node("Cast", [self.node("Concat", sides, axis=0)], to=TensorProto.INT64)
        bounds = [self.constant([bound], np.int64) for bound in (0, 2, 0)]
        batch = self.node("Slice", [self.node("Shape", [source]), *bounds])
        sizes = self.node("Concat", [batch, size], axis=0)
        roi, scales = self.constant([], np.float32), self.constant([], np.float32)
        return self.node(
            "Resize",
            [source, roi, scales, sizes],
            coordinate_transformation_mode="pytorch_half_pixel",
            cubic_coeff_a=-0.75,
            mode="linear",
            nearest_mode="floor",
        )

    def step(self, source: str, out: int, dilation: int = 1) -> str:
        return self.relu(self.conv(source, out, dilation=dilation))

    def rsu(self, source: str, stage: _Stage) -> str:
        first = self.step(source, stage.out)
        inner = self._dilated(first, stage) if stage.depth == 0 else self._nested(first, stage)
        return self.node("Add", [inner, first])

    def _nested(self, source: str, stage: _Stage) -> str:
        level = self.step(source, stage.middle)
        levels = [level]
        for _ in range(stage.depth - 1):
            level = self.step(self.pool(level), stage.middle)
            levels.append(level)
        level = self.step(self.pool(level), stage.middle)
        bottom = self.step(level, stage.middle, dilation=2)
        level = self.step(self.concat([bottom, level]), stage.middle)
        for index, skip in reversed(list(enumerate(levels))):
            out = stage.out if index == 0 else stage.middle
            level = self.step(self.concat([self.enlarge(level, skip), skip]), out)
        return level

    def _dilated(self, source: str, stage: _Stage) -> str:
        level = source
        levels = []
        for dilation in (1, 2, 4):
            level = self.step(level, stage.middle, dilation)
            levels.append(level)
        level = self.step(level, stage.middle, 8)
        for skip, dilation in zip(reversed(levels), (4, 2, 1), strict=True):
            out = stage.out if dilation == 1 else stage.middle
            level = self.step(self.concat([level, skip]), out, dilation)
        return level

    def save(
        self, path: Path, size: tuple[int, int], outputs: Sequence[str], note: str = ""
    ) -> Path:
        width, height = size
        source = helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 3, height, width])
        # The published files leave the sizes of their side outputs open.
        results = [
            helper.make_tensor_value_info(
                name,
                TensorProto.FLOAT,
                [1, 1, height, width]
                if index < 2
                else [f"Sigmoid{name}_dim_{axis}" for axis in range(4)],
            )
            for index, name in enumerate(outputs)
        ]
        graph = helper.make_graph(self.nodes, "torch-jit-export", [source], results, self.weights)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6, doc_string=note
        )
        onnx.checker.check_model(model)
        onnx.save(model, path)
        return path


def halved(source: Path, target: Path, *, ports: bool) -> Path:
    """Write a network in half precision as converters do: all but Resize, and the conversions that
    they insert stand behind the nodes that read them.

    ports: its input and outputs are in half precision too.
    """
    model = onnx.load(source)
    graph = model.graph
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    def convert(name: str, to: int, new: str) -> str:
        graph.node.append(helper.make_node("Cast", [name], [new], name=f"{new}_node", to=to))
        return new

    half, single = TensorProto.FLOAT16, TensorProto.FLOAT
    for node in [node for node in graph.node if node.op_type == "Resize"]:
        node.input[0] = convert(node.input[0], single, f"{node.output[0]}_in")
        convert(f"{node.output[0]}_out", half, node.output[0])
        node.output[0] += "_out"
    for port in (*graph.input, *graph.output):
        if ports:
            port.type.tensor_type.elem_type = half
            continue
        for node in graph.node:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    if name == port.name:
                        names[index] = f"{name}_half"
        if port in graph.input:
            convert(port.name, half, f"{port.name}_half")
        else:
            convert(f"{port.name}_half", single, port.name)
    onnx.save(model, target)
    return target


def plain_network(
    path: Path,
    *,
    size: tuple[int, int] | None = (512, 512),
    logits: bool = False,
    sides: int = 0,
    flat: bool = False,
) -> Path:
    """Write a network of nobody's family that finds what is brighter than mid-grey.

    It is fed as is usual: ImageNet's mean and deviation after division by 255. size: width and
    height, None for any. logits: leave the last sigmoid out. sides: so many outputs of a quarter of
    the size stand before the matte. flat: the matte has no dimension for channels.
    """
    weight = 30 * np.asarray(IMAGENET_STD, np.float32).reshape(1, 3, 1, 1) / 3
    bias = np.array([30 * np.mean(IMAGENET_MEAN) - 15], np.float32)
    last = "logits" if logits else "matte"
    nodes = [helper.make_node("Conv", ["image", "w", "b"], ["logits"], name="first")]
    if not logits:
        nodes.append(helper.make_node("Sigmoid", ["logits"], ["matte"]))
    if flat:
        nodes.append(helper.make_node("Squeeze", [last, "axis"], ["flat"]))
        last = "flat"
    width, height = size or ("w", "h")
    outputs = []
    for side in range(sides):
        name = f"side_{side}"
        nodes.append(
            helper.make_node("AveragePool", ["logits"], [name], kernel_shape=[4, 4], strides=[4, 4])
        )
        quarter = [1, 1, height // 4, width // 4] if size else [1, 1, "qh", "qw"]
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, quarter))
    shape = [1, height, width] if flat else [1, 1, height, width]
    outputs.append(helper.make_tensor_value_info(last, TensorProto.FLOAT, shape))
    weights = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")]
    if flat:
        weights.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
    source = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, height, width])
    graph = helper.make_graph(nodes, "plain", [source], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
