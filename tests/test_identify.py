"""A file's format is identified by its first bytes, not by its name."""

from __future__ import annotations

import pytest

from bgx.image.identify import HEAD, SUFFIXES, identify, is_raw_name, looks_like_picture
from support.pictures import encode, quarters


def _boxes(*brands: bytes) -> bytes:
    body = b"ftyp" + brands[0] + bytes(4) + b"".join(brands[1:])
    return (4 + len(body)).to_bytes(4, "big") + body + b"\0\0\0\x08meta"


FIRST_BYTES = {
    "HEIC of a phone": (_boxes(b"heic", b"mif1", b"heic"), "HEIF"),
    "HIF of Sony": (_boxes(b"heix", b"mif1", b"heix", b"hevc"), "HEIF"),
    "HIF of Canon": (_boxes(b"heix", b"mif1", b"heix", b"MiHE"), "HEIF"),
    "HEIF by its container": (_boxes(b"mif1", b"mif1", b"heic"), "HEIF"),
    "AVIF by its container": (_boxes(b"mif1", b"mif1", b"avif", b"miaf"), "AVIF"),
    "AVIF, animated": (_boxes(b"avis", b"avif", b"avis", b"msf1"), "AVIF"),
    "BigTIFF": (b"II+\0\x08\0\0\0", "TIFF"),
    "BigTIFF, big-endian": (b"MM\0+\0\x08\0\0", "TIFF"),
    "CR2": (b"II*\0\x10\0\0\0CR\x02\0", "RAW"),
    "CR3": (_boxes(b"crx ", b"crx ", b"isom"), "RAW"),
    "RAF": (b"FUJIFILMCCD-RAW 0201", "RAW"),
    "ORF": (b"IIRO\x08\0\0\0", "RAW"),
    "RW2": (b"IIU\0\x18\0\0\0", "RAW"),
    "X3F": (b"FOVb\0\0\2\0", "RAW"),
    "MRW": (b"\0MRM\0\0\0\0", "RAW"),
    "CRW": (b"II\x1a\0\0\0HEAPCCDR", "RAW"),
    "IIQ": (b"II*\0\x10\0\0\0IIIITwaR", "RAW"),
    "video": (_boxes(b"isom", b"mp42"), ""),
    "JPEG XL": (b"\xff\x0a" + bytes(30), ""),
    "JPEG-LS": (b"\xff\xd8\xff\xf7" + bytes(30), ""),
    "Photoshop": (b"8BPS\0\1" + bytes(30), ""),
    "a letter": (b"BMW price list, all models of the year", ""),
    "nothing": (b"", ""),
}


@pytest.mark.parametrize("kind", FIRST_BYTES)
def test_first_bytes_tell_the_format(kind: str) -> None:
    head, told = FIRST_BYTES[kind]
    assert identify(head) == told
    assert looks_like_picture(head) == (told not in {"", "RAW"})


@pytest.mark.parametrize("file_format", ["JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "AVIF"])
def test_what_is_written_is_told(file_format: str) -> None:
    data = encode(quarters(), file_format)
    assert identify(data[:HEAD]) == {"MPO": "JPEG"}.get(file_format, file_format)


def test_names() -> None:
    assert {".hif", ".mpo", ".heic"} <= SUFFIXES
    assert is_raw_name("photos/DSC_0001.NEF")
    assert not is_raw_name("photos/DSC_0001.TIF")
    assert not is_raw_name("photo from stdin")
