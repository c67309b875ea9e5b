"""Setting literals: a row's features changed so that a rule's literals are on and off as wanted, with their companions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import scipy.sparse
from jaxtyping import Bool, Float, Int

from .companions import Group
from .rule import Rule
from .stage import Stage

#: with more literals than this, not every pattern is set
WHOLE = 4


def patterns(rule: Rule, random: np.random.Generator) -> Bool[np.ndarray, "patterns k"]:
    """Which literals are set: all patterns of up to four; of more none, all, each alone, all but each, and random ones."""
    k = len(rule.literals)
    if k <= WHOLE:
        return np.array(list(product((False, True), repeat=k)))
    eye = np.eye(k, dtype=bool)
    some = random.random((2**WHOLE - 2, k)) < 0.5
    return np.unique(np.concatenate([eye, ~eye, some, np.zeros((1, k), bool), np.ones((1, k), bool)]), axis=0)


class Setter:
    """Sets the literals of one rule, by their groups, in some rows.

    Switched off, a literal's group goes to zero, but for features that a literal which stays on needs. Switched on, its group
    is raised to its means. A literal that is to be off keeps its own feature at or below what it was, whoever raises it.

    Attributes:
        touched: [t] all features of the groups. have: [rows, k] which literals are on untouched.
    """

    def __init__(self, stage: Stage, groups: Sequence[Group], rows: Int[np.ndarray, " rows"]):
        self.stage, self.groups, self.rows = stage, groups, rows
        self.touched = np.unique(np.concatenate([g.members for g in groups]))
        self.value = stage.values(self.touched.tolist(), rows)
        self.have = stage.literals_on([g.literal for g in groups], rows)
        self.own = np.searchsorted(self.touched, [g.literal.feature for g in groups])
        self.place = [np.searchsorted(self.touched, g.members) for g in groups]

    def change(self, want: Bool[np.ndarray, "patterns k"]) -> Float[np.ndarray, "patterns rows t"]:
        """By how much each touched feature changes in each row under each pattern."""
        before = np.broadcast_to(self.value, (len(want), *self.value.shape))
        after = before.copy()
        have, want = self.have[None], want[:, None]
        for k, place in enumerate(self.place):
            _where(after, have[..., k] & ~want[..., k], place, 0.0)
        for k, place in enumerate(self.place):
            _where(after, have[..., k] & want[..., k], place, before[..., place])
        for k, place in enumerate(self.place):
            raised = np.maximum(after[..., place], self.groups[k].means)
            _where(after, ~have[..., k] & want[..., k], place, raised)
        for k, own in enumerate(self.own):
            kept = np.where(have[..., k], 0.0, np.minimum(after[..., own], before[..., own]))
            after[..., own] = np.where(want[..., k], after[..., own], kept)
        return after - before

    def step(self, change: Float[np.ndarray, "patterns rows t"]) -> Float[np.ndarray, "patterns rows d_in"]:
        """The move of the input vector that a change stands for."""
        return (change.astype(np.float32) @ self.stage.directions[self.touched]).astype(np.float32)


def _where(values: np.ndarray, chosen: np.ndarray, place: np.ndarray, new: np.ndarray | float) -> None:
    """values[..., place] = new where chosen."""
    values[..., place] = np.where(chosen[..., None], new, values[..., place])


def control_steps(
    setter: Setter,
    change: Float[np.ndarray, "patterns rows t"],
    want: Bool[np.ndarray, "patterns k"],
    others: Sequence[Group],
    random: np.random.Generator,
) -> Float[np.ndarray, "patterns rows d_in"]:
    """The same done to something unrelated: in the place of what is removed as many random active features of the row, in the
    place of what is switched on the groups of other literals, and the whole as long as the step it stands beside.

    Args:
        others: a group of another rule's literal for each literal, none of whose features the rule touches.
    """
    stage, true = setter.stage, setter.step(change)
    removed = ((change < 0) & (setter.value[None] > 0)).sum(-1)
    step = random_removals(stage, setter.rows, setter.touched, removed, random)
    for k, group in enumerate(others):
        value = stage.values(group.members.tolist(), setter.rows)
        raise_by = (np.maximum(value, group.means) - value).astype(np.float32) @ stage.directions[group.members]
        switched = ~setter.have[None, :, k] & want[:, None, k]
        step = step + switched[..., None] * raise_by[None]
    size, wanted = np.linalg.norm(step, axis=-1, keepdims=True), np.linalg.norm(true, axis=-1, keepdims=True)
    return (step * (wanted / np.maximum(size, 1e-12))).astype(np.float32)


def random_removals(
    stage: Stage,
    rows: Int[np.ndarray, " rows"],
    touched: Int[np.ndarray, " t"],
    count: Int[np.ndarray, "patterns rows"],
    random: np.random.Generator,
) -> Float[np.ndarray, "patterns rows d_in"]:
    """Steps that take so many random active features, none of those touched, out of each row."""
    indptr, starts = stage.f_in.indptr, stage.f_in.indptr[rows]
    length = int((indptr[rows + 1] - starts).max(initial=0))
    entry = starts[:, None] + np.arange(length)
    real = entry < indptr[rows + 1][:, None]
    entry = np.minimum(entry, max(stage.f_in.nnz - 1, 0))
    feature = np.where(real, stage.f_in.indices[entry], 0) if length else np.zeros((len(rows), 0), int)
    value = np.where(real, stage.f_in.data[entry], 0.0) if length else np.zeros((len(rows), 0))
    key = random.random((*count.shape, length))
    key[np.broadcast_to(~real | np.isin(feature, touched), key.shape)] = np.inf
    rank = key.argsort(-1).argsort(-1)
    taken = (rank < count[..., None]) & np.isfinite(key)
    flat = taken.reshape(count.size, length)
    where, which = np.nonzero(flat)
    row = where % len(rows)
    steps = scipy.sparse.csr_matrix(
        (-value[row, which].astype(np.float32), (where, feature[row, which])),
        shape=(len(flat), stage.directions.shape[0]),
    )
    return (steps @ stage.directions).reshape(*count.shape, stage.directions.shape[1])
