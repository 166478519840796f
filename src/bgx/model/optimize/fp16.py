"""Converts a network to half precision; its input and output stay float32."""

from __future__ import annotations

from bgx.errors import BadModelError
from bgx.model.float32 import sort_nodes
from bgx.model.providers import load_runtime, one_line


def halve(prepared: bytes) -> bytes:
    """Convert a prepared network (see :mod:`bgx.model.prepare`) to float16.

    Weights outside the range of float16 are clipped. Raises BadModelError if the network cannot be
    converted, and RuntimeMissingError.
    """
    load_runtime()
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    try:
        model = convert_float_to_float16(
            onnx.load_model_from_string(prepared), keep_io_types=True, disable_shape_infer=True
        )
        # The converter puts the conversion of the input after the nodes that read it.
        sort_nodes(model.graph)
        onnx.checker.check_model(model, full_check=True)
    except (
        ValueError,
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
    ) as error:
        raise BadModelError(f"cannot be converted to half precision: {one_line(error)}") from None
    content: bytes = model.SerializeToString()
    return content
