"""Input features that fire as dictionaries' features do: in clusters, with Zipf rates, some inside others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

#: spread of the log-normal feature values
SPREAD = 0.25


@dataclass(frozen=True)
class InputWorld:
    """The rates from which rows are drawn.

    Features 0 .. clusters * size - 1 lie in clusters; the rest is background, each firing by itself.

    Attributes:
        cluster_rate: [clusters] probability that a cluster is active on a row.
        host: [clusters, size] slot of the feature that this one depends on (its own slot: none).
        with_host, without_host: [clusters, size] firing probability in an active cluster, by whether the host fires.
        role: [clusters, size] "" (free), "subset" (fires only inside its host), "shadow" (fires with its host nine
            times in ten, and sometimes alone) or "copy" (fires exactly when its host does, with the host's value).
        background_rate: [background] firing probability.
    """

    cluster_rate: np.ndarray
    host: np.ndarray
    with_host: np.ndarray
    without_host: np.ndarray
    role: np.ndarray
    background_rate: np.ndarray

    @property
    def clusters(self) -> int:
        return self.host.shape[0]

    @property
    def size(self) -> int:
        return self.host.shape[1]

    @property
    def width(self) -> int:
        return self.host.size + len(self.background_rate)

    def draw(self, rows: int, rng: np.random.Generator) -> sparse.csr_array:
        """[rows, width] float32 feature activations, columns in order."""
        events = [self._cluster_events(rows, rng), self._background_events(rows, rng)]
        row, column, value = (np.concatenate(part) for part in zip(*events, strict=True))
        order = np.argsort(row.astype(np.int64) * self.width + column)
        crow = np.zeros(rows + 1, np.int64)
        np.cumsum(np.bincount(row, minlength=rows), out=crow[1:])
        index = np.int32 if len(row) < 2**31 else np.int64
        return sparse.csr_array((value[order], column[order].astype(index), crow.astype(index)), (rows, self.width))

    def _cluster_events(self, rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        active_row, active_cluster = _bernoulli_events(self.cluster_rate, rows, rng)
        free = rng.random((len(active_row), self.size), np.float32)
        fires = free < self.without_host[active_cluster]
        host_fires = np.take_along_axis(fires, self.host[active_cluster], axis=1)
        dependent = self.host[active_cluster] != np.arange(self.size)
        fires = np.where(dependent & host_fires, free < self.with_host[active_cluster], fires)
        value = rng.lognormal(0.0, SPREAD, fires.shape).astype(np.float32)
        copied = self.role[active_cluster] == "copy"
        if copied.any():
            value = np.where(copied, np.take_along_axis(value, self.host[active_cluster], axis=1), value)
        event, slot = fires.nonzero()
        return active_row[event], active_cluster[event] * self.size + slot, value[event, slot]

    def _background_events(self, rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        row, feature = _bernoulli_events(self.background_rate, rows, rng)
        return row, self.host.size + feature, rng.lognormal(0.0, SPREAD, len(row)).astype(np.float32)


def _bernoulli_events(rate: np.ndarray, rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows and items of independent events of the given rates; each (row, item) at most once."""
    count = rng.poisson(-np.log1p(-np.minimum(rate, 0.999)) * rows)
    key = np.unique(np.repeat(np.arange(len(rate), dtype=np.int64), count) * rows + rng.integers(0, rows, count.sum()))
    return key % rows, key // rows


def zipf_rates(count: int, total: float, exponent: float) -> np.ndarray:
    """[count] rates falling as rank^-exponent that sum to `total`, none above a half."""
    rate = np.arange(1, count + 1, dtype=np.float64) ** -exponent
    return np.minimum(rate * (total / rate.sum()), 0.5) if count else rate
