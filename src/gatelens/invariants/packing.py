"""Superposition: how a dictionary packs its features into a hook point.

Figures in the manner of "Toy Models of Superposition" (Elhage et al., 2022): features per dimension, interference,
alignment with neurons; each beside a random code of the same shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import BasisError


@dataclass(frozen=True)
class Superposition:
    """What a dictionary of unit directions looks like. `random_*` is the same figure for random directions, the null.

    Attributes:
        features, dimensions: f and d.
        interference: root mean square cosine between two different features; in a random code about 1/sqrt(d).
        worst: mean over features of the largest |cosine| with another feature.
        welch: no code of this shape has a largest |cosine| below this ("Lower Bounds on the Maximum Cross Correlation of Signals");
            0 when f <= d.
        alignment: mean over features of the largest |cosine| with a neuron.
        dead: directions of zero length, left out of every figure.
    """

    features: int
    dimensions: int
    interference: float
    random_interference: float
    worst: float
    random_worst: float
    welch: float
    alignment: float
    random_alignment: float
    dead: int = 0

    @property
    def features_per_dimension(self) -> float:
        return self.features / self.dimensions

    def __repr__(self) -> str:
        return (
            f"Superposition({self.features} features in {self.dimensions} dimensions: "
            f"{self.features_per_dimension:.2f} a dimension"
            f"{f', {self.dead} without a direction' if self.dead else ''}; (random code)\n"
            f"  interference, rms cosine {self.interference:.3f} ({self.random_interference:.3f})\n"
            f"  worst neighbour, mean |cosine| {self.worst:.3f} ({self.random_worst:.3f}), Welch bound {self.welch:.3f}\n"
            f"  nearest neuron, mean |cosine| {self.alignment:.3f} ({self.random_alignment:.3f}))"
        )


def superposition(directions: Float[Tensor, "f d"], seed: int = 0) -> Superposition:
    """Figures for the rows of W_dec or of a rotation.

    Raises:
        BasisError: fewer than two directions of nonzero length.
    """
    lengths = directions.norm(dim=1)
    alive = lengths > 0
    if int(alive.sum()) < 2:
        raise BasisError(
            f"expected at least two directions of nonzero length, got {int(alive.sum())} of {len(directions)}. "
            "Give the rows of a decoder or of a rotation: gatelens.basis.directions(basis, width)"
        )
    unit = (directions[alive] / lengths[alive, None]).double()
    f, d = unit.shape
    code = torch.randn(f, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    ours, random = _figures(unit), _figures(code / code.norm(dim=1, keepdim=True))
    welch = math.sqrt((f - d) / (d * (f - 1))) if f > d else 0.0
    return Superposition(f, d, ours[0], random[0], ours[1], random[1], welch, ours[2], random[2], int((~alive).sum()))


def _figures(unit: Float[Tensor, "f d"], block: int = 2048) -> tuple[float, float, float]:
    """Rms off-diagonal cosine, mean largest |off-diagonal|, mean largest |entry|; the Gram matrix in blocks of rows."""
    f = len(unit)
    total, worst = 0.0, 0.0
    for start in range(0, f, block):
        gram = unit[start : start + block] @ unit.T
        rows = torch.arange(len(gram))
        gram[rows, rows + start] = 0.0
        total += float((gram**2).sum())
        worst += float(gram.abs().amax(1).sum())
    return math.sqrt(total / (f * (f - 1))), worst / f, float(unit.abs().amax(1).mean())
