"""Saves a network as ONNX Runtime runs it on this CPU, with its weights in a file of their own.

To load an ONNX file, ONNX Runtime copies all weights, computes what is constant, and reorders the
weights for the CPU's convolutions: a network of 176 MB takes 0.6 s and twice its size. If the
result is saved, the next process maps the weights into its memory, which takes 0.03 s, and all
processes that run the network share them. No other CPU or ONNX Runtime can use it.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from bgx.errors import BadModelError
from bgx.files import make_folder, remove_leftovers, temporary, write_whole
from bgx.model.engines import EnginePlan
from bgx.model.providers import start

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = logging.getLogger(__name__)

_LARGE = 1024
"""Fewest bytes of a tensor that is mapped; smaller ones stay in the network's file."""


def save_mapped(content: bytes, target: Path, check: Callable[[Path], None]) -> bool:
    """Save the network as `target`, for batches of 1, unless it exists; returns whether it does.

    content: an ONNX file. check: given the copy before it gets its name; what it raises is raised.
    The weights are in `NAME.….weights` beside it. Nothing is left if they cannot be written.
    """
    folder = target.parent
    try:
        make_folder(folder)
        remove_leftovers(folder)
        with temporary(folder) as network, temporary(folder) as weights:
            _save(content, network, weights)
            check(network)
            # A name of its own, because the weights of another process may be ordered differently.
            own = target.with_suffix(f".{os.urandom(4).hex()}.weights")
            finished = _refer_to(network, own.name, weights.stat().st_size)
            weights.replace(own)
            used = False
            try:
                used = write_whole(target, finished, create=True)
            finally:
                if not used:
                    own.unlink()
    except OSError as error:
        log.debug("%s: not kept: %s", target, error)
        return False
    return True


def remove_mapped(target: Path) -> None:
    """Delete a copy and its weights. Raises OSError if the copy cannot be deleted."""
    target.unlink(missing_ok=True)
    for weights in target.parent.glob(f"{target.stem}.*.weights"):
        with suppress(OSError):  # Windows deletes no file that a process has mapped
            weights.unlink()


def _save(content: bytes, network: Path, weights: Path) -> None:
    """Raises OSError if ONNX Runtime cannot load the network or write the files."""
    settings = {
        "session.optimized_model_external_initializers_file_name": weights.name,
        "session.optimized_model_external_initializers_min_size_in_bytes": str(_LARGE),
    }
    try:
        start(content, EnginePlan("cpu", config=settings), network.name, save_to=network)
    except BadModelError as error:
        raise OSError(str(error)) from None
    # A power cut must not leave zeros in the place of weights: they would be taken for weights.
    with weights.open("r+b") as stream:
        os.fsync(stream.fileno())


def _refer_to(network: Path, weights: str, size: int) -> bytes:
    """The file of a network with another name for the file of its weights, which has `size` bytes.

    Raises OSError if that is too short.
    """
    import onnx

    model = onnx.load(network, format="protobuf", load_external_data=False)
    for tensor in model.graph.initializer:
        place = {entry.key: entry for entry in tensor.external_data}
        if not place:
            continue
        place["location"].value = weights
        if int(place["offset"].value) + int(place["length"].value) > size:
            raise OSError(f"{weights}: not all weights were written")
    finished: bytes = model.SerializeToString()
    return finished
