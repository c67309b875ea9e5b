"""Interchange: the literals' part of another natural row is swapped in; does the output become what the rule says of that row?

Donors are real rows, so that no value is made up: where the rule is open and the output on, one in which both are not, and the
reverse. Every pair asks for a flip, so a row that nothing moves is never right by standing still. Beside the accuracy: a placebo
(as many random features of both rows, a step of equal length), and the donors dealt out at random among the pairs, which is the
rule with its labels shuffled. A model of shuffled weights with dictionaries of its own is judged by the same function.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .group_trials import Subject, agreeing_rows
from .rates import Rate
from .setting import random_removals
from .stage import CHUNK, Stage


@dataclass(frozen=True)
class Interchange:
    """How often the output became what the rule says of the donor.

    Attributes:
        accuracy: with the literals' groups swapped. placebo: with random features swapped, by a step of equal length.
        shuffled: with the literals' groups of donors dealt out at random.
    """

    accuracy: Rate
    placebo: Rate
    shuffled: Rate

    @property
    def less_placebo(self) -> float | None:
        """Accuracy less the placebo's."""
        a, b = self.accuracy.share, self.placebo.share
        return None if a is None or b is None else a - b

    @property
    def interval(self) -> tuple[float, float]:
        """Of `less_placebo`: both Wilson intervals combined (Newcombe 1998, method 10); (-1, 1) without pairs."""
        difference = self.less_placebo
        if difference is None:
            return -1.0, 1.0
        (low, high), (low_0, high_0) = self.accuracy.interval, self.placebo.interval
        p, q = self.accuracy.made / self.accuracy.tried, self.placebo.made / self.placebo.tried
        below, above = float(np.hypot(p - low, high_0 - q)), float(np.hypot(high - p, q - low_0))
        return max(difference - below, -1.0), min(difference + above, 1.0)


def interchanges(stage: Stage, subjects: Sequence[Subject], pairs: int = 48, seed: int = 0) -> Iterator[Interchange]:
    """For each rule, in order; `pairs`: at most so many, half of them either way."""
    waiting: list[_Pairs] = []
    for subject in subjects:
        waiting.append(_pairs(stage, subject, pairs, np.random.default_rng((seed, subject.out, 2))))
        if sum(len(p.x) for p in waiting) >= CHUNK:
            yield from _read(stage, waiting)
            waiting = []
    yield from _read(stage, waiting)


@dataclass(frozen=True)
class _Pairs:
    """A rule's swapped rows: the literals', the placebo's, those of shuffled donors, one after the other; what the rule says of each."""

    out: int
    says: Bool[np.ndarray, " pairs"]
    x: Float[Tensor, "three_pairs d_in"]


def _pairs(stage: Stage, subject: Subject, count: int, random: np.random.Generator) -> _Pairs:
    on, off = agreeing_rows(stage, subject, count, random)
    size = min(len(on), len(off)) or 0
    on, off = random.permutation(on)[:size], random.permutation(off)[:size]
    base, donor = np.concatenate([off, on]).astype(np.int64), np.concatenate([on, off]).astype(np.int64)
    touched = subject.touched
    value = stage.values(touched.tolist(), np.arange(0)) if not size else stage.values(touched.tolist(), base)
    steps = []
    for source in (donor, random.permutation(donor)):
        change = stage.values(touched.tolist(), source) - value
        steps.append(change.astype(np.float32) @ stage.directions[touched])
    given = stage.values(touched.tolist(), donor)
    taken_out = random_removals(stage, base, touched, (value > given).sum(-1)[None], random)[0]
    put_in = -random_removals(stage, donor, touched, (given > value).sum(-1)[None], random)[0]
    placebo = taken_out + put_in
    size_of = np.linalg.norm(steps[0], axis=-1, keepdims=True)
    placebo = placebo * (size_of / np.maximum(np.linalg.norm(placebo, axis=-1, keepdims=True), 1e-12))
    x = stage.moved(np.tile(base, 3), np.concatenate([steps[0], placebo.astype(np.float32), steps[1]]))
    return _Pairs(subject.out, np.arange(len(base)) < size, x)


def _read(stage: Stage, waiting: Sequence[_Pairs]) -> Iterator[Interchange]:
    if not waiting:
        return
    outs = np.concatenate([np.full(len(p.x), p.out) for p in waiting])
    value = stage.shown(torch.cat([p.x for p in waiting]), outs)
    start = 0
    for p in waiting:
        fires = value[start : start + len(p.x)].reshape(3, -1) > stage.levels[p.out]
        start += len(p.x)
        right = (fires == p.says).sum(1)
        yield Interchange(*(Rate(int(n), len(p.says), len(p.says)) for n in right))
