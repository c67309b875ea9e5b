"""How often a wire comes back when the solver sees other rows: its selection frequency over half-samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .connectors import Connector, Solver
from .errors import SolverError
from .sparse import take_rows


@dataclass(frozen=True)
class EdgeStability:
    """Of every wire that was found in at least one of the fits.

    Attributes:
        out, into: the wire's ends.
        frequency: share of the fits that found it; sign: share of those in which it is positive.
        weight: mean weight over the fits that found it.
        fits: how many there were.
    """

    out: Int[Tensor, " edges"]
    into: Int[Tensor, " edges"]
    frequency: Float[Tensor, " edges"]
    sign: Float[Tensor, " edges"]
    weight: Float[Tensor, " edges"]
    fits: int

    def of(self, connector: Connector) -> Float[Tensor, " edges"]:
        """The frequency of each of a connector's wires, in the order of its CSR values; 0 for one never found."""
        m = connector.weight.shape[1]
        rows = torch.repeat_interleave(torch.arange(len(connector.bias)), connector.fan_in())
        wanted = rows * m + connector.weight.col_indices()
        known = self.out * m + self.into
        if not len(known):
            return torch.zeros(len(wanted))
        place = torch.searchsorted(known, wanted).clamp_max(len(known) - 1)
        return torch.where(known[place] == wanted, self.frequency[place], 0.0)

    def __repr__(self) -> str:
        stable = int((self.frequency >= 0.9).sum())
        return f"EdgeStability({len(self.out)} wires in {self.fits} fits, {stable} of them in at least 9 of 10)"


def edge_stability(solver: Solver, f_in: Tensor, f_out: Tensor, fits: int = 10, seed: int = 0) -> EdgeStability:
    """Fit on random halves of the rows, drawn without replacement (Meinshausen & Buhlmann 2010, stability selection).

    Args:
        solver: any solver; its own seed stays as it is, so what varies is the rows.
        f_in, f_out: features over the same rows, dense or sparse CSR.

    Raises:
        SolverError: fewer than 2 fits or fewer than 4 rows.
    """
    if fits < 2 or len(f_in) < 4 or len(f_in) != len(f_out):
        raise SolverError(
            f"edge stability needs 2 fits or more over 4 rows or more, the same on both sides; got {fits} fits and "
            f"{len(f_in)} and {len(f_out)} rows. Raise `fits`, or give more rows"
        )
    generator = torch.Generator().manual_seed(seed)
    m = f_in.shape[1]
    keys, weights = [], []
    for _ in range(fits):
        half = torch.randperm(len(f_in), generator=generator)[: len(f_in) // 2].sort().values
        weight = solver.fit(take_rows(f_in, half), take_rows(f_out, half)).weight
        rows = torch.repeat_interleave(torch.arange(weight.shape[0]), weight.crow_indices().diff())
        kept = weight.values() != 0
        keys.append((rows * m + weight.col_indices())[kept])
        weights.append(weight.values()[kept].double())
    pair, place = torch.unique(torch.cat(keys), return_inverse=True)
    value = torch.cat(weights)
    zeros = torch.zeros(len(pair), dtype=torch.float64)
    count = zeros.index_add(0, place, torch.ones_like(value))
    positive = zeros.index_add(0, place, (value > 0).double())
    mean = zeros.index_add(0, place, value) / count
    figures = ((count / fits).float(), (positive / count).float(), mean.float())
    return EdgeStability(pair // m, pair % m, *figures, fits)
