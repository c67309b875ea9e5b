"""How alike two rotations are: rows matched one to one by |cos|, and what a pair of random rotations would give."""

from __future__ import annotations

import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from gatelens.bases.rotation.starts import random_rotation
from gatelens.errors import BasisError


def match_rotations(
    a: Float[Tensor, "f d"], b: Float[Tensor, "g e"], energy: Float[Tensor, " f"] | None = None
) -> float:
    """Mean |cos| over the best one-to-one matching of rows (order and sign do not count); 1 for the same basis.

    Args:
        energy: a weight for each row of `a`, such as the squared mass of the columns along it; None counts rows alike.
    """
    if a.shape != b.shape:
        raise BasisError(f"only rotations of one shape can be matched, got {tuple(a.shape)} and {tuple(b.shape)}")
    weight = torch.ones(len(a), dtype=torch.float64) if energy is None else energy.double().cpu()
    cosine = (a.double() @ b.double().T).abs().cpu()
    rows, columns = linear_sum_assignment(-(weight[:, None] * cosine).numpy())
    matched = cosine[torch.from_numpy(rows), torch.from_numpy(columns)]
    return float((weight * matched).sum() / weight.sum())


def row_energy(rotation: Float[Tensor, "f d"], columns: Float[Tensor, "d m"]) -> Float[Tensor, " f"]:
    """The share of the columns' squared mass along each row."""
    mass = (rotation @ columns).square().sum(1)
    return mass / mass.sum()


def random_match(dimensions: int, trials: int = 3, seed: int = 0) -> float:
    """The same figure for pairs of random rotations: what agreement costs nothing."""
    values = []
    for trial in range(trials):
        a, b = (random_rotation(dimensions, seed + 2 * trial + k) for k in (0, 1))
        values.append(match_rotations(a, b))
    return sum(values) / trials
