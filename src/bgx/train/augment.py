"""Data augmentation on whole batches: crops, other backgrounds, colours, blur and noise.

Every function takes the random generator to use, so a batch depends only on its seed. Pictures are
float32 [N, 3, S, S], sRGB, 0..1; mattes are float32 [N, 1, S, S], 0..1; both lie on the generator's
device.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from bgx.train.pairs import Pairs

PASTED = 0.25
"""Share of a batch whose subjects are pasted onto other backgrounds."""

BLOCK = 8
"""Side of the blocks of :func:`block_quantise`, pixels. The size of every batch is a multiple."""


def draw(
    pairs: Pairs, indices: Tensor, size: int, generator: Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """One batch: pictures [B, 3, size, size], mattes [B, 1, size, size], weights [B].

    indices: the pairs to show. The last PASTED of them are replaced by random subjects on other
    backgrounds: half of these are photos without a subject, if there are any, and the rest are
    plain studio backdrops.
    """
    pasted = int(len(indices) * PASTED) if len(pairs.subjects) else 0
    shown = indices[: len(indices) - pasted]
    batch = crop(stack(pairs, shown), (0.6, 1.0), size, generator)
    if pasted:
        chosen = choose(pairs.subjects, pasted, generator)
        batch = torch.cat([batch, _paste(pairs, chosen, size, generator)])
        shown = torch.cat([shown, chosen])
    pictures = degrade(shift_colour(batch[:, :3], generator), generator)
    return pictures, batch[:, 3:].clamp(0, 1), pairs.weights[shown]


def stack(pairs: Pairs, indices: Tensor) -> Tensor:
    """Photos and mattes as [B, 4, P, P], 0..1."""
    return torch.cat([pairs.photos[indices], pairs.mattes[indices]], 1).float() / 255


def choose(population: Tensor, count: int, generator: Generator) -> Tensor:
    """Draw `count` of a tensor of indices, with repetition."""
    return population[_uniform(count, 0, len(population), generator).long()]


def crop(images: Tensor, window: tuple[float, float], size: int, generator: Generator) -> Tensor:
    """Random crops of [N, C, P, P], resized to [N, C, size, size].

    Each crop is also rotated and stretched a little, and mirrored half of the time. window: range
    of the crop's side, 1 is the whole picture. If the range goes above 1, what lies outside the
    picture is 0 in every channel; otherwise the picture is reflected there.
    """
    n = len(images)
    side = _uniform(n, *window, generator)
    stretch = torch.exp(_uniform(n, -0.15, 0.15, generator))
    angle = _uniform(n, -0.12, 0.12, generator)
    mirror = _happens(n, 0.5, generator) * 2.0 - 1.0
    width, height = side * stretch, side / stretch
    affine = torch.zeros(n, 2, 3, device=generator.device)
    affine[:, 0, 0] = mirror * width * torch.cos(angle)
    affine[:, 0, 1] = -height * torch.sin(angle)
    affine[:, 1, 0] = mirror * width * torch.sin(angle)
    affine[:, 1, 1] = height * torch.cos(angle)
    affine[:, 0, 2] = (1 - width).abs() * _uniform(n, -1, 1, generator)
    affine[:, 1, 2] = (1 - height).abs() * _uniform(n, -1, 1, generator)
    grid = functional.affine_grid(affine, [n, images.shape[1], size, size], align_corners=False)
    outside = "zeros" if window[1] > 1 else "reflection"
    return functional.grid_sample(images, grid, padding_mode=outside, align_corners=False)


def set_before(cut: Tensor, grounds: Tensor) -> Tensor:
    """Put subjects on other backgrounds.

    cut: [N, 4, S, S], photos and their mattes. grounds: [N, 3, S, S]. Returns [N, 3, S, S].
    """
    subjects, mattes = cut[:, :3], cut[:, 3:]
    return subjects * mattes + grounds * (1 - mattes)


def backdrop(mattes: Tensor, generator: Generator) -> Tensor:
    """Plain studio backdrops [N, 3, S, S], mostly light: a gradient and the subject's shadow."""
    n, _, size, _ = mattes.shape
    colour = _per_picture(_uniform(3 * n, 0, 1, generator), 3)
    light = 0.82 + 0.18 * colour.mean(1, keepdim=True) + 0.04 * (colour - 0.5)
    plain = torch.where(_per_picture(_happens(n, 0.6, generator)), light, colour)
    axis = torch.linspace(-1, 1, size, device=generator.device)
    angle = _per_picture(_uniform(n, 0, 2 * math.pi, generator))
    slope = torch.cos(angle) * axis + torch.sin(angle) * axis.view(-1, 1)
    plain = plain + _per_picture(_uniform(n, 0, 0.2, generator)) * slope
    soft = size // 32 * 2 + 1
    shadow = box_blur(box_blur(functional.avg_pool2d(mattes, 4), soft), soft)
    shadow = functional.interpolate(shadow, size=(size, size), mode="bilinear")
    down = int(_uniform(1, 0, size / 12, generator))
    aside = int(_uniform(1, -size / 16, size / 16, generator))
    shadow = torch.roll(shadow, (down, aside), (2, 3))
    depth = _per_picture(_uniform(n, 0, 0.5, generator))
    return (plain * (1 - depth * shadow)).clamp(0, 1)


def shift_colour(pictures: Tensor, generator: Generator) -> Tensor:
    """Change saturation, contrast, brightness, white balance and gamma, at random per picture."""
    n = len(pictures)

    def factors(spread: float, channels: int = 1) -> Tensor:
        return _per_picture(_uniform(n * channels, -spread, spread, generator).exp(), channels)

    coloured = _per_picture(_happens(n, 0.95, generator))
    grey = pictures.mean(1, keepdim=True)
    pictures = grey + (pictures - grey) * factors(0.4) * coloured
    mean = pictures.mean((1, 2, 3), keepdim=True)
    pictures = (mean + (pictures - mean) * factors(0.3)) * factors(0.3) * factors(0.08, 3)
    return pictures.clamp(1e-4, 1) ** factors(0.25)


def degrade(pictures: Tensor, generator: Generator) -> Tensor:
    """Blur an eighth of the pictures, add noise to another, and compress another as JPEG does."""
    pictures = pictures.clone()
    part = len(pictures) // 8
    order = torch.randperm(len(pictures), generator=generator, device=generator.device)
    blurred, noisy, saved = order[: 3 * part].split(part) if part else [order[:0]] * 3
    pictures[blurred] = box_blur(box_blur(pictures[blurred], 3), 3)
    noise = torch.randn(pictures[noisy].shape, generator=generator, device=generator.device)
    pictures[noisy] += noise * _uniform(1, 0.01, 0.06, generator)
    pictures[saved] = block_quantise(pictures[saved], float(_uniform(1, 0.03, 0.15, generator)))
    return pictures.clamp(0, 1)


def block_quantise(images: Tensor, step: float) -> Tensor:
    """Imitate JPEG compression: round the cosine coefficients of 8x8 blocks.

    images: [N, C, S, S], S a multiple of BLOCK. step: rounding step of the lowest frequency; it
    grows with the frequency.
    """
    k = torch.arange(float(BLOCK), device=images.device)
    cosines = torch.cos(math.pi / BLOCK * k.view(-1, 1) * (k + 0.5)) * math.sqrt(2 / BLOCK)
    cosines[0] /= math.sqrt(2)
    n, channels, height, width = images.shape
    blocks = images.view(n, channels, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    steps = step * (1 + k + k.view(-1, 1))
    coefficients = cosines @ blocks.transpose(3, 4) @ cosines.T
    rounded = torch.round(coefficients / steps) * steps
    return (cosines.T @ rounded @ cosines).transpose(3, 4).reshape(images.shape)


def box_blur(images: Tensor, side: int) -> Tensor:
    """Mean over squares of `side` pixels (odd). At the borders, only pixels inside count."""
    reach = side // 2
    rows = functional.avg_pool2d(images, (1, side), 1, (0, reach), count_include_pad=False)
    return functional.avg_pool2d(rows, (side, 1), 1, (reach, 0), count_include_pad=False)


def _paste(pairs: Pairs, chosen: Tensor, size: int, generator: Generator) -> Tensor:
    cut = crop(stack(pairs, chosen), (0.7, 1.6), size, generator)
    mattes = cut[:, 3:]
    grounds = backdrop(mattes, generator)
    scenes = len(chosen) // 2 if len(pairs.grounds) else 0
    if scenes:
        photos = pairs.photos[choose(pairs.grounds, scenes, generator)].float() / 255
        grounds[:scenes] = crop(photos, (0.4, 1.0), size, generator)
    return torch.cat([set_before(cut, grounds), mattes], 1)


def _uniform(count: int, low: float, high: float, generator: Generator) -> Tensor:
    numbers = torch.rand(count, generator=generator, device=generator.device)
    return low + (high - low) * numbers


def _happens(count: int, chance: float, generator: Generator) -> Tensor:
    return _uniform(count, 0, 1, generator) < chance


def _per_picture(values: Tensor, channels: int = 1) -> Tensor:
    """[N * channels] -> [N, channels, 1, 1]."""
    return values.view(-1, channels, 1, 1)
