"""Held-out rows in parts: each is worked on by one of the processes, and what it adds to a figure goes to all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..activations.checking import check_together, rows_at
from ..basis.ends import features_at
from ..basis.linear import Basis
from ..codes.csr import blocks, take_rows
from ..distributed import shared
from ..segments import Segment
from ..store.shards import spans

#: rows of a part at least; and how many parts there are at most, since each sends its sums
_ROWS, _PARTS = 1_024, 48
#: the features of some rows
Cut = Callable[[slice], Tensor]


def summed(rows: int, part: Callable[[slice], Sequence[Any]]) -> list[Any]:
    """Sums over so many rows of what `part` makes of each part of them, added in their order: the same bits whoever made which."""
    pieces = spans(rows, max(_ROWS, -(-rows // _PARTS)))
    made = shared(len(pieces), lambda i: tuple(part(slice(pieces[i].start, pieces[i].stop))))
    return [sum(column[1:], start=column[0]) for column in zip(*made, strict=True)]


def cut(f: Tensor) -> Cut:
    """The parts of features that are there as a whole, dense or CSR."""
    return lambda rows: take_rows(f, torch.arange(rows.start, rows.stop))


class Coded:
    """Features at both ends of segments; a process encodes the parts that it works on, once.

    Raises:
        BasisError, DataError: bases or activations that do not fit, as `features_at` says; seen on the first row.
    """

    def __init__(self, segments: Sequence[Segment], bases: Mapping[str, Basis], acts: Mapping[str, Any]):
        self.segments, self.bases = segments, bases
        ends = [end for s in segments for end in ((s.hook_in, s.d_in), (s.hook_out, s.d_out))]
        self.rows = {hook: rows_at(acts, hook, width) for hook, width in ends}
        for segment in segments:
            check_together(self.rows, (segment.hook_in, segment.hook_out))
        self._kept: dict[tuple[int, int], dict[str, Tensor]] = {}
        self.widths = {hook: f.shape[1] for hook, f in self._of(slice(0, 1)).items()}

    def at(self, hook: str) -> Cut:
        """The features at a hook point, part by part."""
        return lambda rows: self._part(rows)[hook]

    def mean(self, hook: str) -> Float[Tensor, " f"]:
        """The features' means over all rows."""
        f, rows = self.at(hook), len(self.rows[hook])
        (total,) = summed(rows, lambda part: (torch.stack([b.sum(0) for b in blocks(f(part), _ROWS)]).sum(0),))
        return total / rows

    def _part(self, rows: slice) -> dict[str, Tensor]:
        key = rows.start, rows.stop
        if key not in self._kept:
            self._kept[key] = self._of(rows)
        return self._kept[key]

    def _of(self, rows: slice) -> dict[str, Tensor]:
        return features_at(self.segments, self.bases, {hook: x[rows] for hook, x in self.rows.items()}, False)
