"""The witness for a claimed r-dimensional summary: train x -> r numbers -> y, and see how much of y comes through."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import DataError


@dataclass(frozen=True)
class Witness:
    """How well y can be computed from r numbers that are linear in x; all figures are held-out FVU (0 perfect, 1 the mean).

    Attributes:
        r: the numbers allowed. fvu: trained encoder and decoder.
        random_encoder: the same decoder trained behind r random directions of x: the null.
        linear: the best linear map of rank r (reduced-rank regression), no training involved.
        unlimited: the decoder trained on all of x: what this decoder can do at all.
    """

    r: int
    fvu: float
    random_encoder: float
    linear: float
    unlimited: float

    def __repr__(self) -> str:
        return (
            f"Witness(x -> {self.r} -> y, held-out FVU: trained {self.fvu:.3f}, random encoder {self.random_encoder:.3f}, "
            f"linear of rank {self.r} {self.linear:.3f}, decoder on all of x {self.unlimited:.3f})"
        )


@dataclass(frozen=True)
class Bottleneck:
    """Settings: a linear encoder to r numbers and a ReLU decoder of one hidden layer, trained by Adam.

    Attributes:
        r, hidden: widths. steps, batch_size, lr, seed: of training. held_out: share of the rows kept for the figures.
    """

    r: int
    hidden: int = 256
    steps: int = 1000
    batch_size: int = 256
    lr: float = 3e-3
    held_out: float = 0.25
    seed: int = 0

    def fit(self, x: Float[Tensor, "rows i"], y: Float[Tensor, "rows o"]) -> Witness:
        """Train the witness and its baselines on activations of both ends of a segment.

        Raises:
            DataError: r outside 1..i, too few rows, or a constant y.
        """
        rows, i = x.shape
        if not 1 <= self.r <= i:
            raise DataError(f"expected r from 1 to {i} numbers for inputs of width {i}, got r = {self.r}")
        cut = rows - round(rows * self.held_out)
        if len(y) != rows or min(cut, rows - cut) < 8:
            raise DataError(f"expected as many rows of x as of y, at least 32, got {rows} and {len(y)}")
        order = torch.randperm(rows, generator=torch.Generator().manual_seed(self.seed))
        x, y = _standard(x[order], cut), y[order] - y[order[:cut]].mean(0)
        if not float(y[:cut].var()) > 0:
            raise DataError(f"y is constant over {cut} rows: there is nothing to compute. Give varied inputs")
        y = y / y[:cut].std()
        generator = torch.Generator().manual_seed(self.seed)
        random = x @ torch.randn(i, self.r, generator=generator) / i**0.5
        return Witness(
            self.r,
            self._trained(x, y, cut, self.r),
            self._trained(random, y, cut, None),
            reduced_rank_fvu(x, y, cut, self.r),
            self._trained(x, y, cut, None),
        )

    def _trained(self, x: Tensor, y: Tensor, cut: int, r: int | None) -> float:
        """Held-out FVU of a decoder on x, behind a trained linear encoder to r numbers when r is given."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            width = x.shape[1] if r is None else r
            layers = [nn.Linear(width, self.hidden), nn.ReLU(), nn.Linear(self.hidden, y.shape[1])]
            if r is not None:
                layers = [nn.Linear(x.shape[1], r), *layers]
            net = nn.Sequential(*layers)
        optimiser = torch.optim.Adam(net.parameters(), lr=self.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps)
        drawn = torch.Generator().manual_seed(self.seed)
        for _ in range(self.steps):
            rows = torch.randint(cut, (min(self.batch_size, cut),), generator=drawn)
            optimiser.zero_grad(set_to_none=True)
            F.mse_loss(net(x[rows]), y[rows]).backward()
            optimiser.step()
            schedule.step()
        with torch.no_grad():
            return _fvu(net(x[cut:]), y[cut:])


def reduced_rank_fvu(x: Float[Tensor, "rows i"], y: Float[Tensor, "rows o"], cut: int, r: int) -> float:
    """Held-out FVU of the best linear map of rank r, fitted on the first `cut` rows, ridge 1e-6.

    Source: "Reduced-Rank Regression for the Multivariate Linear Model".
    """
    x, y = x.double(), y.double()
    gram = x[:cut].T @ x[:cut]
    ridge = 1e-6 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    full = torch.linalg.solve(gram + ridge, x[:cut].T @ y[:cut])
    _, _, rows = torch.linalg.svd(x[:cut] @ full, full_matrices=False)
    return _fvu(x[cut:] @ full @ rows[:r].T @ rows[:r], y[cut:])


def _standard(x: Float[Tensor, "rows i"], cut: int) -> Float[Tensor, "rows i"]:
    spread = x[:cut].std(0)
    return (x - x[:cut].mean(0)) / torch.where(spread > 0, spread, 1.0)


def _fvu(predicted: Tensor, y: Tensor) -> float:
    return float(((predicted - y) ** 2).sum() / ((y - y.mean(0)) ** 2).sum())
