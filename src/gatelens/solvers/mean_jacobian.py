"""MeanJacobian: the wires that local derivatives suggest, averaged over rows; a baseline."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..basis.linear import Basis
from ..codes.csr import blocks
from ..connectors import Connector
from ..errors import SolverError
from ..jacobians import active_block
from ..lazy import renamed
from ..models import host, there
from ..segments import Segment
from .features import check_features
from .protocol import SolverDefaults
from .virtual_weights import mean_of

#: above so many pairs of features, sums are kept only for pairs that were on together
_DENSE_PAIRS = 2**24


@renamed(mean_edges="mean_wires")
@dataclass(frozen=True)
class MeanJacobian(SolverDefaults):
    """Derivatives of the active output features by the active input features, at real rows; the largest mean |J| kept.

    Wires are ranked by |derivative| averaged over all rows (0 where either end is off) times the input feature's root
    mean square; a wire's weight is the mean derivative over the rows where both ends are on. The bias makes each
    output's mean right before the ReLU.

    Attributes:
        mean_wires: wires per output feature, on average over all outputs.
        cap: most wires into one output; None for no cap.
        rows: rows at which derivatives are taken, spread over all of them.
        batch: rows at once. place: set by `at`.

    Raises:
        SolverError: settings out of range, without the segment and its bases (`at`), or features over different rows.

    Examples:
        >>> f_in, f_out = (bases[hook].encode(x) for hook, x in acts.items())
        >>> solver = gl.MeanJacobian(mean_wires=4).at(net.segment, *bases.values())
        >>> solver.fit(f_in, f_out).wires
        128
    """

    mean_wires: float = 16
    cap: int | None = None
    rows: int = 512
    batch: int = 32
    place: tuple[Segment, Basis, Basis] | None = None

    def __post_init__(self):
        if (
            not 0 < self.mean_wires < math.inf
            or self.rows < 1
            or self.batch < 1
            or (self.cap is not None and self.cap < 1)
        ):
            raise SolverError(
                "mean_wires, rows, batch and cap must be positive; got "
                f"{self.mean_wires}, {self.rows}, {self.batch}, {self.cap}. Raise them"
            )

    def with_budget(self, mean_wires: float, signed: bool) -> MeanJacobian:
        return replace(self, mean_wires=mean_wires, cap=None)

    def at(self, segment: Segment, basis_in: Basis, basis_out: Basis) -> MeanJacobian:
        """The solver for one segment: it needs the function between its ends, and both bases."""
        return replace(self, place=(segment, basis_in, basis_out))

    def fit(self, f_in: Tensor, f_out: Tensor) -> Connector:
        """A connector from features over the same rows, [rows, m] and [rows, n], dense or sparse CSR."""
        if self.place is None:
            raise SolverError(
                "MeanJacobian needs the segment and its bases: call `.at(segment, basis_in, basis_out)` first, as "
                "build_circuit does"
            )
        check_features(f_in, f_out)
        n, m = f_out.shape[1], f_in.shape[1]
        device = self.place[0].device
        sums = host(self._sums(there(self.place, device), f_in, n, m))
        worth = sums.magnitude * mean_of(f_in, squared=True).sqrt()[sums.pair % m]
        kept = _largest(sums.pair // m, worth, round(self.mean_wires * n), self.cap)
        pair, weight = sums.pair[kept], (sums.signed / sums.count)[kept]
        out, into = pair // m, pair % m
        crow = torch.cat([torch.zeros(1, dtype=torch.long), torch.bincount(out, minlength=n).cumsum(0)])
        bias = mean_of(f_out).index_add(0, out, -weight * mean_of(f_in)[into])
        matrix = torch.sparse_csr_tensor(crow, into, weight.float(), (n, m), check_invariants=False)
        return Connector(matrix, bias.float(), solver=f"MeanJacobian(mean_wires={self.mean_wires:g})")

    def _sums(self, place: tuple[Segment, Basis, Basis], f_in: Tensor, n: int, m: int) -> _PairSums:
        segment, basis_in, basis_out = place
        narrow = n * m <= _DENSE_PAIRS
        total = torch.zeros(3, n * m if narrow else 0, dtype=torch.float64, device=segment.device)
        pairs, parts = [], []
        for f in _spread(f_in, self.rows, self.batch):
            block = active_block(segment, basis_in.decode(f.to(segment.device)), basis_in, basis_out)
            real = (block.out >= 0)[:, :, None] & (block.into >= 0)[:, None, :]
            pair = (block.out[:, :, None] * m + block.into[:, None, :])[real]
            value = block.values[real].double()
            part = torch.stack([value, value.abs(), torch.ones_like(value)])
            if narrow:
                total.index_add_(1, pair, part)
            else:
                pairs.append(pair)
                parts.append(part)
        if narrow:
            seen = total[2].nonzero().squeeze(1)
            return _PairSums(seen, *total[:, seen])
        seen, where = torch.unique(torch.cat(pairs), return_inverse=True)
        total = torch.zeros(3, len(seen), dtype=torch.float64, device=seen.device).index_add_(
            1, where, torch.cat(parts, 1)
        )
        return _PairSums(seen, *total)


class _PairSums(NamedTuple):
    """Of pairs of features that were on together on some row.

    Attributes:
        pair: output * inputs + input, in rising order.
        signed, magnitude, count: sum of derivatives, of their sizes, and the number of rows.
    """

    pair: Int[Tensor, " p"]
    signed: Float[Tensor, " p"]
    magnitude: Float[Tensor, " p"]
    count: Float[Tensor, " p"]


def _spread(f: Tensor, rows: int, batch: int) -> Iterator[Float[Tensor, "batch m"]]:
    """About `rows` rows at even distances, dense, `batch` at a time."""
    step = max(1, len(f) // rows)
    chosen = torch.cat([block[(-start) % step :: step] for start, block in _numbered(f)])[:rows]
    yield from chosen.split(batch)


_BLOCK = 8_192


def _numbered(f: Tensor) -> Iterator[tuple[int, Float[Tensor, "block m"]]]:
    for i, block in enumerate(blocks(f, _BLOCK)):
        yield i * _BLOCK, block


def _largest(out: Int[Tensor, " p"], worth: Float[Tensor, " p"], budget: int, cap: int | None) -> Int[Tensor, " kept"]:
    """Places of the `budget` largest, at most `cap` an output, in rising order."""
    order = torch.argsort(worth, descending=True, stable=True)
    order = order[worth[order] > 0]
    if cap is not None:
        by_output = torch.argsort(out[order], stable=True)  # still the largest first within an output
        start = torch.searchsorted(out[order][by_output], out[order][by_output])
        rank = torch.empty_like(order)
        rank[by_output] = torch.arange(len(order)) - start
        order = order[rank < cap]
    return order[:budget].sort().values
