"""Which feature of one basis is which of another: one-to-one matching by directions, or by activations on shared rows.

Order and sign do not count. Every figure stands beside its level for a random counterpart of the same shape.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..errors import BasisError, DataError

#: wider counterparts are not rotated for the null (a QR costs f^3): Gaussian directions or shuffled rows serve instead
_ROTATED = 1024
#: entries of a matrix that can still be looked at
_DRAWN = 2**18


@dataclass(frozen=True)
class Matching:
    """Pairs of features, one to one.

    Attributes:
        first, second: [n] indices of the pairs, `first` ascending.
        similarity: [n] |cosine| or |correlation| of each pair.
        random: mean similarity when the second basis is replaced by a random one: what matching finds in nothing.
        by: "directions" or "activations".
        weight: [n] how much each pair counts in `weighted`, e.g. the energy of its feature; all alike when not given.
        matrix: [f, g] |similarity| of every feature with every other, for pictures; None where it would be too large for one.
    """

    first: Int[Tensor, " n"]
    second: Int[Tensor, " n"]
    similarity: Float[Tensor, " n"]
    random: float
    by: str
    weight: Float[Tensor, " n"]
    matrix: Float[Tensor, "f g"] | None = field(default=None, repr=False)

    @property
    def mean(self) -> float:
        return float(self.similarity.mean())

    @property
    def weighted(self) -> float:
        return float((self.weight * self.similarity).sum() / self.weight.sum())

    def table(self) -> dict[int, int]:
        """first feature -> second feature."""
        return dict(zip(self.first.tolist(), self.second.tolist(), strict=True))

    def __repr__(self) -> str:
        return (
            f"Matching({len(self.first)} pairs by {self.by}: mean |similarity| {self.mean:.3f}, "
            f"weighted {self.weighted:.3f}, random counterpart {self.random:.3f})"
        )


def match_directions(
    a: Float[Tensor, "f d"], b: Float[Tensor, "g e"], weight: Float[Tensor, " f"] | None = None, seed: int = 0
) -> Matching:
    """Match the rows of two dictionaries or rotations of one hook point by |cosine|.

    Raises:
        BasisError: other widths (two models, or two hook points), or no direction of nonzero length.
    """
    if a.shape[1] != b.shape[1]:
        raise BasisError(
            f"directions of width {a.shape[1]} and {b.shape[1]} cannot be compared: they are of two models or two hook "
            "points. Match by activations on shared inputs: match_activations"
        )
    a, b = unit(a), unit(b)
    generator = torch.Generator().manual_seed(seed)
    if b.shape[1] <= _ROTATED:
        null = b @ _haar(b.shape[1], generator)
    else:
        null = unit(torch.randn(b.shape, generator=generator, dtype=b.dtype))
    return _matching((a @ b.T).abs(), (a @ null.T).abs(), weight, "directions")


def match_activations(
    f: Float[Tensor, "rows f"], g: Float[Tensor, "others g"], weight: Float[Tensor, " f"] | None = None, seed: int = 0
) -> Matching:
    """Match features of any two bases, of one model or of two, by |correlation| of their activations on the same rows.

    Raises:
        DataError: another number of rows, or features that are constant on all of them.
    """
    if len(f) != len(g) or len(f) < 3:
        raise DataError(
            f"expected the same rows twice, at least three, got {len(f)} and {len(g)}. Collect both on the same batches"
        )
    a, b = _standardised(f), _standardised(g)
    if not (a.abs().sum() > 0 and b.abs().sum() > 0):
        raise DataError(f"all features are constant over {len(f)} rows: nothing to correlate. Give varied inputs")
    generator = torch.Generator().manual_seed(seed)
    if b.shape[1] <= _ROTATED:
        null = _standardised(g.double() @ _haar(b.shape[1], generator))
    else:
        null = b[torch.randperm(len(b), generator=generator)]
    return _matching((a.T @ b).abs(), (a.T @ null).abs(), weight, "activations")


def mean_max_cosine(a: Float[Tensor, "f d"], b: Float[Tensor, "g d"], seed: int = 0) -> tuple[float, float]:
    """MMCS: mean over the rows of `a` of the largest cosine with a row of `b` (many may share one); and its random level.

    From "Taking features out of superposition with sparse autoencoders" (Sharkey, Braun, Millidge 2022).
    """
    a, b = unit(a), unit(b)
    generator = torch.Generator().manual_seed(seed)
    null = (
        b @ _haar(b.shape[1], generator)
        if b.shape[1] <= _ROTATED
        else unit(torch.randn(b.shape, generator=generator).double())
    )
    return float((a @ b.T).amax(1).mean()), float((a @ null.T).amax(1).mean())


def unit(rows: Float[Tensor, "f d"]) -> Float[Tensor, "f d"]:
    """Rows of length 1 in float64; rows of length zero stay zero."""
    if not (torch.isfinite(rows).all() and float(rows.abs().sum()) > 0):
        raise BasisError("directions must be finite and not all zero. Give the rows of a decoder or of a rotation")
    rows = rows.detach().double()
    length = rows.norm(dim=1, keepdim=True)
    return torch.where(length > 0, rows / length.clamp_min(1e-300), 0.0)


def _matching(similarity: Tensor, null: Tensor, weight: Tensor | None, by: str) -> Matching:
    first, second = _assign(similarity)
    every = torch.ones(len(similarity), dtype=torch.float64) if weight is None else weight.double()
    return Matching(
        first,
        second,
        similarity[first, second].float(),
        float(null[_assign(null)].mean()),
        by,
        every[first].float(),
        similarity.float() if similarity.numel() <= _DRAWN else None,
    )


def _assign(similarity: Float[Tensor, "f g"]) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    rows, columns = linear_sum_assignment(-similarity.numpy())
    return torch.from_numpy(rows), torch.from_numpy(columns)


def _haar(d: int, generator: torch.Generator) -> Float[Tensor, "d d"]:
    q, r = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))
    return q * r.diagonal().sign()


def _standardised(f: Tensor) -> Float[Tensor, "rows f"]:
    """Columns of mean 0 and length 1; constant columns become 0."""
    centred = f.double() - f.double().mean(0)
    length = centred.norm(dim=0)
    return torch.where(length > 1e-12 * max(float(length.max()), 1e-300), centred / length.clamp_min(1e-300), 0.0)
