"""The network `lite`: a compact encoder-decoder for salient objects.

In the spirit of U²-Net (Qin et al., Pattern Recognition 2020): a U whose decoder levels are small
Us themselves, so that each scale sees wide context cheaply. Built for ONNX Runtime on CPUs: plain
3x3 convolutions, channels in multiples of 16, two strides at the stem, no resize but by 2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import fuse_conv_bn_eval

MULTIPLE = 32
"""Width and height of the input must be multiples of this."""


class Convolution(nn.Module):
    """3x3 convolution and batch norm; without `normed` a convolution with a bias."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, *, normed: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=not normed)
        self.norm = nn.BatchNorm2d(outputs) if normed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x))
        return y


class Layer(nn.Module):
    """3x3 convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, *, normed: bool) -> None:
        super().__init__()
        self.body = Convolution(inputs, outputs, stride, normed=normed)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x))


class Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut around them."""

    def __init__(self, channels: int, *, normed: bool) -> None:
        super().__init__()
        self.first = Layer(channels, channels, normed=normed)
        self.second = Convolution(channels, channels, normed=normed)
        if isinstance(self.second.norm, nn.BatchNorm2d):
            # The block starts as its shortcut alone.
            nn.init.zeros_(self.second.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.second(self.first(x)) + x)


class Nested(nn.Module):
    """A U of `depth` levels and a shortcut around it: U²-Net's residual U-block."""

    def __init__(self, channels: int, depth: int, *, normed: bool) -> None:
        super().__init__()
        self.enter = Layer(channels, channels, normed=normed)
        self.down = nn.ModuleList(Layer(channels, channels, 2, normed=normed) for _ in range(depth))
        self.up = nn.ModuleList(Layer(channels, channels, normed=normed) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        levels = [self.enter(x)]
        for layer in self.down:
            levels.append(layer(levels[-1]))
        y: Tensor = levels.pop()
        for layer in self.up:
            y = layer(double(y) + levels.pop())
        return x + y


class Context(nn.Module):
    """Adds to every place what the whole picture holds."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels, 1)
        self.expand = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        whole = functional.adaptive_avg_pool2d(x, 1)
        y: Tensor = x + self.expand(functional.relu(self.squeeze(whole)))
        return y


class Merge(nn.Module):
    """A coarse level doubled, plus the encoder's level of that size, through a nested U."""

    def __init__(self, coarse: int, skip: int, channels: int, *, depth: int, normed: bool) -> None:
        super().__init__()
        self.coarse = nn.Conv2d(coarse, channels, 1, bias=False)
        self.skip = nn.Conv2d(skip, channels, 1)
        self.body = Nested(channels, depth, normed=normed)

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        y: Tensor = self.body(double(self.coarse(coarse)) + self.skip(skip))
        return y


class Lite(nn.Module):
    """float32 RGB [N, 3, H, W], normalised as U²-Net's -> matte float32 [N, 1, H, W], 0..1.

    normed: with batch norm and the side heads of deep supervision, as trained from nothing;
    without, as :func:`fuse` leaves it for use and for fine-tuning.
    """

    def __init__(self, *, normed: bool) -> None:
        super().__init__()

        def layer(inputs: int, outputs: int, stride: int = 1) -> Layer:
            return Layer(inputs, outputs, stride, normed=normed)

        def residuals(channels: int, count: int) -> list[Residual]:
            return [Residual(channels, normed=normed) for _ in range(count)]

        self.stem = layer(3, 16, 2)
        self.quarter = nn.Sequential(layer(16, 32, 2), *residuals(32, 1))
        self.eighth = nn.Sequential(layer(32, 64, 2), *residuals(64, 2))
        self.sixteenth = nn.Sequential(layer(64, 96, 2), *residuals(96, 3))
        first, second = residuals(96, 2)
        self.bottom = nn.Sequential(layer(96, 96, 2), first, Context(96), second)
        self.merge_sixteenth = Merge(96, 96, 64, depth=1, normed=normed)
        self.merge_eighth = Merge(64, 64, 48, depth=2, normed=normed)
        self.merge_quarter = Merge(48, 32, 32, depth=1, normed=normed)
        self.coarse_half = nn.Conv2d(32, 16, 1, bias=False)
        self.merge_half = layer(16, 16)
        self.head = nn.Conv2d(16, 1, 3, 1, 1)
        sides = (48, 64, 96) if normed else ()
        self.sides = nn.ModuleList(nn.Conv2d(channels, 1, 3, 1, 1) for channels in sides)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(double(self.logits(x)[0]))

    def logits(self, x: Tensor) -> list[Tensor]:
        """Logits [N, 1, h, w] at half the input's size, then those of the side heads, if any."""
        half = self.stem(x)
        quarter = self.quarter(half)
        eighth = self.eighth(quarter)
        sixteenth = self.sixteenth(eighth)
        bottom = self.bottom(sixteenth)
        deep = self.merge_sixteenth(bottom, sixteenth)
        middle = self.merge_eighth(deep, eighth)
        fine = self.merge_quarter(middle, quarter)
        finest = self.merge_half(double(self.coarse_half(fine)) + half)
        sides = zip(self.sides, (middle, deep, bottom), strict=False)
        return [self.head(finest), *(head(level) for head, level in sides)]


def double(x: Tensor) -> Tensor:
    """Twice as wide and high, bilinear."""
    return functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def fuse(network: Lite) -> Lite:
    """A copy, in evaluation mode, whose batch norms are folded into its convolutions.

    Its side heads are gone: they have served.
    """
    fused = Lite(normed=False).eval()
    weights = network.state_dict()
    for name, module in network.eval().named_modules():
        if isinstance(module, Convolution) and isinstance(module.norm, nn.BatchNorm2d):
            folded = fuse_conv_bn_eval(module.conv, module.norm)
            weights[f"{name}.conv.weight"] = folded.weight
            weights[f"{name}.conv.bias"] = folded.bias
    fused.load_state_dict({name: weights[name] for name in fused.state_dict()})
    return fused
