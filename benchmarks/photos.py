"""Draws product photos, from a seed, whose files are as large as those of real photos.

    python benchmarks/photos.py FOLDER --photos 12mp -n 24

Decoding and encoding take much of the time, and flat drawings would make both too fast. These
pictures have what makes photos large: sensor noise, wood grain, fur, fine print, soft shadows,
single hairs in front of the background. A 12-megapixel JPEG has 3 to 4 MB, as from a phone. Each
picture comes with the true alpha of its subject.

A seed gives the same scene at every size. The same seed and size give the same pixels with the same
versions of numpy and Pillow.
"""

from __future__ import annotations

import argparse
import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageChops, ImageCms, ImageDraw, ImageFilter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SIZES = {"12mp": (4000, 3000), "1600": (1600, 1200), "500": (500, 375)}
"""Width and height in pixels by name."""

SKETCH = 400
"""Long side, pixels, at which light and everything out of focus is computed."""

OVERSAMPLING = 2
"""Outlines are drawn this many times larger and averaged down: their edges are true alpha."""

Colour = tuple[int, int, int]
Point = tuple[float, float]


@dataclass(frozen=True)
class Frame:
    """Scene coordinates: the origin is the middle, the shorter side of the picture is 1 long."""

    width: int
    height: int

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height

    @property
    def unit(self) -> int:
        return min(self.size)

    @property
    def sketch(self) -> Frame:
        scale = min(1.0, SKETCH / max(self.size))
        return Frame(max(1, round(self.width * scale)), max(1, round(self.height * scale)))

    @property
    def oversampled(self) -> Frame:
        return Frame(self.width * OVERSAMPLING, self.height * OVERSAMPLING)

    def pixels(self, points: Sequence[Point]) -> list[Point]:
        return [
            (self.width / 2 + x * self.unit, self.height / 2 + y * self.unit) for x, y in points
        ]

    def grid(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """x as (1, width) and y as (height, 1), float32."""
        x = (np.arange(self.width) + 0.5 - self.width / 2) / self.unit
        y = (np.arange(self.height) + 0.5 - self.height / 2) / self.unit
        return x.astype(np.float32)[None, :], y.astype(np.float32)[:, None]


@dataclass(frozen=True)
class Subject:
    """What is photographed: closed outlines, loose hairs, light on it, and what is drawn on it.

    light: float32 (height, width, 3) of the frame's sketch, 0..255. texture: width and height of
    one grain of its surface in scene units, and its strength in grey levels.
    """

    outlines: list[list[Point]]
    hairs: list[list[Point]]
    light: NDArray[np.float32]
    strokes: list[tuple[list[Point], Colour]]
    texture: tuple[float, float, float]


def render(width: int, height: int, seed: int) -> tuple[Image.Image, Image.Image]:
    """Return a photo (RGB) and the true alpha of its subject (L), both width x height."""
    frame = Frame(width, height)
    scene = np.random.default_rng([seed, 0])
    grain = np.random.default_rng([seed, 1])
    backdrop = (_studio, _wood, _bokeh)[seed % 3](frame, scene, grain)
    subject = (_bottle, _plush)[seed // 3 % 2](frame, scene)
    alpha = _alpha(frame, subject)
    photo = Image.composite(_surface(frame, subject, grain), _shaded(backdrop, alpha, frame), alpha)
    return _sensor(photo, grain), alpha


def write(
    folder: Path,
    size: tuple[int, int],
    count: int,
    *,
    seed: int = 0,
    metadata: bool = False,
) -> list[Path]:
    """Write count JPEG photos into folder and return their paths.

    metadata: add an sRGB profile, 300 DPI and an EXIF block, as a camera does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"photo-{seed + index:03d}.jpg" for index in range(count)]
    one = partial(_write_one, size=size, metadata=metadata)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(one, paths, range(seed, seed + count)))
    return paths


def _write_one(path: Path, seed: int, size: tuple[int, int], metadata: bool) -> None:
    photo, _ = render(*size, seed)
    path.write_bytes(encode_jpeg(photo, **(_metadata() if metadata else {})))


def encode_jpeg(photo: Image.Image, **options: Any) -> bytes:
    """A photo as a camera stores it: quality 90, 4:2:0."""
    data = io.BytesIO()
    photo.save(data, "JPEG", quality=90, subsampling="4:2:0", **options)
    return data.getvalue()


def _metadata() -> dict[str, Any]:
    exif = Image.Exif()
    exif[0x010F] = "bgx"  # Make
    exif[0x0110] = "benchmarks/photos.py"  # Model
    exif[0x0132] = "2000:01:01 00:00:00"  # DateTime
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = bytes(12)  # the header's creation time: equal photos must be equal files
    return {"exif": exif, "icc_profile": bytes(profile), "dpi": (300, 300)}


# Backdrops: (frame, scene generator, pixel generator) -> RGB picture of the frame's size.


def _studio(frame: Frame, scene: np.random.Generator, grain: np.random.Generator) -> Image.Image:
    """A paper sweep: lit from above, darker towards the corners, with paper fibre."""
    x, y = frame.sketch.grid()
    paper = scene.uniform(170, 235, 3).astype(np.float32)
    fall = 1.0 - 0.25 * (y + 0.5) - 0.35 * (x**2 + y**2)
    horizon = 1.0 - 0.12 / (1.0 + np.exp((0.18 - y) * 40))
    backdrop = _enlarged(paper * (fall * horizon)[:, :, None], frame)
    return _textured(backdrop, _streaks(frame, grain, 0.002, 0.002), 5)


def _wood(frame: Frame, scene: np.random.Generator, grain: np.random.Generator) -> Image.Image:
    """A table of boards with grain along them and dark seams between."""
    sketch = frame.sketch
    x, y = sketch.grid()
    boards = int(scene.integers(4, 8))
    board = np.floor((y + 0.5) * boards).astype(int).clip(0, boards - 1)
    colour = np.array([150, 105, 68], np.float32) * scene.uniform(0.75, 1.25)
    tone = scene.uniform(0.8, 1.2, boards).astype(np.float32)[board]
    knots = scene.uniform(-0.6, 0.6, (boards, 1, 2)).astype(np.float32)[board[:, 0]]
    across = (y + 0.5) * boards - board - 0.5
    rings = np.sin(60 * np.hypot((x - knots[:, :, 0]) * 0.25, across * 0.4 + knots[:, :, 1]))
    light = 1.05 - 0.3 * (x + 0.5) ** 2
    picture = _enlarged((colour * (tone * light * (1 + 0.09 * rings))[:, :, None]), frame)
    picture = _textured(picture, _streaks(frame, grain, 0.08, 0.0015), 26)
    pen = ImageDraw.Draw(picture)
    for seam in np.arange(1, boards) / boards - 0.5:
        line = frame.pixels([(-2.0, seam), (2.0, seam)])
        pen.line(line, fill=(38, 24, 16), width=max(1, frame.unit // 400))
    return picture


def _bokeh(frame: Frame, scene: np.random.Generator, grain: np.random.Generator) -> Image.Image:
    """Lights far out of focus behind a dark table edge."""
    sketch = frame.sketch
    x, y = sketch.grid()
    base = scene.uniform(25, 90, 3).astype(np.float32)
    table = (1 / (1 + np.exp((0.3 - y) * 60)))[:, :, None]
    light = base * (1.1 + 0.3 * x)[:, :, None] * (1 - table) + base[::-1] * 0.8 * table
    picture = Image.fromarray(light.clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture, "RGBA")
    for _ in range(60):
        centre = (float(scene.uniform(-0.8, 0.8)), float(scene.uniform(-0.5, 0.25)))
        radius = float(scene.uniform(0.015, 0.07)) * sketch.unit
        colour = tuple(int(value) for value in scene.uniform(90, 255, 3))
        pen.circle(sketch.pixels([centre])[0], radius, fill=(*colour, int(scene.uniform(40, 130))))
    soft = picture.filter(ImageFilter.GaussianBlur(sketch.unit / 150))
    return _textured(soft.resize(frame.size, Image.Resampling.BICUBIC), _grains(frame, grain, 3), 4)


# Subjects: (frame, scene generator) -> Subject.


def _bottle(frame: Frame, scene: np.random.Generator) -> Subject:
    """A lathe-turned bottle with a label of fine print."""
    centre = float(scene.uniform(-0.12, 0.12))
    body, neck = float(scene.uniform(0.24, 0.36)), float(scene.uniform(0.08, 0.12))
    top, shoulder, bottom = -0.45, float(scene.uniform(-0.28, -0.18)), 0.43
    heights = np.linspace(top, bottom, 200)
    slope = 1 / (1 + np.exp(-(heights - shoulder) * 45))
    radii = neck + (body - neck) * slope
    corner = 0.025
    radii -= corner * (1 - np.sqrt(1 - (1 - (bottom - heights) / corner).clip(0, 1) ** 2))
    right = [(centre + r, h) for r, h in zip(radii.tolist(), heights.tolist(), strict=True)]
    left = [(centre - r, h) for r, h in zip(radii.tolist(), heights.tolist(), strict=True)]

    x, y = frame.sketch.grid()
    radius = np.interp(y[:, 0], heights, radii).astype(np.float32)[:, None]
    turn = ((x - centre) / radius).clip(-1, 1)
    lambert = 0.25 + 0.75 * np.sqrt(1 - (0.8 * turn - 0.15) ** 2)
    gloss = 120 * np.exp(-(((turn + 0.45) / 0.07) ** 2)) + 45 * np.exp(-(((turn - 0.7) / 0.1) ** 2))
    glass, paper, cap = scene.uniform([20, 20, 20], [220, 160, 140], (3, 3)).astype(np.float32)
    paper = 255 - paper * 0.25
    label = (float(shoulder + 0.15), 0.34)
    colour = np.where((y < top + 0.09)[:, :, None], cap, glass)
    colour = np.where(((y > label[0]) & (y < label[1]))[:, :, None], paper, colour)
    light = colour * lambert[:, :, None] + gloss[:, :, None]
    return Subject(
        outlines=[right + left[::-1]],
        hairs=[],
        light=light.astype(np.float32),
        strokes=_print(scene, centre, 0.8 * body, *label),
        texture=(0.002, 0.002, 6),
    )


def _print(
    scene: np.random.Generator, centre: float, half: float, top: float, bottom: float
) -> list[tuple[list[Point], Colour]]:
    """Lines of letter-like strokes and, below them, bars."""
    strokes: list[tuple[list[Point], Colour]] = []
    ink = (int(scene.integers(10, 90)), int(scene.integers(10, 60)), int(scene.integers(10, 90)))
    for y in np.arange(top + 0.02, bottom - 0.09, 0.022).tolist():
        x = centre - half
        while x < centre + half:
            lean, rise = scene.uniform(-0.004, 0.004), scene.uniform(0.006, 0.012)
            strokes.append(([(x, y), (x + lean, y + rise)], ink))
            strokes.append(([(x, y + rise / 2), (x + 0.006, y + rise / 2)], ink))
            x += float(scene.choice([0.008, 0.010, 0.020]))
    for x in np.arange(centre - half / 2, centre + half / 2, 0.007).tolist():
        if scene.random() < 0.6:
            strokes.append(([(x, bottom - 0.07), (x, bottom - 0.02)], ink))
    return strokes


def _plush(frame: Frame, scene: np.random.Generator) -> Subject:
    """A furry toy: its edge is hairs, one by one."""
    centre = float(scene.uniform(-0.1, 0.1))
    ears = float(scene.uniform(0.07, 0.11))
    fur = scene.uniform([70, 50, 40], [245, 230, 220]).astype(np.float32)
    blobs = [  # x, y, radius along x, radius along y
        (centre, 0.17, 0.33, 0.27),
        (centre, -0.16, 0.24, 0.2),
        (centre - 0.18, -0.34, ears, ears),
        (centre + 0.18, -0.34, ears, ears),
        (centre - 0.24, 0.37, 0.13, 0.09),
        (centre + 0.24, 0.37, 0.13, 0.09),
    ]
    turns = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    outlines = [
        [(x + a * float(np.cos(turn)), y + b * float(np.sin(turn))) for turn in turns]
        for x, y, a, b in blobs
    ]
    hairs = []
    strokes = []
    for blob in blobs:
        girth = blob[2] + blob[3]
        for turn in scene.uniform(0, 2 * np.pi, int(2600 * girth)).tolist():
            hairs.append(_hair(scene, blob, turn, reach=float(scene.uniform(0.9, 0.99))))
        for turn in scene.uniform(0, 2 * np.pi, int(5000 * girth)).tolist():
            reach = 0.97 * float(np.sqrt(scene.random()))
            shade = float(scene.uniform(0.55, 1.15))
            colour = tuple((fur * shade).clip(0, 255).astype(int).tolist())
            strokes.append((_hair(scene, blob, turn, reach), colour))
    sketch = frame.sketch
    x, y = sketch.grid()
    depth = np.zeros((sketch.height, sketch.width), np.float32)
    for cx, cy, a, b in blobs:
        depth = np.maximum(depth, 1 - ((x - cx) / (1.1 * a)) ** 2 - ((y - cy) / (1.1 * b)) ** 2)
    light = fur * (0.3 + 0.75 * np.sqrt(depth.clip(0, 1)) - 0.2 * (y + 0.1))[:, :, None]
    return Subject(outlines, hairs, light, strokes, texture=(0.001, 0.004, 16))


def _hair(
    scene: np.random.Generator, blob: tuple[float, float, float, float], turn: float, reach: float
) -> list[Point]:
    """Three points outwards from an ellipse, bent a little by gravity."""
    x, y, a, b = blob
    length = float(scene.uniform(0.015, 0.05))
    lean = turn + float(scene.normal(0, 0.35))
    root = (x + reach * a * np.cos(turn), y + reach * b * np.sin(turn))
    middle = (root[0] + length / 2 * np.cos(lean), root[1] + length / 2 * np.sin(lean))
    tip = (middle[0] + length / 2 * np.cos(lean), middle[1] + length / 2 * (np.sin(lean) + 0.25))
    return [(float(px), float(py)) for px, py in (root, middle, tip)]


# From scene to pixels.


def _alpha(frame: Frame, subject: Subject) -> Image.Image:
    large = frame.oversampled
    body, fur = Image.new("L", large.size), Image.new("L", large.size)
    pen = ImageDraw.Draw(body)
    for outline in subject.outlines:
        pen.polygon(large.pixels(outline), fill=255)
    pen = ImageDraw.Draw(fur)
    width = max(1, round(large.unit / 1500))
    for hair in subject.hairs:
        root, middle, tip = large.pixels(hair)
        pen.line([root, middle], fill=235, width=width)
        pen.line([middle, tip], fill=170, width=max(1, width // 2))
    # A hair before the body does not let the background through.
    mask = ImageChops.lighter(body, fur)
    return mask.reduce(OVERSAMPLING).filter(ImageFilter.BoxBlur(frame.unit / 6000))


def _surface(frame: Frame, subject: Subject, grain: np.random.Generator) -> Image.Image:
    """The subject's own colours over the whole frame, so that every hair of it has one."""
    surface = _enlarged(subject.light, frame)
    pen = ImageDraw.Draw(surface)
    for points, colour in subject.strokes:
        pen.line(frame.pixels(points), fill=colour, width=max(1, frame.unit // 1000))
    along, across, strength = subject.texture
    return _textured(surface, _streaks(frame, grain, along, across), strength)


def _shaded(backdrop: Image.Image, alpha: Image.Image, frame: Frame) -> Image.Image:
    """The backdrop under the subject's shadow: wide and soft, and dark where they touch."""
    sketch = frame.sketch
    mask = alpha.resize(sketch.size, Image.Resampling.BOX)
    soft = ImageChops.offset(mask, sketch.unit // 16, sketch.unit // 20)
    soft = soft.filter(ImageFilter.GaussianBlur(sketch.unit / 18))
    contact = ImageChops.offset(mask, 0, max(1, sketch.unit // 80))
    contact = contact.filter(ImageFilter.GaussianBlur(sketch.unit / 90))
    light = (
        1 - 0.4 * np.asarray(soft, np.float32) / 255 - 0.3 * np.asarray(contact, np.float32) / 255
    )
    shadow = Image.fromarray((255 * light).clip(0, 255).astype(np.uint8))
    full = shadow.resize(frame.size, Image.Resampling.BICUBIC)
    return ImageChops.multiply(backdrop, Image.merge("RGB", (full, full, full)))


def _sensor(photo: Image.Image, grain: np.random.Generator) -> Image.Image:
    """Photon and read noise: most of it in brightness, some, coarser, in colour."""
    width, height = photo.size
    luma = grain.standard_normal((height, width), np.float32)
    luma *= 4.5
    coarse = grain.normal(128, 5, ((height + 1) // 2, (width + 1) // 2, 3)).astype(np.uint8)
    chroma = Image.fromarray(coarse).resize(photo.size, Image.Resampling.BILINEAR)
    noisy = np.asarray(photo).astype(np.int16)
    noisy += luma.round().astype(np.int8)[:, :, None]
    noisy += np.asarray(chroma)
    noisy -= 128
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def _enlarged(light: NDArray[np.float32], frame: Frame) -> Image.Image:
    """Float (height, width, 3) of a sketch, 0..255 -> RGB of the frame's size."""
    sketch = Image.fromarray(light.clip(0, 255).astype(np.uint8))
    return sketch.resize(frame.size, Image.Resampling.BICUBIC)


def _textured(picture: Image.Image, texture: Image.Image, strength: float) -> Image.Image:
    """Add a grey texture (L, neutral at 128), strength in grey levels at its extremes."""
    levels = ((np.arange(256) - 128) * (strength / 128) + 128).round().astype(int).tolist()
    grey = texture.point(levels)
    return ImageChops.add(picture, Image.merge("RGB", (grey, grey, grey)), offset=-128)


def _streaks(frame: Frame, grain: np.random.Generator, along: float, across: float) -> Image.Image:
    """Noise of grains `along` wide and `across` high, scene units, in two octaves."""
    coarse = _noise(frame, grain, along * frame.unit, across * frame.unit)
    fine = _noise(frame, grain, along * frame.unit / 3, across * frame.unit / 2)
    return Image.blend(coarse, fine, 0.4)


def _grains(frame: Frame, grain: np.random.Generator, pixels: float) -> Image.Image:
    return _noise(frame, grain, pixels, pixels)


def _noise(frame: Frame, grain: np.random.Generator, along: float, across: float) -> Image.Image:
    """Smoothed noise (L) with grains of along x across pixels, at least one pixel each."""
    width = max(2, round(frame.width / max(1.0, along)))
    height = max(2, round(frame.height / max(1.0, across)))
    cells = grain.integers(0, 256, (height, width), np.uint8)
    return Image.fromarray(cells).resize(frame.size, Image.Resampling.BICUBIC)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write generated product photos as JPEG files.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", choices=SIZES, default="12mp", help="size (default: 12mp)")
    parser.add_argument("-n", type=int, default=24, help="how many (default: 24)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first (default: 0)")
    parser.add_argument("--metadata", action="store_true", help="add ICC profile, DPI and EXIF")
    asked = parser.parse_args()
    size = SIZES[asked.photos]
    write(asked.folder, size, asked.n, seed=asked.seed, metadata=asked.metadata)


if __name__ == "__main__":
    main()
