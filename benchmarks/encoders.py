"""Compares ways to write a cut-out as PNG: time, size, and whether the pixels are unchanged.

    python benchmarks/encoders.py --photos 12mp

Writing takes most of the time of a large cut-out. PNG filters the rows and deflates the result;
with the same filter for all rows, filtering runs at memory speed, and ISA-L (isal) deflates several
times as fast as zlib. Both work on blocks of rows that stay in the cache. With several threads,
strips are deflated in parallel and their streams joined.

bgx's own encoder and Pillow's start from an image, the others from an array of its pixels.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

import measure
import photos
from bgx.image.png import encode_png as bgx_encode_png
from bgx.machine import count_cores

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

BLOCK = 64
"""Rows filtered and deflated at once: a megabyte of a large photo, less than a core's cache."""

ADLER_BASE = 65521

LIBRARIES: dict[str, Any] = {"zlib": zlib}
"""Deflate implementations by name, all with zlib's interface; isal only where it is installed."""

LEVELS = {"zlib": [1], "isal": [0, 1, 2, 3]}

with contextlib.suppress(ImportError):
    from isal import isal_zlib

    LIBRARIES["isal"] = isal_zlib

FASTEST = "isal" if "isal" in LIBRARIES else "zlib"


@dataclass(frozen=True)
class Encoder:
    """One way to write one cut-out. pixels: what the file must decode to."""

    name: str
    threads: int
    pixels: Pixels
    encode: Callable[[], bytes]


@dataclass(frozen=True)
class Result:
    """An encoder's time and file size. exact: whether the file decodes to the original pixels."""

    encoder: str
    threads: int
    milliseconds: float
    megabytes: float
    exact: bool


def filter_up(pixels: Pixels, first: int, rows: Pixels) -> None:
    """Write each byte minus the one above it behind filter type 2.

    pixels: (height, bytes) of the whole picture. first: the row to begin with. rows: (count,
    1 + bytes), filled.
    """
    last = first + len(rows)
    rows[:, 0] = 2
    if first:
        np.subtract(pixels[first:last], pixels[first - 1 : last - 1], out=rows[:, 1:])
    else:
        rows[0, 1:] = pixels[0]
        np.subtract(pixels[1:last], pixels[: last - 1], out=rows[1:, 1:])


def filter_sub(pixels: Pixels, first: int, rows: Pixels) -> None:
    """Write each byte minus that of the RGBA pixel before it behind filter type 1."""
    block = pixels[first : first + len(rows)]
    rows[:, 0] = 1
    rows[:, 1:5] = block[:, :4]
    np.subtract(block[:, 4:], block[:, :-4], out=rows[:, 5:])


FILTERS = {"up": filter_up, "sub": filter_sub}


def encode_png(
    rgba: Pixels,
    filter_rows: Callable[[Pixels, int, Pixels], None] = filter_up,
    library: str = FASTEST,
    level: int = 1,
    threads: int = 1,
) -> bytes:
    """Return RGBA pixels (height, width, 4) as a PNG file."""
    height, width = rgba.shape[:2]
    pixels = rgba.reshape(height, -1)
    zlib_like = LIBRARIES[library]
    bounds = [height * strip // threads for strip in range(threads + 1)]
    deflate = partial(_deflate_strip, pixels, filter_rows, zlib_like, level)
    with ThreadPoolExecutor(threads) as pool:
        strips = list(pool.map(deflate, bounds[:-1], bounds[1:]))
    stream, checksum = [b"\x78\x01"], 1
    for parts, strip_checksum, length in strips:
        stream += parts
        checksum = _join_adler(checksum, strip_checksum, length)
    stream.append(struct.pack(">I", checksum))
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    chunks: list[tuple[bytes, list[bytes]]] = [
        (b"IHDR", [header]),
        (b"IDAT", stream),
        (b"IEND", []),
    ]
    file = [b"\x89PNG\r\n\x1a\n"]
    for name, data in chunks:
        crc = zlib.crc32(name)
        for part in data:
            crc = zlib_like.crc32(part, crc)
        file += [struct.pack(">I", sum(map(len, data))), name, *data, struct.pack(">I", crc)]
    return b"".join(file)


def _deflate_strip(
    pixels: Pixels,
    filter_rows: Callable[[Pixels, int, Pixels], None],
    zlib_like: Any,
    level: int,
    first: int,
    last: int,
) -> tuple[list[bytes], int, int]:
    """Return a strip's raw deflate stream, and the Adler-32 and length of what it holds."""
    deflater = zlib_like.compressobj(level, zlib.DEFLATED, -15)
    rows = np.empty((BLOCK, 1 + pixels.shape[1]), np.uint8)
    parts, checksum = [], 1
    for start in range(first, last, BLOCK):
        block = rows[: min(BLOCK, last - start)]
        filter_rows(pixels, start, block)
        checksum = zlib_like.adler32(block, checksum)
        parts.append(deflater.compress(block))
    ends = last == len(pixels)
    parts.append(deflater.flush(zlib_like.Z_FINISH if ends else zlib_like.Z_SYNC_FLUSH))
    return parts, checksum, (last - first) * rows.shape[1]


def _join_adler(one: int, other: int, length: int) -> int:
    """Adler-32 of two pieces of data from that of each and the length of the second."""
    low = (one & 0xFFFF) + (other & 0xFFFF) - 1
    high = (one >> 16) + (other >> 16) + length * ((one & 0xFFFF) - 1)
    return (high % ADLER_BASE) << 16 | low % ADLER_BASE


def cut_out(size: tuple[int, int], seed: int, *, zeroed: bool) -> Pixels:
    """A cut-out of a photo that was a JPEG. zeroed: set the colours under alpha 0 to 0."""
    photo, alpha = photos.render(*size, seed)
    with Image.open(io.BytesIO(photos.encode_jpeg(photo))) as decoded:
        rgba = np.dstack([np.asarray(decoded), np.asarray(alpha)])
    if zeroed:
        rgba[rgba[:, :, 3] == 0] = 0
    return rgba


def encode_with_pillow(picture: Image.Image, level: int) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG", compress_level=level)
    return data.getvalue()


def encode_with_bgx(picture: Image.Image, threads: int) -> bytes:
    return b"".join(bgx_encode_png(picture, threads=threads))


def make_encoders(size: tuple[int, int], seed: int, cores: int) -> list[Encoder]:
    kept, zeroed = (cut_out(size, seed, zeroed=zeroed) for zeroed in (False, True))
    encoders = []
    for colours, rgba in (("colours kept", kept), ("zeroed", zeroed)):
        picture = Image.fromarray(rgba)
        for level in (6, 1):
            call = partial(encode_with_pillow, picture, level)
            encoders.append(Encoder(f"Pillow level {level}, {colours}", 1, rgba, call))
    for threads in sorted({1, cores}):
        call = partial(encode_with_bgx, picture, threads)
        encoders.append(Encoder("bgx, zeroed", threads, zeroed, call))
    for filter_name, filter_rows in FILTERS.items():
        for library in LIBRARIES:
            for level in LEVELS[library]:
                name = f"{filter_name} + {library} level {level}, zeroed"
                for threads in sorted({1, cores}):
                    call = partial(encode_png, zeroed, filter_rows, library, level, threads)
                    encoders.append(Encoder(name, threads, zeroed, call))
    return encoders


def compare(encoders: list[Encoder], repeats: int) -> list[Result]:
    """Run every encoder once per round; its fastest round counts."""
    seconds: list[list[float]] = [[] for _ in encoders]
    files = [b""] * len(encoders)
    for _ in range(repeats):
        for index, encoder in enumerate(encoders):
            start = time.perf_counter()
            files[index] = encoder.encode()
            seconds[index].append(time.perf_counter() - start)
    return [
        Result(
            encoder.name,
            encoder.threads,
            1e3 * min(times),
            len(data) / 1e6,
            opens_to(data, encoder.pixels),
        )
        for encoder, times, data in zip(encoders, seconds, files, strict=True)
    ]


def opens_to(data: bytes, pixels: Pixels) -> bool:
    with Image.open(io.BytesIO(data)) as picture:
        return np.array_equal(np.asarray(picture), pixels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", default="12mp", choices=photos.SIZES, help="default: 12mp")
    parser.add_argument("--seed", type=int, default=0, help="which photo (default: 0)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--json", type=Path, help="write the record to this file")
    asked = parser.parse_args()
    size = photos.SIZES[asked.photos]
    results = compare(make_encoders(size, asked.seed, count_cores()), asked.repeats)
    record = measure.make_record(
        "encoders",
        settings={
            "photo": {"width": size[0], "height": size[1], "seed": asked.seed},
            "rounds": asked.repeats,
        },
        versions={"bgx": measure.versions()},
        measurements={"encoders": [asdict(result) for result in results]},
        summary={"all exact": all(result.exact for result in results)},
    )
    print(f"{'encoder':32}{'threads':>8}{'ms':>9}{'MB':>8}  reopens exactly")
    for result in results:
        print(
            f"{result.encoder:32}{result.threads:8}{result.milliseconds:9.1f}"
            f"{result.megabytes:8.2f}  {'yes' if result.exact else 'NO'}"
        )
    measure.conclude(record, asked.json)


if __name__ == "__main__":
    main()
