"""Pictures of known colours in every variety of file that people have, one case each.

The colours that must come out are worked out from the numbers put in, not read by another decoder.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from support import tiffs
from support.bitmaps import PNG_CHANNELS, Bmp, pack_masks, write_bmp, write_png
from support.pictures import encode, exif, png_chunk, quarters, store
from support.tiffs import Variety, write_tiff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

WIDTH, HEIGHT = 37, 29
"""Odd, so that no row, strip, tile or block fits."""


@dataclass(frozen=True)
class Picture:
    """data: the file. colours: [height, width, 3], 0..255, what must come out; None where the file
    must be refused. alpha: likewise, [height, width]; None for an opaque picture. tolerance: of
    each number. hidden: colours count only where alpha is above this, 0..255. edges: between plain
    areas, numbers may be anything.
    """

    data: bytes
    colours: NDArray[Any] | None
    alpha: NDArray[Any] | None = None
    tolerance: int = 1
    hidden: int = -1
    edges: bool = False


@dataclass(frozen=True)
class Case:
    name: str
    make: Callable[[], Picture]


def all_cases() -> Iterator[Case]:
    yield from _tiff_cases()
    yield from _tiff_palettes()
    yield from _png_cases()
    yield from _bmp_cases()
    yield from _lossy_cases()


def _random(shape: tuple[int, ...], bits: int, kind: str) -> NDArray[Any]:
    rng = np.random.default_rng(bits)
    if kind == "f":
        return rng.random(shape).astype(f"f{bits // 8}")
    # From black to white, whatever is drawn: of a wide number it is guessed from the brightest.
    values = rng.integers(0, 2**bits, shape)
    values[0, 0], values[0, 1] = 0, 2**bits - 1
    return values


def _to_8_bits(values: NDArray[Any], bits: int, kind: str) -> NDArray[Any]:
    most = 1.0 if kind == "f" else float(2**bits - 1)
    return np.round(values.astype(np.float64) * (255 / most))


_DEPTHS = [(bits, "u") for bits in (1, 2, 4, 8, 10, 12, 14, 16, 32)] + [
    (16, "f"),
    (32, "f"),
    (64, "f"),
    (8, "i"),
    (16, "i"),
]
_PREDICTING = {"lzw", "deflate", "lzma"}


_INKS = (tiffs.GREY_INVERTED, tiffs.GREY, tiffs.RGB, tiffs.CMYK)
_CODINGS = [
    # Compression and order of the bits in a byte, with all contents and then with some.
    *itertools.product(
        [("none", 1), ("lzw", 1)], itertools.product(_DEPTHS, _INKS, ((), (2,), (1,), (0, 2)))
    ),
    *itertools.product(
        [("none", 2), ("lzw", 2), ("deflate", 1), ("packbits", 1), ("lzma", 1)],
        itertools.product([(1, "u"), (8, "u"), (12, "u"), (16, "u"), (32, "f")], _INKS, ((), (2,))),
    ),
]


def _tiff_varieties() -> Iterator[Variety]:
    layouts = list(itertools.product("<>", (1, 2), (None, (16, 16))))
    for number, (layout, coding) in enumerate(itertools.product(layouts, _CODINGS)):
        order, planar, tile = layout
        (compression, fill), ((bits, kind), photometric, extra) = coding
        predictors = [1]
        if compression in _PREDICTING and fill == 1 and bits in {8, 16, 32, 64}:
            predictors = [1, 2, 3] if kind == "f" else [1, 2]
        for predictor in predictors:
            yield Variety(
                photometric=photometric,
                bits=bits,
                kind=kind,
                planar=planar,
                compression=compression,
                predictor=predictor,
                order=order,
                tile=tile,
                fill_order=fill,
                extra=extra,
                big=number % 3 == 0,
            )


def _tiff_cases() -> Iterator[Case]:
    for variety in _tiff_varieties():
        yield Case(f"TIFF {variety.name}", partial(_tiff, variety))


def _tiff(variety: Variety) -> Picture:
    inks = tiffs.CHANNELS[variety.photometric]
    extra = variety.extra or ()
    shape = HEIGHT, WIDTH, inks + len(extra)
    samples = _random(shape, variety.bits, variety.kind)
    if variety.kind == "i":
        return Picture(write_tiff(samples // 2, variety), None)
    alpha = None
    hidden, tolerance = -1, 1
    told = next((place for place, kind in enumerate(extra) if kind in {1, 2}), None)
    colours = samples[..., :inks]
    if told is not None:
        opacity = samples[..., inks + told]
        alpha = _to_8_bits(opacity, variety.bits, variety.kind)
        if extra[told] == 1:
            # Dividing by alpha enlarges the rounding of what was multiplied by it.
            hidden = 127
            tolerance = 128 if variety.bits < 8 else 3 if variety.bits == 8 else 1
            most = 1 if variety.kind == "f" else 2**variety.bits - 1
            dimmed = colours * (opacity[..., None] / most)
            samples = samples.copy()
            samples[..., :inks] = dimmed if variety.kind == "f" else np.round(dimmed)
    expected = _to_8_bits(colours, variety.bits, variety.kind)
    if variety.photometric == tiffs.GREY_INVERTED:
        expected = 255 - expected
    if variety.photometric == tiffs.CMYK:
        # Without a profile: what the inks leave of the light.
        expected = (255 - expected[..., :3]) * (255 - expected[..., 3:]) / 255
        tolerance += 2
    wanted = np.broadcast_to(expected, (HEIGHT, WIDTH, 3))
    return Picture(write_tiff(samples, variety), wanted, alpha, tolerance, hidden)


def _tiff_palettes() -> Iterator[Case]:
    for bits, small, order, fill, tile, extra in itertools.product(
        (1, 2, 4, 8, 16), (False, True), "<>", (1, 2), (None, (16, 16)), ((), (2,), (0,))
    ):
        variety = Variety(
            photometric=tiffs.PALETTE,
            bits=bits,
            order=order,
            fill_order=fill,
            tile=tile,
            extra=extra,
            small_map=small,
        )
        yield Case(f"TIFF {variety.name}", partial(_tiff_palette, variety))


def _tiff_palette(variety: Variety) -> Picture:
    bits, extra = variety.bits, variety.extra or ()
    colours = np.random.default_rng(bits).integers(0, 256, (2**bits, 3))
    colours[0], colours[-1] = 0, 255
    stored = (colours if variety.small_map else colours * 257).T.ravel().tolist()
    variety = replace(variety, more=((320, tiffs.SHORT, stored),))
    samples = _random((HEIGHT, WIDTH, 1 + len(extra)), bits, "u")
    alpha = _to_8_bits(samples[..., 1], bits, "u") if extra == (2,) else None
    return Picture(write_tiff(samples, variety), colours[samples[..., 0]], alpha)


# PNG ----------------------------------------------------------------------------------------------

_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}


def _png_cases() -> Iterator[Case]:
    for colour_type, depths in _PNG_DEPTHS.items():
        for depth, interlaced, clear in itertools.product(depths, (False, True), (False, True)):
            if clear and colour_type in {4, 6}:
                continue
            name = f"PNG colour type {colour_type}, {depth} bits, {interlaced=}, {clear=}"
            yield Case(name, partial(_png, colour_type, depth, interlaced, clear))


def _png(colour_type: int, depth: int, interlaced: bool, clear: bool) -> Picture:
    channels = PNG_CHANNELS[colour_type]
    samples = _random((HEIGHT, WIDTH, channels), depth, "u")
    if colour_type == 3:
        return _png_palette(samples, depth, interlaced, clear)
    eight = _to_8_bits(samples, depth, "u")
    chunks = []
    alpha = eight[..., -1] if colour_type in {4, 6} else None
    if clear:
        # Of 16 bits, one that differs in its lower byte alone from what is seen.
        samples[2, 3] = 256 * 7 + 9 if depth == 16 else 2**depth - 1
        samples[2, 4] = 256 * 7 + 8 if depth == 16 else 0
        eight = _to_8_bits(samples, depth, "u")
        chosen = samples[2, 3]
        chunks.append(png_chunk(b"tRNS", struct.pack(f">{channels}H", *chosen)))
        alpha = np.where((samples == chosen).all(axis=2), 0, 255)
    colours = eight[..., : 3 if colour_type in {2, 6} else 1]
    data = write_png(samples, colour_type, depth, *chunks, interlaced=interlaced)
    return Picture(data, np.broadcast_to(colours, (HEIGHT, WIDTH, 3)), alpha)


def _png_palette(samples: NDArray[Any], depth: int, interlaced: bool, clear: bool) -> Picture:
    rng = np.random.default_rng(depth)
    palette = rng.integers(0, 256, (2**depth, 3), np.uint8)
    chunks = [png_chunk(b"PLTE", palette.tobytes())]
    alpha = None
    if clear:
        opacity = rng.integers(0, 256, max(1, 2**depth - 1), np.uint8)
        chunks.append(png_chunk(b"tRNS", opacity.tobytes()))
        alpha = np.append(opacity, [255])[samples[..., 0]]
    data = write_png(samples, 3, depth, *chunks, interlaced=interlaced)
    return Picture(data, palette[samples[..., 0]], alpha)


# BMP ----------------------------------------------------------------------------------------------

_MASKS = {
    16: [
        (0x7C00, 0x03E0, 0x001F),
        (0xF800, 0x07E0, 0x001F),
        (0x7C00, 0x03E0, 0x001F, 0x8000),
        (0x0F00, 0x00F0, 0x000F, 0xF000),
        (0x000F, 0x00F0, 0x0F00, 0xF000),
    ],
    32: [
        (0xFF0000, 0xFF00, 0xFF),
        (0xFF, 0xFF00, 0xFF0000),
        (0xFF000000, 0xFF0000, 0xFF00),
        (0xFF0000, 0xFF00, 0xFF, 0xFF000000),
        (0xFF000000, 0xFF0000, 0xFF00, 0xFF),
        (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
        (0x3FF00000, 0xFFC00, 0x3FF),
        (0x3FF00000, 0xFFC00, 0x3FF, 0xC0000000),
        (0xF800, 0x07E0, 0x001F),
    ],
}


def _bmp_cases() -> Iterator[Case]:
    for top_down in (False, True):
        for bits, plain in ((16, _MASKS[16][0]), (32, _MASKS[32][0])):
            yield _bmp_case(Bmp(bits, 40, (), top_down), plain)
            for masks, header in itertools.product(_MASKS[bits], (40, 52, 56, 108, 124)):
                if len(masks) == 4 and header == 52:
                    continue
                # Headers with room for an alpha say that there is none.
                written = masks if header in {40, 52} else (*masks, 0)[:4]
                yield _bmp_case(Bmp(bits, header, written, top_down), masks)
        yield Case(f"BMP 24 {top_down}", partial(_bmp_24, Bmp(24, 40, (), top_down)))
        for bits, header, short in itertools.product((1, 4, 8), (12, 40, 124), (False, True)):
            if (top_down or short) and header == 12:
                continue
            kind = Bmp(bits, header, (), top_down)
            yield Case(f"{kind.name} {short=}", partial(_bmp_palette, kind, short))
    yield Case("BMP of an empty alpha", _bmp_empty_alpha)
    yield Case("BMP whose masks have gaps", _bmp_gaps)


def _bmp_case(kind: Bmp, masks: tuple[int, ...]) -> Case:
    return Case(f"{kind.name} as {masks}", partial(_bmp, kind, masks))


def _bmp(kind: Bmp, masks: tuple[int, ...]) -> Picture:
    rng = np.random.default_rng(kind.bits)
    channels = np.zeros((HEIGHT, WIDTH, 4), np.uint32)
    eight = np.full((HEIGHT, WIDTH, 4), 255.0)
    for number, mask in enumerate(masks):
        width = mask.bit_count()
        channels[..., number] = rng.integers(0, 2**width, (HEIGHT, WIDTH))
        eight[..., number] = _to_8_bits(channels[..., number], width, "u")
    data = write_bmp(pack_masks(channels, masks), kind)
    return Picture(data, eight[..., :3], eight[..., 3] if len(masks) == 4 else None)


def _bmp_24(kind: Bmp) -> Picture:
    colours = np.random.default_rng(24).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint32)
    return Picture(write_bmp(pack_masks(colours, (0xFF0000, 0xFF00, 0xFF)), kind), colours)


def _bmp_palette(kind: Bmp, short: bool) -> Picture:
    rng = np.random.default_rng(kind.bits)
    count = 2**kind.bits - (kind.bits > 1) * short
    palette = rng.integers(0, 256, (count, 3), np.uint8)
    pixels = rng.integers(0, count, (HEIGHT, WIDTH), np.uint32)
    return Picture(write_bmp(pixels, kind, palette), palette[pixels])


def _bmp_empty_alpha() -> Picture:
    colours = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint32)
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    return Picture(write_bmp(pack_masks(colours, masks[:3]), Bmp(32, 124, masks)), colours)


def _bmp_gaps() -> Picture:
    return Picture(write_bmp(np.zeros((9, 9), np.uint32), Bmp(32, 40, (0xF0F, 0xF0, 0xF000))), None)


# Formats that lose a little -----------------------------------------------------------------------

_SIZE = 61, 45
_TURNS = range(1, 9)


def _lossy_cases() -> Iterator[Case]:
    """Four plain quarters, each in its place whichever way the file has them."""
    jpeg: list[dict[str, Any]] = [
        {"subsampling": 0},
        {"subsampling": 1},
        {"subsampling": 2},
        {"subsampling": 2, "progressive": True},
        {"subsampling": 2, "optimize": True},
        {"subsampling": 2, "restart_marker_blocks": 3},
        {"keep_rgb": True, "subsampling": 0},
    ]
    for turn in _TURNS:
        for options in jpeg:
            yield _plain("JPEG", "RGB", turn, 8, quality=95, **options)
        for mode in ("L", "CMYK"):
            yield _plain("JPEG", mode, turn, 8, quality=95)
        for mode in ("L", "RGB", "RGBA"):
            yield _plain("WEBP", mode, turn, 12, quality=95)
            yield _plain("WEBP", mode, turn, 0, lossless=True, exact=True)
            for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
                yield _plain("AVIF", mode, turn, 10, quality=95, subsampling=subsampling)
        for mode in ("RGB", "RGBA", "P"):
            yield _plain("TIFF", mode, turn, 1, compression="tiff_lzw")
            yield _plain("PNG", mode, turn, 1)
        yield _plain("TIFF", "RGB", turn, 8, compression="jpeg", quality=95)
    if find_spec("pillow_heif"):
        for turn, mode in itertools.product(_TURNS, ("L", "RGB", "RGBA")):
            yield _plain("HEIF", mode, turn, 12, quality=95)


def _plain(file_format: str, mode: str, turn: int, tolerance: int, **options: Any) -> Case:
    name = f"{file_format} {mode} {options} orientation {turn}"
    return Case(name, partial(_quarters, file_format, mode, turn, tolerance, options))


def _quarters(
    file_format: str, mode: str, turn: int, tolerance: int, options: dict[str, Any]
) -> Picture:
    image = quarters(size=_SIZE)
    if mode == "RGBA":
        image.putalpha(quarters("L", (255, 200, 128, 255), _SIZE))
    image = image.quantize(8) if mode == "P" else image.convert(mode)
    if turn != 1:
        options = options | {"exif": exif(orientation=turn)}
    data = encode(store(image, turn), file_format, **options)
    alpha = np.asarray(image.getchannel("A"), float) if mode == "RGBA" else None
    return Picture(data, np.asarray(image.convert("RGB"), float), alpha, tolerance, edges=True)
