"""The JSON of tasks and answers, and its checks: anybody who reaches the broker can send either.

A task contains an order - the picture options of :mod:`bgx.options` as they are typed, and the
network's name and hash - and the names of the pictures. An answer contains outcomes of pictures, or
says why a task was refused.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from bgx.errors import BgxError, PictureError, UsageError
from bgx.image.trust import Trust
from bgx.options import OPTIONS, settle
from bgx.parsers import parse_background
from bgx.run.cutout import Measured
from bgx.run.outcome import Done, Failed, Job, Skipped
from bgx.settings import Precision, ReadSettings
from bgx.storage import open_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bgx.options import OutputSettings, PictureOptions
    from bgx.run.outcome import Outcome

MIN_PICTURES, MAX_PICTURES = 16, 64
"""Pictures of a task. The last tasks of a run may have fewer than the minimum."""

_LARGEST_BACKGROUND = 8 << 20
"""Largest file of a background, bytes: every task contains it."""

_REPLY = re.compile(r"bgx\.reply\.[0-9a-f]{32}")
_HASH = re.compile(r"(sha256:[0-9a-f]{64}|md5:[0-9a-f]{32})")
_LAYERS = ("typed", "environment", "preset")


@dataclass(frozen=True, slots=True)
class Picture:
    """Names of the files that are read and written. number: of the picture in its run."""

    number: int
    source: str
    target: str
    review: str | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """A task without its pictures.

    reply: name of the queue for answers. model, hash: of the network. layers: picture options by
    name, for each of "typed", "environment" and "preset". create: keep existing targets. preview:
    send small pictures before and after. alone: run no other task beside this one.
    """

    reply: str
    model: str
    hash: str
    precision: Precision
    read: ReadSettings
    layers: Mapping[str, Mapping[str, Any]]
    create: bool
    preview: bool = False
    alone: bool = False

    def to_json(self, pictures: Sequence[Picture]) -> dict[str, Any]:
        rows = [[one.number, one.source, one.target, one.review] for one in pictures]
        return asdict(self) | {"pictures": rows}

    @property
    def output(self) -> OutputSettings:
        """The options, settled as the producer has settled them. Raises UsageError."""
        typed, environment, preset = (self._layer(name) for name in _LAYERS)
        output = settle(typed, environment=environment, preset=preset)
        if output.reads:
            raise UsageError("a task names no file as its background")
        return output

    def _layer(self, name: str) -> PictureOptions:
        values: Any = {}
        for option, value in self.layers[name].items():
            if option == "background" and isinstance(value, dict):
                values[option] = _decode(value.get("base64"))
            elif value is not None:
                _expect(option in OPTIONS and type(value) is OPTIONS[option].kind, option)
                values[option] = value
        layer: PictureOptions = values
        return layer


def read_order(message: object) -> tuple[Order, list[Picture]]:
    """Parse a task's message. Raises UsageError if it is malformed."""
    _expect(isinstance(message, dict), "task")
    fields: dict[str, Any] = dict(message)  # type: ignore[call-overload]
    pictures = list(_read_pictures(fields.pop("pictures", None)))
    _expect(fields.keys() == set(Order.__slots__), "fields")
    for name, kind in (("model", str), ("create", bool), ("preview", bool), ("alone", bool)):
        _expect(type(fields[name]) is kind, name)
    for name, form in (("reply", _REPLY), ("hash", _HASH)):
        _expect(isinstance(fields[name], str) and form.fullmatch(fields[name]), name)
    _expect(fields["precision"] in get_args(Precision), "precision")
    layers, read = fields["layers"], fields["read"]
    _expect(isinstance(layers, dict) and layers.keys() == set(_LAYERS), "layers")
    _expect(all(isinstance(layer, dict) for layer in layers.values()), "layers")
    _expect(isinstance(read, dict) and read.keys() == set(ReadSettings.__slots__), "read")
    _expect(all(type(value) is int for value in read.values()), "read")
    return Order(**(fields | {"read": ReadSettings(**read)})), pictures


def make_reply_name() -> str:
    """A new name for a queue of answers."""
    return f"bgx.reply.{secrets.token_hex(16)}"


def reply_of(message: object) -> str | None:
    """Name of the queue for a task's answers, also of a malformed task; None if it has none."""
    reply = message.get("reply") if isinstance(message, dict) else None
    return reply if isinstance(reply, str) and _REPLY.fullmatch(reply) else None


def _read_pictures(rows: object) -> Iterator[Picture]:
    _expect(isinstance(rows, list) and 0 < len(rows) <= MAX_PICTURES, "pictures")
    for row in rows:  # type: ignore[attr-defined]
        _expect(isinstance(row, list) and len(row) == 4 and type(row[0]) is int, "pictures")
        number, *names = row
        _expect(all(isinstance(name, str) and name for name in names[:2]), "pictures")
        _expect(names[2] is None or isinstance(names[2], str), "pictures")
        yield Picture(number, *names)


def make_job(picture: Picture, order: Order, output: OutputSettings) -> Job:
    """The job of a picture. Raises UsageError for an impossible name, and for a target whose suffix
    is not that of the format: a task must not overwrite files of other kinds.
    """
    target = open_file(picture.target)
    review = open_file(picture.review) if picture.review else None
    for file in (target, review):
        if file is not None and file.suffix != f".{output.format}":
            raise UsageError(f"{file}: is no name of a {output.format} file")
    return Job(open_file(picture.source), target, review, create=order.create)


def make_order(
    network: tuple[str, str],
    precision: Precision,
    read: ReadSettings,
    layers: Sequence[PictureOptions],
    *,
    create: bool,
    preview: bool,
) -> Order:
    """The order of a run, with a new name for its queue of answers.

    network: name and hash. layers: picture options: typed, from the environment, from a preset. The
    file of a background is replaced by its content. Raises UsageError if it cannot be read or is
    too large.
    """
    written = {name: dict(_write_layer(layer)) for name, layer in zip(_LAYERS, layers, strict=True)}
    return Order(make_reply_name(), *network, precision, read, written, create, preview)


def _write_layer(layer: PictureOptions) -> Iterator[tuple[str, Any]]:
    for name, value in layer.items():
        if name == "background" and value is not None:
            background = parse_background(value)  # type: ignore[arg-type]
            if isinstance(background, Path):
                yield name, {"base64": _encode(background)}
                continue
        if value is not None:
            yield name, value


def _encode(background: Path) -> str:
    try:
        content = background.read_bytes()
    except OSError as error:
        raise UsageError(f"--background {background}: cannot be read: {error.strerror}") from None
    if len(content) > _LARGEST_BACKGROUND:
        raise UsageError(
            f"--background {background}: goes along with every task; use a file of at most "
            f"{_LARGEST_BACKGROUND >> 20} MB"
        )
    return base64.b64encode(content).decode()


def _decode(text: object) -> bytes:
    _expect(isinstance(text, str), "background")
    try:
        return base64.b64decode(text, validate=True)  # type: ignore[arg-type]
    except binascii.Error:
        raise UsageError("task: background: malformed") from None


def _expect(ok: object, field: str) -> None:
    if not ok:
        raise UsageError(f"task: {field}: malformed, or of another version of bgx")


# Answers ------------------------------------------------------------------------------------------


def write_outcome(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON, without its job, which the producer knows."""
    match outcome:
        case Skipped(reason=reason):
            return {"skipped": reason}
        case Failed(error=error):
            return {"failed": error.code, "message": str(error)}
        case Done(measured=measured, preview=preview):
            row: dict[str, Any] = {"done": asdict(measured) | {"trust": measured.trust._asdict()}}
            if preview is not None:
                row["preview"] = base64.b64encode(preview).decode()
            return row


def read_outcome(job: Job, row: Mapping[str, Any]) -> Outcome:
    """Parse the outcome of a job. Raises ValueError, TypeError, KeyError, AttributeError or
    IndexError if it is malformed."""
    if "done" in row:
        preview = base64.b64decode(row["preview"]) if "preview" in row else None
        return Done(job, _read_measured(row["done"]), preview=preview)
    if "failed" in row:
        return Failed(job, _make_error(str(row["failed"]), _localize(str(row["message"]), job)))
    if row["skipped"] != "exists":
        raise ValueError(row["skipped"])
    return Skipped(job, "exists")


def make_refusal(row: Mapping[str, Any]) -> BgxError:
    """Parse a worker's reason for refusing a task. Raises KeyError or TypeError if malformed."""
    return _make_error(str(row["code"]), str(row["message"]))


def _read_measured(row: Mapping[str, Any]) -> Measured:
    trust = row["trust"]
    left, top, right, bottom = row["bbox"] or (0, 0, 0, 0)
    sides = [side for side in ("left", "top", "right", "bottom") if side in trust["touches_border"]]
    return Measured(
        int(row["width"]),
        int(row["height"]),
        float(row["coverage"]),
        (int(left), int(top), int(right), int(bottom)) if row["bbox"] else None,
        Trust(
            float(trust["confidence"]),
            tuple(sides),  # type: ignore[arg-type]
            float(trust["fill"]),
            int(trust["subjects"]),
            bool(trust["damaged"]),
        ),
        {str(step): float(seconds) for step, seconds in row["seconds"].items()},
        tuple(str(note) for note in row["notes"]),
        (int(row["full"][0]), int(row["full"][1])),
    )


def _localize(message: str, job: Job) -> str:
    """Replace the absolute name that a worker uses by the name that the user gave."""
    for file in (job.source, job.target):
        location = getattr(file, "location", None)
        if location and message.startswith(location):
            return f"{file}{message[len(location) :]}"
    return message


def _make_error(code: str, message: str) -> BgxError:
    kinds = {kind.code: kind for kind in _all_errors(BgxError)}
    return kinds.get(code, PictureError)(message)


def _all_errors(kind: type[BgxError]) -> Iterator[type[BgxError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _all_errors(below)
