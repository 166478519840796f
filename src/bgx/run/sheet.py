"""The contact sheet: the pictures of a run, before and after, in one file.

Failed pictures come first, then the doubtful ones. If there are more pictures than the sheet has
room for, it shows those with the lowest confidence.
"""

from __future__ import annotations

import base64
import contextlib
import heapq
import html
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from bgx.errors import OutputError, UnwritableError, show_text
from bgx.image.encode import encode_picture
from bgx.image.preview import GAP, PAPER, PREVIEW_SIZE
from bgx.image.trust import DOUBTFUL
from bgx.run.outcome import Done, Failed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bgx.run.cutout import Measured
    from bgx.storage.base import File

_HTML_ROOM = 10_000
"""Most pictures in an HTML sheet, which then has some 100 MB."""

_JPEG_ROOM = 200
"""Most pictures in a JPEG sheet, which is then 12,000 pixels high."""

_COLUMNS = 4
_LINE = 18
_INK = (34, 34, 34)
_ALARM = (176, 0, 32)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A picture that was cut out. Doubtful entries come last, those of lower confidence later."""

    done: Done

    def __lt__(self, other: _Entry) -> bool:
        return self._rank > other._rank

    @property
    def _rank(self) -> tuple[bool, float, str]:
        trust = self.done.measured.trust
        return not trust.doubtful, trust.confidence, str(self.done.job.source)


class Sheet:
    """Collects outcomes and writes the contact sheet. Not thread-safe.

    file: an HTML page if its suffix is .html or .htm, else a JPEG. room: most pictures shown, and
    most failures listed.
    """

    def __init__(self, file: File, *, room: int | None = None) -> None:
        self._file = file
        self._html = file.suffix in {".html", ".htm"}
        self._room = room or (_HTML_ROOM if self._html else _JPEG_ROOM)
        self._entries: list[_Entry] = []
        self._failures: list[Failed] = []
        self._done = self._doubtful = self._failed = 0

    def add(self, outcome: Done | Failed) -> None:
        """Add an outcome; a Done one must have a preview."""
        match outcome:
            case Failed():
                self._failed += 1
                if len(self._failures) < self._room:
                    self._failures.append(outcome)
            case Done(measured=measured):
                self._done += 1
                self._doubtful += measured.trust.doubtful
                full = len(self._entries) == self._room
                (heapq.heappushpop if full else heapq.heappush)(self._entries, _Entry(outcome))

    def write(self, *, finished: bool = True) -> None:
        """Write or replace the file. Raises OutputError."""
        shown = [entry.done for entry in sorted(self._entries, reverse=True)]
        failures = sorted(self._failures, key=lambda failed: str(failed.job.source))
        title = f"{self._doubtful:,} of {self._done:,} doubtful"
        if self._failed:
            title += f", {self._failed:,} failed"
        caption = f"doubtful: confidence below {DOUBTFUL:g}, or a damaged photo"
        caption = caption if finished else "not finished"
        if self._done > len(shown):
            caption += f"; shown are the {len(shown):,} least certain"
            caption += "" if self._html else f", a .html holds {_HTML_ROOM:,}"
        make = _make_html if self._html else _make_jpeg
        try:
            self._file.write(*make(title, caption, failures, shown, self._file))
        except UnwritableError as error:
            raise OutputError(f"--sheet {error}") from error
        except MemoryError as error:
            raise OutputError(f"--sheet {self._file}: not enough memory to make it") from error


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
.doubtful a, .failed {{ color: rgb{alarm} }}
</style>
<h1>{title}</h1>
<p>{caption}</p>
"""


def _make_html(
    title: str, caption: str, failures: Sequence[Failed], shown: Sequence[Done], file: File
) -> list[bytes]:
    """A self-contained HTML page; each picture links to its file."""
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
    doubtful = [done for done in shown if done.measured.trust.doubtful]
    others = shown[len(doubtful) :]
    parts = [head.encode()]
    if failures:
        parts.append(b'<h2>Failed</h2>\n<ul class="failed">\n')
        parts += (f"<li>{html.escape(show_text(str(f.error)))}</li>\n".encode() for f in failures)
        parts.append(b"</ul>\n")
    for name, section in (("doubtful", doubtful), ("others", others)):
        if section:
            parts.append(f'<h2>{name.capitalize()}</h2>\n<section class="{name}">\n'.encode())
            parts += (_make_figure(done, file) for done in section)
            parts.append(b"</section>\n")
    return parts


def _make_figure(done: Done, page: File) -> bytes:
    source = done.job.source.link(page)
    target = done.job.target.link(page) if done.job.target else source
    name = html.escape(show_text(str(done.job.source)))
    width, height = PREVIEW_SIZE
    return (
        f'<figure><a href="{target}"><img width="{width}" height="{height}" alt="" '
        f'loading="lazy" decoding="async" src="data:image/jpeg;base64,'.encode()
        + base64.b64encode(done.preview or b"")
        + f'"></a><figcaption><a href="{source}"><bdi>{name}</bdi>'
        f"</a><br>{html.escape(_describe(done.measured))}</figcaption></figure>\n".encode()
    )


def _make_jpeg(
    title: str, caption: str, failures: Sequence[Failed], shown: Sequence[Done], file: File
) -> list[bytes]:
    column, row = PREVIEW_SIZE[0] + 3 * GAP, PREVIEW_SIZE[1] + 2 * _LINE + 2 * GAP
    rows = -(-len(shown) // _COLUMNS)
    lines = [title, caption, *(show_text(str(failed.error)) for failed in failures)]
    head = (len(lines) + 1) * _LINE
    sheet = Image.new("RGB", (_COLUMNS * column + 2 * GAP, head + rows * row), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = _load_font(_LINE - 4)
    for line, text in enumerate(lines):
        place = 2 * GAP, GAP + line * _LINE
        colour = _INK if line < 2 else _ALARM
        draw.text(place, _fit(text, font, sheet.width - 4 * GAP), colour, font)
    for number, done in enumerate(shown):
        left, top = 2 * GAP + number % _COLUMNS * column, head + number // _COLUMNS * row
        sheet.paste(Image.open(io.BytesIO(done.preview or b"")), (left, top))
        colour = _ALARM if done.measured.trust.doubtful else _INK
        top += PREVIEW_SIZE[1] + 2
        name = _fit(show_text(str(done.job.source)), font, PREVIEW_SIZE[0], from_end=True)
        figures = _fit(_describe(done.measured), font, PREVIEW_SIZE[0])
        draw.text((left, top), name, colour, font)
        draw.text((left, top + _LINE), figures, colour, font)
    return encode_picture(sheet, "jpg", name=str(file), quality=80)


def _load_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A system font, which has more letters than Pillow's own, or else Pillow's."""
    for name in FONTS:
        with contextlib.suppress(OSError):
            return ImageFont.truetype(name, size)
    return ImageFont.load_default(size)


FONTS = ("DejaVuSans.ttf", "Arial Unicode.ttf", "Arial.ttf", "LiberationSans-Regular.ttf")


def _fit(
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    width: int,
    *,
    from_end: bool = False,
) -> str:
    """As much of the text as fits. from_end: keep its end, which distinguishes paths best."""
    fitting = text
    while text and font.getlength(fitting) > width:
        text = text[1:] if from_end else text[:-1]
        fitting = f"...{text}" if from_end else f"{text}..."
    return fitting
