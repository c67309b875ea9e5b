"""Points near given inputs: a model can be asked there too, where inputs are few."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def points_near(
    x: Float[Tensor, "rows d"], each: int = 3, spread: float = 0.35, seed: int = 0
) -> Float[Tensor, "points d"]:
    """`each` points around every row: the row plus Gaussian noise with the covariance of the rows, `spread` times as wide.

    A Gaussian combination of the centred rows has their covariance, whatever the number of rows and dimensions.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(each * len(x), len(x), generator=generator, device="cpu").to(x)
    return x.repeat(each, 1) + weights @ (x - x.mean(0)) * (spread / max(len(x) - 1, 1) ** 0.5)
