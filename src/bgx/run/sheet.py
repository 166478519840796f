"""A contact sheet: the pictures of a run before and after, the doubtful ones first, in one file.

Previews are made while a picture is in memory and kept as small JPEGs, those of the least certain
pictures where there are more than the sheet has room for.
"""

from __future__ import annotations

import base64
import contextlib
import heapq
import html
import io
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from PIL import Image, ImageDraw, ImageFont

from bgx.errors import OutputError, UnwritableError, show_text
from bgx.image.encode import encode_picture
from bgx.image.preview import GAP, PAPER, PREVIEW_SIZE, encode_preview
from bgx.image.trust import DOUBTFUL
from bgx.image.write import write_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bgx.run.outcome import Job, Measured

_HTML_ROOM = 10_000
"""Pictures of a page: some 100 MB."""

_JPEG_ROOM = 200
"""Pictures of a JPEG sheet, which is then 12,000 pixels high."""

_COLUMNS = 4
_LINE = 18
_INK = (34, 34, 34)
_ALARM = (176, 0, 32)


@dataclass(frozen=True, slots=True)
class _Entry:
    job: Job
    measured: Measured
    preview: bytes

    def __lt__(self, other: _Entry) -> bool:
        """Whether it is left out before the other: the surest first, of equals the last by name."""
        return self._rank > other._rank

    @property
    def _rank(self) -> tuple[float, str]:
        return self.measured.trust.confidence, str(self.job.source)


class Sheet:
    """A contact sheet in the making. Thread-safe.

    path: a page if it ends in .html, else a JPEG. room: pictures on it.
    """

    def __init__(self, path: Path, *, room: int | None = None) -> None:
        self._path = path
        self._html = path.suffix.lower() == ".html"
        self._room = room or (_HTML_ROOM if self._html else _JPEG_ROOM)
        self._entries: list[_Entry] = []
        self._count = 0
        self._doubtful = 0
        self._lock = threading.Lock()

    def add(self, job: Job, measured: Measured, before: Image.Image, after: Image.Image) -> None:
        """Take up a picture. before: mode RGB. after: RGBA, RGB or L."""
        with self._lock:
            self._count += 1
            self._doubtful += measured.trust.doubtful
            full = len(self._entries) == self._room
            if full and _Entry(job, measured, b"") < self._entries[0]:
                return
        entry = _Entry(job, measured, encode_preview(before, after))
        with self._lock:
            push = heapq.heappush if len(self._entries) < self._room else heapq.heappushpop
            push(self._entries, entry)

    def write(self, *, finished: bool = True) -> None:
        """Write or replace the file. Raises OutputError."""
        with self._lock:
            entries = sorted(self._entries, reverse=True)
            title = f"{self._doubtful:,} of {self._count:,} doubtful"
            caption = f"doubtful: confidence below {DOUBTFUL:g}" if finished else "not finished"
            if self._count > len(entries):
                caption += f"; shown are the {len(entries):,} least certain"
                caption += "" if self._html else f", a .html holds {_HTML_ROOM:,}"
        make = _make_html if self._html else _make_jpeg
        try:
            write_file(self._path, *make(title, caption, entries, self._path))
        except UnwritableError as error:
            raise OutputError(f"--sheet {error}") from error


def _describe(measured: Measured) -> str:
    trust = measured.trust
    if not trust.subjects:
        return "no subject"
    figures = [f"confidence {trust.confidence:.2f}", f"fill {trust.fill:.0%}"]
    if trust.touches_border:
        figures.append(f"touches {', '.join(trust.touches_border)}")
    if trust.subjects > 1:
        figures.append(f"{trust.subjects} subjects")
    return " · ".join((*figures, *measured.notes))


_HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>bgx: {title}</title>
<style>
body {{ margin: 24px; font: 14px/1.3 sans-serif; color: rgb{ink}; background: rgb{paper} }}
section {{ display: flex; flex-wrap: wrap; gap: 20px }}
figure {{ margin: 0; width: {width}px; content-visibility: auto;
 contain-intrinsic-size: {width}px {height}px }}
img {{ display: block }}
a {{ color: inherit; text-decoration: none; font-weight: 600; overflow-wrap: anywhere }}
.doubtful a {{ color: rgb{alarm} }}
</style>
<h1>{title}</h1>
<p>{caption}</p>
"""


def _make_html(title: str, caption: str, entries: Sequence[_Entry], path: Path) -> list[bytes]:
    """One file that needs nothing else; a click opens the whole picture, where that still lies."""
    width, height = PREVIEW_SIZE
    head = _HEAD.format(
        title=title,
        caption=html.escape(caption),
        width=width,
        height=height + 3 * _LINE,
        ink=_INK,
        paper=PAPER,
        alarm=_ALARM,
    )
    doubtful = [entry for entry in entries if entry.measured.trust.doubtful]
    others = entries[len(doubtful) :]
    parts = [head.encode()]
    for name, section in (("doubtful", doubtful), ("others", others)):
        if section:
            parts.append(f'<h2>{name.capitalize()}</h2>\n<section class="{name}">\n'.encode())
            parts += (_make_figure(entry, path.parent) for entry in section)
            parts.append(b"</section>\n")
    return parts


def _make_figure(entry: _Entry, folder: Path) -> bytes:
    source, target = (_link(file, folder) for file in (entry.job.source, entry.job.target))
    name = html.escape(show_text(str(entry.job.source)))
    width, height = PREVIEW_SIZE
    return (
        f'<figure><a href="{target}"><img width="{width}" height="{height}" alt="" '
        f'loading="lazy" decoding="async" src="data:image/jpeg;base64,'.encode()
        + base64.b64encode(entry.preview)
        + f'"></a><figcaption><a href="{source}"><bdi>{name}</bdi>'
        f"</a><br>{html.escape(_describe(entry.measured))}</figcaption></figure>\n".encode()
    )


def _link(file: Path, folder: Path) -> str:
    """A file's address, relative to the sheet's folder: the two can be moved together."""
    try:
        relative = Path(os.path.relpath(file, folder))
    except ValueError:  # on another drive
        return file.absolute().as_uri()
    return quote(os.fsencode(relative.as_posix()))


def _make_jpeg(title: str, caption: str, entries: Sequence[_Entry], path: Path) -> list[bytes]:
    column, row = PREVIEW_SIZE[0] + 3 * GAP, PREVIEW_SIZE[1] + 2 * _LINE + 2 * GAP
    rows = -(-len(entries) // _COLUMNS)
    head = 3 * _LINE
    sheet = Image.new("RGB", (_COLUMNS * column + 2 * GAP, head + rows * row), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = _load_font(_LINE - 4)
    for line, text in enumerate((title, caption)):
        place = 2 * GAP, GAP + line * _LINE
        draw.text(place, _fit(text, font, sheet.width - 4 * GAP), _INK, font)
    for number, entry in enumerate(entries):
        left, top = 2 * GAP + number % _COLUMNS * column, head + number // _COLUMNS * row
        sheet.paste(Image.open(io.BytesIO(entry.preview)), (left, top))
        colour = _ALARM if entry.measured.trust.doubtful else _INK
        top += PREVIEW_SIZE[1] + 2
        name = _fit(show_text(str(entry.job.source)), font, PREVIEW_SIZE[0], from_end=True)
        figures = _fit(_describe(entry.measured), font, PREVIEW_SIZE[0])
        draw.text((left, top), name, colour, font)
        draw.text((left, top + _LINE), figures, colour, font)
    return encode_picture(sheet, "jpg", name=str(path), quality=80)


def _load_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """One of the system's, which has more letters than Pillow's own, if there is one."""
    for name in _FONTS:
        with contextlib.suppress(OSError):
            return ImageFont.truetype(name, size)
    return ImageFont.load_default(size)


_FONTS = ("DejaVuSans.ttf", "Arial Unicode.ttf", "Arial.ttf", "LiberationSans-Regular.ttf")


def _fit(
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    width: int,
    *,
    from_end: bool = False,
) -> str:
    """As much of a text as fits; of a path its end is what tells it from others."""
    fitting = text
    while text and font.getlength(fitting) > width:
        text = text[1:] if from_end else text[:-1]
        fitting = f"...{text}" if from_end else f"{text}..."
    return fitting
