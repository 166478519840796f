"""The parts of :mod:`bgx.model.quantize`."""
