"""Workbench: rows at a segment's input, moved along the directions of features, and what the output then shows.

Everything else is kept, the part that no feature explains included. The features of a pair dictionary (a transcoder, a gate
dictionary) are functions of the input and would agree with themselves whatever the model did: whether such a feature is
there is read off the output.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..basis import Basis, directions
from ..basis.features import encode_rows
from ..basis.output import output_features
from ..basis.pair import PairBasis
from ..codes.csr import stack_csr, to_csr
from ..errors import DataError
from ..segments import Segment
from .tables import Columns

#: rows encoded or run through the segment at once
_CHUNK = 4_096
#: a feature that is read off the output is there from this share of its mean value where on
READ_FROM = 0.5


class Workbench:
    """Real rows at a segment's input, what both bases make of them, and the means to change them.

    Attributes:
        x: [rows, d_in]; f_in, f_out: their features at both ends, untouched.
        on_value: [m] the value that a feature is given where it is switched on: its mean where it is on by itself.
    """

    def __init__(
        self,
        segment: Segment,
        basis_in: Basis,
        basis_out: Basis,
        x: Float[Tensor, "rows d_in"],
        features: tuple[Columns, Columns] | None = None,
    ):
        """`features`: what the bases make of the rows at both ends, where that is known already."""
        if x.ndim != 2 or x.shape[1] != segment.d_in or not len(x):
            raise DataError(
                f"interventions need rows at {segment.hook_in}, [rows, {segment.d_in}]; got shape {tuple(x.shape)}. "
                "Give the collected activations of that hook point"
            )
        self.segment, self.basis_in, self.basis_out, self.x = segment, basis_in, basis_out, x
        self.f_in, self.f_out = features or self._encoded()
        self.on_value = self.f_in.mean_on()
        self.directions = directions(basis_in, self.f_in.features).to(x)

    def _encoded(self) -> tuple[Columns, Columns]:
        with torch.no_grad():
            y = torch.cat([self.segment.forward(part) for part in self.x.split(_CHUNK)])
        f_out = output_features(self.basis_out, self.x, y)
        return Columns.of(encode_rows(self.basis_in, self.x), "f_in"), Columns.of(f_out, "f_out")

    def features(self, x: Float[Tensor, "rows d_in"], outs: Int[Tensor, " k"]) -> Float[Tensor, "rows k"]:
        """Some output features of input vectors, as the real segment's output shows them."""
        return torch.cat([f[:, outs.to(f.device)].cpu() for f in self._shown_outputs(x)])

    def states(self, out: int) -> tuple[Bool[np.ndarray, " rows"], Bool[np.ndarray, " rows"]]:
        """The rows on which an output fires untouched, and those on which it is silent.

        Where features are read off the output, rows on which it shows something else than the dictionary says are neither.
        """
        on = self.f_out.dense(out) > 0
        shown = on if self._shown is None else self._shown.dense(out) > 0
        return on & shown, ~on & ~shown

    @cached_property
    def _shown(self) -> Columns | None:
        """What the untouched outputs show of a pair dictionary's features; None where features are encoded from them anyway."""
        if not isinstance(self.basis_out, PairBasis):
            return None
        return Columns.of(stack_csr([to_csr(f) for f in self._shown_outputs(self.x)]), "f_out")

    def _shown_outputs(self, x: Tensor) -> Iterator[Tensor]:
        """[chunk, n] all output features as the segment's output shows them, chunk by chunk."""
        pair = self.basis_out if isinstance(self.basis_out, PairBasis) else None
        level = None if pair is None else torch.from_numpy(READ_FROM * self.f_out.mean_on()).to(x)
        with torch.no_grad():
            for part in x.split(_CHUNK):
                y = self.segment.forward(part)
                if pair is None or level is None:
                    f = output_features(self.basis_out, part, y)
                    yield f.to_dense() if f.layout == torch.sparse_csr else f
                else:
                    f = pair.read_off(part, y)
                    yield torch.where(f > level, f, 0.0)

    def values(self, rows: np.ndarray, parents: Sequence[int]) -> np.ndarray:
        """[rows, k] the parents' values."""
        return np.stack([self.f_in.dense(p)[rows] for p in parents], 1) if len(parents) else np.zeros((len(rows), 0))

    def active(self, rows: np.ndarray) -> list[np.ndarray]:
        """The input features that are on in each of the rows."""
        starts, features = self._by_row
        return [features[starts[row] : starts[row + 1]] for row in rows]

    @cached_property
    def _by_row(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each row's active features begin, and the features, row by row."""
        on = self.f_in.value > 0
        feature = np.repeat(np.arange(self.f_in.features), np.diff(self.f_in.starts))[on]
        row = self.f_in.row[on]
        starts = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=self.f_in.rows))])
        return starts, feature[np.argsort(row, kind="stable")]

    def moved(self, rows: np.ndarray, parents: Sequence[int], change: np.ndarray) -> Tensor:
        """[rows, d_in] the rows after the parents' values changed by `change` [rows, k], all else kept."""
        step = torch.from_numpy(change).to(self.x) @ self.directions[list(parents)]
        return self.x[torch.from_numpy(rows)] + step
