"""Outside a rule: which features the rule does not name speak against it on natural rows, one by one and in pairs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import scipy.sparse
from jaxtyping import Bool, Float, Int

from .companions import Together
from .rates import Rate
from .rule import Literal, Rule

#: features that are looked at where the rule is open, and where it is closed; pairs are made of the first few of the latter
CANDIDATES, PAIRED = 6, 4
#: what speaks against a rule is seen in at least so many rows, and accounts for this share of its open (or the output's on) rows
SEEN, SHARE = 5, 0.05
#: rows of each kind that candidates are looked for in
_LOOKED_AT = 2_000


@dataclass(frozen=True)
class Against:
    """A way in which features outside a rule decide against it.

    Attributes:
        literals: one or two, outside the rule. on: whether they are on or off there.
        pattern: which of the rule's own literals are on there. was_open: what the rule says of that.
        natural: fitting rows of this kind in which the output does the other thing.
    """

    literals: tuple[Literal, ...]
    on: bool
    pattern: tuple[bool, ...]
    was_open: bool
    natural: Rate


@dataclass(frozen=True)
class Outside:
    """Fitting rows in which candidates are looked for.

    Attributes:
        f_in: [rows, m] above zero; f_out: [rows, n] by column; columns: f_in by column.
        strong: f_in where each feature exceeds its median, `medians`.
        levels: [n] above which each output is on.
    """

    f_in: scipy.sparse.csr_matrix
    f_out: scipy.sparse.csc_matrix
    columns: scipy.sparse.csc_matrix
    strong: scipy.sparse.csr_matrix
    medians: Float[np.ndarray, " m"]
    levels: Float[np.ndarray, " n"]

    @cached_property
    def together(self) -> Together:
        """The same rows, to find companions in."""
        return Together(self.f_in, self.columns)

    @classmethod
    def of(
        cls, f_in: scipy.sparse.csr_matrix, f_out: scipy.sparse.csr_matrix, levels: Float[np.ndarray, " n"]
    ) -> Outside:
        columns = scipy.sparse.csc_matrix(f_in)
        parts = np.split(columns.data, columns.indptr[1:-1])
        medians = np.array([np.median(part) if len(part) else np.inf for part in parts])
        strong = f_in.copy()
        strong.data = (strong.data > medians[strong.indices]).astype(np.float32)
        strong.eliminate_zeros()
        return cls(f_in, scipy.sparse.csc_matrix(f_out), columns, strong, medians, levels)

    def against(self, out: int, rule: Rule, touched: Int[np.ndarray, " t"]) -> list[Against]:
        """What speaks against a rule, but for features in `touched`: those that setting its literals changes anyway."""
        seen = _Seen.of(self, out, rule)
        found: list[Against] = []
        for says in (True, False):
            wrong, right = seen.rows(says, agree=False), seen.rows(says, agree=True)
            # of all silent rows those in which features are looked for: the others say nothing about them
            right = right if says else np.intersect1d(right, self._some_rows())
            candidates = self._candidates(wrong, right, touched)
            for literal in candidates:
                found += seen.against((literal,), self.rows_of(literal), says, on=True)
                if says:
                    found += seen.against((literal,), self.rows_of(literal), says, on=False)
            if not says:
                found += self._pairs(seen, candidates[:PAIRED], found)
        return found

    def _pairs(self, seen: _Seen, candidates: list[Literal], alone: list[Against]) -> Iterator[Against]:
        """Two features that fire the output only together, where the rule is closed."""
        for pair in combinations(candidates, 2):
            rows = np.intersect1d(self.rows_of(pair[0]), self.rows_of(pair[1]), assume_unique=True)
            told = {a.pattern for a in alone if not a.was_open and a.literals[0] in pair}
            yield from (a for a in seen.against(pair, rows, False, on=True) if a.pattern not in told)

    def rows_of(self, literal: Literal) -> Int[np.ndarray, " rows"]:
        start, stop = self.columns.indptr[literal.feature : literal.feature + 2]
        return np.sort(self.columns.indices[start:stop][self.columns.data[start:stop] > literal.level])

    def _some_rows(self) -> Int[np.ndarray, " rows"]:
        rows = self.f_in.shape[0]
        return np.arange(rows) if rows <= 4 * _LOOKED_AT else np.linspace(0, rows - 1, 4 * _LOOKED_AT).astype(int)

    def _candidates(self, a: np.ndarray, b: np.ndarray, touched: np.ndarray) -> list[Literal]:
        """The features that best tell two kinds of row apart: by correlation, both kinds weighing the same."""
        if len(a) < SEEN or len(b) < SEEN:
            return []
        score, strong = (self._tells_apart(f, a, b, touched) for f in (self.f_in, self.strong))
        best = np.argsort(-np.maximum(score, strong))[:CANDIDATES]
        return [
            Literal(int(i), float(self.medians[i]) if strong[i] > score[i] else 0.0)
            for i in best
            if max(score[i], strong[i]) > 0
        ]

    def _tells_apart(
        self, f: scipy.sparse.csr_matrix, a: np.ndarray, b: np.ndarray, touched: np.ndarray
    ) -> Float[np.ndarray, " m"]:
        counts = [_on_in(f, rows) for rows in (a, b)]
        p, q = (count / rows for count, rows in counts)
        mean = (p + q) / 2
        score = np.abs(p - q) / 2 / np.sqrt(np.maximum(mean * (1 - mean), 1e-12))
        score[counts[0][0] + counts[1][0] < SEEN] = 0
        score[touched] = 0
        return score


@dataclass(frozen=True)
class _Seen:
    """One output and one rule over all fitting rows.

    Attributes:
        code: [rows] which of the rule's literals are on, bit by bit. says: [2^k] the rule's verdict on each pattern.
        state: [rows] whether the output is on (1), silent (0), or between zero and its level (-1).
        patterns: [2^k, k] the literals of each code.
    """

    code: Int[np.ndarray, " rows"]
    says: Bool[np.ndarray, " codes"]
    state: Int[np.ndarray, " rows"]
    patterns: Bool[np.ndarray, "codes k"]

    @classmethod
    def of(cls, outside: Outside, out: int, rule: Rule) -> _Seen:
        rows, k = outside.f_in.shape[0], len(rule.literals)
        code, state = np.zeros(rows, np.int32), np.zeros(rows, np.int8)
        for place, literal in enumerate(rule.literals):
            code[outside.rows_of(literal)] |= 1 << place
        start, stop = outside.f_out.indptr[out : out + 2]
        strong = outside.f_out.data[start:stop] > outside.levels[out]
        state[outside.f_out.indices[start:stop]] = np.where(strong, 1, -1)
        patterns = (np.arange(1 << k)[:, None] >> np.arange(k) & 1).astype(bool)
        return cls(code, rule.evaluate(patterns), state, patterns)

    def rows(self, says: bool, agree: bool) -> Int[np.ndarray, " rows"]:
        """The rows of which the rule says this, and the output does the same, or clearly the other."""
        return np.flatnonzero((self.says[self.code] == says) & (self.state == int(says == agree)))

    def against(
        self, literals: tuple[Literal, ...], rows: Int[np.ndarray, " rows"], says: bool, on: bool
    ) -> Iterator[Against]:
        """The patterns of the rule's literals under which most rows go against it where the features are on (off)."""
        if not on:
            rows = np.setdiff1d(np.flatnonzero(self.code), rows, assume_unique=True)
        code, state = self.code[rows], self.state[rows]
        decided = (self.says[code] == says) & (state >= 0)
        count = np.bincount(code[decided], minlength=len(self.says))
        bad = np.bincount(code[decided & (state != says)], minlength=len(self.says))
        whole = self._whole(says)
        for place in np.flatnonzero((bad >= max(SEEN, SHARE * whole)) & (2 * bad > count)):
            seen = Rate(int(bad[place]), int(count[place]), int(count[place]))
            yield Against(literals, on, tuple(self.patterns[place].tolist()), says, seen)

    def _whole(self, says: bool) -> int:
        """What rows against the rule are held beside: its open rows, or those on which the output is on."""
        return int((self.says[self.code]).sum()) if says else int((self.state == 1).sum())


def _on_in(f: scipy.sparse.csr_matrix, rows: np.ndarray) -> tuple[np.ndarray, int]:
    if len(rows) > _LOOKED_AT:
        rows = rows[np.linspace(0, len(rows) - 1, _LOOKED_AT).astype(int)]
    return np.bincount(f[rows].indices, minlength=f.shape[1]), len(rows)
