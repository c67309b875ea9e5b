"""Statistics of features over rows, as one record that can be added to another.

Sums are float64 and counts int64, whatever the type of the values (a bfloat16 sum of ones stops at 256). The k largest
values are kept by value, then by row, so that ties have one answer. Shards each make a record, and the records are
added in shard order: the bytes do not depend on how many processes made them. (Adding in the order of arrival would
differ in the last bits: floating-point addition is not associative.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import reduce

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .errors import DataError, NonFiniteError, SolverError


@dataclass(frozen=True, eq=False)
class Statistics:
    """What many rows of f features add up to.

    Attributes:
        rows: [1] how many rows.
        fired: [f] rows on which the feature was above zero.
        total, squares: [f] sums of x and of x^2.
        gram: [f, g] sum of x y^T with the other side's features (x with itself without one); [0, 0] if not asked.
        largest, largest_row: [f, k] the k largest values and their global row numbers, the largest first; unused places
            hold -inf and row -1.
        edges: [b + 1] fixed edges; histogram: [f, b + 2] rows below the first edge, in each bin [edge, next), at or
            above the last.
    """

    rows: Int[Tensor, " 1"]
    fired: Int[Tensor, " f"]
    total: Float[Tensor, " f"]
    squares: Float[Tensor, " f"]
    gram: Float[Tensor, "m g"]
    largest: Float[Tensor, "f k"]
    largest_row: Int[Tensor, "f k"]
    edges: Float[Tensor, " e"]
    histogram: Int[Tensor, "f b"]

    @property
    def mean(self) -> Float[Tensor, " f"]:
        """[f]; zero over no rows."""
        return self.total / self.rows.clamp_min(1)

    @property
    def variance(self) -> Float[Tensor, " f"]:
        """[f], of the population; never below zero."""
        return (self.squares / self.rows.clamp_min(1) - self.mean**2).clamp_min(0)

    @property
    def rate(self) -> Float[Tensor, " f"]:
        """[f] share of rows on which the feature fired."""
        return self.fired / self.rows.clamp_min(1)

    @property
    def dead(self) -> Tensor:
        """[f] features that never fired."""
        return self.fired == 0

    def quantile(self, q: float) -> Float[Tensor, " f"]:
        """[f] the upper edge of the bin in which the q-quantile lies: exact to one bin."""
        if len(self.edges) == 0:
            raise SolverError("quantiles come from the histogram, which has no edges here; give `of_rows` some edges")
        below = self.histogram.cumsum(1)
        place = (below >= q * self.rows).int().argmax(1)
        return torch.cat([self.edges, torch.tensor([torch.inf], dtype=self.edges.dtype)])[place]

    def tensors(self) -> dict[str, Tensor]:
        """For the store; `Statistics(**tensors)` is the way back."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __add__(self, other: Statistics) -> Statistics:
        return add(self, other)


def of_rows(
    x: Float[Tensor, "rows f"],
    first_row: int = 0,
    k: int = 8,
    edges: Iterable[float] = (),
    other: Float[Tensor, "n g"] | None = None,
    gram: bool = False,
) -> Statistics:
    """The record of one shard.

    Args:
        first_row: global number of the first row.
        k: how many largest values to keep a feature.
        edges: increasing edges of the histogram's bins; chosen before any data, the same for all shards.
        other: with `gram`, the features to multiply with; None for x itself.

    Raises:
        NonFiniteError: NaN or infinity in `x`, with feature and row.
        SolverError: edges that do not increase, or another side with other rows.
    """
    _check(x, first_row)
    bins = torch.tensor(list(edges), dtype=torch.float64)
    if not torch.isfinite(bins).all() or (bins.diff() <= 0).any():
        raise SolverError("the edges of a histogram must be finite and increase; sort them and drop repeated ones")
    if other is not None and len(other) != len(x):
        raise SolverError(f"expected the same rows on both sides, got {len(x)} and {len(other)}")
    wide = x.double()
    y = wide if other is None else other.double()
    value, row = _largest(wide, first_row + torch.arange(len(x)), k)
    return Statistics(
        rows=torch.tensor([len(x)]),
        fired=(x > 0).sum(0),
        total=wide.sum(0),
        squares=(wide * wide).sum(0),
        gram=wide.T @ y if gram else torch.zeros(0, 0, dtype=torch.float64),
        largest=value,
        largest_row=row,
        edges=bins,
        histogram=_histogram(wide, bins),
    )


def add(a: Statistics, b: Statistics) -> Statistics:
    """The record of the rows of both; counts, histograms and largest values exactly, sums in float64."""
    if a.largest.shape != b.largest.shape or a.gram.shape != b.gram.shape or not torch.equal(a.edges, b.edges):
        raise SolverError(
            f"these statistics are of other features or settings: {_shape(a)} and {_shape(b)}. "
            "Make all shards with the same settings"
        )
    k = a.largest.shape[1]
    value, row = _top(torch.cat([a.largest, b.largest], 1), torch.cat([a.largest_row, b.largest_row], 1), k)
    plain = ("rows", "fired", "total", "squares", "gram", "histogram")
    sums = {name: getattr(a, name) + getattr(b, name) for name in plain}
    return Statistics(**sums, largest=value, largest_row=row, edges=a.edges)


def fold(parts: Iterable[Statistics] | Iterable[Mapping[str, Tensor]]) -> Statistics:
    """Add records in the order given, which is shard order; holds two at a time.

    Raises:
        DataError: no record at all.
    """
    records = (part if isinstance(part, Statistics) else Statistics(**part) for part in parts)
    first = next(records, None)
    if first is None:
        raise DataError("there are no statistics to add: expected at least one shard. Check the data")
    return reduce(add, records, first)


def _check(x: Tensor, first_row: int) -> None:
    finite = torch.isfinite(x)
    if not finite.all():
        row, feature = (int(i) for i in (~finite).nonzero()[0])
        raise NonFiniteError(
            f"feature {feature} is {x[row, feature].item()} in row {first_row + row}: expected finite values. "
            "Look at the basis that made it and at the input of that row"
        )


def _largest(x: Float[Tensor, "rows f"], row: Int[Tensor, " rows"], k: int) -> tuple[Tensor, Tensor]:
    # a stable sort keeps equal values in row order, which is the order that ties are broken in
    value, place = torch.sort(x.T, dim=1, descending=True, stable=True)
    return _padded(value[:, :k], row[place[:, :k]], k)


def _top(value: Float[Tensor, "f n"], row: Int[Tensor, "f n"], k: int) -> tuple[Tensor, Tensor]:
    row, order = torch.sort(row, dim=1, stable=True)
    value, place = torch.sort(value.gather(1, order), dim=1, descending=True, stable=True)
    return value[:, :k], row.gather(1, place)[:, :k]


def _padded(value: Float[Tensor, "f n"], row: Int[Tensor, "f n"], k: int) -> tuple[Tensor, Tensor]:
    absent = (len(value), k - value.shape[1])
    return (
        torch.cat([value, torch.full(absent, -torch.inf, dtype=torch.float64)], 1),
        torch.cat([row, torch.full(absent, -1, dtype=torch.long)], 1),
    )


def _histogram(x: Float[Tensor, "rows f"], edges: Float[Tensor, " e"]) -> Int[Tensor, "f b"]:
    """Rows of each feature in each bin, the bins below the first and above the last edge included."""
    bins = len(edges) + 1
    if bins == 1:
        return torch.zeros(x.shape[1], 0, dtype=torch.long)
    place = torch.bucketize(x, edges, right=True) + bins * torch.arange(x.shape[1])
    return torch.bincount(place.reshape(-1), minlength=bins * x.shape[1]).reshape(x.shape[1], bins)


def _shape(s: Statistics) -> str:
    features, k = s.largest.shape
    return f"{features} features, {k} largest, {len(s.edges)} edges, Gram {tuple(s.gram.shape)}"
