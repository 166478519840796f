"""The network `lite`: a compact encoder-decoder for salient objects.

As in U²-Net (Qin et al., Pattern Recognition 2020), each decoder level is a small U-shaped network
itself, so that every scale sees wide context at little cost. Built for speed in ONNX Runtime on
CPUs: plain 3x3 convolutions, channels in multiples of 16, two strides at the start, resizing by 2
only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import fuse_conv_bn_eval

MULTIPLE = 32
"""Width and height of the input must be multiples of this."""


class Convolution(nn.Module):
    """3x3 convolution with batch norm; if not `normed`, a 3x3 convolution with a bias."""

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
            # At the start of the training, only the shortcut has an effect.
            nn.init.zeros_(self.second.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.second(self.first(x)) + x)


class Nested(nn.Module):
    """U-shaped network of `depth` levels, with a shortcut around it: U²-Net's residual U-block."""

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
    """Adds to every pixel a summary of the whole picture."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels, 1)
        self.expand = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        whole = functional.adaptive_avg_pool2d(x, 1)
        y: Tensor = x + self.expand(functional.relu(self.squeeze(whole)))
        return y


class Merge(nn.Module):
    """Enlarges a coarse level, adds the encoder's level of that size, and applies a nested U."""

    def __init__(self, coarse: int, skip: int, channels: int, *, depth: int, normed: bool) -> None:
        super().__init__()
        self.coarse = nn.Conv2d(coarse, channels, 1, bias=False)
        self.skip = nn.Conv2d(skip, channels, 1)
        self.body = Nested(channels, depth, normed=normed)

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        y: Tensor = self.body(double(self.coarse(coarse)) + self.skip(skip))
        return y


class Lite(nn.Module):
    """The network: from RGB float32 [N, 3, H, W] to mattes float32 [N, 1, H, W], 0..1.

    The input is normalised with feed.MEAN and feed.STD. normed: True for training from random
    weights, with batch norm and the side heads of deep supervision; False for use and fine-tuning,
    as :func:`fuse` makes it.
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
    """Enlarge to twice the width and height, bilinear."""
    return functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def fuse(network: Lite) -> Lite:
    """A copy in evaluation mode, with folded batch norms and without side heads."""
    fused = Lite(normed=False).eval()
    weights = network.state_dict()
    for name, module in network.eval().named_modules():
        if isinstance(module, Convolution) and isinstance(module.norm, nn.BatchNorm2d):
            folded = fuse_conv_bn_eval(module.conv, module.norm)
            weights[f"{name}.conv.weight"] = folded.weight
            weights[f"{name}.conv.bias"] = folded.bias
    fused.load_state_dict({name: weights[name] for name in fused.state_dict()})
    return fused
