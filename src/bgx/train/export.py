"""The network as an ONNX file, and back.

Weights are stored as float16, each followed by a Cast to float32, which ONNX Runtime computes when
it loads the file. This halves the file and costs no time later. Weights keep the names that they
have in the network's state_dict.
"""

from __future__ import annotations

import json
import operator
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import fx, nn
from torch.nn import functional

from bgx import __version__
from bgx.errors import BadModelError
from bgx.train.feed import TABLE
from bgx.train.network import Lite, fuse

if TYPE_CHECKING:
    from pathlib import Path

OPSET = 13
_IR_VERSION = 8


def to_onnx(network: Lite) -> bytes:
    """The network as bytes of an ONNX file.

    Input ``image`` is float32 [N, 3, H, W], output ``matte`` is float32 [N, 1, H, W]. The metadata
    has a key ``bgx``: JSON with the registry's fields for the input (size, mean, std and so on).
    """
    fused = fuse(network).cpu()
    graph = _Graph()
    for node in fx.Tracer().trace(fused).nodes:
        graph.add(node, fused)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "lite",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "h", "w"])],
            [helper.make_tensor_value_info("matte", TensorProto.FLOAT, ["n", 1, "h", "w"])],
            graph.weights,
        ),
        producer_name="bgx",
        producer_version=__version__,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
    )
    helper.set_model_props(model, {"bgx": json.dumps(TABLE)})
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


def from_onnx(path: Path) -> Lite:
    """Load the fused network from a file that :func:`to_onnx` made.

    Raises BadModelError for any other file.
    """
    network = Lite(normed=False).eval()
    try:
        stored = {w.name: numpy_helper.to_array(w) for w in onnx.load(path).graph.initializer}
        network.load_state_dict(
            {
                name: torch.from_numpy(stored[name].astype(np.float32))
                for name in network.state_dict()
            }
        )
    except OSError as error:
        raise BadModelError(f"{path}: cannot be read: {error.strerror}") from error
    except Exception as error:
        # onnx raises many kinds of errors for a damaged file.
        raise BadModelError(f"{path}: is not a network that bgx train made") from error
    return network


class _Graph:
    """ONNX nodes and weights, collected in the order of a traced network's operations."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._scales = ""

    def add(self, node: fx.Node, network: nn.Module) -> None:
        """Append the ONNX operator of one traced operation."""
        if node.op == "placeholder":
            node.name = "image"
        elif node.op == "output":
            self._emit("Identity", [_name(node.args[0])], "matte")
        elif node.op == "call_module":
            self._add_module(node, network.get_submodule(str(node.target)))
        else:
            self._add_function(node)

    def _add_module(self, node: fx.Node, module: nn.Module) -> None:
        inputs = [_name(node.args[0])]
        if isinstance(module, nn.Identity):
            self._emit("Identity", inputs, node.name)
            return
        if not isinstance(module, nn.Conv2d):
            raise TypeError(f"no ONNX operator is known for {module}")
        inputs.append(self._store(f"{node.target}.weight", module.weight))
        if module.bias is not None:
            inputs.append(self._store(f"{node.target}.bias", module.bias))
        self._emit(
            "Conv",
            inputs,
            node.name,
            kernel_shape=module.kernel_size,
            strides=module.stride,
            pads=[*module.padding, *module.padding],
        )

    def _add_function(self, node: fx.Node) -> None:
        inputs = [_name(value) for value in node.args if isinstance(value, fx.Node)]
        if node.target is functional.interpolate:
            self._emit(
                "Resize",
                [inputs[0], "", self._doubling()],
                node.name,
                mode="linear",
                coordinate_transformation_mode="half_pixel",
            )
            return
        operators: dict[Any, str] = {
            functional.relu: "Relu",
            operator.add: "Add",
            functional.adaptive_avg_pool2d: "GlobalAveragePool",
            torch.sigmoid: "Sigmoid",
        }
        self._emit(operators[node.target], inputs, node.name)

    def _store(self, name: str, weight: torch.Tensor) -> str:
        values = weight.detach().numpy()
        halves = values.astype(np.float16)
        self.weights.append(numpy_helper.from_array(halves, name))
        self._emit("Cast", [name], f"{name}.float32", to=TensorProto.FLOAT)
        return f"{name}.float32"

    def _doubling(self) -> str:
        if not self._scales:
            self._scales = "doubling"
            scales = np.array([1, 1, 2, 2], np.float32)
            self.weights.append(numpy_helper.from_array(scales, self._scales))
        return self._scales

    def _emit(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))


def _name(value: object) -> str:
    return cast("fx.Node", value).name
