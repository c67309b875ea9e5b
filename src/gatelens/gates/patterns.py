"""Rules over a handful of literals: all their rows pressed into counts a pattern, and the best rules found on these.

Once a few literals are chosen, what any rule over them says depends on the pattern of a row alone. A million rows become a few
hundred patterns with counts, on which hundreds of rules are scored by one matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt32

from .both_sides import both_sides
from .rule import Literal, Op, Rule
from .scores import matthews

#: literals at most in one table: patterns are counted in an array of 2^16
MOST_LITERALS = 16
_OPS = (Op.OR, Op.AND, Op.AND_NOT)


@dataclass(frozen=True)
class Terms:
    """What a rule must earn.

    Attributes:
        most: literals at most.
        price: fitting MCC that each literal must bring (a k-of-n costs one literal more, for its count).
        support: rows that each literal must decide.
    """

    most: int = 4
    price: float = 0.01
    support: int = 20


@dataclass(frozen=True)
class Patterns:
    """How often each pattern of some literals occurs, and how often the output is on there.

    Attributes:
        literals: the columns; on: [p, k] which are on, the pattern of no literal first; no two rows alike.
        count, fired: [p] rows with the pattern, and those on which the output is on; rows of unclear state are left out.
        sides: of an output that is a product of two sums, the features of each; rules that ask something of both are then tried too.
    """

    literals: tuple[Literal, ...]
    on: Bool[np.ndarray, "p k"]
    count: Float[np.ndarray, " p"]
    fired: Float[np.ndarray, " p"]
    sides: tuple[frozenset[int], ...] = ()

    @classmethod
    def counted(
        cls,
        literals: Sequence[Literal],
        columns: Sequence[Int[np.ndarray, " _"]],
        on: Int[np.ndarray, " fired"],
        unclear: Int[np.ndarray, " between"],
        scratch: UInt32[np.ndarray, " rows"],
    ) -> Patterns:
        """From the rows of each literal, of the output, and those that do not count.

        Args:
            scratch: uint32 zeros, one a row; they are zeros again afterwards.
        """
        for place, column in enumerate(columns):
            scratch[column] |= np.uint32(1 << place)
        parts = []
        for place, column in enumerate(
            columns
        ):  # a row with several literals on is taken once: with the lowest of them
            code = scratch[column]
            parts.append(code[code & np.uint32((1 << place) - 1) == 0])
        codes = np.concatenate(parts) if parts else np.zeros(0, np.uint32)
        fired, between = scratch[on], scratch[unclear]
        for column in columns:
            scratch[column] = 0
        rows = len(scratch) - len(codes)
        if len(columns) <= MOST_LITERALS:
            size = 1 << len(columns)
            number = np.bincount(codes, minlength=size)
            number[0] += rows
            seen = np.flatnonzero(number)
            count = number[seen] - np.bincount(between, minlength=size)[seen]
            hits = np.bincount(fired, minlength=size)[seen]
        else:
            seen, number = np.unique(np.append(codes, np.uint32(0)), return_counts=True)
            number[0] += rows - 1
            place_of = [np.searchsorted(seen, found) for found in (between, fired)]
            off, hits = (np.bincount(place, minlength=len(seen)) for place in place_of)
            count = number - off
        bits = (seen[:, None] >> np.arange(len(columns))) & 1
        return cls(tuple(literals), bits.astype(bool), count.astype(np.float64), hits.astype(np.float64))

    def over(self, places: Sequence[int]) -> Patterns:
        """The same rows by the patterns of some of the literals."""
        on, which = np.unique(self.on[:, list(places)], axis=0, return_inverse=True)
        count, fired = (np.bincount(which.reshape(-1), weights=w) for w in (self.count, self.fired))
        return Patterns(tuple(self.literals[j] for j in places), on, count, fired, self.sides)

    def mcc(self, rule: Rule) -> float:
        """Of a rule over these literals."""
        says = rule.evaluate(self.on[:, [self.literals.index(literal) for literal in rule.literals]])
        hit, said = self.fired[says].sum(), self.count[says].sum()
        return float(matthews(hit, said, self.fired.sum(), self.count.sum()))


@dataclass(frozen=True)
class Ranked:
    """A rule and its Matthews correlation on the rows that chose it."""

    rule: Rule
    mcc: float


def best_by_size(table: Patterns, terms: Terms, width: int | None = 32) -> dict[int, Ranked]:
    """The best rule of each number of literals, 1 to `terms.most`, that decides enough rows by each of them.

    Args:
        width: how many rules are kept at each size to be made longer (a beam); None keeps all, which makes the search exhaustive
            over rules from left to right, and slow.
    """
    ends = _by_size(table, terms, width, last=1)
    return {size: found[0] for size, found in ends if found}


def ranked_by_size(table: Patterns, terms: Terms, each: int, width: int = 32) -> list[Ranked]:
    """The best few rules of each number of literals; see `best_by_size`."""
    return [rule for _, found in _by_size(table, terms, width, each) for rule in found]


def _by_size(table: Patterns, terms: Terms, width: int | None, last: int) -> Iterator[tuple[int, list[Ranked]]]:
    """The `last` best rules of each number of literals, the best first."""
    board = _Board(table, terms)
    states = board.singles()
    for size in range(1, terms.most + 1):
        if size > 1:
            states = board.longer(states, width if size < terms.most else last)
        states = states.joined(board.heads(size, exhaustive=width is None), width)
        if not len(states):
            break
        order = np.argsort(-(states.mcc - terms.price * states.extra), kind="stable")[:last].tolist()
        found = [Ranked(states.rule(i, table.literals), float(states.mcc[i])) for i in order if states.mcc[i] > 0]
        if table.sides:
            found += of_both_sides(table, terms, size)[:last]
            found.sort(key=lambda r: terms.price * cost(r.rule) - r.mcc)
        yield size, found[:last]


def of_both_sides(table: Patterns, terms: Terms, size: int | None = None) -> list[Ranked]:
    """Rules of so many literals (`terms.most`) that ask for one of some of each side of a product, the best first."""
    size = terms.most if size is None else size
    places = [[j for j, literal in enumerate(table.literals) if literal.feature in side] for side in table.sides]
    feature = [literal.feature for literal in table.literals]
    found = []
    for mcc, left, right in both_sides(table.on, table.count, table.fired, places, feature, size, terms.support):
        (head, *rest), also = ([table.literals[j] for j in some] for some in (left, right))
        found.append(Ranked(Rule((head,), steps=tuple((Op.OR, literal) for literal in rest), also=tuple(also)), mcc))
    return found


def chosen(by_size: dict[int, Ranked], price: float) -> Ranked | None:
    """The rule whose MCC is best after each literal has paid its price; the shorter one where they tie."""
    worth = {size: found.mcc - price * cost(found.rule) for size, found in by_size.items()}
    return by_size[max(worth, key=lambda size: (worth[size], -size))] if worth else None


def cost(rule: Rule) -> int:
    """Literals that a rule pays for: its own, and one more for a count of them."""
    return len(rule.literals) + (len(rule.head) > 1)


@dataclass(frozen=True)
class Spare:
    """A candidate that a rule leaves out: the best that it could bring, and the rows that it would decide."""

    literal: Literal
    gain: float
    decides: int


def spare(table: Patterns, rule: Rule) -> list[Spare]:
    """The candidates that are of none of the rule's features, in the table's order."""
    board = _Board(table, Terms(support=0))
    places = [table.literals.index(literal) for literal in rule.literals]
    says = rule.evaluate(table.on[:, places]).astype(np.float32)[None]
    said, hit, decides = board.joined(says)
    own = float(board.mcc(says[0] @ board.weights[1], says[0] @ board.weights[0]))
    gain = board.mcc(hit, said)[:, 0] - own
    best = gain.argmax(0)
    free = np.flatnonzero(~board.same[places].any(0))
    return [Spare(table.literals[j], float(gain[best[j], j]), int(decides[best[j], 0, j])) for j in free]


@dataclass(frozen=True)
class _States:
    """Rules under way: where they say on, what they are made of (as places in the table), how good they are."""

    says: Float[np.ndarray, "rules p"]
    made: tuple[tuple[Any, ...], ...]
    mcc: Float[np.ndarray, " rules"]
    used: Bool[np.ndarray, "rules k"]
    extra: Float[np.ndarray, " rules"]

    def __len__(self) -> int:
        return len(self.made)

    def joined(self, other: _States, width: int | None) -> _States:
        """Both, the best `width` of them."""
        if not len(other):
            return self
        order = np.argsort(-np.concatenate([self.mcc, other.mcc]), kind="stable")[:width]
        made = self.made + other.made
        parts = [
            np.concatenate([getattr(s, n) for s in (self, other)])[order] for n in ("says", "mcc", "used", "extra")
        ]
        return _States(parts[0], tuple(made[i] for i in order), *parts[1:])

    def rule(self, place: int, literals: Sequence[Literal]) -> Rule:
        head, at_least, *steps = self.made[place]
        joined = tuple((_OPS[op], literals[j]) for op, j in steps)
        return Rule(tuple(literals[j] for j in head), at_least, joined)


class _Board:
    """A table with what scoring needs: columns as numbers, and which literals are of the same feature."""

    def __init__(self, table: Patterns, terms: Terms):
        self.terms, self.on = terms, table.on.astype(np.float32)
        self.weights = np.stack([table.count, table.fired]).astype(np.float32)
        self.count, self.fired = (self.weights @ self.on).astype(np.float64)
        self.rows, self.positive = float(table.count.sum()), float(table.fired.sum())
        self.alone = self.mcc(self.fired, self.count)
        self.feature = np.array([literal.feature for literal in table.literals])
        self.same = self.feature[:, None] == self.feature[None]

    def mcc(self, hit: Any, said: Any) -> Float[np.ndarray, ...]:
        return matthews(hit, said, self.positive, self.rows)

    def singles(self) -> _States:
        score = np.where(self.count >= self.terms.support, self.alone, -1.0)
        keep = np.flatnonzero(score > -1)
        made = tuple(((int(j),), 1) for j in keep)
        return _States(self.on.T[keep], made, score[keep], self.same[keep], np.zeros(len(keep)))

    def joined(self, says: Float[np.ndarray, "rules p"]) -> tuple[Float[np.ndarray, "3 rules k"], ...]:
        """Of each rule with each literal joined by each operation: rows on which it says on, hits, rows that this decides."""
        said, hit = (says @ self.weights.T).T.astype(np.float64)[:, :, None]
        both, both_hit = ((says * w) @ self.on for w in self.weights)
        new_said = np.stack([said + self.count - both, both, said - both])
        new_hit = np.stack([hit + self.fired - both_hit, both_hit, hit - both_hit])
        return new_said, new_hit, np.stack([self.count - both, said - both, both])

    def longer(self, states: _States, width: int | None) -> _States:
        """Each rule with one literal more, the best `width` of those that differ in what they count."""
        new_said, new_hit, decides = self.joined(states.says)
        score = self.mcc(new_hit, new_said)
        score[(decides < self.terms.support) | states.used[None]] = -1.0
        # a beam is for rules that their last literal made better: beside a good one, any literal that does nothing looks good
        least = -1.0 if width is None else np.maximum(states.mcc, -1.0)[None, :, None]
        order = np.flatnonzero(score > least)
        order = order[np.argsort(-score.ravel()[order], kind="stable")]
        if width is not None:
            order = order[: 8 * width]
        # rules that say the same count the same: of those only the first is kept
        key = new_said.ravel()[order] * (self.rows + 1) + new_hit.ravel()[order]
        if width is not None:
            order = order[np.sort(np.unique(key, return_index=True)[1])][:width]
        return self._grown(states, order, score)

    def _grown(
        self, states: _States, order: Int[np.ndarray, " kept"], score: Float[np.ndarray, "3 rules k"]
    ) -> _States:
        op, rule, literal = np.unravel_index(order, score.shape)
        old, new = states.says[rule], self.on.T[literal]
        says = np.where(
            (op == 0)[:, None], np.maximum(old, new), np.where((op == 1)[:, None], old * new, old * (1 - new))
        )
        made = tuple((*states.made[r], (int(o), int(j))) for o, r, j in zip(op, rule, literal, strict=True))
        return _States(says, made, score.ravel()[order], states.used[rule] | self.same[literal], states.extra[rule])

    def heads(self, size: int, exhaustive: bool) -> _States:
        """At least k of `size` literals, 1 < k < size; of the six that fire with the output most, unless exhaustive."""
        groups = self._groups(size, exhaustive)
        if not groups:
            return _States(
                np.zeros((0, len(self.on)), np.float32), (), np.zeros(0), np.zeros((0, 0), bool), np.zeros(0)
            )
        members = np.zeros((len(self.count), len(groups)), np.float32)
        members[np.array(groups), np.arange(len(groups))[:, None]] = 1.0
        number = self.on @ members
        parts = list(self._counted(number, groups, size))
        says = np.concatenate([p[0] for p in parts])
        made = tuple(m for p in parts for m in p[1])
        score = np.concatenate([p[2] for p in parts])
        used = np.stack([self.same[list(head)].any(0) for head, _ in made])
        return _States(says, made, score, used, np.ones(len(made)))

    def _groups(self, size: int, exhaustive: bool) -> list[tuple[int, ...]]:
        """Three literals or more of as many features."""
        if size < 3:
            return []
        places = np.arange(len(self.count))
        if not exhaustive:
            places = np.argsort(-self.alone, kind="stable")[:6]
        feature = self.feature.tolist()
        groups = combinations(places.tolist(), size)
        return [g for g in groups if len({feature[place] for place in g}) == size]

    def _counted(
        self, number: Float[np.ndarray, "p groups"], groups: list[tuple[int, ...]], size: int
    ) -> Iterator[Any]:
        for least in range(2, size):
            says = (number >= least).T.astype(np.float32)
            said, hit = (says @ self.weights.T).T.astype(np.float64)
            # rows that tell it from an OR and from one more: with exactly `least`, and with fewer but some
            exact = (number == least).T.astype(np.float32) @ self.weights[0]
            fewer = ((number > 0) & (number < least)).T.astype(np.float32) @ self.weights[0]
            enough = (exact >= self.terms.support) & (fewer >= self.terms.support)
            yield says, [(group, least) for group in groups], np.where(enough, self.mcc(hit, said), -1.0)
