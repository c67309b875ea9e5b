"""Which features of a batch are on, and gradients that touch only those: the inner loop of sparse training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .rows import offsets, weighted_rows

#: rules by which a batch's active features are chosen
ACTIVATIONS = ("batchtopk", "topk", "relu")


@dataclass(frozen=True)
class Seen:
    """What a batch gives: the active entries (in order of the rows) and their values, what is left of the target, and the loss."""

    rows: Int[Tensor, " active"]
    cols: Int[Tensor, " active"]
    value: Float[Tensor, " active"]
    error: Float[Tensor, "rows d"]
    loss: Float[Tensor, ""]


class Chooser:
    """Finds the active entries of batches of pre-activations.

    "batchtopk" keeps the k * rows largest positive entries of a batch, "topk" the k largest positive ones of each row,
    "relu" all positive ones. The threshold of the batch before narrows the search, so that no batch is sorted whole.
    """

    def __init__(self, activation: str, k: float):
        self.activation, self.k, self.threshold = activation, k, 0.0

    def __call__(self, pre: Float[Tensor, "rows f"]) -> tuple[Int[Tensor, " active"], Int[Tensor, " active"]]:
        """(rows, features) of the active entries, in order of the rows."""
        rows, width = pre.shape
        if self.activation == "topk":
            value, col = pre.topk(min(int(self.k), width), dim=1, sorted=False)
            on = value > 0
            return on.nonzero(as_tuple=True)[0], col[on]
        if self.activation == "relu":
            rows_on, cols_on = (pre > 0).nonzero(as_tuple=True)
            return rows_on, cols_on
        places = self.largest(pre.flatten(), round(self.k * rows))
        return places // width, places % width

    def largest(self, flat: Float[Tensor, " entries"], count: int) -> Int[Tensor, " active"]:
        """Where the `count` largest positive entries are, in order of place."""
        places = self._candidates(flat, count)
        if len(places) > count:
            value, kept = flat[places].topk(count, sorted=False)
            self.threshold = float(value.min())
            places = places[kept].sort().values
        return places

    def _candidates(self, flat: Tensor, count: int) -> Int[Tensor, " places"]:
        places = (flat > 0.8 * self.threshold).nonzero().squeeze(1)
        return places if len(places) >= count or not self.threshold else (flat > 0).nonzero().squeeze(1)


class ActiveLinear(torch.autograd.Function):
    """pre[rows, cols], active entries of pre = x @ encoder.T + bias as computed before; the derivative visits these only."""

    @staticmethod
    def forward(ctx: Any, encoder: Tensor, bias: Tensor, x: Tensor, pre: Tensor, rows: Tensor, cols: Tensor) -> Tensor:  # pyright: ignore
        ctx.save_for_backward(x, rows, cols)
        ctx.width = len(bias)
        return pre[rows, cols]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        x, rows, cols = ctx.saved_tensors
        order = torch.argsort(cols, stable=True)
        starts = offsets(cols[order], ctx.width)[:-1]
        to_encoder = weighted_rows(x, rows[order], grad[order], starts)
        to_bias = torch.zeros(ctx.width, dtype=grad.dtype, device=grad.device).index_add_(0, cols, grad)
        return to_encoder, to_bias, None, None, None, None


def decode_active(
    dictionary: Float[Tensor, "f d"],
    rows: Int[Tensor, " active"],
    cols: Int[Tensor, " active"],
    value: Float[Tensor, " active"],
    count: int,
) -> Float[Tensor, "rows d"]:
    """Sum over the active features of value * dictionary row, for `count` rows."""
    return weighted_rows(dictionary, cols, value, offsets(rows, count)[:-1])


@torch.no_grad()
def unit_rows_(matrix: Tensor) -> None:
    """Scale every row to length 1, in place; rows of zeros stay."""
    matrix.div_(matrix.norm(dim=1, keepdim=True).clamp_min(1e-12))


def level(parts: Iterable[Tensor], count: int) -> float:
    """The value that `count` of the positive values exceed, over all parts; 0 where there are no more than that.

    Only the largest are held: all that is positive would be half of rows by features.
    """
    largest: Tensor | None = None
    for part in parts:
        lowest = 0.0 if largest is None or len(largest) <= count else float(largest.min())
        found = part[part > lowest]
        largest = found if largest is None else torch.cat([largest, found])
        largest = largest.topk(min(count + 1, len(largest)), sorted=False).values
    return 0.0 if largest is None or len(largest) <= count else float(largest.min())
