"""Which rule a table speaks for: likelihood over "at least m of these on, none of those".

The family holds copy, OR, AND, k-of-n, AND-NOT and (A or B) and not C. Each candidate splits the patterns into open and
closed ones and is scored as two Bernoulli rates, one a side, minus a price for its size. A pattern that was seen ten
thousand times must not drown the one that decides, so counts are capped a pattern.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .gate import GateKind
from .tables import Cells

#: rows of one pattern that count at most
CAP = 200.0
#: log-likelihood a literal or a count condition must earn
PRICE = 2.0
#: head start of the rule that signs, sizes and bias of the wires say
PRIOR = 6.0
#: an inhibitor that scales the firing rate below this share of what it was is one, though the winner left it out
SOFT_NOT = 0.75
_POPCOUNT = np.array([c.bit_count() for c in range(1 << 12)])


@dataclass(frozen=True)
class Rule:
    """Fires where at least `at_least` of the parents in `excite` are on and none in `inhibit`; both are bit masks."""

    excite: int
    inhibit: int
    at_least: int

    @property
    def exciters(self) -> list[int]:
        return _bits(self.excite)

    @property
    def inhibitors(self) -> list[int]:
        return _bits(self.inhibit)

    def open(self, codes: np.ndarray) -> np.ndarray:
        """Whether the rule fires under each pattern."""
        return (popcount(codes & self.excite) >= self.at_least) & ((codes & self.inhibit) == 0)

    @property
    def kind(self) -> GateKind:
        n = len(self.exciters)
        if n == 0:
            return GateKind.NOT_READ
        if n == 1:
            return GateKind.AND_NOT if self.inhibit else GateKind.COPY
        if self.inhibit:
            return GateKind.MIXED
        if self.at_least == 1:
            return GateKind.OR
        return GateKind.AND if self.at_least == n else GateKind.K_OF_N


def popcount(codes: np.ndarray) -> np.ndarray:
    """Bits set in each code below 2^12."""
    return _POPCOUNT[codes]


def _bits(mask: int) -> list[int]:
    return [j for j in range(mask.bit_length()) if mask >> j & 1]


def decide(cells: Cells, weights: np.ndarray, magnitudes: np.ndarray, bias: float) -> Rule | None:
    """The best rule for a table; None when no rule fires more where it is open than where it is closed.

    Args:
        cells: over the parents, in the order of `weights`.
        weights, magnitudes: [k] wires and typical values when on; bias: what the sum must exceed is -bias.
    """
    count = np.minimum(cells.count, CAP)
    fired = cells.fired * count / np.maximum(cells.count, 1)
    prior = weight_rule(weights, magnitudes, bias)
    signs = tuple(1 if w > 0 else -1 for w in weights)
    best, score, seen = None, -np.inf, set()
    while signs is not None and signs not in seen:
        seen.add(signs)
        rules, is_open, size = _neighbours(signs)
        scores = _two_rates(is_open, count, fired) - PRICE * size
        if prior in rules:
            scores[rules.index(prior)] += PRIOR
        winner = int(np.argmax(scores))
        signs = None
        if scores[winner] > score:
            best, score = rules[winner], scores[winner]
            signs = _signs(best, len(weights))
    return _with_soft_nots(best, cells, weights) if best is not None else None


def explained(rule: Rule, cells: Cells) -> float:
    """Share of the table's deviance that the two rates of the rule explain: 1 where every pattern is of one of two
    rates; low where the rate climbs by degrees or depends on what the rule leaves out. Counts are capped."""
    codes = np.arange(len(cells.count))
    count = np.minimum(cells.count, CAP)
    fired = cells.fired * count / np.maximum(cells.count, 1)
    two = _two_rates(rule.open(codes)[None], count, fired)[0]
    one = _log_likelihood(fired.sum(), count.sum())
    all_rates = _log_likelihood(fired, count).sum()
    return float((two - one) / max(all_rates - one, 1e-9)) if np.isfinite(two) else 0.0


def weight_rule(weights: np.ndarray, magnitudes: np.ndarray, bias: float) -> Rule | None:
    """The rule that the wires themselves spell at typical values, None where they spell none of the family."""
    excite = sum(1 << j for j, w in enumerate(weights) if w > 0)
    inhibit = sum(1 << j for j, w in enumerate(weights) if w < 0)
    codes = np.arange(1 << len(weights))
    on = (codes[:, None] >> np.arange(len(weights))) & 1
    fires = on @ (weights * magnitudes) + bias > 0
    free = popcount(codes & inhibit) == 0
    need = popcount(codes & excite)
    closed = need[free & ~fires]
    at_least = int(closed.max()) + 1 if len(closed) else 0
    if at_least == 0 or at_least > excite.bit_count():
        return None
    rule = Rule(excite, inhibit, at_least)
    return rule if bool((fires[free] == rule.open(codes)[free]).all()) else None


def _signs(rule: Rule, parents: int) -> tuple[int, ...]:
    return tuple(1 if rule.excite >> j & 1 else -1 if rule.inhibit >> j & 1 else 0 for j in range(parents))


@lru_cache(maxsize=256)  # an entry over 8 parents takes 35 kB
def _neighbours(signs: tuple[int, ...]) -> tuple[list[Rule], np.ndarray, np.ndarray]:
    """The rules with these signs, with one flipped or one parent dropped; their open patterns [r, 2^k]; sizes [r]."""
    variants = {signs: 0.0}
    for j, s in enumerate(signs):
        if s:
            variants.setdefault((*signs[:j], -s, *signs[j + 1 :]), 1.0)
            variants.setdefault((*signs[:j], 0, *signs[j + 1 :]), 0.5)
    rules: list[Rule] = []
    sizes: list[float] = []
    for variant, extra in variants.items():
        excite = sum(1 << j for j, s in enumerate(variant) if s > 0)
        inhibit = sum(1 << j for j, s in enumerate(variant) if s < 0)
        count = sum(s > 0 for s in variant)
        for at_least in range(1, count + 1):
            rules.append(Rule(excite, inhibit, at_least))
            sizes.append(sum(s != 0 for s in variant) + (1 < at_least < count) + extra)
    codes = np.arange(1 << len(signs))
    is_open = np.array([r.open(codes) for r in rules]) if rules else np.zeros((0, len(codes)), bool)
    return rules, is_open, np.array(sizes)


def _two_rates(is_open: np.ndarray, count: np.ndarray, fired: np.ndarray) -> np.ndarray:
    """[r] log-likelihood of one rate on the open and one on the closed patterns; -inf where the open is no higher."""
    n1, k1 = is_open @ count, is_open @ fired
    n0, k0 = count.sum() - n1, fired.sum() - k1
    higher = k1 * np.maximum(n0, 1) > k0 * np.maximum(n1, 1)
    return np.where(higher, _log_likelihood(k1, n1) + _log_likelihood(k0, n0), -np.inf)


def _log_likelihood(k, n):
    """Of k in n at the rate (k + .5) / (n + 1): finite at the wires."""
    p = (k + 0.5) / (n + 1.0)
    return k * np.log(p) + (n - k) * np.log1p(-p)


def _with_soft_nots(rule: Rule, cells: Cells, weights: np.ndarray) -> Rule:
    """Add each negative parent that, on, takes the open patterns' firing rate below `SOFT_NOT` of what it was.

    Both rates are taken a pattern of the other parents at a time, so that no third parent lends its effect.
    """
    codes = np.arange(len(cells.count))
    for j, w in enumerate(weights):
        if w >= 0 or (rule.excite | rule.inhibit) >> j & 1:
            continue
        off = codes[rule.open(codes) & ((codes >> j) & 1 == 0)]
        on = off | (1 << j)
        shared = np.minimum(cells.count[off], cells.count[on])
        if shared.sum() < 10:
            continue
        without, with_it = (shared * cells.fired[c] / np.maximum(cells.count[c], 1) for c in (off, on))
        if with_it.sum() < SOFT_NOT * without.sum():
            rule = Rule(rule.excite, rule.inhibit | 1 << j, rule.at_least)
    return rule
