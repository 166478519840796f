"""Picture files made on the spot: every format and mode, sound and broken."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import ExifTags, Image, ImageCms

from bgx.image.encode import encode_picture

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from bgx.settings import Format

Colour = tuple[int, ...]

RED, GREEN, BLUE, WHITE = (230, 30, 20), (20, 200, 40), (30, 40, 220), (255, 255, 255)
QUARTERS = (RED, GREEN, BLUE, WHITE)

_STORED = {  # how an upright picture lies in a file whose EXIF orientation says so
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def quarters(
    mode: str = "RGB", colours: Sequence[Any] = QUARTERS, size: tuple[int, int] = (64, 48)
) -> Image.Image:
    """Four plain quarters: top left, top right, bottom left, bottom right."""
    width, height = size
    image = Image.new(mode, size)
    for number, colour in enumerate(colours):
        left, top = number % 2 * (width // 2), number // 2 * (height // 2)
        image.paste(colour, (left, top, left + (width + 1) // 2, top + (height + 1) // 2))
    return image


def quarter_colours(image: Image.Image) -> list[Any]:
    """The colours in the middle of the four quarters."""
    width, height = image.size
    return [
        image.getpixel((width * x // 4, height * y // 4))
        for x, y in ((1, 1), (3, 1), (1, 3), (3, 3))
    ]


def difference(first: Any, second: Any) -> int:
    """The largest difference of any two numbers."""
    return int(np.abs(np.asarray(first, np.int64) - np.asarray(second, np.int64)).max())


def encode_file(image: Image.Image, file_format: Format, *, name: str, **options: Any) -> bytes:
    """The file bgx makes of it."""
    return b"".join(encode_picture(image, file_format, name=name, **options))


def encode(image: Image.Image, file_format: str, **options: Any) -> bytes:
    """The file Pillow makes of it. file_format: Pillow's name."""
    if file_format == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    stream = io.BytesIO()
    image.save(stream, format=file_format, **options)
    return stream.getvalue()


def store(image: Image.Image, orientation: int) -> Image.Image:
    """The picture as a camera held that way stores it."""
    return image.transpose(_STORED[orientation]) if orientation in _STORED else image


def exif(*, orientation: int | None = None, dpi: tuple[float, float] | None = None) -> bytes:
    tags = Image.Exif()
    if orientation is not None:
        tags[ExifTags.Base.Orientation] = orientation
    if dpi is not None:
        tags[ExifTags.Base.XResolution], tags[ExifTags.Base.YResolution] = dpi
        tags[ExifTags.Base.ResolutionUnit] = 2
    return tags.tobytes()


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def wide_profile() -> bytes:
    """An RGB profile with wider primaries than sRGB's."""
    primaries = {
        b"rXYZ": (0.5151, 0.2412, -0.0011),
        b"gXYZ": (0.2919, 0.6922, 0.0419),
        b"bXYZ": (0.1572, 0.0666, 0.7841),
    }
    tags = {name: b"XYZ \0\0\0\0" + _fixed(values) for name, values in primaries.items()}
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags | dict.fromkeys(_CURVES, _curve(2.2)))


def grey_profile(gamma: float = 1.0) -> bytes:
    """A grey profile whose numbers are light to the power of 1 / gamma."""
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": _curve(gamma)})


def cmyk_profile() -> bytes:
    """A press with grey inks: every ink darkens by 40 of 255 lightness, black to nothing."""
    nodes = [
        [255 - 40 * (c + m + y) if not k else 0 for k in (0, 1)]
        for c in (0, 1)
        for m in (0, 1)
        for y in (0, 1)
    ]
    lattice = bytes(value for pair in nodes for grey in pair for value in (grey, 128, 128))
    straight = bytes(range(256))
    identity = _fixed((1, 0, 0, 0, 1, 0, 0, 0, 1))
    head = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0])  # inks, Lab, points an axis
    table = head + identity + straight * 4 + lattice + straight * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table})


_CURVES = (b"rTRC", b"gTRC", b"bTRC")


def _fixed(values: Iterable[float]) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"


def _profile(device: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile, version 2.4 (ICC.1:2001-04)."""
    daylight = _fixed((0.9642, 1.0, 0.8249))
    tags = {b"wtpt": b"XYZ \0\0\0\0" + daylight} | tags
    offset = 128 + 4 + 12 * len(tags)
    table, data = [], []
    for name, content in tags.items():
        padded = content + bytes(-len(content) % 4)
        table.append(name + struct.pack(">II", offset, len(padded)))
        data.append(padded)
        offset += len(padded)
    header = struct.pack(">I4sI", offset, bytes(4), 0x02400000) + device + space + connection
    header += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + daylight + bytes(48)
    return header + struct.pack(">I", len(tags)) + b"".join(table) + b"".join(data)


def png(
    pixels: NDArray[Any], *chunks: bytes, bits: int | None = None, palette: bool = False
) -> bytes:
    """A PNG file that Pillow itself would not write.

    pixels: uint8 or uint16 [height, width] or [height, width, channels]; packed already where bits
    is less than 8.
    """
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    depth = bits or pixels.itemsize * 8
    colour_type = 3 if palette else {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = pixels.astype(pixels.dtype.newbyteorder(">"))
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    width = width * 8 // depth if depth < 8 else width
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            png_chunk(b"IHDR", struct.pack(">II5B", width, height, depth, colour_type, 0, 0, 0)),
            *chunks,
            png_chunk(b"IDAT", zlib.compress(data)),
            png_chunk(b"IEND"),
        )
    )


def png_chunk(name: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb(file_format: str, width: int, height: int) -> bytes:
    """A header that claims so many pixels, and next to nothing behind it."""
    match file_format:
        case "PNG":
            head = png_chunk(b"IHDR", struct.pack(">II5B", width, height, 8, 2, 0, 0, 0))
            return b"\x89PNG\r\n\x1a\n" + head + png_chunk(b"IDAT", zlib.compress(bytes(99)))
        case "BMP":
            info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
            return b"BM" + struct.pack("<IHHI", 54 + 99, 0, 0, 54) + info + bytes(99)
        case "GIF":
            screen = struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
            frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0)
            return b"GIF89a" + screen + frame + b"\x02\x02\x44\x01\x00;"
    raise ValueError(file_format)


def product(size: tuple[int, int] = (480, 360)) -> tuple[Image.Image, Image.Image]:
    """A drawn photo of a ball on a table and its true alpha, both exact in every pixel.

    The same at any size: coordinates run from 0 to 1 over the shorter side.
    """
    width, height = size
    unit = min(size)
    x = (np.arange(width) + 0.5)[None, :] / unit
    y = (np.arange(height) + 0.5)[:, None] / unit
    reach = np.hypot(x - 0.5 * width / unit, y - 0.5 * height / unit)
    alpha = ((0.32 - reach) * unit + 0.5).clip(0, 1)
    shade = 1 - 0.6 * np.hypot(x - 0.45 * width / unit, y - 0.4 * height / unit).clip(0, 1)
    ball = np.stack([220 * shade, 90 * shade, 40 * shade + 60 * (np.sin(40 * x) > 0)], axis=-1)
    table = np.stack(np.broadcast_arrays(60 + 40 * y, 80 + 30 * x, 110 + 0 * x * y), axis=-1)
    photo = ball * alpha[..., None] + table * (1 - alpha[..., None])
    return _image(photo), _image(alpha * 255)


def _image(values: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray((values + 0.5).clip(0, 255).astype(np.uint8))
