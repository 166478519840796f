"""A network in half precision: weights and activations float16, input and output float32."""

from __future__ import annotations

from bgx.errors import BadModelError
from bgx.model.providers import load_runtime, one_line


def halve(prepared: bytes) -> bytes:
    """The float16 form of a prepared network (see :mod:`bgx.model.prepare`).

    Weights beyond float16's range are brought to its ends. Raises BadModelError where the network
    cannot be converted, RuntimeMissingError.
    """
    load_runtime()
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    try:
        model = convert_float_to_float16(
            onnx.load_model_from_string(prepared), keep_io_types=True, disable_shape_infer=True
        )
        graph = model.graph
        # The converter appends the conversion of the input behind the nodes that read it.
        nodes = sorted(graph.node, key=lambda node: graph.input[0].name not in node.input)
        del graph.node[:]
        graph.node.extend(nodes)
        onnx.checker.check_model(model, full_check=True)
    except (
        ValueError,
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
    ) as error:
        raise BadModelError(f"cannot be halved: {one_line(error)}") from None
    content: bytes = model.SerializeToString()
    return content
