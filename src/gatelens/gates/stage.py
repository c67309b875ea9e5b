"""Stage: real rows at a segment's input, changed along the features of one dictionary and read again by the other.

What no feature explains is kept: a row moves by (f' - f) @ W_dec and nothing else. Features that are functions of the
input (a transcoder's, a gate dictionary's) would agree with themselves whatever the model did: whether such a feature is
there is read off the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..basis import Basis, directions
from ..basis.columns import Columns
from ..basis.features import encode_rows
from ..basis.output import OutputDictionary, at_output, output_features
from ..codes.csr import to_csr
from ..errors import DataError
from ..models import there
from ..segments import Segment
from .one_feature import OneFeature
from .rule import Literal

#: rows run through the segment at once
CHUNK = 4_096
#: real rows on which it is proved that a feature can be read without the others
PROOF = 512
#: a feature that is read off the output is there from this share of its mean value where on
READ_FROM = 0.5


def sparse_rows(f: Tensor) -> scipy.sparse.csr_matrix:
    """[rows, features] what is above zero, as scipy's CSR; from a dense tensor or torch's CSR."""
    sparse = f.detach().cpu() if f.layout == torch.sparse_csr else to_csr(f.detach().cpu())
    parts = (sparse.values().float().numpy(), sparse.col_indices().numpy(), sparse.crow_indices().numpy())
    matrix = scipy.sparse.csr_matrix(parts, shape=tuple(f.shape))
    matrix.data = np.maximum(matrix.data, 0)
    matrix.eliminate_zeros()
    return matrix


@dataclass
class Stage:
    """Rows to be changed, and the model's segment to run them through.

    Attributes:
        x: [rows, d_in] at the segment's input, on its device as the bases are.
        f_in, f_out: [rows, m], [rows, n] what the dictionaries make of them untouched, above zero, CSR.
        levels: [n] above which each output counts as on.
        passes: rows that went through the segment so far; what verification costs.
    """

    segment: Segment
    basis_in: Basis
    basis_out: Basis
    x: Float[Tensor, "rows d_in"]
    f_in: scipy.sparse.csr_matrix
    f_out: scipy.sparse.csr_matrix
    levels: Float[np.ndarray, " n"]
    passes: int = 0

    @classmethod
    def of(
        cls,
        segment: Segment,
        basis_in: Basis,
        basis_out: Basis,
        x: Float[Tensor, "rows d_in"],
        levels: Float[np.ndarray, " n"] | None = None,
        features: tuple[Tensor, Tensor] | None = None,
    ) -> Stage:
        """With the features of both ends where they are at hand, else encoded here; without levels an output is on above 0.

        Raises:
            DataError: rows of another width, or features of other rows.
        """
        if x.ndim != 2 or x.shape[1] != segment.d_in or not len(x):
            raise DataError(
                f"interventions need rows at {segment.hook_in}, [rows, {segment.d_in}]; got shape {tuple(x.shape)}. "
                "Give the collected activations of that hook point"
            )
        basis_in, basis_out, x = there((basis_in, basis_out, x), segment.device)
        f_in, f_out = (sparse_rows(f) for f in features or _encoded(segment, basis_in, basis_out, x))
        if not f_in.shape[0] == f_out.shape[0] == len(x):
            raise DataError(
                f"{len(x)} rows at {segment.hook_in}, but features of {f_in.shape[0]} and {f_out.shape[0]} rows. "
                "Give the features of the same rows"
            )
        levels = np.zeros(f_out.shape[1]) if levels is None else np.asarray(levels, float)
        if levels.shape != (f_out.shape[1],):
            raise DataError(f"expected a level for each of {f_out.shape[1]} outputs, got {levels.shape}")
        return cls(segment, basis_in, basis_out, x, f_in, f_out, levels)

    def thinned(self, most: int) -> Stage:
        """Every so-manieth row, so that there are at most so many."""
        step = -(-len(self.x) // most)
        if step <= 1:
            return self
        return replace(self, x=self.x[::step], f_in=self.f_in[::step], f_out=self.f_out[::step], passes=0)

    @cached_property
    def directions(self) -> Float[np.ndarray, "m d_in"]:
        """What one unit of each input feature adds to a row."""
        return directions(self.basis_in, self.f_in.shape[1]).detach().cpu().float().numpy()

    @cached_property
    def output_columns(self) -> scipy.sparse.csc_matrix:
        return scipy.sparse.csc_matrix(self.f_out)

    @cached_property
    def input_columns(self) -> scipy.sparse.csc_matrix:
        return scipy.sparse.csc_matrix(self.f_in)

    @cached_property
    def typical(self) -> Float[np.ndarray, " m"]:
        """Each input feature's mean where it is on; 0 for one that never is."""
        return mean_on(self.f_in)

    def states(self, out: int) -> tuple[Int[np.ndarray, " on"], Int[np.ndarray, " off"]]:
        """The rows on which an output is on, and those on which it is silent; between zero and its level it is neither.

        Where features are read off the output, rows on which it shows something else than the dictionary says are neither.
        """
        start, stop = self.output_columns.indptr[out : out + 2]
        rows, values = self.output_columns.indices[start:stop], self.output_columns.data[start:stop]
        silent = np.ones(len(self.x), bool)
        silent[rows] = False
        on = rows[values > self.levels[out]]
        if self._shown is not None:
            shown = self._shown[:, out].toarray()[:, 0] > self.levels[out]
            return on[shown[on]], np.flatnonzero(silent & ~shown)
        return on, np.flatnonzero(silent)

    def untouched(self, out: int, rows: Int[np.ndarray, " r"]) -> Float[np.ndarray, " r"]:
        """What some rows show of an output before anything is changed."""
        f = self.output_columns if self._shown is None else self._shown
        return f[:, out].toarray()[rows, 0]

    def on(self, literal: Literal) -> Bool[np.ndarray, " rows"]:
        """Where a literal is on."""
        start, stop = self.input_columns.indptr[literal.feature : literal.feature + 2]
        found = np.zeros(len(self.x), bool)
        found[self.input_columns.indices[start:stop]] = self.input_columns.data[start:stop] > literal.level
        return found

    def literals_on(self, literals: Sequence[Literal], rows: Int[np.ndarray, " r"]) -> Bool[np.ndarray, "r k"]:
        """Which of the literals are on in some rows, a column each."""
        if not literals:
            return np.zeros((len(rows), 0), bool)
        values = self.values([literal.feature for literal in literals], rows)
        return values > np.array([literal.level for literal in literals])

    def values(self, features: Sequence[int], rows: Int[np.ndarray, " r"]) -> Float[np.ndarray, "r t"]:
        """The values of some input features in some rows."""
        found = np.zeros((len(rows), len(features)), np.float32)
        starts, where, value = self.input_columns.indptr, self.input_columns.indices, self.input_columns.data
        for place, feature in enumerate(features):
            on = slice(starts[feature], starts[feature + 1])
            at = np.searchsorted(where[on], rows)
            there = at < on.stop - on.start
            there[there] = where[on][at[there]] == rows[there]
            found[there, place] = value[on][at[there]]
        return found

    def moved(self, rows: Int[np.ndarray, " r"], step: Float[np.ndarray, "r d_in"]) -> Float[Tensor, "r d_in"]:
        """The rows after a step, all else kept."""
        return self.x[torch.from_numpy(rows).to(self.x.device)] + torch.from_numpy(step).to(self.x)

    def shown(self, x: Float[Tensor, "r d_in"], outs: Int[np.ndarray, " r"]) -> Float[np.ndarray, " r"]:
        """What the segment's output shows of one output feature in each row: of row i, feature outs[i]."""
        index = torch.from_numpy(np.asarray(outs, np.int64))
        found = []
        for part, out in zip(x.split(CHUNK), index.split(CHUNK), strict=True):
            asked, place = out.unique(return_inverse=True)
            f = self._some_outputs(part, asked)
            found.append(f.gather(1, place.to(f.device)[:, None])[:, 0].cpu())
        return torch.cat(found).numpy() if found else np.zeros(0, np.float32)

    def shown_changed(
        self,
        rows: Int[np.ndarray, " r"],
        features: Int[np.ndarray, " t"],
        change: Float[np.ndarray, "patterns r t"],
        out: int,
    ) -> Float[np.ndarray, "patterns r"]:
        """What the output shows of one feature with some input features of some rows changed, under each pattern of changes."""
        along, change = self.directions[features], change.astype(np.float32)
        if self._one_feature is None:
            step = (change @ along).reshape(-1, along.shape[1])
            x = self.moved(np.broadcast_to(rows, change.shape[:2]).reshape(-1), step)
            return self.shown(x, np.full(len(x), out)).reshape(change.shape[:2])
        self.passes += change.shape[0] * change.shape[1]
        x = self.x[torch.from_numpy(rows).to(self.x.device)]
        with torch.no_grad():
            moved = self._one_feature.changed(x, torch.from_numpy(along).to(x), torch.from_numpy(change).to(x), out)
            return moved.cpu().float().numpy()

    @cached_property
    def _one_feature(self) -> OneFeature | None:
        reads = self.dictionary.reads_output
        return OneFeature.proven(self.segment, self.basis_out, self.x[:PROOF]) if reads else None

    def _some_outputs(self, x: Float[Tensor, "chunk d_in"], outs: Int[Tensor, " k"]) -> Float[Tensor, "chunk k"]:
        """As `outputs`, of a few features; the others are not computed where the encoder allows it."""
        if self._columns is None:
            f = self.outputs(x)
            return f[:, outs.to(f.device)]
        self.passes += len(x)
        with torch.no_grad():
            return self._columns.encode(self.segment.forward(x), outs.to(x.device))

    @cached_property
    def _columns(self) -> Columns | None:
        if not self.dictionary.reads_output:
            return None
        with torch.no_grad():
            return Columns.proven(self.basis_out, self.segment.forward(self.x[:PROOF]))

    def outputs(self, x: Float[Tensor, "chunk d_in"]) -> Float[Tensor, "chunk n"]:
        """All output features as the segment's output shows them; for some thousands of rows at once."""
        self.passes += len(x)
        with torch.no_grad():
            f = self.dictionary.shown(x, self.segment.forward(x))
        if self.dictionary.reads_output:
            return f
        return torch.where(f > torch.from_numpy(self._read_from).to(f), f, 0.0)

    @cached_property
    def dictionary(self) -> OutputDictionary:
        """The output's basis, with all that is asked of it."""
        return at_output(self.basis_out)

    @cached_property
    def _read_from(self) -> Float[np.ndarray, " n"]:
        return READ_FROM * mean_on(self.f_out)

    @cached_property
    def _shown(self) -> scipy.sparse.csc_matrix | None:
        """What the untouched outputs show of a pair dictionary's features; None where features are encoded from them anyway."""
        if self.dictionary.reads_output:
            return None
        parts = [sparse_rows(self.outputs(part)) for part in self.x.split(CHUNK)]
        return scipy.sparse.csc_matrix(scipy.sparse.vstack(parts))


def mean_on(f: scipy.sparse.csr_matrix) -> Float[np.ndarray, " features"]:
    """Each feature's mean where it is on; 0 for one that never is."""
    count = np.bincount(f.indices, minlength=f.shape[1])
    total = np.bincount(f.indices, weights=f.data, minlength=f.shape[1])
    return total / np.maximum(count, 1)


def _encoded(segment: Segment, basis_in: Any, basis_out: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    return encode_rows(basis_in, x), output_features(basis_out, x, segment.outputs(x))
