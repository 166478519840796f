"""Finds the settings for a network that is not in the registry.

A graph shows the size of its input, which output is a matte and, usually, whether that is in 0..1.
What it does not show, a run with drawn scenes does. How colours have to be scaled is shown only by
some graphs, which begin with a part of it; it is known for families of networks, which are
recognised by the names of layers or of the file; else the usual scaling is assumed.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from bgx.errors import BadModelError, ModelError, UsageError
from bgx.files import write_whole
from bgx.model import files
from bgx.model.registry import ModelEntry, entry_from_table, find_family
from bgx.model.unknown.facts import Facts, Form, Pixels

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

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

_FREE: tuple[tuple[int, int] | str, ...] = (
    ANY_SIZE,
    *(f"multiple of {side}, up to 1024" for side in (64, 128)),
    *(f"multiple of {side}, up to 1022" for side in (14, 28)),
    *((side, side) for side in (512, 1024, 320, 384, 256, 640, 768, 448, 518, 224)),
)
"""Inputs to try where the graph does not fix the size; the first that works is taken."""

_SIDES = (5, 7)
"""Width and height of a trial in multiples: primes, so that no larger multiple fits by chance."""

_FED: Mapping[Pixels, tuple[float, float, float]] = {
    "0..1": (0.0, 1.0, 255.0),
    "0..255": (0.0, 1.0, 1.0),
    "-1..1": (0.5, 0.5, 255.0),
}
"""Mean, deviation and divisor that make these ranges."""

_VERSION = 2
"""Part of the file name of stored facts: to be raised when other facts are looked for."""


class Described(NamedTuple):
    """The settings for a file, and the file to run: itself, or a copy that has the usual form."""

    entry: ModelEntry
    path: Path


def describe(
    path: Path, digest: str, registry: Mapping[str, ModelEntry], family: str | None, folder: Path
) -> Described:
    """Find the settings for a file, and log them.

    They come from `family`, if it is given; else from the file itself, if `bgx train` made it; else
    from the registry entry with the file's name; else from its graph. digest: of the file. folder:
    where facts and copies are stored. Raises UsageError (no such family), BadModelError (bgx cannot
    use the network), ModelError (the copy cannot be stored) and NoMemoryError.
    """
    told = find_family(registry, family) if family else None
    facts = _recall(path, digest, folder)
    if told is None and facts.table is not None:
        return Described(_read_table(path, facts.table), path)
    _check_content(path, facts)
    if told is None and path.stem.lower() in registry:
        return Described(registry[path.stem.lower()], path)
    if facts.fault:
        raise BadModelError(f"{path}: {facts.fault}")
    guessed = told or _guess_family(path, facts, registry)
    facts = _complete(path, facts, guessed, digest, folder)
    entry = _feed(facts, guessed)
    if not facts.bounded and entry.activation == "none":
        entry = replace(entry, activation="sigmoid")
    adapted = path
    if not (facts.form.usual_input and facts.form.usual_output):
        adapted = _keep_adapted(path, facts, digest, folder)
        entry = entry if facts.form.usual_output else replace(entry, output=0)
    log.log(
        logging.INFO if told else logging.WARNING,
        "%s: %s%s",
        path,
        ", ".join(_tell(facts, entry, family or (guessed.family if guessed else ""))),
        "" if told else "; if its mattes are wrong, name another family with --as",
    )
    return Described(entry, adapted)


def _tell(facts: Facts, entry: ModelEntry, family: str) -> Iterator[str]:
    """What is said about a file's settings, in parts."""
    form = facts.form
    if family:
        yield f"settings of {family}"
    else:
        yield "unknown family"
    if facts.pixels:
        yield f"pixels as {facts.pixels}"
    elif not family:
        yield "usual settings"
    if form.bgr:
        yield "blue first"
    if form.last:
        yield "channels last"
    if entry.free:
        multiple = str(entry.input).partition(",")[0].removeprefix("multiple of ")
        yield "any size" if entry.input == ANY_SIZE else f"any size in multiples of {multiple}"
    else:
        yield "{} x {}".format(*entry.largest)
    yield f"output {facts.output} of {facts.outputs}"
    if form.channels == 2:
        yield f"channel {form.channel} of 2"
    if form.labels:
        yield "class 0" if form.low else "classes other than 0"
    elif (form.low, form.high) != (0, 1):
        yield f"{form.low:g}..{form.high:g} made 0..1"
    else:
        yield "sigmoid added" if entry.activation == "sigmoid" else "already in 0..1"


def _complete(
    path: Path, facts: Facts, like: ModelEntry | None, digest: str, folder: Path
) -> Facts:
    """Add what only a run shows, and store it. Raises BadModelError, NoMemoryError."""
    from bgx.model.trial import show_scenes, start_trial

    entry = _feed(facts, like)
    wished = str((like or _USUAL).input)
    sizes = [entry.input]
    if facts.size is None and wished not in facts.free:
        sizes = list(dict.fromkeys((entry.input, *_FREE)))
    elif not _needs_values(facts, entry):
        return facts
    source = path if facts.form.usual_input else _adapt(path, facts.form)
    engine = start_trial(source, str(path))
    count = None if _needs_values(facts, entry) else 1
    for size in sizes:
        try:
            scenes = show_scenes(engine, entry, _trial_size(size), name=str(path), count=count)
            break
        except BadModelError as error:
            last = error
    else:
        if len(sizes) == 1:
            raise last
        raise BadModelError(
            f"{last}, with this and other sizes; give it a table with its `input` in a registry "
            "file (BGX_MODELS)"
        )
    found = _read_scenes(path, facts, scenes) if _needs_values(facts, entry) else facts
    if facts.size is None:
        found = replace(found, free=facts.free | {wished: size})
    _keep(found, digest, folder)
    return found


def _needs_values(facts: Facts, entry: ModelEntry) -> bool:
    """Whether only the network's output tells what bgx has to know about it."""
    return not facts.settled or (facts.bounded is None and entry.activation == "none")


def _trial_size(size: tuple[int, int] | str) -> tuple[int, int]:
    if isinstance(size, tuple):
        return size
    multiple = int(size.split()[2].rstrip(","))
    return _SIDES[0] * multiple, _SIDES[1] * multiple


def _read_scenes(path: Path, facts: Facts, scenes: list[list[NDArray[Any]]]) -> Facts:
    """The facts with what the scenes show. Raises BadModelError if no output is a matte."""
    from bgx.model.unknown.forms import choose_output, place_of, read_form
    from bgx.model.unknown.look import explain_none

    places = [place_of(values.shape) for values in scenes[0]]
    output = facts.output if facts.settled else choose_output(places, facts.names)
    place = None if output is None else places[output]
    if output is None or place is None:
        raise BadModelError(f"{path}: {explain_none(facts.outputs)}")
    bounded = facts.bounded if output == facts.output else None
    shown = [scene[output] for scene in scenes]
    form, in_range = read_form(shown, place, facts.form, bounded=bounded)
    return replace(facts, output=output, form=form, bounded=in_range, settled=True)


def copy_whole(source: Path, target: Path) -> None:
    """Copy a network, with weights that are in other files put into it.

    Raises BadModelError if that is too large for one file, and OSError.
    """
    from bgx.model.unknown.look import look

    if look(source).apart:
        target.write_bytes(_adapt(source, Form()))
    else:
        shutil.copyfile(source, target)


def _adapt(path: Path, form: Form, output: int | None = None) -> bytes:
    from bgx.model.unknown.adapt import adapt

    try:
        return adapt(path, form, output)
    except BadModelError as error:
        raise BadModelError(f"{path}: {error}") from None


def _keep_adapted(path: Path, facts: Facts, digest: str, folder: Path) -> Path:
    """The copy of a network that has the usual form; it is made once."""
    copy = _record(digest, folder).with_suffix(f".{facts.output}.onnx")
    if not files.is_file(copy):
        content = _adapt(path, facts.form, None if facts.form.usual_output else facts.output)
        try:
            write_whole(copy, content)
        except OSError as error:
            raise ModelError(
                f"{copy.parent}: the copy of {path} that bgx runs cannot be stored there: "
                f"{error.strerror or error}; make room or set BGX_HOME to another folder"
            ) from None
    return copy


def _name_content(path: Path) -> str:
    """What a file is that is no ONNX file, and what to do."""
    with path.open("rb") as stream:
        start = stream.read(64).lstrip()
    if start.startswith(b"<"):
        return "a web page; download the file itself"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS; run: git lfs pull"
    if start.startswith((b"PK", b"\x80")):
        return "perhaps PyTorch's; export it with torch.onnx.export"
    if start[4:8] == b"ORTM":
        return "in ONNX Runtime's own format; use the .onnx file that it was made from"
    return "empty, damaged or cut short; get the file again"


def _check_content(path: Path, facts: Facts) -> None:
    """Raise BadModelError for a file that is no network, or whose weights are missing."""
    if not facts.outputs:
        raise BadModelError(f"{path}: not a network: {_name_content(path)}")
    for name in facts.apart:
        if not files.is_file(path.parent / name):
            raise BadModelError(
                f"{path}: its weights are in {name}, which is not beside it; put it there"
            )


def read_own(path: Path, digest: str, folder: Path) -> ModelEntry | None:
    """The settings stored in a file; None if there are none. Arguments as for :func:`describe`.

    Raises BadModelError if the file is no network.
    """
    facts = _recall(path, digest, folder)
    _check_content(path, facts)
    table = facts.table
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
    """The entry for a file: what it shows itself; everything else from `like`, or as usual."""
    like = like or _USUAL
    mean, std, scale = like.mean, like.std, like.scale
    if facts.pixels:
        one_mean, one_std, scale = _FED[facts.pixels]
        mean, std = (one_mean,) * 3, (one_std,) * 3
    return ModelEntry(
        OF_FILE,
        input=facts.size or facts.free.get(str(like.input), like.input),
        mean=mean,
        std=std,
        scale=scale,
        output=facts.output,
        activation="none" if facts.bounded else like.activation,
        stretch=like.stretch,
    )


def _recall(path: Path, digest: str, folder: Path) -> Facts:
    """The facts about a file; they are stored when they are found the first time."""
    try:
        kept = json.loads(_record(digest, folder).read_bytes())
        kept = {name: _as_tuple(value) for name, value in kept.items()}
        kept["free"] = {name: _as_tuple(value) for name, value in kept["free"].items()}
        return Facts(**kept | {"form": Form(**kept["form"])})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        from bgx.model.unknown.look import look

        facts = look(path)
    _keep(facts, digest, folder)
    return facts


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _keep(facts: Facts, digest: str, folder: Path) -> None:
    try:
        write_whole(_record(digest, folder), json.dumps(asdict(facts)).encode())
    except OSError as error:
        log.debug("%s: not kept: %s", _record(digest, folder), error)


def _record(digest: str, folder: Path) -> Path:
    return folder / f"{digest.partition(':')[2]}-v{_VERSION}.json"
