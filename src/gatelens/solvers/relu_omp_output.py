"""One output's parents: greedy additions by the gradient of the one-sided loss, then removals by what they cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

from .one_sided import OneSided, fit_one_sided
from .sparse_rows import SparseRows

#: at the end, two more parents are tried that promise this share of the least gain: neither input of an AND that fires
#: rarely explains much alone. They stay only if the removal of each would cost the full least gain.
LOOK_AHEAD = 0.2

#: an input that is rarely on need not explain much of the output's power, if it explains this share where it is on:
#: what leaks from a direction that overlaps is small there, too
WHERE_ON = 1 / 3

#: most rounds of additions and removals
ROUNDS = 4


class Settings(NamedTuple):
    """Settings of the search; see `ReluOMP` for what they mean."""

    max_fan_in: int
    rows: int
    rho: float
    noise_factor: float
    tau: float
    min_firings: int


class Parents(NamedTuple):
    """What was found for one output."""

    inputs: Int[np.ndarray, " k"]
    weights: Float[np.ndarray, " k"]
    bias: float


NONE = Parents(np.empty(0, np.int64), np.empty(0), 0.0)


@dataclass
class Search:
    """The inputs and the scratch space that the outputs of one process share."""

    inputs: SparseRows
    settings: Settings
    seed: int = 0

    def __post_init__(self):
        rng = np.random.default_rng(self.seed)
        # a row is sampled at rate r when its rank is below r
        self.rank = rng.random(self.inputs.rows, dtype=np.float32)
        self.power, self.mean = self.inputs.power(), self.inputs.mean()
        # row -> its place in the sample; -1 not in it, -2 not in it although the output fires there
        self.place = np.full(self.inputs.rows, -1, np.int32)

    def solve(self, on: Int[np.ndarray, " firings"], y: Float[np.ndarray, " firings"]) -> Parents:
        """The parents of the output that fires on rows `on` (in order) with values `y`."""
        if len(on) < self.settings.min_firings:
            return NONE
        sample = _Sample(self, on, y)
        try:
            return _select(sample, self.settings)
        finally:
            self.place[on] = -1
            self.place[sample.row] = -1


class _Sample:
    """The rows that one output is fitted on: where it fires, and where its parents do but it does not.

    Rows on which neither fires need no place: with b <= 0 they cost nothing.
    """

    def __init__(self, search: Search, on: Int[np.ndarray, " firings"], y: Float[np.ndarray, " firings"]):
        self.search, cap = search, search.settings.rows
        self.on_rate = min(1.0, cap / len(on))
        keep = search.rank[on] < self.on_rate
        self.row, self.y = on[keep].astype(np.int64), y[keep].astype(np.float64)
        search.place[on] = -2
        search.place[self.row] = np.arange(len(self.row))
        self.firings = len(self.row)
        self.parents: list[int] = []
        self.rates: list[float] = []
        self.X = np.zeros((len(self.row), 0))
        self.entry_place, self.entry_column, value = search.inputs.take(self.row)
        self.entry_value = value.astype(np.float64)
        self._by_row()
        self._weigh()

    def add(self, parent: int) -> None:
        """Take up a parent and, of the rows where it is on and the output silent, as many as there is room for."""
        rows, values = self.search.inputs.column_of(parent)
        place = self.search.place[rows]
        silent = int(((place == -1) | (place >= self.firings)).sum())
        rate = min(1.0, self.search.settings.rows / max(silent, 1))
        new = rows[(place == -1) & (self.search.rank[rows] < rate)].astype(np.int64)
        self._extend(new)
        place = self.search.place[rows]
        column = np.zeros((len(self.row), 1))
        column[place[place >= 0], 0] = values[place >= 0]
        self.X = np.concatenate([self.X, column], axis=1)
        self.parents.append(parent)
        self.rates.append(rate)
        self._weigh()

    def drop(self, index: int) -> None:
        self.X = np.delete(self.X, index, axis=1)
        del self.parents[index], self.rates[index]
        self._weigh()

    def _extend(self, new: Int[np.ndarray, " r"]) -> None:
        self.search.place[new] = np.arange(len(self.row), len(self.row) + len(new))
        place, column, value = self.search.inputs.take(new)
        self.entry_place = np.concatenate([self.entry_place, place + np.int32(len(self.row))])
        self.entry_column = np.concatenate([self.entry_column, column])
        self.entry_value = np.concatenate([self.entry_value, value])
        self.row = np.concatenate([self.row, new])
        self._by_row()
        self.y = np.concatenate([self.y, np.zeros(len(new))])
        self.X = np.concatenate([self.X, np.zeros((len(new), self.X.shape[1]))])

    def _by_row(self) -> None:
        """The entries once more, as a matrix: one pass over it sums them, without a copy of any."""
        starts = np.concatenate([[0], np.cumsum(self.search.inputs.entries_of(self.row))])
        shape = (len(self.row), self.search.inputs.width)
        x = scipy.sparse.csr_matrix((self.entry_value, self.entry_column, starts), shape=shape)
        self.x_by_column, self.squares_by_column = x.T, x.power(2).T

    def _weigh(self) -> None:
        """v = 1 / probability of being in the sample, in units where a row on which the output fires weighs 1."""
        self.v = np.ones(len(self.row))
        silent = self.X[self.firings :] > 0
        rate = (silent * np.array(self.rates)).max(axis=1, initial=0.0)
        self.v[self.firings :] = np.where(rate > 0, self.on_rate / np.maximum(rate, 1e-12), 0.0)
        self.power = self.squares_by_column @ self.v  # of every input feature over the rows, weighed

    def evidence(self, feature: int, pull: Float[np.ndarray, " rows"]) -> float:
        """(sum of pulls)^2 / sum of their squares, the sum less what a feature of this mean gets by chance.

        Unlike the gain it is not carried by a few rows of large error (an output erased here and there), nor by firings
        without a cause, with which a feature that is nearly always on co-fires.
        """
        rows, values = self.search.inputs.column_of(feature)
        place = self.search.place[rows]
        inside = place >= 0
        pulls = pull[place[inside]] * values[inside]
        total = float(pulls.sum())
        if total > 0:
            total = max(total - max(float(pull.sum()), 0.0) * self.search.mean[feature], 0.0)
        return total**2 / max(float(pulls @ pulls), 1e-12)

    def power_where_on(self, value: Float[np.ndarray, " rows"]) -> Float[np.ndarray, " m"]:
        """The power of the output on the rows where each input is on: as it is, or as it is read without the wire."""
        power = self.v * np.maximum(self.y, value) ** 2
        return np.bincount(self.entry_column, power[self.entry_place], minlength=self.search.inputs.width)


def _select(sample: _Sample, settings: Settings) -> Parents:
    start_loss = float(sample.v @ sample.y**2)
    fit = OneSided(np.empty(0), 0.0, np.zeros(len(sample.y)), start_loss)
    refused: set[int] = set()
    looked_ahead = False
    for _ in range(ROUNDS):
        fit, added = _add_all(sample, fit, refused, settings, start_loss)
        if not added:
            if looked_ahead:
                break
            looked_ahead = True
            fit, _ = _add_all(sample, fit, refused, settings, start_loss, share=LOOK_AHEAD, most=2)
        fit, dropped = _remove(sample, fit, settings, start_loss)
        refused |= dropped
    return Parents(np.array(sample.parents), fit.weights, fit.bias) if sample.parents else NONE


def _add_all(
    sample: _Sample,
    fit: OneSided,
    refused: set[int],
    settings: Settings,
    start_loss: float,
    share: float = 1.0,
    most: int | None = None,
) -> tuple[OneSided, int]:
    """Add the best input feature, again and again, while one promises `share` of the least gain; at most `most`."""
    room = settings.max_fan_in - len(sample.parents)
    room = room if most is None else min(room, most)
    for added in range(room):
        best = _best_addition(sample, fit, refused, settings, start_loss, share)
        if best is None:
            return fit, added
        sample.add(best)
        fit = fit_one_sided(sample.X, sample.y, sample.v, np.append(fit.weights, 0.0), fit.bias)
    return fit, room


def _least_gains(sample: _Sample, fit: OneSided, settings: Settings, start_loss: float) -> tuple[float, float]:
    """What a parent must explain: C sigma^2 (sigma^2 the loss a firing); and a share of the output's power over all rows."""
    sigma2 = fit.loss / max(1, sample.firings - len(sample.parents))
    return settings.noise_factor * sigma2, settings.tau * start_loss


def _best_addition(
    sample: _Sample, fit: OneSided, refused: set[int], settings: Settings, start_loss: float, share: float
) -> int | None:
    """The input feature that promises to lower the loss most; None when none promises `share` of what it must.

    An exciter also opens rows outside the sample, so a share rho of the feature's power there counts against it; an
    inhibitor does no harm there. The evidence for it must exceed what the best of so many features has by chance.
    """
    pull = sample.v * (sample.y - fit.value)
    slope, seen = sample.x_by_column @ pull, sample.power
    unseen = np.maximum(sample.search.power * sample.on_rate - seen, 0.0)
    size = np.where(slope > 0, seen + settings.rho * unseen, seen)
    gain = slope**2 / np.maximum(size, 1e-12)
    gain[sample.parents] = 0.0
    gain[list(refused)] = 0.0
    noise, floor = (share * least for least in _least_gains(sample, fit, settings, start_loss))
    gain[gain < noise] = 0.0
    asked = floor <= noise
    while True:
        best = int(gain.argmax())
        if gain[best] <= 0:
            return None
        if (
            gain[best] < floor and not asked
        ):  # what is left explains little over all rows: where it is on, perhaps enough
            gain[gain < np.minimum(floor, share * WHERE_ON * sample.power_where_on(fit.value))] = 0.0
            asked = True
            continue
        if sample.evidence(best, pull) >= 2 * math.log(len(gain)):
            return best
        gain[best] = 0.0


def _remove(sample: _Sample, fit: OneSided, settings: Settings, start_loss: float) -> tuple[OneSided, set[int]]:
    """Drop, one at a time, the parent that falls shortest of what it must explain; what it explains is of a refit."""
    dropped: set[int] = set()
    while sample.parents:
        k = len(sample.parents)
        refits = [
            fit_one_sided(np.delete(sample.X, i, 1), sample.y, sample.v, np.delete(fit.weights, i), fit.bias)
            for i in range(k)
        ]
        read = np.array([r.value for r in refits]).T
        power = sample.v @ (np.maximum(sample.y[:, None], read) ** 2 * (sample.X > 0))
        noise, floor = _least_gains(sample, fit, settings, start_loss)
        wanted = np.maximum(np.maximum(noise, np.minimum(floor, WHERE_ON * power)), 1e-300)
        worth = (np.array([r.loss for r in refits]) - fit.loss) / wanted
        least = int(worth.argmin())
        if worth[least] >= 1:
            break
        dropped.add(sample.parents[least])
        sample.drop(least)
        fit = fit_one_sided(sample.X, sample.y, sample.v, refits[least].weights, refits[least].bias)
    return fit, dropped
