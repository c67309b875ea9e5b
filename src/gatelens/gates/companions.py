"""Companions: the features that come and go with a literal, which are set together with it.

A dictionary splits what the model holds as one: in real text hardly a feature comes alone, and a literal set by itself makes
a row that the model never sees. So a literal is set with its group: the features that are on in more than half of the rows
where it is on, and rare elsewhere, each at its mean there. As part of a rule it is set as it is where it decides: at the means
over the rows where the rule is open with it, or, under a NOT, would be open without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

from ..errors import DataError
from .rule import Literal, Rule

#: a companion is on in more than this share of the rows where the literal is on
TOGETHER = 0.5
#: and in less than this share of all rows: what is on nearly everywhere comes with anything
RARE = 0.1
#: rows of a literal that are looked at, spread evenly; literals at once
_ROWS, _LITERALS = 2_000, 256
#: rows that a mean is taken over, at least; where a literal decides in fewer it is set as it usually is
_FEWEST = 16


@dataclass(frozen=True)
class Group:
    """A literal and its companions.

    Attributes:
        literal: the literal.
        members: [g] features, its own first.
        means: [g] each one's mean where both it and the literal are on.
    """

    literal: Literal
    members: Int[np.ndarray, " g"]
    means: Float[np.ndarray, " g"]

    @property
    def companions(self) -> tuple[int, ...]:
        return tuple(int(i) for i in self.members[1:])

    def alone(self) -> Group:
        """The literal without its companions."""
        return Group(self.literal, self.members[:1], self.means[:1])

    def without(self, features: Sequence[int]) -> Group:
        """The group less some features; the literal's own stays."""
        kept = ~np.isin(self.members, list(features))
        kept[0] = True
        return Group(self.literal, self.members[kept], self.means[kept])


class Together:
    """Which features are on together over some rows; groups are found there."""

    def __init__(self, f_in: scipy.sparse.csr_matrix, columns: scipy.sparse.csc_matrix | None = None):
        """`f_in`: [rows, m] features above zero, of fitting rows: what goes with what must not be learned where it is judged.

        `columns`: the same by column, where it is at hand.
        """
        self.f_in, self.rows = f_in, f_in.shape[0]
        self.columns = scipy.sparse.csc_matrix(f_in) if columns is None else columns
        self.rate = np.diff(self.columns.indptr) / self.rows
        self._known: dict[Literal, Group] = {}
        self._here = np.zeros(self.rows, bool)
        self.on = scipy.sparse.csr_matrix((np.ones_like(f_in.data), f_in.indices, f_in.indptr), shape=f_in.shape)

    def groups(self, literals: Sequence[Literal]) -> dict[Literal, Group]:
        """Each literal's group.

        Raises:
            DataError: a literal that is on in none of the rows.
        """
        new = sorted(set(literals) - set(self._known))
        for start in range(0, len(new), _LITERALS):
            self._find(new[start : start + _LITERALS])
        return {literal: self._known[literal] for literal in literals}

    def of_rule(self, rule: Rule) -> tuple[Group, ...]:
        """The groups of a rule's literals, in their order, each at its means over the rows where its literal decides."""
        groups, on = self.groups(rule.literals), [self._on(literal) for literal in rule.literals]
        found = []
        for place, literal in enumerate(rule.literals):
            others = rule.without(place) if literal in rule.negative else rule
            rest = [rows for j, rows in enumerate(on) if others is rule or j != place]
            where = (
                on[place] if others is None else np.intersect1d(on[place], others.open_rows(rest), assume_unique=True)
            )
            found.append(self._raised(groups[literal], where))
        return tuple(found)

    def _raised(self, group: Group, where: Int[np.ndarray, " rows"]) -> Group:
        """The group at its means over some rows; a member that is on in few of them keeps the mean that it has."""
        self._here[where] = True
        means = group.means.copy()
        for place, member in enumerate(group.members):
            span = slice(*self.columns.indptr[member : member + 2])
            value = self.columns.data[span][self._here[self.columns.indices[span]]]
            if len(value) >= _FEWEST:
                means[place] = value.mean()
        self._here[where] = False
        return Group(group.literal, group.members, means)

    def _on(self, literal: Literal) -> Int[np.ndarray, " rows"]:
        """All rows on which a literal is on."""
        span = slice(*self.columns.indptr[literal.feature : literal.feature + 2])
        return self.columns.indices[span][self.columns.data[span] > literal.level]

    def _find(self, literals: Sequence[Literal]) -> None:
        rows = [_spread(self._on(literal)) for literal in literals]
        for literal, its in zip(literals, rows, strict=True):
            if not len(its):
                raise DataError(
                    f"{literal.words} is on in none of the {self.rows} fitting rows: what comes with it is not known. "
                    "Give literals that fire there"
                )
        where = scipy.sparse.csr_matrix(
            (np.ones(sum(map(len, rows)), np.float32), np.concatenate(rows), np.cumsum([0, *map(len, rows)])),
            shape=(len(literals), self.rows),
        )
        count, total = (where @ self.on).tocsr(), (where @ self.f_in).tocsr()
        for place, literal in enumerate(literals):
            self._known[literal] = _group(literal, len(rows[place]), count[place], total[place], self.rate)


def _spread(rows: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " some"]:
    return rows[np.linspace(0, len(rows) - 1, _ROWS).astype(int)] if len(rows) > _ROWS else rows


def _group(
    literal: Literal, rows: int, count: scipy.sparse.csr_matrix, total: scipy.sparse.csr_matrix, rate: np.ndarray
) -> Group:
    often, together = count.indices, count.data
    mean = np.zeros(len(rate))
    mean[total.indices] = total.data
    chosen = often[(together > TOGETHER * rows) & (rate[often] < RARE) & (often != literal.feature)]
    members = np.concatenate([[literal.feature], np.sort(chosen)]).astype(int)
    times = np.zeros(len(rate))
    times[often] = together
    means = mean[members] / np.maximum(times[members], 1)
    return Group(literal, members, means)
