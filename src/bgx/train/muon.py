"""The optimizer Muon, which makes the momentum orthogonal before each step (Jordan et al., 2024).

It is used for the convolutions; AdamW is used for all other weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn

MOMENTUM = 0.95


class Muon(torch.optim.Optimizer):
    """Optimizer for weights of convolutions [out, in, k, k], treated as matrices [out, in*k*k].

    Steps have a root mean square of 0.2 lr (Liu et al., "Muon is scalable", 2025). AdamW's steps
    have about the same, so one learning rate serves both.
    """

    def __init__(self, weights: Iterable[nn.Parameter], *, weight_decay: float) -> None:
        super().__init__(weights, {"lr": 0.0, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Do one step. Every weight must have a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"].mul_(MOMENTUM).add_(weight.grad)
                direction = orthogonalise(weight.grad.add(momentum, alpha=MOMENTUM).flatten(1))
                length = 0.2 * max(direction.shape) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(direction.view_as(weight), alpha=-group["lr"] * length)


def orthogonalise(matrix: Tensor) -> Tensor:
    """Approximate the nearest matrix with orthonormal rows or columns, by five Newton-Schulz steps.

    The five steps are first multiplied together, on the small product of the matrix with its own
    transpose, and then applied to the matrix once.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x: Tensor = (matrix.T if tall else matrix) / (matrix.norm() + 1e-7)
    square = x @ x.T
    turn = torch.eye(len(square), device=x.device)
    for _ in range(5):
        step = 2.0315 * square @ square - 4.7750 * square
        step.diagonal().add_(3.4445)
        turn = step @ turn
        square = step @ square @ step
    x = turn @ x
    return x.T if tall else x
