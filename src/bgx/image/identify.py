"""Tells the format of a file by its first bytes.

The suffix of the name is unreliable: cameras call HEIC files ``.HIF``, and a shop's ``a.png`` is
often a JPEG.
"""

from __future__ import annotations

from pathlib import PurePath

READ_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIF")
"""Pillow's names of the formats that are read; HEIF needs the extra ``heif``."""

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".tif", ".tiff"}
    | {".bmp", ".dib", ".gif", ".avif", ".heic", ".heif", ".hif"}
)
"""Lower-case suffixes of the files in a folder that are taken for pictures."""

RAW_SUFFIXES = frozenset(
    {".3fr", ".arq", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr"}
    | {".iiq", ".k25", ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".ori", ".pef"}
    | {".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"}
)
"""Lower-case suffixes of cameras' raw files. Most of them are TIFFs whose first page is a
thumbnail."""

HEAD = 512
"""Number of bytes at the start of a file that the functions here need."""

RAW_REMEDY = (
    "develop it first (darktable, RawTherapee, the camera maker's program) and give bgx the TIFF "
    "or JPEG"
)

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0", b"II+\0", b"MM\0+")
"""TIFF in both byte orders, some writers' mixture of the two, and BigTIFF."""

_BMP_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}
"""Sizes of the second header, one for each version of the format."""

_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs"}
_CONTAINER_BRANDS = {b"mif1", b"msf1", b"mif2", b"miaf"}

_RAW_MAGIC = (
    (0, b"FUJIFILMCCD-RAW"),
    (0, b"FOVb"),  # Sigma
    (0, b"\0MRM"),  # Minolta
    (0, b"IIU\0"),  # Panasonic, Leica
    (0, b"IIRO"),  # Olympus, and the next two
    (0, b"IIRS"),
    (0, b"MMOR"),
    (6, b"HEAPCCDR"),  # Canon CRW
    (4, b"ftypcrx "),  # Canon CR3
    (8, b"CR\x02\0"),  # Canon CR2, a TIFF but for these bytes
    (8, b"IIIITwaR"),  # Phase One, likewise, and the next two
    (8, b"IIIIRawT"),
    (8, b"MMMMRawT"),
)

_NOT_READ = (
    (0, b"8BPS", "a Photoshop document"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\xff\xd8\xff\xf7", "JPEG-LS"),
    (0, b"II\xbc", "JPEG XR"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript"),
    (0, b"\0\0\1\0", "an icon"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"SIMPLE  =", "FITS"),
    (128, b"DICM", "DICOM"),
    (0, b"gimp xcf ", "a GIMP document"),
    (0, b"qoif", "QOI"),
    (0, b"<svg", "SVG"),
    (0, b"PK\3\4", "a ZIP archive"),
)


def identify(head: bytes) -> str:
    """One of READ_FORMATS, ``RAW`` for a camera's raw file, or ``""``.

    head: the file's first HEAD bytes, or all if it has fewer. Most raw files are TIFFs that can
    only be recognised by their tags; :mod:`bgx.image.readers.tiff` does that.
    """
    if any(head.startswith(magic, at) for at, magic in _RAW_MAGIC):
        return "RAW"
    if head.startswith(b"\xff\xd8\xff") and not head.startswith(b"\xff\xd8\xff\xf7"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith(b"RIFF") and head.startswith(b"WEBP", 8):
        return "WEBP"
    if head.startswith(_TIFF_MAGIC):
        return "TIFF"
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    return _identify_boxes(head)


def looks_like_picture(head: bytes) -> bool:
    """Whether a file that begins like this is of a format that bgx reads.

    head: as for :func:`identify`. Not for files with one of RAW_SUFFIXES, which may be TIFFs.
    """
    return identify(head) in READ_FORMATS


def is_raw_name(name: str) -> bool:
    """Whether the name has a suffix of cameras' raw files."""
    return PurePath(name).suffix.lower() in RAW_SUFFIXES


def name_unread(head: bytes) -> str | None:
    """The name of a known format that bgx does not read, for messages; None if it is unknown."""
    if head.startswith(b"ftyp", 4):
        return "a video" if not _identify_boxes(head) else None
    return next((what for at, magic, what in _NOT_READ if head.startswith(magic, at)), None)


def _identify_boxes(head: bytes) -> str:
    """AVIF and HEIF by the brands of their first box (ISO/IEC 14496-12, 4.3)."""
    if not head.startswith(b"ftyp", 4):
        return ""
    size = int.from_bytes(head[:4], "big")
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, min(size, len(head)) - 3, 4))]
    major = brands[0]
    if major not in _AVIF_BRANDS | _HEIF_BRANDS | _CONTAINER_BRANDS:
        return ""
    # A container's own brand leaves open what is inside; its compatible brands tell.
    told = next((brand for brand in brands if brand in _AVIF_BRANDS | _HEIF_BRANDS), b"")
    return "AVIF" if told in _AVIF_BRANDS else "HEIF"
