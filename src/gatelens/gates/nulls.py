"""What a rule must be told from: the best rules that the same search finds where there is nothing to be found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from jaxtyping import Int

from .levels import feature_thresholds
from .literals import rows_of
from .patterns import MOST_LITERALS, Patterns, Ranked, Terms, best_by_size, chosen
from .rule import Literal, Rule
from .scores import Score, counts
from .search import Target
from .tables import Columns

#: rules kept at each size of a null's search
_WIDTH = 8


def held_out_mcc(rule: Rule | None, f: Columns, target: Target) -> float:
    """A rule's MCC over rows that did not choose it; 0 for no rule, or where it is undefined."""
    if rule is None:
        return 0.0
    said = rule.open_rows([rows_of(f, literal) for literal in rule.literals])
    return Score.of(counts(said, target.on, target.unclear, f.rows)).mcc or 0.0


class Nulls:
    """Random parents and shuffled rows, for one output after the other over the same rows."""

    def __init__(self, fit: Columns, judge: Columns, quantiles: Sequence[float], terms: Terms, seed: int):
        self.fit, self.judge, self.quantiles, self.terms = fit, judge, quantiles, terms
        self.matched = MatchedParents(fit.firings(), seed)
        random = np.random.default_rng((seed, 5))
        self.orders = tuple(random.permutation(f.rows) for f in (fit, judge))
        self._scratch = np.zeros(fit.rows, np.uint32)
        self._levels = cache(lambda feature: feature_thresholds(fit.on(feature)[1], quantiles))

    def random_parents(self, rule: Rule, fit: Target, judge: Target) -> float | None:
        """The best rule over as many random features of like firing counts, at all levels; None where there are too few."""
        drawn = self.matched.draw(rule.features)
        if drawn is None:
            return None
        literals = [
            Literal(feature, float(level)) for feature in drawn for level in self._levels(feature) if np.isfinite(level)
        ]
        first = len(drawn) - len(rule.also)
        sides = (frozenset(drawn[:first]), frozenset(drawn[first:])) if rule.also else ()
        return held_out_mcc(self._best(literals[:MOST_LITERALS], fit, len(drawn), sides), self.judge, judge)

    def shuffled(self, table: Patterns, fit: Target, judge: Target) -> float:
        """The best rule over the candidates of a table with the output's rows shuffled, on either part."""
        fit, judge = (_moved(t, order) for t, order in zip((fit, judge), self.orders, strict=True))
        return held_out_mcc(self._best(table.literals, fit, self.terms.most, table.sides), self.judge, judge)

    def _best(
        self, literals: Sequence[Literal], target: Target, most: int, sides: tuple[frozenset[int], ...]
    ) -> Rule | None:
        columns = [rows_of(self.fit, literal) for literal in literals]
        table = replace(Patterns.counted(literals, columns, target.on, target.unclear, self._scratch), sides=sides)
        terms = Terms(min(most, self.terms.most), self.terms.price, self.terms.support)
        found: Ranked | None = chosen(best_by_size(table, terms, _WIDTH), terms.price)
        return None if found is None else found.rule


def _moved(target: Target, order: Int[np.ndarray, " rows"]) -> Target:
    return Target(target.level, np.sort(order[target.on]), np.sort(order[target.unclear]))


class MatchedParents:
    """Random stand-ins for an output's parents, of about the same firing counts."""

    def __init__(self, firings: np.ndarray, seed: int):
        self.order = np.argsort(firings, kind="stable")
        self.order = self.order[firings[self.order] > 0]
        self.rank = np.zeros(len(firings), np.int64)
        self.rank[self.order] = np.arange(len(self.order))
        self.seed = seed

    def draw(self, parents: Sequence[int], reach: int = 25) -> tuple[int, ...] | None:
        """One feature for each parent out of the `2 reach` of nearest firing count; None when there are too few.

        The same for the same parents, whichever outputs were read before.
        """
        random = np.random.default_rng((self.seed, *parents))
        taken, drawn = set(parents), []
        for parent in parents:
            place = self.rank[parent]
            near = self.order[max(place - reach, 0) : place + reach + 1].tolist()
            free = [feature for feature in near if feature not in taken]
            if not free:
                return None
            drawn.append(free[random.integers(len(free))])
            taken.add(drawn[-1])
        return tuple(drawn)
