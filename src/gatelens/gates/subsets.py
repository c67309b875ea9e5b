"""Subsets: does a rule hold whatever else is there? Random halves of all features outside it are switched off; the worst counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .group_trials import Subject, agreeing_rows
from .rates import Rate
from .stage import CHUNK, Stage

#: random subsets a rule, each holding every feature outside it with probability one half
SUBSETS = 64


@dataclass(frozen=True)
class Subsets:
    """How often the output stayed what the rule says with random features outside it switched off.

    Attributes:
        every: over all subsets; worst: the subset under which it stayed in the fewest rows.
    """

    every: Rate
    worst: Rate


def worst_subsets(stage: Stage, subjects: Sequence[Subject], rows: int = 8, seed: int = 0) -> Iterator[Subsets]:
    """For each rule, in order, on at most `rows` rows on which rule and output agree."""
    for subject in subjects:
        random = np.random.default_rng((seed, subject.out, 3))
        chosen = np.concatenate(agreeing_rows(stage, subject, rows, random)).astype(np.int64)
        made = _stays(stage, subject, chosen, random)
        shares = made.sum(1)
        n = len(chosen)
        yield Subsets(Rate(int(shares.sum()), made.size, n), Rate(int(shares.min()), n, n) if made.size else Rate())


def _stays(stage: Stage, subject: Subject, rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """[subsets, rows] whether the output stays as it was, and as the rule says."""
    was_on = stage.f_out[rows][:, subject.out].toarray()[:, 0] > stage.levels[subject.out]
    value = stage.f_in[rows].tocsc()
    made, at_once = np.zeros((SUBSETS, len(rows)), bool), max(1, CHUNK // max(len(rows), 1))
    for start in range(0, SUBSETS, at_once):
        off = random.random((min(at_once, SUBSETS - start), value.shape[1])) < 0.5
        off[:, subject.touched] = False
        present = np.flatnonzero(np.diff(value.indptr))
        f = value[:, present].toarray().astype(np.float32)
        step = -(f[None] * off[:, None, present]) @ stage.directions[present]
        x = stage.moved(np.tile(rows, len(off)), step.reshape(-1, step.shape[-1]))
        fires = stage.shown(x, np.full(len(x), subject.out)) > stage.levels[subject.out]
        made[start : start + len(off)] = fires.reshape(len(off), -1) == was_on
    return made
