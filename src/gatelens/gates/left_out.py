"""What a rule leaves out: features outside it that speak against it on natural rows are set in the model too, alone and in pairs.

A rule that names one parent of a XOR agrees with most rows and flips as it says when that parent is set; only the other parent,
set beside it, gives it away. So features that tell apart the rows on which rule and output agree and disagree are switched on
where the rule is closed, and on and off where it is open. Only what natural rows suggest is tried, and only what the model
then confirms overturns a rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .group_trials import Subject, draw
from .outside import Against, Outside
from .rates import Rate
from .rule import GateKind
from .setting import Setter
from .stage import CHUNK, Stage

#: rows for each way of setting something
ROWS = 12


@dataclass(frozen=True)
class LeftOut:
    """Features outside the rule, and what became of the output where they were set.

    Attributes:
        against: which features, how set, where, and what natural rows say.
        flipped: rows in which the output left what the rule says.
        further_arm: one more feature that opens an OR by itself: the rule is not complete, and not wrong.
    """

    against: Against
    flipped: Rate
    further_arm: bool

    @property
    def overturns(self) -> bool:
        """Most rows go against the rule in the model, as they do by nature."""
        enough = self.flipped.tried >= ROWS // 2 and 2 * self.flipped.made > self.flipped.tried
        return enough and not self.further_arm

    def __str__(self) -> str:
        a = self.against
        state, done = ("open", "silent") if a.was_open else ("closed", "on")
        names = " and ".join(literal.words for literal in a.literals)
        return (
            f"with {names} {'on' if a.on else 'off'} beside the rule, {state}, the output is {done} "
            f"in {self.flipped.made} of {self.flipped.tried} rows ({a.natural.made} of {a.natural.tried} by nature)"
        )


def left_out(
    stage: Stage, outside: Outside, subjects: Sequence[Subject], seed: int = 0
) -> Iterator[tuple[LeftOut, ...]]:
    """For each rule, in order: what natural rows hold against it, set on rows where rule and output agree."""
    waiting: list[tuple[Subject, list[_Question]]] = []
    size = 0
    for subject in subjects:
        asked = list(_questions(stage, outside, subject, np.random.default_rng((seed, subject.out, 1))))
        waiting.append((subject, asked))
        size += sum(len(q.x) for q in asked)
        if size >= CHUNK:
            yield from _read(stage, waiting)
            waiting, size = [], 0
    yield from _read(stage, waiting)


@dataclass(frozen=True)
class _Question:
    against: Against
    x: Float[Tensor, "rows d_in"]


def _questions(stage: Stage, outside: Outside, subject: Subject, random: np.random.Generator) -> Iterator[_Question]:
    found = outside.against(subject.out, subject.rule, subject.touched)
    if not found:
        return
    groups = outside.together.groups([literal for a in found for literal in a.literals])
    is_open = subject.rule.evaluate(np.stack([stage.on(literal) for literal in subject.rule.literals], 1))
    fires, silent = stage.states(subject.out)
    agree = {True: fires[is_open[fires]], False: silent[~is_open[silent]]}
    own = stage.literals_on(subject.rule.literals, np.arange(len(stage.x)))
    for against in found:
        rows = _rows(agree[against.was_open], (own == against.pattern).all(1), random)
        if len(rows):
            others = [groups[x].without(subject.touched.tolist()) for x in against.literals]
            setter = Setter(stage, [*subject.groups, *others], rows)
            want = np.array([[*against.pattern, *[against.on] * len(others)]])
            yield _Question(against, stage.moved(rows, setter.step(setter.change(want))[0]))


def _rows(agree: np.ndarray, fits: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Rows on which rule and output agree, first those that have the pattern untouched."""
    first = draw(agree[fits[agree]], ROWS, random)
    return np.concatenate([first, draw(agree[~fits[agree]], ROWS - len(first), random)]).astype(np.int64)


def _read(stage: Stage, waiting: Sequence[tuple[Subject, list[_Question]]]) -> Iterator[tuple[LeftOut, ...]]:
    if not waiting:
        return
    x = [q.x for _, asked in waiting for q in asked]
    outs = np.concatenate([np.full(sum(len(q.x) for q in asked), s.out) for s, asked in waiting])
    value = stage.shown(torch.cat(x), outs) if x else np.zeros(0)
    start = 0
    for subject, asked in waiting:
        found = []
        for q in asked:
            fires = value[start : start + len(q.x)] > stage.levels[subject.out]
            start += len(q.x)
            flipped = Rate(int((fires != q.against.was_open).sum()), len(fires), len(fires))
            one_more = subject.rule.kind() == GateKind.OR and not q.against.was_open and len(q.against.literals) == 1
            found.append(LeftOut(q.against, flipped, one_more))
        yield tuple(found)
