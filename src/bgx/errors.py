"""What can go wrong, and the exit code each kind of trouble ends with.

::

    BgxError
    ├── PictureError          1   one picture; becomes a row of the report, the batch goes on
    │   ├── UnreadableError         not a picture, truncated, empty, no permission
    │   ├── TooLargeError           more pixels than --max-pixels, or more than memory holds
    │   ├── InferenceError          the network failed on this picture alone
    │   ├── NoSubjectError          nothing found that a canvas could be built around
    │   ├── UnwritableError         this one target cannot be written (name too long, say)
    │   └── BugError         70     bgx's own fault, met on this picture
    ├── UsageError            2   what was asked for cannot be done as asked
    ├── ModelError            3   the network's file
    │   ├── UnknownModelError       no such name in the registry
    │   ├── MissingModelError       not on this machine and not to be had now
    │   └── BadModelError           wrong hash, wrong size, or not a network bgx can run
    ├── DeviceError           4   the runtime or the device
    │   ├── RuntimeMissingError     no onnxruntime flavour installed, or two at once
    │   ├── DeviceUnavailableError  the device asked for is not delivered
    │   └── NoMemoryError           too little memory to load the runtime or the network
    └── OutputError           5   the output folder: full, read-only, not a folder

The code sits on the class. Messages are one line that names the file and the remedy. The library
raises; only :mod:`bgx.cli` turns an exception into an exit code.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


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
    """One picture failed; the others are not touched by it."""

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


class UnwritableError(PictureError):
    code = "unwritable"


class BugError(PictureError):
    """Nothing that should happen: the message asks for a report."""

    exit_code = ExitCode.BUG
    code = "bug"


class UsageError(BgxError):
    """What was asked for contradicts itself or cannot be done as asked."""

    exit_code = ExitCode.USAGE
    code = "usage"


class ModelError(BgxError):
    """The network's file."""

    exit_code = ExitCode.MODEL
    code = "model"


class UnknownModelError(ModelError):
    code = "unknown-model"


class MissingModelError(ModelError):
    code = "missing-model"


class BadModelError(ModelError):
    code = "bad-model"


class DeviceError(BgxError):
    """The runtime or the device."""

    exit_code = ExitCode.DEVICE
    code = "device"


class RuntimeMissingError(DeviceError):
    code = "no-runtime"


class DeviceUnavailableError(DeviceError):
    code = "device-unavailable"


class NoMemoryError(DeviceError):
    code = "no-memory"


class OutputError(BgxError):
    """The output folder: full, read-only, or not a folder."""

    exit_code = ExitCode.OUTPUT
    code = "output"


def show_text(text: str) -> str:
    """On one line: control characters and bytes that are no text, as file names have, escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
