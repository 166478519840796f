"""From a finished picture to a file: encoded in memory, written beside the target, then moved.

A target that exists is therefore complete. Temporary files carry the name of this machine and the
process, so that the next run can tell what a killed one left behind.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import secrets
import socket
from typing import TYPE_CHECKING, Any

from PIL import Image

from bgx.errors import OutputError, UnwritableError, UsageError
from bgx.image.png import encode_png
from bgx.settings import FORMAT_BY_SUFFIX, Format, PngLevel

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_JPEG_QUALITY = 92
_AVIF_QUALITY = 80
_TIFF_COMPRESSION = "tiff_adobe_deflate"

# What stops every later picture as well: the disk, the folder, or the right to write there.
_RUN_WIDE = frozenset(
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EIO", "ENOTDIR", "EFBIG")
    if hasattr(errno, name)
)

_TEMPORARY = re.compile(r"\..*\.(?P<host>[0-9a-z-]*)\.(?P<process>\d+)\.[0-9a-f]{8}\.bgx-tmp")


def format_of(target: Path) -> Format:
    """The format that the target's suffix names. Raises UsageError where it names none."""
    try:
        return FORMAT_BY_SUFFIX[target.suffix.lower()]
    except KeyError:
        known = ", ".join(FORMAT_BY_SUFFIX)
        raise UsageError(f"{target}: unknown suffix; use {known} or --format") from None


def encode_picture(
    picture: Image.Image,
    file_format: Format,
    *,
    name: str,
    quality: int | None = None,
    png_level: PngLevel = "fast",
    icc: bytes | None = None,
    dpi: tuple[float, float] | None = None,
    threads: int = 1,
) -> bytes:
    """Encode a picture of mode RGBA, RGB or L.

    name: what messages call it. quality: 1..100; None is lossless for WebP. threads: that one
    picture may use. An ICC profile is not written to a grey picture, which it could not describe.
    Raises UnwritableError where the format cannot hold the picture.
    """
    if picture.mode == "L":
        icc = None
    if file_format == "png" and png_level == "fast":
        return encode_png(picture, icc=icc, dpi=dpi, threads=threads)
    options: dict[str, Any] = {"icc_profile": icc} if icc else {}
    match file_format:
        case "png":
            options |= {"optimize": True}
        case "webp":
            lossless = {"lossless": True, "exact": True, "quality": 20, "method": 0}
            lossy = {"quality": quality, "method": 4}
            options |= lossless if quality is None else lossy
        case "jpg":
            # Full chroma: a red shoe on white shows 4:2:0 as a pink fringe.
            options |= {"quality": quality or _JPEG_QUALITY, "subsampling": 0}
        case "avif":
            options |= {"quality": quality or _AVIF_QUALITY, "speed": 8}
        case "tiff":
            options |= {"compression": _TIFF_COMPRESSION}
    if dpi and file_format in {"webp", "avif"}:
        options["exif"] = _exif_with_dpi(dpi)
    elif dpi:
        options["dpi"] = dpi
    stream = io.BytesIO()
    try:
        picture.save(
            stream, format="JPEG" if file_format == "jpg" else file_format.upper(), **options
        )
    except (OSError, ValueError, SystemError) as error:
        width, height = picture.size
        raise UnwritableError(
            f"{name}: {width} x {height} cannot be stored as {file_format} ({error}); "
            "use --format png"
        ) from error
    return stream.getvalue()


def _exif_with_dpi(dpi: tuple[float, float]) -> bytes:
    """WebP and AVIF have no field of their own for the resolution; EXIF's tags serve."""
    exif = Image.Exif()
    exif[0x011A], exif[0x011B] = dpi
    exif[0x0128] = 2  # per inch
    return exif.tobytes()


def write_file(target: Path, data: bytes) -> None:
    """Write or replace target in one step; its folder is made where it is missing.

    Raises OutputError where no further picture could be written either (disk full, read-only
    folder) and UnwritableError where it is this target's own trouble. Nothing half-written stays.
    """
    temporary = target.with_name(
        f".{target.name}.{_host()}.{os.getpid()}.{secrets.token_hex(4)}.bgx-tmp"
    )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Not tempfile: that makes files private; here the umask decides, as for any output.
        with temporary.open("xb") as stream:
            stream.write(data)
    except OSError as error:
        _discard(temporary)
        raise _explain(error, target) from error
    except BaseException:
        _discard(temporary)
        raise
    try:
        temporary.replace(target)
    except OSError as error:
        _discard(temporary)
        raise UnwritableError(f"{target}: cannot be replaced: {error.strerror}") from error


def remove_leftovers(folders: Iterable[Path]) -> int:
    """Delete the temporary files that killed runs left in these folders; returns how many."""
    removed = 0
    for folder in folders:
        try:
            names = [entry.name for entry in os.scandir(folder) if entry.name.endswith(".bgx-tmp")]
        except OSError:
            continue
        for name in filter(_is_leftover, names):
            with contextlib.suppress(OSError):  # in use, on Windows: then it is no leftover
                (folder / name).unlink()
                removed += 1
    return removed


def _explain(error: OSError, target: Path) -> OutputError | UnwritableError:
    if error.errno in _RUN_WIDE:
        return OutputError(
            f"{target}: cannot be written: {error.strerror}; "
            "free space or choose another output folder, then run the same command again"
        )
    return UnwritableError(f"{target}: cannot be written: {error.strerror}")


def _discard(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _host() -> str:
    return re.sub(r"[^0-9a-z-]", "", socket.gethostname().lower())


def _is_leftover(name: str) -> bool:
    match = _TEMPORARY.fullmatch(name)
    if match is None or match["host"] != _host():
        return False
    return not _is_running(int(match["process"]))


def _is_running(process: int) -> bool:
    if process == os.getpid():
        return False  # asked before anything is written, so it is an earlier process's number
    if os.name == "nt":
        return False  # os.kill would end it; a file in use cannot be deleted there anyway
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
