"""The connector's own value for every output, on sparse rows: how much of the true one it explains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float, Int

from ..connectors import Connector
from ..distributed import shared
from .tables import Columns

#: values that are computed at once, and outputs
_ENTRIES, _OUTPUTS = 2_000_000, 128


def explained(connector: Connector, f_in: Columns, f_out: Columns) -> list[float | None]:
    """1 - SSE / SST of the connector's value over all rows, an output at a time; None for one that does not vary.

    On a row where none of its inputs is on an output has the same value as on any other such row: only the others are computed.
    Blocks of outputs by each of several processes, all of which call it.
    """
    f, y = f_in.matrix(), f_out.matrix()
    weights = [_weights(side) for side in connector.sides]
    parts = _blocks(f, weights)
    found = shared(len(parts), lambda i: list(_explained(connector, f, y[:, parts[i]], weights, parts[i])))
    return [r2 for part in found for r2 in part]


def _explained(
    connector: Connector,
    f: scipy.sparse.csc_matrix,
    y: Any,
    weights: Sequence[scipy.sparse.csr_matrix],
    outs: slice,
) -> Iterator[float | None]:
    """Of some outputs, from sums over the rows where the value differs from what it is without any input."""
    rows, count = y.shape
    every, nothing = np.arange(count), np.zeros(count)
    quiet = _value(connector, outs, every, [nothing for _ in weights])
    sums = [_Entries(f @ w[outs].T) for w in weights]
    place = np.unique(np.concatenate([s.place for s in sums])) if len(sums) > 1 else sums[0].place
    out, true = place // rows, _Entries(y)
    more = _value(connector, outs, out, [s.at(place) for s in sums]) - quiet[out]
    total, squares = (np.bincount(true.place // rows, v, count) for v in (true.value, true.value**2))
    said, said_squares, both = (np.bincount(out, v, count) for v in (more, more**2, more * true.at(place)))
    error = rows * quiet**2 + 2 * quiet * (said - total) + said_squares - 2 * both + squares
    spread = squares - total**2 / rows
    yield from (float(1 - e / s) if s > 1e-12 else None for e, s in zip(error, spread, strict=True))


class _Entries:
    """What stands in a sparse matrix, column after column: place [entries] is column * rows + row."""

    def __init__(self, matrix: scipy.sparse.spmatrix):
        columns = scipy.sparse.csc_matrix(matrix)
        columns.sort_indices()
        column = np.repeat(np.arange(columns.shape[1]), np.diff(columns.indptr))
        self.place = column * columns.shape[0] + columns.indices
        self.value = columns.data.astype(np.float64)

    def at(self, place: Int[np.ndarray, " places"]) -> Float[np.ndarray, " places"]:
        """The values at some places, 0 where nothing stands."""
        if not len(self.place):
            return np.zeros(len(place))
        found = np.minimum(np.searchsorted(self.place, place), len(self.place) - 1)
        return np.where(self.place[found] == place, self.value[found], 0.0)


def _value(
    connector: Connector, outs: slice, out: Int[np.ndarray, " entries"], sums: Sequence[Float[np.ndarray, " entries"]]
) -> Float[np.ndarray, " entries"]:
    """What becomes of sums over the inputs: the first goes through the activation, a second multiplies it."""

    def of(setting: torch.Tensor) -> np.ndarray:
        return setting.detach().double().cpu().numpy()[outs][out]

    first, *second = (z + of(side.bias) for side, z in zip(connector.sides, sums, strict=True))
    own, least = connector.sides[0], connector.least
    at = None if own.threshold is None else torch.from_numpy(of(own.threshold))
    value = Connector.activate(torch.from_numpy(first)[None], at, own.activation)[0].numpy()
    for z in second:
        value = value * z
    return value if least is None else value * (np.abs(value) > of(least))


def _weights(side: Connector) -> scipy.sparse.csr_matrix:
    """[outputs, inputs] in float64."""
    weight = side.weight.detach().cpu()
    parts = (weight.values().double().numpy(), weight.col_indices().numpy(), weight.crow_indices().numpy())
    return scipy.sparse.csr_matrix(parts, shape=(weight.shape[0], weight.shape[1]))


def _blocks(f: scipy.sparse.csc_matrix, weights: Sequence[scipy.sparse.csr_matrix]) -> list[slice]:
    """Outputs that follow one another and have few enough values together; so many at most, that processes share them evenly."""
    inputs = np.diff(f.indptr)
    entries = np.sum([abs(w).sign() @ inputs for w in weights], axis=0)
    number = np.arange(len(entries)) // _OUTPUTS + np.cumsum(entries) // _ENTRIES
    edges = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(number)]
    return [slice(a, b) for a, b in pairwise(edges)]
