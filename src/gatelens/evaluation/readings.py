"""How well few-input truth tables read outputs: the majority state of each on/off pattern of the parents, on held-out rows."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..codes.csr import spread
from ..codes.rows import Codes
from ..connectors import Connector
from .figures import firings

_TABLE_PARENTS = 8
#: rows that truth tables are filled on, and as many that they are judged on
TABLE_ROWS = 20_000


def read_share(
    connector: Connector,
    f_fit: Tensor,
    out_fit: Tensor,
    f_held: Tensor,
    out_held: Tensor,
    min_firings: int,
    over: float = 0.5,
) -> float | None:
    """Share of the outputs (on in at least `min_firings` held-out rows) whose truth table has a held-out MCC over `over`."""
    mcc = table_mcc(connector, f_fit, out_fit, f_held, out_held)
    counted = firings(out_held) >= min_firings
    return float((mcc[counted] > over).float().mean()) if counted.any() else None


def table_mcc(
    connector: Connector, f_fit: Tensor, out_fit: Tensor, f_held: Tensor, out_held: Tensor
) -> Float[Tensor, " n"]:
    """Matthews correlation of each output's truth table with its firing; 0 for one that is never on, or always.

    The table holds the majority state of each pattern of the (at most eight strongest) parents over the fitting rows; a pattern that
    did not occur there counts as off.
    """
    on_fit, on_held = _bits(f_fit), _bits(f_held)
    true_fit, true_held = _bits(out_fit), _bits(out_held)
    return torch.tensor(
        [
            _mcc(*_table(connector.parents(i)[0][:_TABLE_PARENTS], on_fit, on_held, true_fit[i]), true_held[i])
            for i in range(len(connector.bias))
        ]
    )


def _table(parents: Tensor, on_fit: Tensor, on_held: Tensor, true: Tensor) -> tuple[Tensor]:
    place = 2 ** torch.arange(len(parents), dtype=torch.int16)
    seen = (on_fit[parents] * place[:, None]).sum(0)
    patterns = 2 ** len(parents)
    total = torch.bincount(seen, minlength=patterns)
    on = torch.bincount(seen[true.bool()], minlength=patterns)
    return ((2 * on > total)[(on_held[parents] * place[:, None]).sum(0)],)


def _mcc(said: Tensor, true: Tensor) -> float:
    true = true.bool()
    n = len(true)
    both, a, b = float((said & true).sum()), float(said.sum()), float(true.sum())
    spread = (a * (n - a) * b * (n - b)) ** 0.5
    return (n * both - a * b) / spread if spread > 0 else 0.0


def _bits(f: Tensor) -> Tensor:
    """[features, rows] 1 where on, for at most `TABLE_ROWS` rows."""
    codes = Codes.of(f)
    codes = codes.rows(spread(len(codes), TABLE_ROWS))
    bits = torch.zeros(codes.width, len(codes), dtype=torch.int16)
    bits[codes.col, codes.row] = (codes.value != 0).to(torch.int16)
    return bits
