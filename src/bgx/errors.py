"""bgx's exceptions, and the exit code of each.

::

    BgxError
    ├── PictureError          1   one picture failed; it becomes a report row, the batch goes on
    │   ├── UnreadableError         not a picture, truncated, empty, no permission
    │   ├── TooLargeError           more pixels than --max-pixels, or too large for the memory
    │   ├── InferenceError          the network failed on this picture alone
    │   ├── NoSubjectError          no subject found that could be framed
    │   ├── RegionError             --region reaches beyond this photo
    │   ├── EmptyRegionError        --region holds no pixel of this photo
    │   ├── UnwritableError         this one target cannot be written (name too long, say)
    │   ├── CrashedError            its worker's process ended over it, in every try
    │   └── BugError         70     an unexpected exception: a bug of bgx
    ├── UsageError            2   invalid or contradictory options or arguments
    │   ├── BackgroundError         the image behind the subject cannot be read, or is too large
    │   └── BrokerError             the broker, which carries tasks to workers, does not answer
    ├── ModelError            3   the network's file
    │   ├── UnknownModelError       no such name in the registry
    │   ├── MissingModelError       not on this machine, and cannot be downloaded now
    │   └── BadModelError           wrong hash, wrong size, or not a network bgx can run
    ├── DeviceError           4   the runtime or the device
    │   ├── RuntimeMissingError     no onnxruntime flavour installed, or two at once
    │   ├── DeviceUnavailableError  the requested device does not work here
    │   └── NoMemoryError           too little memory to load the runtime or the network
    └── OutputError           5   the output folder: full, read-only, not a folder

The exit code is an attribute of the class. A message is one line that names the file and the
remedy. Only :mod:`bgx.cli` turns an exception into an exit code.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable


class ExitCode(IntEnum):
    """Exit codes of the command line, one meaning each."""

    OK = 0
    PICTURES = 1
    USAGE = 2
    MODEL = 3
    DEVICE = 4
    OUTPUT = 5
    BUG = 70
    INTERRUPTED = 130


class BgxError(Exception):
    """Anything bgx raises on purpose."""

    exit_code: ClassVar[ExitCode] = ExitCode.BUG
    code: ClassVar[str] = "bug"
    """Short stable name, written as ``error.code`` in the report."""


class PictureError(BgxError):
    """One picture failed; other pictures are not affected."""

    exit_code = ExitCode.PICTURES
    code = "picture"


class UnreadableError(PictureError):
    code = "unreadable"


class TooLargeError(PictureError):
    code = "too-large"


class InferenceError(PictureError):
    code = "inference"


class NoSubjectError(PictureError):
    code = "no-subject"


class RegionError(PictureError):
    code = "region"


class EmptyRegionError(PictureError):
    code = "region-empty"


class UnwritableError(PictureError):
    code = "unwritable"


class CrashedError(PictureError):
    code = "crashed"


class BugError(PictureError):
    """An unexpected exception; the message asks the user to report a bug."""

    exit_code = ExitCode.BUG
    code = "bug"


class UsageError(BgxError):
    """Invalid or contradictory options or arguments."""

    exit_code = ExitCode.USAGE
    code = "usage"


class BackgroundError(UsageError):
    """The image behind the subject cannot be read, or is too large."""


class BrokerError(UsageError):
    code = "broker"


class ModelError(BgxError):
    """The network's file is unknown, missing or unusable."""

    exit_code = ExitCode.MODEL
    code = "model"


class UnknownModelError(ModelError):
    code = "unknown-model"


class MissingModelError(ModelError):
    code = "missing-model"


class BadModelError(ModelError):
    code = "bad-model"


class DeviceError(BgxError):
    """The runtime or the device is missing or does not work."""

    exit_code = ExitCode.DEVICE
    code = "device"


class RuntimeMissingError(DeviceError):
    code = "no-runtime"


class DeviceUnavailableError(DeviceError):
    code = "device-unavailable"


class NoMemoryError(DeviceError):
    code = "no-memory"


class OutputError(BgxError):
    """The output folder cannot be written: full, read-only, or not a folder."""

    exit_code = ExitCode.OUTPUT
    code = "output"


def suggest(name: str, known: Iterable[str], otherwise: str) -> str:
    """A remedy for an unknown name: the known name that is most like it, or else ``otherwise``."""
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else otherwise


def amount(number: int, noun: str) -> str:
    """A number of things, for a message: ``1 file``, ``2,000 files``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def show_text(text: str) -> str:
    """The text on one line: control characters and undecodable bytes of file names are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
