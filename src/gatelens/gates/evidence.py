"""What speaks for a rule and what against it: its score, the rows behind it, patterns that contradict it, its null."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ..connectors import Connector
from .hypotheses import CAP, Rule, popcount
from .tables import Cells, Columns

#: score of a 90 % interval: a pattern contradicts a rule when its whole interval lies on the wrong side
Z = 1.645
#: share of the busy rows (a parent on, and the rule open or the output firing) that patterns against it may make up
TOLERATED = 0.05


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


def held_back(rule: Rule, inhibitor: int, cells: Cells) -> int:
    """Rows on which the exciters would open the rule while the inhibitor is on: those that show what it does."""
    codes = np.arange(len(cells.count))
    together = (popcount(codes & rule.excite) >= rule.at_least) & (codes >> inhibitor & 1 == 1)
    return int(cells.count[together].sum())


def without_unseen(rule: Rule, cells: Cells, min_count: int) -> Rule:
    """The rule less the inhibitors that were hardly ever on beside its exciters: what these do there, no row says."""
    unseen = sum(1 << j for j in rule.inhibitors if held_back(rule, j, cells) < min_count)
    return Rule(rule.excite, rule.inhibit & ~unseen, rule.at_least)


def _cell(cells: Cells, chosen: np.ndarray, on: tuple[int, ...], off: tuple[int, ...], is_open: bool) -> Cell:
    count = cells.count[chosen].sum()
    return Cell(on, off, int(count), float(cells.fired[chosen].sum() / max(count, 1)), is_open)


def contradiction(rule: Rule, cells: Cells, min_count: int) -> Cell | None:
    """The pattern that fires most clearly against the rule, when such patterns make up more than `TOLERATED` of the
    rows with a parent on and the rule open or the output firing; else None.

    A pattern seen at least `min_count` times is against the rule when its whole Wilson interval is beyond the middle
    between the rule's two rates.
    """
    codes = np.arange(len(cells.count))
    is_open = rule.open(codes)
    rate = cells.fired / np.maximum(cells.count, 1)
    if not (cells.count[is_open].sum() and cells.count[~is_open].sum()):
        return None
    high, low = (np.average(rate[side], weights=np.minimum(cells.count[side], CAP)) for side in (is_open, ~is_open))
    lower, upper = wilson(cells.fired, cells.count, Z)
    beyond = np.where(is_open, (high + low) / 2 - upper, lower - (high + low) / 2) * (cells.count >= min_count)
    busy = np.where(is_open, cells.count, cells.fired) * (codes > 0)
    if busy[beyond > 0].sum() <= TOLERATED * busy.sum():
        return None
    worst = int(np.argmax(beyond))
    on, off = (tuple(j for j in range(cells.parents) if worst >> j & 1 == bit) for bit in (1, 0))
    return Cell(on, off, int(cells.count[worst]), float(rate[worst]), bool(is_open[worst]))


def wilson(fired: np.ndarray | float, count: np.ndarray | float, z: float) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of the Wilson score interval (Wilson 1927); 0 and 1 where nothing was seen."""
    n = np.maximum(count, 1e-9)
    p = fired / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    return np.where(count > 0, centre - half, 0.0), np.where(count > 0, centre + half, 1.0)


@dataclass(frozen=True)
class Sums:
    """An output's weighted sum, bias included, on the rows where an input is nonzero; on all others it is `rest`.

    Attributes:
        z: [touched] the sums; fires: [touched] whether the output is on there.
        at_value: [nonzeros of the output] the sum on each row where the output is not zero; value: the output there.
        rest: the sum on a row without input, the bias; rows, fired: of all rows, and of those with the output on.
    """

    z: np.ndarray
    fires: np.ndarray
    at_value: np.ndarray
    value: np.ndarray
    rest: float
    rows: int
    fired: int


class Predictor:
    """The connector's own value for one output at a time: how much of the true one it explains, how well it fires."""

    def __init__(self, connector: Connector, f_in: Columns, f_out: Columns):
        self.connector, self.f_in, self.f_out = connector, f_in, f_out
        self.sum = np.zeros(f_in.rows)
        self.touched = np.zeros(f_in.rows, bool)
        self.fires = np.zeros(f_in.rows, bool)

    def sums(self, out: int, parents: Sequence[int], weights: Sequence[float]) -> Sums:
        """The sum before threshold and activation."""
        bias, touched = float(self.connector.bias[out]), []
        for parent, weight in zip(parents, weights, strict=True):
            row, value = self.f_in.entries(parent)
            self.sum[row] += weight * value
            touched.append(row[~self.touched[row]])
            self.touched[row] = True
        rows = np.concatenate(touched) if touched else np.zeros(0, np.int64)
        on, (row, value) = self.f_out.on(out)[0], self.f_out.entries(out)
        self.fires[on] = True
        found = Sums(
            z=self.sum[rows] + bias,
            fires=self.fires[rows],
            at_value=self.sum[row] + bias,
            value=value.astype(np.float64),
            rest=bias,
            rows=self.f_in.rows,
            fired=len(on),
        )
        self.sum[rows], self.touched[rows], self.fires[on] = 0.0, False, False
        return found

    def r2(self, out: int, sums: Sums) -> float | None:
        """1 - SSE / SST of the connector's value over all rows; None for an output that does not vary."""
        squares = np.square(sums.value).sum()
        spread = squares - sums.value.sum() ** 2 / sums.rows
        quiet = float(np.square(self._activated(out, np.array([sums.rest])))[0])
        predicted = np.square(self._activated(out, sums.z)).sum() + (sums.rows - len(sums.z)) * quiet
        error = predicted - 2 * (self._activated(out, sums.at_value) * sums.value).sum() + squares
        return float(1 - error / spread) if spread > 1e-12 else None

    def _activated(self, out: int, z: np.ndarray) -> np.ndarray:
        if self.connector.threshold is not None:
            return z * (z > float(self.connector.threshold[out]))
        return np.maximum(z, 0) if self.connector.activation == "relu" else z


def best_cut(sums: Sums) -> float:
    """The threshold on the sum that predicts the output's firing best.

    Only cuts above the sum of a row without input are tried: the others call nearly every row on.
    """
    above = np.flatnonzero(sums.z > sums.rest)
    order = above[np.argsort(-sums.z[above])]
    if not len(order):
        return np.inf
    z, hit, said = sums.z[order], np.cumsum(sums.fires[order]), np.arange(1, len(order) + 1)
    last = np.append(z[1:] < z[:-1], True)  # equal sums fall on one side together
    return float(z[np.argmax(np.where(last, _matthews(hit, said, sums.fired, sums.rows), -1.0))])


def cut_mcc(sums: Sums, cut: float) -> float:
    """Matthews correlation of "the sum is `cut` or more", a cut above `rest`, with the output's firing."""
    said = sums.z >= cut
    return float(_matthews(sums.fires[said].sum(), said.sum(), sums.fired, sums.rows))


def _matthews(hit, said, fired, rows):
    """Of `said` predictions and `fired` firings among `rows` with `hit` in common; 0 where undefined."""
    hit, said, fired, rows = (np.asarray(x, np.float64) for x in (hit, said, fired, rows))
    spread = said * (rows - said) * fired * (rows - fired)
    return np.where(spread > 0, (hit * rows - said * fired) / np.sqrt(np.maximum(spread, 1.0)), 0.0)


class MatchedParents:
    """Random stand-ins for an output's parents, of about the same firing counts: the null of every score."""

    def __init__(self, firings: np.ndarray, seed: int):
        self.order = np.argsort(firings, kind="stable")
        self.order = self.order[firings[self.order] > 0]
        self.rank = np.zeros(len(firings), np.int64)
        self.rank[self.order] = np.arange(len(self.order))
        self.random = np.random.default_rng(seed)

    def draw(self, parents: Sequence[int], reach: int = 25) -> tuple[int, ...] | None:
        """One feature for each parent out of the `2 reach` of nearest firing count; None when there are too few."""
        taken, drawn = set(parents), []
        for parent in parents:
            place = self.rank[parent]
            near = self.order[max(place - reach, 0) : place + reach + 1].tolist()
            free = [feature for feature in near if feature not in taken]
            if not free:
                return None
            drawn.append(free[self.random.integers(len(free))])
            taken.add(drawn[-1])
        return tuple(drawn)
