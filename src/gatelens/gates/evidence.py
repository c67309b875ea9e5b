"""What speaks for a rule and what against it: its score, the rows behind it, patterns that contradict it, its null."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ..connectors import Connector
from .hypotheses import Rule, popcount
from .tables import Cells, Columns

#: score of a 90 % interval: a pattern contradicts a rule when its whole interval lies on the wrong side
Z = 1.645


@dataclass(frozen=True)
class Score:
    """A rule against the firing of its output. None where undefined: nothing predicted, or nothing fired."""

    precision: float | None
    recall: float | None
    mcc: float | None


def score(rule: Rule, cells: Cells) -> Score:
    """Precision, recall and Matthews correlation (Matthews 1975) over all rows of a table."""
    is_open = rule.open(np.arange(len(cells.count)))
    predicted, hit = cells.count[is_open].sum(), cells.fired[is_open].sum()
    fired, rows = cells.fired.sum(), cells.count.sum()
    spread = predicted * (rows - predicted) * fired * (rows - fired)
    return Score(
        precision=float(hit / predicted) if predicted else None,
        recall=float(hit / fired) if fired else None,
        mcc=float((hit * rows - predicted * fired) / np.sqrt(spread)) if spread else None,
    )


@dataclass(frozen=True)
class Cell:
    """One pattern, or several pooled, that a rule stands or falls with; `on` and `off` are places among the parents."""

    on: tuple[int, ...]
    off: tuple[int, ...]
    count: int
    rate: float
    is_open: bool


def decisive(rule: Rule, cells: Cells) -> Iterator[Cell]:
    """The patterns that decide the rule, pooled over the parents that each leaves open.

    Each set of just enough exciters, and each of one too few, alone; each inhibitor beside each exciter where there
    are enough. Above four exciters the sets are pooled over one exciter's partners: there are too many to ask for each.
    """
    exciters, inhibitors = rule.exciters, rule.inhibitors
    codes = np.arange(len(cells.count))
    number = popcount(codes & rule.excite)
    quiet = (codes & rule.inhibit) == 0
    for size in (rule.at_least, rule.at_least - 1):
        members = combinations(exciters, size if len(exciters) <= 4 else 1) if size else ()
        for on in members:
            mask = sum(1 << j for j in on)
            chosen = quiet & (number == size) & ((codes & mask) == mask)
            off = tuple(j for j in exciters if j not in on) if len(on) == size else ()
            yield _cell(cells, chosen, on, off + tuple(inhibitors), size >= rule.at_least)
    for inhibitor in inhibitors:
        for exciter in exciters:
            both = 1 << inhibitor | 1 << exciter
            chosen = (number >= rule.at_least) & ((codes & both) == both)
            yield _cell(cells, chosen, (exciter, inhibitor), (), False)


def _cell(cells: Cells, chosen: np.ndarray, on: tuple[int, ...], off: tuple[int, ...], is_open: bool) -> Cell:
    count = cells.count[chosen].sum()
    return Cell(on, off, int(count), float(cells.fired[chosen].sum() / max(count, 1)), is_open)


def contradiction(rule: Rule, cells: Cells, min_count: int) -> Cell | None:
    """The pattern, seen at least `min_count` times, that fires most clearly against the rule; None when all agree.

    A pattern is on the wrong side when its whole Wilson interval is beyond the middle between the rule's two rates.
    """
    codes = np.arange(len(cells.count))
    is_open = rule.open(codes)
    rate = cells.fired / np.maximum(cells.count, 1)
    if not (cells.count[is_open].sum() and cells.count[~is_open].sum()):
        return None
    high = np.average(rate[is_open], weights=np.minimum(cells.count[is_open], 200))
    low = np.average(rate[~is_open], weights=np.minimum(cells.count[~is_open], 200))
    middle = (high + low) / 2
    lower, upper = wilson(cells.fired, cells.count, Z)
    beyond = np.where(is_open, middle - upper, lower - middle) * (cells.count >= min_count)
    worst = int(np.argmax(beyond))
    if beyond[worst] <= 0:
        return None
    k = cells.parents
    on = tuple(j for j in range(k) if worst >> j & 1)
    off = tuple(j for j in range(k) if not worst >> j & 1)
    return Cell(on, off, int(cells.count[worst]), float(rate[worst]), bool(is_open[worst]))


def wilson(fired: np.ndarray, count: np.ndarray, z: float) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of the Wilson score interval (Wilson 1927); 0 and 1 where nothing was seen."""
    n = np.maximum(count, 1e-9)
    p = fired / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    return np.where(count > 0, centre - half, 0.0), np.where(count > 0, centre + half, 1.0)


class Predictor:
    """The connector's own value for one output at a time: how much of the true one it explains, how well it fires."""

    def __init__(self, connector: Connector, f_in: Columns, f_out: Columns):
        self.connector, self.f_in, self.f_out = connector, f_in, f_out

    def sums(self, out: int, parents: Sequence[int], weights: Sequence[float]) -> np.ndarray:
        """[rows] the weighted sum with its bias, before threshold and activation."""
        z = np.full(self.f_in.rows, float(self.connector.bias[out]))
        for parent, weight in zip(parents, weights, strict=True):
            row, value = self.f_in.entries(parent)
            z[row] += weight * value
        return z

    def r2(self, out: int, z: np.ndarray) -> float | None:
        """1 - SSE / SST of the connector's value over all rows; None for an output that does not vary."""
        if self.connector.threshold is not None:
            z = z * (z > float(self.connector.threshold[out]))
        elif self.connector.activation == "relu":
            z = np.maximum(z, 0)
        row, value = self.f_out.entries(out)
        value = value.astype(np.float64)
        spread = (value**2).sum() - value.sum() ** 2 / self.f_out.rows
        error = z @ z - 2 * (z[row] @ value) + (value**2).sum()
        return float(1 - error / spread) if spread > 1e-12 else None

    def best_cut(self, out: int, z: np.ndarray) -> tuple[float, float]:
        """The threshold on the sum that predicts the output's firing best, and its Matthews correlation.

        Only cuts above the sum of a row without any input are tried: the others call nearly every row on.
        """
        fires = np.zeros(len(z), np.int64)
        fires[self.f_out.on(out)[0]] = 1
        fired, rows = float(fires.sum()), len(z)
        above = np.flatnonzero(z > float(self.connector.bias[out]))
        order = above[np.argsort(-z[above], kind="stable")]
        if not len(order) or not fired:
            return np.inf, 0.0
        hit, predicted = np.cumsum(fires[order]).astype(np.float64), np.arange(1.0, len(order) + 1)
        last = np.append(z[order][1:] < z[order][:-1], True)  # equal sums fall on one side together
        spread = predicted * (rows - predicted) * fired * (rows - fired)
        mcc = np.where(last & (spread > 0), (hit * rows - predicted * fired) / np.sqrt(np.maximum(spread, 1)), -1.0)
        best = int(np.argmax(mcc))
        return float(z[order[best]]), float(mcc[best])

    def mcc_at(self, out: int, z: np.ndarray, cut: float) -> float:
        """Matthews correlation of `z >= cut` with the output's firing; 0 where undefined."""
        predicted = z >= cut
        on = self.f_out.on(out)[0]
        hit, said, fired, rows = predicted[on].sum(), predicted.sum(), len(on), len(z)
        spread = float(said) * (rows - said) * fired * (rows - fired)
        return float((hit * rows - said * fired) / np.sqrt(spread)) if spread else 0.0


class MatchedParents:
    """Random stand-ins for an output's parents, of about the same firing counts: the null of every score."""

    def __init__(self, firings: np.ndarray, seed: int):
        self.order = np.argsort(firings, kind="stable")
        self.order = self.order[firings[self.order] > 0]
        self.rank = np.zeros(len(firings), np.int64)
        self.rank[self.order] = np.arange(len(self.order))
        self.random = np.random.default_rng(seed)

    def draw(self, groups: list[tuple[int, ...]], reach: int = 25) -> list[tuple[int, ...]] | None:
        """One feature for each parent out of the `2 reach` of nearest firing count; None when there are too few."""
        taken = {feature for group in groups for feature in group}
        drawn = []
        for group in groups:
            place = self.rank[group[0]]
            near = self.order[max(place - reach, 0) : place + reach + 1]
            free = [f for f in near.tolist() if f not in taken]
            if not free:
                return None
            choice = int(self.random.choice(free))
            taken.add(choice)
            drawn.append((choice,))
        return drawn
