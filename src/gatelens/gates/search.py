"""Which literals could matter to an output, out of all of them, and which rule over these is best.

Two steps. A greedy walk over all literals, by the rows on which each is on together with the output, or with what the rule says so
far, gathers a dozen candidates: those that fire with the output (to begin with, or for an OR), those that narrow the rule down
(AND) and those that are on where it is wrong (AND-NOT), which plain correlation does not see. Over these a beam search finds the rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from .levels import GOOD, LEVEL_GAIN
from .literals import Literals
from .patterns import MOST_LITERALS, Patterns, Ranked, Terms, best_by_size, chosen, of_both_sides
from .scores import matthews

#: candidates that fire with the output; and of each operation, at each step of the walk
FIRST, EACH = 8, 3
#: a lower level of a feature is preferred to a higher one that is better by no more than this
SLACK = 0.005
#: rows of an output, or of a rule, that are looked at for candidates, and at least; the rule itself is chosen on all rows
SCANNED, SOME = 8_192, 1_024
#: literals that are on in these rows, all told: of codes that are not sparse fewer rows are looked at
LOOKED_AT = 400_000


@dataclass(frozen=True)
class Target:
    """An output at one of its levels.

    Attributes:
        level: above which it is on; on: the rows on which it is; unclear: those on which it lies between zero and the level.
    """

    level: float
    on: Int[np.ndarray, " on"]
    unclear: Int[np.ndarray, " between"]

    @classmethod
    def at(cls, row: Int[np.ndarray, " fired"], value: Float[np.ndarray, " fired"], level: float) -> Target:
        """From the rows on which it is positive, ascending, and its values there."""
        above = value > level
        return cls(level, row[above], row[~above])

    @property
    def kept(self) -> float | None:
        """The share of its firings that are above the level."""
        fired = len(self.on) + len(self.unclear)
        return len(self.on) / fired if fired else None


@dataclass(frozen=True)
class Finding:
    """What a search found for one output on the rows that it was given.

    Attributes:
        target: the output at the level that was taken.
        by_size: the best rule of each number of literals; best: the one that is worth its literals, None where there is none.
        table: over the candidates.
    """

    target: Target
    by_size: dict[int, Ranked]
    best: Ranked | None
    table: Patterns | None = None


@dataclass
class _Walk:
    """Where a greedy walk stands: what it says, and the candidates by the score that each brought."""

    says: Bool[np.ndarray, " rows"]
    score: float
    used: set[int]
    found: dict[int, float] = field(default_factory=dict)


class Search:
    """Searches for the rule of one output after the other over the same rows."""

    def __init__(self, literals: Literals, terms: Terms, allowed: Bool[np.ndarray, " features"] | None = None):
        """`allowed`: features that may be in a rule; all by default."""
        self.literals, self.terms = literals, terms
        self.usable = literals.count >= terms.support
        if allowed is not None:
            self.usable &= np.repeat(allowed, literals.levels)
        self.scanned = int(np.clip(LOOKED_AT * literals.rows / max(literals.count.sum(), 1), SOME, SCANNED))
        self._on = np.zeros(literals.rows, bool)
        self._clear = np.ones(literals.rows, bool)
        self._scratch = np.zeros(literals.rows, np.uint32)

    def rule(
        self, targets: Sequence[Target], wires: Sequence[int] = (), sides: tuple[frozenset[int], ...] = ()
    ) -> Finding | None:
        """The best rule for an output at the best of its levels.

        Args:
            targets: the output at each level that it may have, ascending.
            wires: features that are candidates whatever the rows say, as far as there is room. sides: see `Patterns`.

        Returns:
            None for an output that is never on.
        """
        sums = self._strata(targets)
        best: tuple[float, Target, list[int]] | None = None
        for target, (with_on, with_unclear) in zip(targets, sums, strict=True):
            if len(target.on) == 0 or (best is not None and best[0] >= GOOD):
                continue
            score, numbers = self._candidates(target, with_on, self.literals.count - with_unclear)
            numbers = self._with_wires(numbers, wires)
            if sides:  # the walk knows rules from left to right alone
                both = of_both_sides(self.table(numbers, target, sides), self.terms)
                score = max(score, *(ranked.mcc for ranked in both), 0.0)
            if best is None or score >= best[0] + LEVEL_GAIN:
                best = (score, target, numbers)
        if best is None:
            return None
        _, target, numbers = best
        table = self.table(numbers, target, sides)
        by_size = best_by_size(table, self.terms) if numbers else {}
        return Finding(target, by_size, chosen(by_size, self.terms.price), table)

    def table(self, numbers: Sequence[int], target: Target, sides: tuple[frozenset[int], ...] = ()) -> Patterns:
        """The patterns of some literals beside an output."""
        literals = [self.literals.literal(j) for j in numbers]
        columns = [self.literals.on(j) for j in numbers]
        return replace(Patterns.counted(literals, columns, target.on, target.unclear, self._scratch), sides=sides)

    def _strata(self, targets: Sequence[Target]) -> list[tuple[Float[np.ndarray, " l"], Float[np.ndarray, " l"]]]:
        """For each level: rows of each literal on which the output is on, and on which it is unclear. One pass over its rows."""
        rows, weight = _some(np.concatenate([targets[0].on, targets[0].unclear]), self.scanned)
        is_on = np.stack([np.isin(rows, target.on, assume_unique=True) for target in targets], 1)
        groups = np.hstack([is_on, np.ones((len(rows), 1))]).astype(np.float32)
        with_on = weight * self.literals.sums(rows, groups).T.astype(np.float64)
        return [(on, with_on[-1] - on) for on in with_on[:-1]]

    def _candidates(
        self, target: Target, with_on: Float[np.ndarray, " l"], count: Float[np.ndarray, " l"]
    ) -> tuple[float, list[int]]:
        """The walk: its score, and the literals that were among the best at any step, the best first."""
        positive, rows = len(target.on), self.literals.rows - len(target.unclear)
        self._on[target.on], self._clear[target.unclear] = True, False
        score = self._scored(with_on, count, count, positive, rows)
        walk = _Walk(np.zeros(self.literals.rows, bool), 0.0, set())
        firsts = self._best(score, FIRST, walk, 0.0)
        if firsts:
            walk.score = float(score[firsts[0]])
            self._take(walk, firsts[0], "or")
            for _ in range(self.terms.most - 1):
                if not self._step(walk, with_on, count, positive, rows):
                    break
        self._on[target.on], self._clear[target.unclear] = False, True
        return walk.score, sorted(walk.found, key=lambda j: -walk.found[j])[:MOST_LITERALS]

    def _step(
        self, walk: _Walk, with_on: Float[np.ndarray, " l"], count: Float[np.ndarray, " l"], positive: int, rows: int
    ) -> bool:
        """One literal more; False when none is worth it."""
        said, weight = _some(np.flatnonzero(walk.says & self._clear), self.scanned)
        is_hit = self._on[said]
        groups = np.stack([is_hit, np.ones(len(said), bool)], 1).astype(np.float32)
        both_hit, both = weight * self.literals.sums(said, groups).T.astype(np.float64)
        hit, n = weight * is_hit.sum(), weight * len(said)
        scores = {
            "or": self._scored(hit + with_on - both_hit, n + count - both, count - both, positive, rows),
            "and": self._scored(both_hit, both, n - both, positive, rows),
            "and not": self._scored(hit - both_hit, n - both, both, positive, rows),
        }
        before, best, way = walk.score, walk.score + self.terms.price, ""
        number = -1
        for name, score in scores.items():
            places = self._best(score, EACH, walk, before)
            if places and score[places[0]] >= best:
                best, way, number = float(score[places[0]]), name, places[0]
        if way:
            walk.score = best
            self._take(walk, number, way)
        return bool(way)

    def _scored(self, hit, said, decides, positive: int, rows: int) -> Float[np.ndarray, " l"]:
        """MCC of one rule a literal; -1 where the literal may not be used or decides too few rows."""
        usable = self.usable & (decides >= self.terms.support)
        return np.where(usable, matthews(hit, said, positive, rows), -1.0)

    def _best(self, score: Float[np.ndarray, " l"], most: int, walk: _Walk, before: float) -> list[int]:
        """The best literals, one a feature and none of a feature in the rule; noted as candidates by what they bring."""
        levels = self.literals.levels
        table = score.reshape(-1, levels)
        top = table.max(1)
        for feature in walk.used:
            top[feature] = -1.0
        features = np.argpartition(-top, min(most, len(top) - 1))[: most + 1]
        features = features[np.argsort(-top[features], kind="stable")][:most]
        found = []
        for feature in features[top[features] > 0].tolist():
            level = int(np.argmax(table[feature] >= top[feature] - SLACK))
            number = feature * levels + level
            found.append(number)
            walk.found[number] = max(walk.found.get(number, -1.0), float(top[feature]) - before)
        return found

    def _take(self, walk: _Walk, number: int, way: str) -> None:
        on = self.literals.on(number)
        walk.used.add(number // self.literals.levels)
        walk.found[number] = np.inf  # whatever else is left out, the walk's own literals stay
        if way == "or":
            walk.says[on] = True
            return
        kept = on[walk.says[on]]
        if way == "and":
            walk.says[:] = False
            walk.says[kept] = True
        else:
            walk.says[kept] = False

    def _with_wires(self, numbers: list[int], wires: Sequence[int]) -> list[int]:
        """The candidates, and wires that are none yet at the level at which they fire with the output, in the room that is left."""
        levels = self.literals.levels
        have = {j // levels for j in numbers}
        for feature in wires:
            places = np.flatnonzero(self.usable[feature * levels : (feature + 1) * levels])
            if feature not in have and len(places) and len(numbers) < MOST_LITERALS:
                numbers.append(feature * levels + int(places[0]))
                have.add(feature)
        is_wire = set(wires)  # where two are as good as each other, the one that comes first is taken
        return sorted(numbers, key=lambda j: j // levels not in is_wire)


def _some(rows: Int[np.ndarray, " rows"], most: int) -> tuple[Int[np.ndarray, " some"], float]:
    """At most so many of the rows, spread evenly, and how many each stands for."""
    if len(rows) <= most:
        return rows, 1.0
    return rows[np.linspace(0, len(rows) - 1, most).astype(int)], len(rows) / most
