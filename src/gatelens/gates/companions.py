"""Companions: the features that come and go with a literal, which are set together with it.

A dictionary splits what the model holds as one: in real text hardly a feature comes alone, and a literal set by itself makes
a row that the model never sees. So a literal is set with its group: the features that are on in more than half of the rows
where it is on, and rare elsewhere, each at its mean there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

from ..errors import DataError
from .rule import Literal

#: a companion is on in more than this share of the rows where the literal is on
TOGETHER = 0.5
#: and in less than this share of all rows: what is on nearly everywhere comes with anything
RARE = 0.1
#: rows of a literal that are looked at, spread evenly; literals at once
_ROWS, _LITERALS = 2_000, 256


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

    def __init__(self, f_in: scipy.sparse.csr_matrix):
        """`f_in`: [rows, m] features above zero, of fitting rows: what goes with what must not be learned where it is judged."""
        self.f_in, self.rows = f_in, f_in.shape[0]
        self.columns = scipy.sparse.csc_matrix(f_in)
        self.rate = np.diff(self.columns.indptr) / self.rows
        self.on = scipy.sparse.csr_matrix((np.ones_like(f_in.data), f_in.indices, f_in.indptr), shape=f_in.shape)

    def groups(self, literals: Sequence[Literal]) -> dict[Literal, Group]:
        """Each literal's group.

        Raises:
            DataError: a literal that is on in none of the rows.
        """
        wanted, found = sorted(set(literals)), {}
        for start in range(0, len(wanted), _LITERALS):
            part = wanted[start : start + _LITERALS]
            rows = [_rows_of(literal, self.columns) for literal in part]
            for literal, its in zip(part, rows, strict=True):
                if not len(its):
                    raise DataError(
                        f"{literal.words} is on in none of the {self.rows} fitting rows: what comes with it is not known. "
                        "Give literals that fire there"
                    )
            where = scipy.sparse.csr_matrix(
                (np.ones(sum(map(len, rows)), np.float32), np.concatenate(rows), np.cumsum([0, *map(len, rows)])),
                shape=(len(part), self.rows),
            )
            count, total = (where @ self.on).tocsr(), (where @ self.f_in).tocsr()
            for place, literal in enumerate(part):
                found[literal] = _group(literal, len(rows[place]), count[place], total[place], self.rate)
        return found


def groups_of(literals: Sequence[Literal], f_in: scipy.sparse.csr_matrix) -> dict[Literal, Group]:
    """Each literal's group, from sparse counts of which features are on together; see `Together`."""
    return Together(f_in).groups(literals)


def _rows_of(literal: Literal, columns: scipy.sparse.csc_matrix) -> Int[np.ndarray, " rows"]:
    start, stop = columns.indptr[literal.feature : literal.feature + 2]
    rows = columns.indices[start:stop][columns.data[start:stop] > literal.level]
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
