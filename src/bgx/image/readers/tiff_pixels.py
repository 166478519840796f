"""Decodes TIFF samples of any layout and depth.

Pillow decodes many kinds of TIFF wrongly without an error (16-bit planes, 12 bits, inverted or
unsigned wide samples, float with a predictor in big-endian files). So only the byte-wise
decompression is left to libtiff; numpy makes samples of the bytes, after TIFF 6.0, sections 2 to
23, and Adobe's technical notes on predictors.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from bgx.image.ifd import DamagedError, Directory, Structure
from bgx.image.readers.base import Decoded, NotReadError
from bgx.image.rgb import find_white, scale_to_8_bits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Samples = NDArray[Any]


class Tag(IntEnum):
    """Tags of a page, named as in TIFF 6.0."""

    NEW_SUBFILE_TYPE = 254
    SUBFILE_TYPE = 255
    WIDTH = 256
    LENGTH = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    STRIP_OFFSETS = 273
    ORIENTATION = 274
    SAMPLES = 277
    ROWS_PER_STRIP = 278
    STRIP_COUNTS = 279
    PLANAR = 284
    PREDICTOR = 317
    COLOUR_MAP = 320
    TILE_WIDTH = 322
    TILE_LENGTH = 323
    TILE_OFFSETS = 324
    TILE_COUNTS = 325
    JPEG_TABLES = 347
    SUB_IFDS = 330
    INK_SET = 332
    DOT_RANGE = 336
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339
    INDEXED = 346
    YCBCR_COEFFICIENTS = 529
    YCBCR_SUBSAMPLING = 530
    REFERENCE_BLACK_WHITE = 532
    XMP = 700
    IMAGE_DEPTH = 32997
    ICC = 34675


WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, CIE_LAB, ICC_LAB = 0, 1, 2, 3, 5, 6, 8, 9
_COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3} | {
    CIE_LAB: 3,
    ICC_LAB: 3,
}
"""Samples per pixel of each photometric interpretation, without extra samples."""

_UNSIGNED, _SIGNED, _FLOAT, _UNDEFINED = 1, 2, 3, 4
_FORMAT_NAMES = {2: "signed", 3: "float", 5: "complex", 6: "complex"}

_NONE, _FILL_REVERSED = 1, 2
BYTEWISE = {_NONE, 5, 8, 32773, 32946, 34925, 50000}
"""Compressions: none, LZW, deflate, PackBits, deflate (old number), LZMA, Zstandard."""

_PREDICTING = BYTEWISE - {_NONE, 32773}

_MOST_SAMPLES = 64

_MOST_SMALL_CHUNKS = 1 << 16
"""Strips and tiles of less than 64 pixels: each takes some hundred bytes of memory."""

_AT_ONCE = 1 << 25
"""Most bytes that are decompressed together."""

_ROWS_AT_ONCE = 256

_ASSOCIATED, _UNASSOCIATED, _COREL = 1, 2, 999
"""Values of ExtraSamples that mean alpha; Corel Draw 10 writes a value of its own."""

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Page:
    """The description of a picture in a directory of a TIFF. Raises DamagedError."""

    def __init__(self, structure: Structure, directory: Directory) -> None:
        self.structure = structure
        self.directory = directory
        self.size = int(self.number(Tag.WIDTH, 0)), int(self.number(Tag.LENGTH, 0))
        self.compression = int(self.number(Tag.COMPRESSION, 1))
        self.photometric = int(self.number(Tag.PHOTOMETRIC, -1))
        self.samples = int(self.number(Tag.SAMPLES, 1))
        self.planar = int(self.number(Tag.PLANAR, 1)) if self.samples > 1 else 1
        # Like libtiff, ignore the tag if the compression does not use predictors.
        predicted = self.compression in _PREDICTING
        self.predictor = int(self.number(Tag.PREDICTOR, 1)) if predicted else 1
        self.fill_order = int(self.number(Tag.FILL_ORDER, 1))
        kinds = self.numbers(Tag.EXTRA_SAMPLES, _MOST_SAMPLES)
        self.extra_samples = tuple(int(kind) for kind in kinds)
        self.bits = self._same(Tag.BITS, 1)
        self.sample_format = self._same(Tag.SAMPLE_FORMAT, _UNSIGNED)

    @property
    def pixels(self) -> int:
        return self.size[0] * self.size[1]

    @property
    def orientation(self) -> int:
        return int(self.number(Tag.ORIENTATION, 1))

    @property
    def is_flat(self) -> bool:
        """Whether it is an ordinary picture: not a volume, and not indexed."""
        return (self.number(Tag.IMAGE_DEPTH, 1), self.number(Tag.INDEXED, 0)) == (1, 0)

    def numbers(self, tag: int, most: int | None = None) -> tuple[Any, ...]:
        entry = self.directory.entries.get(tag)
        return self.structure.numbers(entry, most) if entry else ()

    def number(self, tag: int, default: float) -> Any:
        values = self.numbers(tag, 1)
        return values[0] if values else default

    def raw(self, tag: int) -> bytes | None:
        entry = self.directory.entries.get(tag)
        return self.structure.raw(entry) if entry else None

    def describe(self) -> str:
        kind = _FORMAT_NAMES.get(self.sample_format, "")
        bits = f"{self.bits}-bit" if self.bits else "mixed"
        return (
            f"{self.samples} x {bits} {kind} samples, photometric {self.photometric}, "
            f"compression {self.compression}, planes {self.planar}, predictor {self.predictor}"
        ).replace("  ", " ")

    def _same(self, tag: int, default: int) -> int:
        """The value that all samples of a pixel have in common; 0 if they differ."""
        values = set(self.numbers(tag, min(self.samples, _MOST_SAMPLES))) or {default}
        return int(values.pop()) if len(values) == 1 else 0


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A strip or tile. box: left, top, right, bottom in the picture. plane: 0 for interleaved
    samples. at, size: offset and number of its bytes in the file."""

    box: tuple[int, int, int, int]
    plane: int
    at: int
    size: int


@dataclass(frozen=True, slots=True)
class _Form:
    """Layout of the decompressed bytes of a strip or tile.

    width, rows: of a full one, pixels. row_bytes, byte_rows: bytes per row, and number of such
    rows. samples: per pixel in one strip or tile. units: chroma is subsampled, and a row of bytes
    is a row of blocks of pixels.
    """

    width: int
    rows: int
    row_bytes: int
    byte_rows: int
    samples: int
    units: bool = False


def check_chunks(page: Page) -> Iterator[bytes]:
    """The compressed strips or tiles, one after the other.

    Raises DamagedError at once if one is missing or is beyond the end of the file.
    """
    chunks = list(_chunks(page, _form(page)))
    return (page.structure.bytes_at(chunk.at, chunk.size) for chunk in chunks)


def read_pixels(page: Page) -> Decoded:
    """Decode a picture and its alpha.

    Raises NotReadError for an unsupported kind, DamagedError, and whatever Pillow raises.
    """
    _refuse_unknown(page)
    samples = _read_samples(page)
    colours = _COLOURS[page.photometric]
    extra = samples[..., colours:]
    kinds = page.extra_samples[: extra.shape[-1]]
    notes = []
    alpha = None
    if not kinds and page.photometric == RGB and extra.shape[-1] == 1:
        # Writers that leave out ExtraSamples mean straight alpha; but some leave it all 0.
        kinds = (_UNASSOCIATED,) if extra.any() else (0,)
    found = next((n for n, kind in enumerate(kinds) if kind in _ALPHAS), None)
    if found is not None:
        alpha = extra[..., found]
    if extra.shape[-1] > (found is not None):
        notes.append("extra channels of the TIFF left out")
    wide = samples[..., :colours]
    if alpha is not None and kinds[found or 0] == _ASSOCIATED:
        wide = _divide(wide, alpha, page)
    image = _TO_IMAGE[page.photometric](wide, page)
    opacity = None if alpha is None else Image.fromarray(_narrow(alpha[..., None], page)[..., 0])
    return Decoded(image, alpha=opacity, orientation=page.orientation, notes=notes)


_ALPHAS = {_ASSOCIATED, _UNASSOCIATED, _COREL}


def _refuse_unknown(page: Page) -> None:
    kind = page.sample_format
    subsampled = page.photometric == YCBCR and _subsampling(page) != (1, 1)
    bits = {
        _UNSIGNED: {*range(1, 17), 32},
        _UNDEFINED: {*range(1, 17), 32},
        _SIGNED: {32},
        _FLOAT: {16, 32, 64},
    }.get(kind, set[int]())
    if kind == _SIGNED and page.bits in {8, 16}:
        raise NotReadError(
            f"is a TIFF of signed {page.bits}-bit samples, for which black and white are not "
            "agreed on; save it with unsigned ones"
        )
    wrong = (
        page.photometric not in _COLOURS
        or page.bits not in bits
        or page.samples < _COLOURS[page.photometric]
        or page.samples > _MOST_SAMPLES
        or page.planar not in {1, 2}
        or page.fill_order not in {1, _FILL_REVERSED}
        or page.compression not in BYTEWISE
        or not _is_known_predictor(page)
        or not page.is_flat
        or (page.photometric == CMYK and not _is_plain_cmyk(page))
        or (page.photometric in {YCBCR, CIE_LAB, ICC_LAB} and kind in {_SIGNED, _FLOAT})
        or (page.photometric == YCBCR and page.bits != 8)
        or (page.photometric in {CIE_LAB, ICC_LAB} and page.bits not in {8, 16})
        or (page.photometric == PALETTE and (page.bits > 16 or kind in {_SIGNED, _FLOAT}))
        or (subsampled and (page.planar == 2 or page.samples != 3 or page.predictor != 1))
    )
    if wrong:
        raise NotReadError(
            f"is a TIFF that bgx cannot read: {page.describe()}; save it as 8- or 16-bit RGB "
            "without compression"
        )


def _is_known_predictor(page: Page) -> bool:
    match page.predictor:
        case 1:
            return True
        case 2:
            return page.bits in {8, 16, 32, 64}
        case 3:
            return page.sample_format == _FLOAT
    return False


def _is_plain_cmyk(page: Page) -> bool:
    """Whether the inks are cyan, magenta, yellow and black, and higher values mean more ink."""
    dots = page.numbers(Tag.DOT_RANGE)[:2]
    return page.number(Tag.INK_SET, 1) == 1 and (not dots or dots[0] < dots[1])


def _subsampling(page: Page) -> tuple[int, int]:
    across, down = (*page.numbers(Tag.YCBCR_SUBSAMPLING), 2, 2)[:2]
    if {across, down} - {1, 2, 4}:
        raise DamagedError("an impossible subsampling")
    return across, down


# From bytes to samples --------------------------------------------------------------------------


def _form(page: Page) -> _Form:
    width, height = page.size
    if Tag.TILE_WIDTH in page.directory.entries:
        across, down = int(page.number(Tag.TILE_WIDTH, 0)), int(page.number(Tag.TILE_LENGTH, 0))
    else:
        across, down = width, min(height, int(page.number(Tag.ROWS_PER_STRIP, height)))
    if across <= 0 or down <= 0:
        raise DamagedError("strips or tiles of no size")
    samples = page.samples if page.planar == 1 else 1
    whole = page.pixels * page.samples * page.bits // 8
    if across * down * samples * page.bits // 8 > max(whole, _AT_ONCE):
        raise DamagedError("tiles far larger than the picture")
    if page.photometric == YCBCR and page.compression in BYTEWISE:
        right, below = _subsampling(page)
        if (right, below) != (1, 1):
            # TIFF 6.0, section 21: a block has the luma of all its pixels, then one Cb and one Cr.
            units = -(-across // right)
            return _Form(across, down, units * (right * below + 2), -(-down // below), 3, True)
    return _Form(across, down, -(-across * samples * page.bits // 8), down, samples)


def _chunks(page: Page, form: _Form) -> Iterator[_Chunk]:
    """The strips or tiles in the file's order. Raises DamagedError if one is incomplete."""
    width, height = page.size
    tiled = Tag.TILE_WIDTH in page.directory.entries
    across, down = -(-width // form.width), -(-height // form.rows)
    planes = page.samples if page.planar == 2 else 1
    count = across * down * planes
    if count > max(_MOST_SMALL_CHUNKS, page.pixels * planes // 64):
        raise DamagedError("strips or tiles of a few pixels each")
    offsets = page.numbers(Tag.TILE_OFFSETS if tiled else Tag.STRIP_OFFSETS, count)
    sizes = page.numbers(Tag.TILE_COUNTS if tiled else Tag.STRIP_COUNTS, count)
    length = page.structure.length
    if len(offsets) < count:
        raise DamagedError(f"only {len(offsets)} of {count} strips or tiles")
    for number in range(count):
        plane, place = divmod(number, across * down)
        row, column = divmod(place, across)
        left, top = column * form.width, row * form.rows
        box = left, top, min(left + form.width, width), min(top + form.rows, height)
        at = offsets[number]
        # Some writers leave out the size, or write 0, if there is only one strip.
        size = sizes[number] if number < len(sizes) else 0
        if not size and count == 1:
            size = length - at
        if page.compression == _NONE:
            rows = form.rows if tiled else box[3] - box[1]
            needed = form.row_bytes * -(-rows * form.byte_rows // form.rows)
            size = needed if size >= needed or not sizes else 0
        if (
            not at
            or at >= length
            or size <= 0
            or (page.compression == _NONE and at + size > length)
        ):
            raise DamagedError(f"truncated: strip or tile {number} is missing")
        yield _Chunk(box, plane, at, min(size, length - at))


def _read_samples(page: Page) -> Samples:
    """All samples, [height, width, samples], in native byte order: unsigned, signed or float."""
    form = _form(page)
    width, height = page.size
    samples = np.empty((height, width, page.samples), _dtype(page))
    chunks = list(_chunks(page, form))
    for some in _group(chunks, form):
        rows = _decompress(page, form, some)
        for chunk in some:
            left, top, right, bottom = chunk.box
            used = form.byte_rows if _is_tiled(page) else _byte_rows(form, bottom - top)
            values = _unpack(page, form, rows[:used])
            rows = rows[used:]
            target = samples[top:bottom, left:right]
            if page.planar == 2:
                target = target[..., chunk.plane : chunk.plane + 1]
            target[:] = values[: bottom - top, : right - left]
    return samples


def _is_tiled(page: Page) -> bool:
    return Tag.TILE_WIDTH in page.directory.entries


def _byte_rows(form: _Form, rows: int) -> int:
    return -(-rows * form.byte_rows // form.rows)


def _group(chunks: Sequence[_Chunk], form: _Form) -> Iterator[Sequence[_Chunk]]:
    """Groups of strips or tiles of one plane that are decompressed together."""
    most = max(1, _AT_ONCE // (form.row_bytes * form.byte_rows))
    start = 0
    while start < len(chunks):
        end = start + 1
        while end < min(start + most, len(chunks)) and chunks[end].plane == chunks[start].plane:
            end += 1
        yield chunks[start:end]
        start = end


def _dtype(page: Page) -> np.dtype[Any]:
    """The smallest type that holds the samples."""
    size = next(size for size in (1, 2, 4, 8) if page.bits <= 8 * size)
    kind = {_FLOAT: "f", _SIGNED: "i"}.get(page.sample_format, "u")
    return np.dtype(f"{kind}{size}")


def _decompress(page: Page, form: _Form, chunks: Sequence[_Chunk]) -> NDArray[np.uint8]:
    """Decompress strips or tiles: their rows, concatenated, uint8 [rows, form.row_bytes]."""
    data = [page.structure.bytes_at(chunk.at, chunk.size) for chunk in chunks]
    heights = [
        form.byte_rows if _is_tiled(page) else _byte_rows(form, chunk.box[3] - chunk.box[1])
        for chunk in chunks
    ]
    if page.compression == _NONE:
        joined = b"".join(data)
        if page.fill_order == _FILL_REVERSED:
            joined = joined.translate(_REVERSED)
        return np.frombuffer(joined, np.uint8).reshape(sum(heights), form.row_bytes)
    # Presented to libtiff as an 8-bit grey picture, whose bytes it only decompresses.
    picture = _write_grey(page, form, data, sum(heights))
    with Image.open(io.BytesIO(picture), formats=("TIFF",)) as opened:
        return np.asarray(opened)


def _write_grey(page: Page, form: _Form, data: Sequence[bytes], height: int) -> bytes:
    """A grey TIFF of these strips, whose pixels are the decompressed bytes."""
    count = len(data)
    tags = [
        (Tag.WIDTH, form.row_bytes),
        (Tag.LENGTH, height),
        (Tag.BITS, 8),
        (Tag.COMPRESSION, page.compression),
        (Tag.PHOTOMETRIC, BLACK_IS_ZERO),
        (Tag.FILL_ORDER, page.fill_order),
        (Tag.STRIP_OFFSETS, 0),
        (Tag.SAMPLES, 1),
        (Tag.ROWS_PER_STRIP, form.byte_rows),
        (Tag.STRIP_COUNTS, 0),
    ]
    lists = 8 + 2 + 12 * len(tags) + 4
    place = lists + 8 * count
    offsets = []
    for strip in data:
        offsets.append(place)
        place += len(strip)
    sizes = [len(strip) for strip in data]
    table = b""
    for tag, value in tags:
        if tag in {Tag.STRIP_OFFSETS, Tag.STRIP_COUNTS}:
            at = lists if tag == Tag.STRIP_OFFSETS else lists + 4 * count
            one = offsets[0] if tag == Tag.STRIP_OFFSETS else sizes[0]
            table += struct.pack("<HHII", tag, 4, count, one if count == 1 else at)
        else:
            table += struct.pack("<HHII", tag, 4, 1, value)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + table + bytes(4)
    return b"".join([head, struct.pack(f"<{2 * count}I", *offsets, *sizes), *data])


def _unpack(page: Page, form: _Form, rows: NDArray[np.uint8]) -> Samples:
    """Make samples, [rows, width, samples], of the decompressed bytes of a strip or tile."""
    if form.units:
        return _unpack_subsampled(page, form, rows)
    count = form.width * form.samples
    order = page.structure.order
    shape = len(rows), form.width, form.samples
    if page.predictor == 3:
        return _undo_float_predictor(rows, page.bits // 8, form).reshape(shape)
    if page.bits not in {8, 16, 32, 64}:
        return _unpack_bits(rows, count, page.bits).astype(_dtype(page)).reshape(shape)
    unsigned = np.dtype(f"{order}u{page.bits // 8}")
    values = np.ascontiguousarray(rows).view(unsigned).reshape(shape)
    if page.predictor == 2:
        values = np.add.accumulate(values, axis=1, dtype=unsigned.newbyteorder("="))
    native = values.astype(unsigned.newbyteorder("="), copy=False)
    return native.view(_dtype(page))


def _unpack_bits(rows: NDArray[np.uint8], count: int, bits: int) -> NDArray[np.uint32]:
    """Unpack samples of any number of bits, most significant first; rows begin on a byte."""
    single = np.unpackbits(rows, axis=1)[:, : count * bits].reshape(len(rows), count, bits)
    values = np.zeros((len(rows), count), np.uint32)
    for bit in range(bits):
        values = values << np.uint32(1) | single[..., bit]
    return values


def _undo_float_predictor(rows: NDArray[np.uint8], size: int, form: _Form) -> Samples:
    """Undo predictor 3: a row has all most significant bytes first, and stores differences.

    See Adobe Photoshop TIFF Technical Note 3.
    """
    length = form.width * form.samples
    summed = np.add.accumulate(
        rows.reshape(len(rows), -1, form.samples), axis=1, dtype=np.uint8
    ).reshape(len(rows), size, length)
    return (
        np.ascontiguousarray(summed.transpose(0, 2, 1))
        .view(f">f{size}")
        .astype(f"=f{size}")[..., 0]
    )


def _unpack_subsampled(page: Page, form: _Form, rows: NDArray[np.uint8]) -> Samples:
    across, down = _subsampling(page)
    units = rows.reshape(len(rows), -1, across * down + 2)
    blocks = units[..., :-2].reshape(len(rows), units.shape[1], down, across)
    light = blocks.transpose(0, 2, 1, 3).reshape(len(rows) * down, -1)
    colours = units[..., -2:].repeat(down, axis=0).repeat(across, axis=1)
    return np.dstack([light, colours])[:, : form.width]


# From samples to pictures -----------------------------------------------------------------------


def _narrow(values: Samples, page: Page, *, invert: bool = False) -> NDArray[np.uint8]:
    """Scale samples to 0..255."""
    kind = page.sample_format
    white = None if kind in {_FLOAT, _SIGNED} or page.bits > 16 else float(2**page.bits - 1)
    if kind == _SIGNED and values.min(initial=0) < 0:
        raise NotReadError(
            "is a TIFF of signed samples, some below 0, for which black and white are not agreed "
            "on; save it with unsigned ones"
        )
    if values.dtype == np.uint8 and page.bits == 8:
        return 255 - values if invert else values
    return scale_to_8_bits(values, white, invert=invert)


def _divide(values: Samples, alpha: Samples, page: Page) -> Samples:
    """Divide premultiplied colours by alpha; they become 0 where alpha is 0."""
    most = 1.0 if page.sample_format == _FLOAT else float(2**page.bits - 1)
    if page.sample_format == _FLOAT:
        most = find_white(alpha.dtype, float(np.nanmax(alpha, initial=0.0)))
    divided = np.zeros(values.shape, values.dtype)
    for top in range(0, len(values), _ROWS_AT_ONCE):
        rows = slice(top, top + _ROWS_AT_ONCE)
        opacity = alpha[rows, :, None].astype(np.float64)
        straight = np.divide(
            values[rows] * most, opacity, out=np.zeros(values[rows].shape), where=opacity > 0
        )
        if page.sample_format != _FLOAT:
            straight = np.minimum(straight, most) + 0.5
        divided[rows] = straight.astype(values.dtype)
    return divided


def _grey_image(values: Samples, page: Page) -> Image.Image:
    invert = page.photometric == WHITE_IS_ZERO
    return Image.fromarray(_narrow(values, page, invert=invert)[..., 0])


def _rgb_image(values: Samples, page: Page) -> Image.Image:
    return Image.fromarray(_narrow(values, page))


def _palette_image(values: Samples, page: Page) -> Image.Image:
    entries = 2**page.bits
    numbers = np.array(page.numbers(Tag.COLOUR_MAP), np.uint32)
    if len(numbers) < 3 * entries:
        raise DamagedError("a palette with too few colours")
    if numbers.max() > 255:  # otherwise it is an 8-bit palette, which libtiff accepts too
        numbers = (numbers * 255 + 32767) // 65535
    colours = numbers[: 3 * entries].reshape(3, entries).T.astype(np.uint8)
    return Image.fromarray(colours[values[..., 0]])


def _cmyk_image(values: Samples, page: Page) -> Image.Image:
    return Image.frombytes("CMYK", page.size, _narrow(values, page).tobytes())


def _lab_image(values: Samples, page: Page) -> Image.Image:
    """Mode LAB; Pillow's raw bytes are L* as 0..255 and signed a* and b*."""
    if page.bits == 16:
        narrow = (values >> 8).astype(np.uint8)
        if page.photometric == CIE_LAB:  # 65535 is white there, 65280 in the other
            narrow[..., 0] = _narrow(values[..., :1], page)[..., 0]
    else:
        narrow = values.copy()
    if page.photometric == ICC_LAB:  # a* and b* plus 128
        narrow[..., 1:] ^= 0x80
    return Image.frombytes("LAB", page.size, narrow.tobytes())


def _ycbcr_image(values: Samples, page: Page) -> Image.Image:
    """TIFF 6.0, section 21."""
    red, green, blue = (*page.numbers(Tag.YCBCR_COEFFICIENTS), 0.299, 0.587, 0.114)[:3]
    if Tag.YCBCR_COEFFICIENTS not in page.directory.entries:
        red, green, blue = 0.299, 0.587, 0.114
    ranges = page.numbers(Tag.REFERENCE_BLACK_WHITE)
    if len(ranges) != 6:
        ranges = (0, 255, 128, 255, 128, 255)
    spans = [high - low for low, high in zip(ranges[::2], ranges[1::2], strict=True)]
    if not all(spans) or not green:
        raise DamagedError("a description of its colours that cannot be")
    picture = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), _ROWS_AT_ONCE):
        rows = values[top : top + _ROWS_AT_ONCE].astype(np.float32)
        light = (rows[..., 0] - ranges[0]) * (255 / spans[0])
        blueness = (rows[..., 1] - ranges[2]) * (127 / spans[1])
        redness = (rows[..., 2] - ranges[4]) * (127 / spans[2])
        r = light + redness * (2 - 2 * red)
        b = light + blueness * (2 - 2 * blue)
        g = (light - blue * b - red * r) / green
        picture[top : top + _ROWS_AT_ONCE] = (
            (np.stack([r, g, b], axis=-1) + 0.5).clip(0, 255).astype(np.uint8)
        )
    return Image.fromarray(picture)


_TO_IMAGE = {
    WHITE_IS_ZERO: _grey_image,
    BLACK_IS_ZERO: _grey_image,
    RGB: _rgb_image,
    PALETTE: _palette_image,
    CMYK: _cmyk_image,
    YCBCR: _ycbcr_image,
    CIE_LAB: _lab_image,
    ICC_LAB: _lab_image,
}
