"""A rule of one row: which of a few features open an output there, read off the table over all their subsets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from jaxtyping import Bool

from ..gates.rule import GateKind, Literal, Op, Rule
from .subsets import every_subset

#: a feature blocks where it closes at least this share of the subsets that are open without it
BLOCKS = 0.05
#: a table of more smallest sets than these is said by the short rule that comes nearest to it
NAMED = 3
#: a short rule has at most so many literals, out of the features that come first; each literal costs so much agreement
LITERALS, CANDIDATES, PRICE = 4, 6, 0.02


@dataclass(frozen=True)
class LocalRule:
    """What a table over all subsets of k features says, features by their place in it.

    Attributes:
        here: whether the output is open with all of them. without: with none of them. share: in how much of all subsets.
        sets: the smallest sets that open it, the smallest first; no part of one opens it.
        needed: without one of these alone it is closed (where it is open with all).
        blocks: features that close it on some subsets that are open without them.
        freed: features that would open it by leaving (where it is closed with all).
        short, right: the rule of a few literals that comes nearest to the table, its literals being places; how often it gives
            the table's answer (mean over open and closed subsets). None where all subsets are alike.
    """

    here: bool
    without: bool
    share: float
    sets: tuple[tuple[int, ...], ...]
    needed: tuple[int, ...]
    blocks: tuple[int, ...]
    freed: tuple[int, ...]
    short: Rule | None
    right: float

    @classmethod
    def of(cls, opened: Bool[np.ndarray, " subsets"]) -> LocalRule:
        k = len(opened).bit_length() - 1
        codes = np.arange(len(opened))
        full = len(opened) - 1
        below = np.zeros(len(opened), bool)  # some proper part of the subset is open
        for size_code in sorted(range(len(opened)), key=int.bit_count):
            below[size_code] = any(
                opened[size_code ^ 1 << j] or below[size_code ^ 1 << j] for j in range(k) if size_code >> j & 1
            )
        least = [_members(int(c), k) for c in np.flatnonzero(opened & ~below)]
        blocks = []
        for j in range(k):
            off = codes[(codes >> j & 1) == 0]
            free = opened[off]
            if free.any() and (free & ~opened[off | 1 << j]).sum() >= BLOCKS * free.sum():
                blocks.append(j)
        turned = tuple(j for j in range(k) if opened[full ^ 1 << j] != opened[full])
        here = bool(opened[full])
        short, right = nearest_rule(opened, blocks)
        return cls(
            here,
            bool(opened[0]),
            float(opened.mean()),
            tuple(sorted(least, key=lambda s: (len(s), s))),
            turned if here else (),
            tuple(blocks),
            () if here else turned,
            short,
            right,
        )

    @property
    def kind(self) -> GateKind | None:
        """The kind of gate that the table is; None where it is open, or closed, on every subset."""
        if self.share in (0.0, 1.0):
            return None
        if self.without:
            return GateKind.MIXED
        plain = self._plain()
        if self.blocks:
            return GateKind.AND_NOT if plain == GateKind.COPY else GateKind.MIXED
        return plain

    def _plain(self) -> GateKind:
        sizes, members = {len(s) for s in self.sets}, {j for s in self.sets for j in s}
        if sizes == {1}:
            return GateKind.COPY if len(self.sets) == 1 else GateKind.OR
        if len(self.sets) == 1:
            return GateKind.AND
        size = min(sizes)
        whole = len(sizes) == 1 and len(self.sets) == comb(len(members), size)
        return GateKind.K_OF_N if whole else GateKind.MIXED

    def words(self, names: Sequence[str]) -> str:
        """In plain English, for features of these names."""
        if self.share == 0:
            return "closed on every subset of them"
        if self.share == 1:
            return "open whatever they do, and without them"
        if len(self.sets) > NAMED and self._plain() == GateKind.MIXED and self.short is not None:
            return self._nearly(names, self.short)
        if self.without:
            return f"open without any of them; {_all(names, self.blocks, 'or')} can close it, here it is " + (
                "open" if self.here else "closed"
            )
        if not self.here:
            held = f"{_all(names, self.freed, 'or')} holds it off" if self.freed else "they hold it off together"
            return f"closed here: {held}; {self._sets(names)} alone would open it"
        closing = [j for j in self.blocks if j not in self.needed]
        but = f"; {_all(names, closing, 'or')} works against it" if closing else ""
        return f"open because of {self._because(names)}{but}"

    def _because(self, names: Sequence[str]) -> str:
        plain, first = self._plain(), self.sets[0]
        if plain == GateKind.COPY:
            return f"{names[first[0]]}; without it, closed" if self.needed else names[first[0]]
        if plain == GateKind.OR:
            members = tuple(s[0] for s in self.sets)
            return f"{_all(names, members, 'or')}; {'either' if len(members) == 2 else 'each'} alone is enough"
        if plain == GateKind.AND and len(first) == 2:
            return f"{_all(names, first, 'and')}; either alone leaves it closed"
        if plain == GateKind.AND:
            return f"{_all(names, first, 'and')} together; no part of them is enough"
        if plain == GateKind.K_OF_N:
            members = sorted({j for s in self.sets for j in s})
            return f"any {len(first)} of {_all(names, members, 'and')}; fewer leave it closed"
        needed = f"; without {_all(names, self.needed, 'or')} it is closed" if self.needed else ""
        return f"{self._sets(names)}{needed}"

    def _nearly(self, names: Sequence[str], short: Rule) -> str:
        state = "open" if self.here else "closed"
        turning = _all(names, self.needed or self.freed, "or")
        alone = f"; without {turning} it is {'closed' if self.here else 'open'}" if self.needed or self.freed else ""
        return (
            f"{state} here; nearly: open where {short.words(lambda x: names[x.feature])}, right on {self.right:.0%} of the "
            f"subsets{alone}"
        )

    def _sets(self, names: Sequence[str]) -> str:
        shown = [f"({_all(names, s, 'and')})" if len(s) > 1 else names[next(iter(s))] for s in self.sets[:NAMED]]
        more = len(self.sets) - len(shown)
        return ", or ".join(shown) + (f", or {more} more set{'s' if more > 1 else ''}" if more else "")


def _members(code: int, k: int) -> tuple[int, ...]:
    return tuple(j for j in range(k) if code >> j & 1)


def _all(names: Sequence[str], places: Sequence[int], joined: str) -> str:
    """a, b and c."""
    words = [names[j] for j in places]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {joined} {words[-1]}" if words else "none"


def nearest_rule(opened: Bool[np.ndarray, " subsets"], blocks: Sequence[int] = ()) -> tuple[Rule | None, float]:
    """The short rule with the best agreement with a table, less a price for each literal; and that agreement."""
    if opened.all() or not opened.any():
        return None, 1.0
    members = every_subset(len(opened).bit_length() - 1).astype(bool)
    best: tuple[float, Rule | None, float] = (-1.0, None, 0.0)
    for rule in _short_rules(members.shape[1], blocks):
        right = agreement(opened, rule.evaluate(members[:, list(rule.features)]))
        worth = right - PRICE * len(rule.literals)
        if worth > best[0]:
            best = worth, rule, right
    return best[1], best[2]


def _short_rules(k: int, blocks: Sequence[int]) -> Iterator[Rule]:
    """At least r of a few features, for every r; each again but for one feature that blocks."""
    for size in range(1, LITERALS + 1):
        for places in combinations(range(min(k, CANDIDATES)), size):
            for least in range(1, size + 1):
                plain = _at_least(least, places)
                yield plain
                if size < LITERALS:
                    for j in blocks:
                        if j not in places:
                            yield Rule(plain.head, plain.at_least, (*plain.steps, (Op.AND_NOT, Literal(j))))


def _at_least(least: int, places: Sequence[int]) -> Rule:
    literals = tuple(Literal(j) for j in places)
    if 1 < least < len(literals):
        return Rule(literals, least)
    return Rule(literals[:1], 1, tuple((Op.OR if least == 1 else Op.AND, x) for x in literals[1:]))


def agreement(opened: Bool[np.ndarray, " subsets"], said: Bool[np.ndarray, " subsets"]) -> float:
    """How often a rule gives a table's answer: the mean over open and closed subsets, so that neither side decides alone."""
    return float(
        np.mean([(said == opened)[opened == state].mean() for state in (True, False) if (opened == state).any()])
    )
