"""Removes copies of the photo from XMP: thumbnails, depth and gain maps, and their descriptions.

Parts are cut out of the packet; all other bytes stay exactly as they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from xml.parsers import expat

from bgx.image.exif import holds_picture

_PREFIXES = {
    "http://ns.google.com/photos/1.0/image/": "GImage",
    "http://ns.google.com/photos/1.0/audio/": "GAudio",
    "http://ns.google.com/photos/1.0/depthmap/": "GDepth",
    "http://ns.google.com/photos/1.0/camera/": "GCamera",
    "http://ns.google.com/photos/1.0/container/": "Container",
    "http://ns.google.com/photos/1.0/container/item/": "Item",
    "http://ns.google.com/photos/dd/1.0/device/": "Device",
    "http://ns.adobe.com/hdr-gain-map/1.0/": "hdrgm",
    "http://ns.apple.com/HDRGainMap/1.0/": "HDRGainMap",
    "http://ns.apple.com/pixeldatainfo/1.0/": "apdi",
    "http://ns.adobe.com/xap/1.0/": "xmp",
    "http://ns.adobe.com/xap/1.0/g/img/": "xmpGImg",
    "http://ns.adobe.com/xmp/note/": "xmpNote",
    "http://ns.adobe.com/tiff/1.0/": "tiff",
    "http://ns.adobe.com/exif/1.0/": "exif",
}
"""Usual prefixes of the relevant namespaces; a packet may use others."""

_COPIES = re.compile(
    r"(?:GImage|GAudio|GDepth|Container|Item|Device|hdrgm|HDRGainMap|apdi|xmpGImg):"
    r"|xmp:Thumbnails$|GCamera:(?:MicroVideo|MotionPhoto)"
)
"""Properties that hold pictures, or that describe pictures which followed the photo in its file."""

_OF_THE_FILE = frozenset(
    {"tiff:ImageWidth", "tiff:ImageLength", "exif:PixelXDimension", "exif:PixelYDimension"}
)
_EXTENDED = "xmpNote:HasExtendedXMP"
"""Refers to a second packet, which is not kept."""

_ORIENTATION = re.compile(rb"(tiff:Orientation(?:=[\"']|>)\s*)\d")
_TAG = re.compile(rb"<(?:[^>\"']|\"[^\"]*\"|'[^']*')*>")
_ATTRIBUTE = re.compile(rb"\s([^\s=]+)\s*=\s*(?:\"[^\"]*\"|'[^']*')")


@dataclass(slots=True)
class _Element:
    tag: re.Match[bytes]
    text: list[str] = field(default_factory=list)


def clean_xmp(packet: bytes | None) -> tuple[bytes | None, list[str]]:
    """XMP for the finished picture, and notes on what was left out.

    packet: UTF-8, or None. The result is None if there is none that can be read.
    """
    packet = (packet or b"").rstrip(b"\0 \r\n\t")
    if not packet:
        return None, []
    scan = _Scan(packet)
    try:
        scan.run()
    except (expat.ExpatError, _NotAllowedError, ValueError, LookupError):
        return None, ["XMP left out: it cannot be read"]
    kept = bytearray()
    at = 0
    for start, end in sorted(scan.cuts):
        if start >= at:
            kept += packet[at:start]
        at = max(at, end)
    kept += packet[at:]
    return _ORIENTATION.sub(rb"\g<1>1", bytes(kept)), list(dict.fromkeys(scan.notes))


class _NotAllowedError(Exception):
    """The packet declares a document type, whose entities could expand without limit."""


class _Scan:
    """Finds the parts of a packet to remove. cuts: their first byte and the byte after them."""

    def __init__(self, packet: bytes) -> None:
        self.cuts: list[tuple[int, int]] = []
        self.notes: list[str] = []
        self._packet = packet
        self._open: list[_Element] = []
        self._prefixes: dict[str, str] = {}
        self._parser = expat.ParserCreate("utf-8")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        self._parser.StartDoctypeDeclHandler = self._refuse

    def run(self) -> None:
        self._parser.Parse(self._packet, True)

    def _start(self, _: str, attributes: dict[str, str]) -> None:
        at = self._parser.CurrentByteIndex
        for key, value in attributes.items():
            if key.startswith("xmlns:"):
                self._prefixes[key[6:]] = _PREFIXES.get(value, f"?{key[6:]}")
        tag = self._tag_at(at)
        self._open.append(_Element(tag))
        written = {m[1].decode(): m.span() for m in _ATTRIBUTE.finditer(self._packet, *tag.span())}
        self.cuts += [written[k] for k, value in attributes.items() if self._is_unwanted(k, value)]

    def _end(self, name: str) -> None:
        element = self._open.pop()
        if self._is_unwanted(name, "".join(element.text)):
            tag = element.tag
            if not tag[0].endswith(b"/>"):
                tag = self._tag_at(self._parser.CurrentByteIndex)
            self.cuts.append((element.tag.start(), tag.end()))

    def _tag_at(self, at: int) -> re.Match[bytes]:
        tag = _TAG.match(self._packet, at)
        if tag is None:
            raise ValueError("no tag where expat saw one")
        return tag

    def _text(self, text: str) -> None:
        self._open[-1].text.append(text)

    def _refuse(self, *_: object) -> None:
        raise _NotAllowedError

    def _is_unwanted(self, name: str, value: str) -> bool:
        prefix, _, local = name.rpartition(":")
        usual = f"{self._prefixes.get(prefix, prefix)}:{local}"
        if usual in _OF_THE_FILE:
            return True
        if usual == _EXTENDED:
            self.notes.append("extended XMP left out")
            return True
        # base64 may contain line breaks.
        if _COPIES.match(usual) or holds_picture("".join(value.split()).encode()):
            self.notes.append("copies of the photo left out of its XMP")
            return True
        return False
