"""Pictures of known colours in every variety of file that people have, one case each.

The colours that must come out are worked out from the numbers put in, not read by another decoder.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from support import tiffs
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
    each number. hidden: colours count only where alpha is above this, 0..255."""

    data: bytes
    colours: NDArray[Any] | None
    alpha: NDArray[Any] | None = None
    tolerance: int = 1
    hidden: int = -1


@dataclass(frozen=True)
class Case:
    name: str
    make: Callable[[], Picture]


def all_cases() -> Iterator[Case]:
    yield from _tiff_cases()
    yield from _tiff_palettes()


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


def _tiff_varieties() -> Iterator[Variety]:
    layouts = itertools.product("<>", (1, 2), (None, (16, 16)))
    codings = [("none", 1), ("none", 2), ("lzw", 1), ("lzw", 2), ("deflate", 1), ("packbits", 1)]
    contents = itertools.product(
        _DEPTHS,
        (tiffs.GREY_INVERTED, tiffs.GREY, tiffs.RGB, tiffs.CMYK),
        ((), (2,), (1,), (0, 2)),
    )
    for number, (layout, coding, content) in enumerate(
        itertools.product(layouts, [*codings, ("lzma", 1)], contents)
    ):
        (order, planar, tile), (compression, fill) = layout, coding
        (bits, kind), photometric, extra = content
        predictors = [1]
        if compression in _PREDICTING and bits in {8, 16, 32, 64}:
            predictors = [1, 2, 3] if kind == "f" else [1, 2]
        if fill == 2:
            predictors = predictors[:1]
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
