"""Whether a segment is low rank in the same directions at every input: principal angles between leading subspaces."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import DataError


@dataclass(frozen=True)
class Consistency:
    """How alike the leading r-dimensional subspaces of N Jacobians are.

    Attributes:
        rank, dimensions: r and d.
        overlap: mean over pairs of inputs of the mean squared cosine of the r principal angles; 1 for one shared subspace.
        random_overlap: the same for as many Haar-random subspaces; r/d in expectation.
        angles: [r] median over pairs of the principal angles, in degrees, the smallest first; random_angles: of the null.
        pooled: share of the squared mass that the top r directions of E[J^T J] (or E[J J^T]) hold, every J scaled alike.
        own: mean share that each input's own top r directions hold; pooled << own means "low rank, another one each time".
        random_pooled: r/d, the share that r random directions hold on average.
    """

    rank: int
    dimensions: int
    overlap: float
    random_overlap: float
    angles: Float[Tensor, " r"]
    random_angles: Float[Tensor, " r"]
    pooled: float
    own: float

    @property
    def random_pooled(self) -> float:
        return self.rank / self.dimensions

    def __repr__(self) -> str:
        return (
            f"Consistency(top {self.rank} of {self.dimensions}: overlap {self.overlap:.3f} (random {self.random_overlap:.3f}), "
            f"median largest angle {self.angles[-1]:.0f}° (random {self.random_angles[-1]:.0f}°); "
            f"one shared subspace holds {self.pooled:.2f} of the squared mass, each input's own {self.own:.2f}, "
            f"random {self.random_pooled:.2f})"
        )


def consistency(
    jacobians: Float[Tensor, "N o i"], rank: int, side: str = "in", pairs: int = 500, seed: int = 0
) -> Consistency:
    """Compare the top `rank` singular directions of Jacobians over inputs.

    Args:
        side: "in" for the directions that are read, "out" for those that are written.
        pairs: random pairs of inputs; all of them when there are fewer.

    Raises:
        DataError: a rank that the width does not have, fewer than two nonzero Jacobians, or an unknown side.
    """
    if side not in ("in", "out"):
        raise DataError(f'expected side "in" or "out", got {side!r}')
    maps = jacobians if side == "in" else jacobians.mT
    maps = maps[(maps**2).sum((1, 2)) > 0].double()
    d = maps.shape[2]
    if not 1 <= rank <= min(maps.shape[1:]):
        raise DataError(
            f"expected a rank from 1 to {min(maps.shape[1:])}, got {rank}: a Jacobian has no more directions"
        )
    if len(maps) < 2:
        raise DataError(f"comparing subspaces needs at least two nonzero Jacobians, got {len(maps)}. Take more inputs")
    _, singular, rows = torch.linalg.svd(maps, full_matrices=False)
    generator = torch.Generator().manual_seed(seed)
    first, second = _pairs(len(maps), pairs, generator)
    frames = rows[:, :rank].mT
    cosines = principal_cosines(frames[first], frames[second])
    random = torch.linalg.qr(torch.randn(2 * len(first), d, rank, generator=generator, dtype=torch.float64)).Q
    chance = principal_cosines(random[: len(first)], random[len(first) :])
    energy = (singular**2).sum(1)
    normalised = maps / energy.sqrt()[:, None, None]
    pooled = torch.linalg.eigvalsh(torch.einsum("noi,noj->ij", normalised, normalised) / len(maps)).flip(0)
    return Consistency(
        rank,
        d,
        float((cosines**2).mean()),
        float((chance**2).mean()),
        _degrees(cosines),
        _degrees(chance),
        float(pooled[:rank].sum()),
        float(((singular[:, :rank] ** 2).sum(1) / energy).mean()),
    )


def principal_cosines(a: Float[Tensor, "*n d r"], b: Float[Tensor, "*n d r"]) -> Float[Tensor, "*n r"]:
    """Cosines of the principal angles between the spans of orthonormal columns, descending.

    Source: "Numerical Methods for Computing Angles between Linear Subspaces".
    """
    return torch.linalg.svdvals(a.mT @ b).clamp(0, 1)


def _degrees(cosines: Float[Tensor, "p r"]) -> Float[Tensor, " r"]:
    return torch.rad2deg(torch.arccos(cosines)).median(0).values.float()


def _pairs(n: int, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    every = torch.combinations(torch.arange(n), 2)
    chosen = every[torch.randperm(len(every), generator=generator)[:count]]
    return chosen[:, 0], chosen[:, 1]
