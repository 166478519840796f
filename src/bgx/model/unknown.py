"""Finds the settings for a network that is not in the registry.

A graph shows the size of its input, which output is a matte and, usually, whether that is in 0..1.
It does not show how colours have to be scaled: that is known for families of networks, which are
recognised by the names of layers or of the file; for other networks the usual scaling is assumed.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from bgx.errors import BadModelError, UsageError, amount
from bgx.files import write_whole
from bgx.model.registry import ModelEntry, entry_from_table, find_family
from bgx.settings import DEFAULT_MODEL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

log = logging.getLogger(__name__)

OF_FILE = "file"
"""Name of the entry for a file that is not in the registry."""

ANY_SIZE = "multiple of 32, up to 1024"
"""Input of a network of unknown family whose input size is not fixed."""

_USUAL = ModelEntry(
    OF_FILE,
    input=ANY_SIZE,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    scale=255,
    stretch=False,
)
"""How most networks are fed: with the mean and deviation of ImageNet's pictures."""

_VERSION = 1
"""Part of the file name of stored facts: to be raised when other facts are looked for."""

_U2NET_OUTPUTS = 7
_FLOATS = {1, 10}  # ONNX's numbers for float32 and float16
_BOUNDED = {"Sigmoid", "HardSigmoid", "Softmax", "Clip"}
_HANDS_ON = {"Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Resize", "Upsample", "Slice"}

# Parts of the names of layers or weights that occur in one family only.
_LAYERS = {
    "birefnet": ("squeeze_module", "bb.patch_embed", "/bb/"),
    "ben2": ("multifieldcrossatt",),
    "isnet": ("conv_in",),
    "u2net": ("rebnconv",),
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found in a graph.

    table: registry fields stored in the file, or None. fault: why bgx cannot use it; empty if it
    can. size: width and height of its input; None if they are not fixed. output: index of the
    matte. outputs: number of outputs; 0 if the file is not a network. bounded: whether the matte is
    in 0..1; None if the graph does not show it. family: recognised by the names of its layers;
    empty if unknown.
    """

    table: dict[str, Any] | None = None
    fault: str = ""
    size: tuple[int, int] | None = None
    output: int = 0
    outputs: int = 1
    bounded: bool | None = None
    family: str = ""


def describe(
    path: Path, digest: str, registry: Mapping[str, ModelEntry], family: str | None, folder: Path
) -> ModelEntry:
    """Find the settings for a file, and log them.

    They come from `family`, if it is given; else from the file itself, if `bgx train` made it; else
    from the registry entry with the file's name; else from its graph. digest: of the file. folder:
    where facts are stored. Raises UsageError (no such family) and BadModelError (bgx cannot use the
    network).
    """
    told = find_family(registry, family) if family else None
    facts = _recall(path, digest, folder)
    if told is None and facts.table is not None:
        return _read_table(path, facts.table)
    if told is None and path.stem.lower() in registry:
        return registry[path.stem.lower()]
    if not facts.outputs:
        return registry[DEFAULT_MODEL]  # ONNX Runtime will say what is wrong
    if facts.fault:
        raise BadModelError(f"{path}: {facts.fault}")
    guessed = told or _guess_family(path, facts, registry)
    entry = _feed(facts, guessed)
    if not facts.bounded and entry.activation == "none":
        # Only a trial run shows whether its output is in 0..1.
        if facts.bounded is None:
            facts = replace(facts, bounded=_runs_bounded(path, entry))
            _keep(facts, digest, folder)
        entry = replace(entry, activation="none" if facts.bounded else "sigmoid")
    log.log(
        logging.INFO if told else logging.WARNING,
        "%s: %s, %s, output %d of %d, %s%s",
        path,
        f"settings of {family or guessed.family}" if guessed else "unknown family, usual settings",
        "any size" if entry.free else "{} x {}".format(*entry.largest),
        facts.output,
        facts.outputs,
        "sigmoid added" if entry.activation == "sigmoid" else "already in 0..1",
        "" if told else "; if its mattes are wrong, name another family with --as",
    )
    return entry


def read_own(path: Path, digest: str, folder: Path) -> ModelEntry | None:
    """The settings stored in a file; None if there are none. Arguments as for :func:`describe`."""
    table = _recall(path, digest, folder).table
    return None if table is None else _read_table(path, table)


def _read_table(path: Path, table: dict[str, Any]) -> ModelEntry:
    try:
        return entry_from_table(OF_FILE, table, path)
    except UsageError as error:
        raise BadModelError(f"{error}; the file was not made by this version of bgx") from None


def _guess_family(
    path: Path, facts: Facts, registry: Mapping[str, ModelEntry]
) -> ModelEntry | None:
    """The family's entry, by the names of the layers, else by the file's name."""
    families = {entry.family for entry in registry.values() if entry.family}
    stem = path.stem.lower()
    named = [
        family
        for family in sorted(families)
        if re.search("(?<![a-z])" + "[-_ ]?".join(map(re.escape, family)), stem)
    ]
    for name in (facts.family, *named):
        if name in families:
            return find_family(registry, name)
    return None


def _feed(facts: Facts, like: ModelEntry | None) -> ModelEntry:
    """The entry for a file: its own size and output; everything else from `like`, or as usual."""
    like = like or _USUAL
    return ModelEntry(
        OF_FILE,
        input=facts.size or like.input,
        mean=like.mean,
        std=like.std,
        scale=like.scale,
        output=facts.output,
        activation="none" if facts.bounded else like.activation,
        stretch=like.stretch,
    )


def _runs_bounded(path: Path, entry: ModelEntry) -> bool:
    """Whether the network's output for noise is approximately in 0..1."""
    from bgx.model.trial import find_range

    low, high = find_range(path, entry)
    # Networks trained without a sigmoid exceed 0..1 a little; logits exceed it by far.
    return low > -0.5 and high < 1.5


def _recall(path: Path, digest: str, folder: Path) -> Facts:
    """The facts about a file; they are stored when they are found the first time."""
    try:
        kept = json.loads(_record(digest, folder).read_bytes())
        kept["size"] = kept["size"] and tuple(kept["size"])
        return Facts(**kept)
    except (OSError, ValueError, TypeError, KeyError):
        facts = look(path)
    _keep(facts, digest, folder)
    return facts


def _keep(facts: Facts, digest: str, folder: Path) -> None:
    try:
        write_whole(_record(digest, folder), json.dumps(asdict(facts)).encode())
    except OSError as error:
        log.debug("%s: not kept: %s", _record(digest, folder), error)


def _record(digest: str, folder: Path) -> Path:
    return folder / f"{digest.partition(':')[2]}-v{_VERSION}.json"


def look(path: Path) -> Facts:
    """Find the facts about a file. The network is not run, and no other file is read."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        # With its format, because onnx would otherwise choose a parser by the suffix.
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except (DecodeError, ValueError, OSError, RecursionError):
        return Facts(outputs=0)
    if not model.graph.node:
        return Facts(outputs=0)
    table = _find_table(model)
    if table is not None:
        return Facts(table=table)
    try:
        return _look_at(model)
    except BadModelError as error:
        return Facts(fault=str(error))


def _find_table(model: ModelProto) -> dict[str, Any] | None:
    """Registry fields that `bgx train` stored in the metadata."""
    try:
        [text] = [pair.value for pair in model.metadata_props if pair.key == "bgx"]
        table = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return table if isinstance(table, dict) else None


def _look_at(model: ModelProto) -> Facts:
    """Find the facts in a graph. Raises BadModelError, without the file's name, if unusable."""
    graph = model.graph
    _check_external(graph)
    size = _find_size(graph)
    output = _find_matte(graph)
    return Facts(
        size=size,
        output=output,
        outputs=len(graph.output),
        bounded=_is_bounded(graph, graph.output[output].name),
        family=_find_family(model),
    )


def _check_external(graph: GraphProto) -> None:
    """Raise BadModelError if weights are in a file outside the network's folder."""
    for tensor in graph.initializer:
        for pair in tensor.external_data:
            if pair.key != "location":
                continue
            for kind in (PurePosixPath(pair.value), PureWindowsPath(pair.value)):
                if kind.is_absolute() or kind.drive or ".." in kind.parts:
                    raise BadModelError(
                        f"its weights are said to be in {pair.value[:100]!r}, outside of its "
                        "folder; bgx does not read them"
                    )


def _find_size(graph: GraphProto) -> tuple[int, int] | None:
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [port for port in graph.input if port.name not in weights]
    if len(inputs) != 1:
        raise BadModelError(f"has {len(inputs)} inputs; bgx needs networks with one")
    [source] = inputs
    kind = source.type.tensor_type.elem_type
    if kind not in _FLOATS:
        raise BadModelError("takes neither float32 nor float16; export it with one of these")
    shape = _shape(source)
    if len(shape) != 4:
        raise BadModelError(f"takes {_show(shape)}, not [batch, 3, height, width]")
    _, channels, height, width = shape
    if width == 3 and channels != 3:
        raise BadModelError(
            f"takes {_show(shape)}, channels last; export it with channels first, "
            "[batch, 3, height, width]"
        )
    if channels not in {3, 0}:
        raise BadModelError(
            f"takes {_show(shape)}: {amount(channels, 'channel')}; bgx needs 3: red, green, blue"
        )
    if not (height or width):
        return None
    return width or height, height or width


def _find_matte(graph: GraphProto) -> int:
    """The index of the (first) largest output that may be one matte per picture."""
    areas: dict[int, int] = {}
    for index, port in enumerate(graph.output):
        shape = _shape(port)
        if len(shape) == 4 and shape[1] in {0, 1}:
            areas[index] = shape[2] * shape[3]
        elif len(shape) == 3 or not port.type.tensor_type.HasField("shape"):
            areas[index] = shape[1] * shape[2] if shape else 0
    if not areas:
        raise BadModelError(
            f"has {amount(len(graph.output), 'output')}, none of them one matte per picture, "
            "[batch, 1, height, width]"
        )
    return max(areas, key=lambda index: (areas[index], -index))


def _is_bounded(graph: GraphProto, name: str) -> bool | None:
    """Whether a tensor comes from a sigmoid or similar; None if the graph does not show it."""
    makers = {output: node for node in graph.node for output in node.output}
    seen: set[str] = set()
    while name in makers and name not in seen:
        seen.add(name)
        node: NodeProto = makers[name]
        if node.op_type in _BOUNDED:
            return True
        if node.op_type not in _HANDS_ON or not node.input:
            return None
        name = node.input[0]
    return None


def _find_family(model: ModelProto) -> str:
    text = "\n".join(_names(model)).lower()
    for family, parts in _LAYERS.items():
        if any(part in text for part in parts):
            return family
    # Older U²-Net files have numbered layers; they return a matte and six side outputs.
    return "u2net" if len(model.graph.output) == _U2NET_OUTPUTS else ""


def _names(model: ModelProto) -> Iterator[str]:
    for node in model.graph.node:
        yield node.name
    for tensor in model.graph.initializer:
        yield tensor.name


def _shape(port: ValueInfoProto) -> list[int]:
    """The shape of an input or output; 0 for dimensions that are not fixed."""
    return [max(0, dim.dim_value) for dim in port.type.tensor_type.shape.dim]


def _show(shape: list[int]) -> str:
    return f"[{', '.join(str(side or '?') for side in shape)}]"
