"""Points near given inputs: a model can be asked there too, where inputs are few."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import BasisError


def points_near(
    x: Float[Tensor, "rows d"], each: int = 3, spread: float = 0.35, seed: int = 0
) -> Float[Tensor, "points d"]:
    """`each` points around every row: the row plus Gaussian noise with the covariance of the rows, `spread` times as wide.

    A Gaussian combination of the centred rows has their covariance, whatever the number of rows and dimensions.

    Raises:
        BasisError: no rows, no points asked for, or a spread that is not positive.
    """
    if not len(x) or each < 1 or not spread > 0:
        raise BasisError(
            f"points near inputs need at least one row, each of 1 or more and a spread over 0; got {len(x)} rows, "
            f"each {each}, spread {spread}"
        )
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(each * len(x), len(x), generator=generator, device="cpu").to(x)
    return x.repeat(each, 1) + weights @ (x - x.mean(0)) * (spread / max(len(x) - 1, 1) ** 0.5)
