"""MSP: matching, stretching and projection, a power iteration for the largest sum of fourth powers.

R <- polar((R A)^3 A^T) (Zhai, Yang, Liao, Wright & Ma, "Complete Dictionary Learning via l4-Norm Maximization over the
Orthogonal Group", JMLR 2020). Each step is a product and a polar decomposition; there is no step size. It finds a few large
peaks, quickly and the same ones from any start, which makes it a good anchor and by itself not the sparsest answer.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .quasi_newton import column_blocks
from .starts import polar
from .watch import Watch


def match_stretch_project(
    columns: Float[Tensor, "n m"],
    rotation: Float[Tensor, "n n"],
    iterations: int,
    watch: Watch,
) -> Float[Tensor, "n n"]:
    """Iterate until the mean fourth power gains less than a millionth of itself."""
    blocks, value = column_blocks(columns), 0.0
    for _ in range(iterations):
        if watch.spent:
            break
        cubes, total = torch.zeros_like(rotation), torch.zeros((), dtype=torch.float64, device=rotation.device)
        for block in blocks:
            y = rotation @ block
            cube = y * y * y
            total += (cube * y).sum()
            cubes.addmm_(cube, block.T)
        new_value = float(total) / columns.numel()
        if new_value - value <= 1e-6 * abs(new_value):
            break
        value, rotation = new_value, polar(cubes).to(rotation.dtype)
        watch.step("L4", value, rotation)
    return rotation
