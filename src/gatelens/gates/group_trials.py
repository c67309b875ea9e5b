"""Group trials: a rule's literals are set by groups in the real model, every pattern; does the output go where the rule says?

The rows are those on which rule and output agree untouched: half of them on, half off, and of the latter half with some literal
on. Where they disagree by nature is said by precision and recall. Each of the four rates stands beside a control: the same
rows, other literals' groups and random active features, steps of equal length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from .companions import Group, Together
from .rates import Rate
from .rule import Rule
from .setting import Setter, control_steps, patterns
from .stage import Stage

Rates = Mapping[str, Rate]

#: rows that a rule is tried in, half of them on: so many that what a literal does stands clear of chance
ROWS = 96
#: rules that are tried together, by one of several processes
BLOCK = 8


@dataclass(frozen=True)
class Sway:
    """How much more often the output is on where one literal opens the rule than where it closes it, the others held.

    Attributes:
        mean: over rows; low: its lower end, two standard errors (over rows) below.
    """

    mean: float
    low: float

    @classmethod
    def of(cls, difference: Float[np.ndarray, "pairs rows"]) -> Sway:
        """From what each pair of patterns made of each row: 1 where the output follows the literal, -1 where it goes against it."""
        if not difference.size:
            return cls(0.0, 0.0)
        by_row = difference.mean(0)
        error = by_row.std(ddof=1) / np.sqrt(len(by_row)) if len(by_row) > 1 else 1.0
        return cls(float(by_row.mean()), float(by_row.mean() - 2 * error))


@dataclass(frozen=True)
class GroupTrial:
    """What the model made of one rule.

    Attributes:
        rates: of the literals set with their companions: on_on (stays on), off_off (stays off), on_off, off_on.
        control: the same of groups of other literals and of random active features, equal in number and length.
        alone: the same of the literals set without companions.
        sways: by how much each literal in turn moves the output, all others held. The rates pool all patterns, and an arm that does
            nothing hides in them.
        on_rows, off_rows: rows of either kind; passes: rows that went through the segment for it.
    """

    rates: Rates
    control: Rates
    alone: Rates
    sways: tuple[Sway, ...]
    on_rows: int
    off_rows: int
    passes: int


@dataclass(frozen=True)
class Subject:
    """A rule of one output, and its literals' groups."""

    out: int
    rule: Rule
    groups: tuple[Group, ...]

    @classmethod
    def of(cls, out: int, rule: Rule, together: Together) -> Subject:
        return cls(out, rule, together.of_rule(rule))

    @property
    def touched(self) -> Int[np.ndarray, " t"]:
        """All features that setting the rule's literals may change."""
        return np.unique(np.concatenate([g.members for g in self.groups]))


def group_trials(
    stage: Stage,
    subjects: Sequence[Subject],
    rows: int = ROWS,
    seed: int = 0,
    beside: bool = True,
    among: Sequence[Subject] | None = None,
) -> Iterator[GroupTrial]:
    """The trial of each rule, in order.

    Args:
        rows: a rule is tried in at most so many.
        seed: of the choice of rows and of the controls.
        beside: try the control and the literals alone as well; without, both are empty.
        among: the rules whose groups are the control's; None: these.
    """
    every = subjects if among is None else among
    pool = sorted({g.literal: g for s in every for g in s.groups}.values(), key=lambda g: g.literal)
    for subject in subjects:
        yield _trial(stage, subject, pool if beside else None, rows, np.random.default_rng((seed, subject.out)))


def agreeing_rows(
    stage: Stage, subject: Subject, count: int, random: np.random.Generator
) -> tuple[Int[np.ndarray, " on"], Int[np.ndarray, " off"]]:
    """Rows on which rule and output agree: both on; both off, half of these with some literal on where there are such."""
    on = np.stack([stage.on(literal) for literal in subject.rule.literals], 1)
    is_open = subject.rule.evaluate(on)
    fires, silent = stage.states(subject.out)
    silent = silent[~is_open[silent]]
    some = on[silent].any(1)
    near = draw(silent[some], count // 4, random)
    far = draw(silent[~some], count // 2 - len(near), random)
    return draw(fires[is_open[fires]], count // 2, random), np.concatenate([near, far])


def draw(rows: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """At most so many of the rows, at random."""
    return rows if len(rows) <= count else random.choice(rows, count, replace=False)


@dataclass(frozen=True)
class _Set:
    """A rule's literals set in some rows.

    Attributes:
        want: [patterns, k]; verdict: [patterns] what the rule says of each; on: how many of the rows, the first ones, are on.
        changed: [patterns, rows] where anything was set at all.
    """

    want: Bool[np.ndarray, "patterns k"]
    verdict: Bool[np.ndarray, " patterns"]
    on: int
    changed: Bool[np.ndarray, "patterns rows"]


def _trial(
    stage: Stage, subject: Subject, pool: Sequence[Group] | None, count: int, random: np.random.Generator
) -> GroupTrial:
    on, off = agreeing_rows(stage, subject, count, random)
    rows = np.concatenate([on, off]).astype(np.int64)
    want = patterns(subject.rule, random)
    setter = Setter(stage, subject.groups, rows)
    change = setter.change(want)
    done = _Set(want, subject.rule.evaluate(want), len(on), (setter.have[None] != want[:, None]).any(-1))
    level, before = stage.levels[subject.out], stage.passes
    fires = stage.shown_changed(rows, setter.touched, change, subject.out) > level
    control, alone = {}, {}
    if pool is not None:
        step = control_steps(setter, change, want, unrelated(subject, pool, random), random)
        x = stage.moved(np.broadcast_to(rows, step.shape[:2]).reshape(-1), step.reshape(-1, step.shape[-1]))
        control = _rates(done, stage.shown(x, np.full(len(x), subject.out)).reshape(fires.shape) > level)
        own = Setter(stage, [g.alone() for g in subject.groups], rows)
        alone = _rates(done, stage.shown_changed(rows, own.touched, own.change(want), subject.out) > level)
    sways = tuple(_each_literal(done, fires))
    return GroupTrial(_rates(done, fires), control, alone, sways, len(on), len(off), stage.passes - before)


def unrelated(subject: Subject, pool: Sequence[Group], random: np.random.Generator) -> list[Group]:
    """A random group for each literal, none of whose features the rule touches; fewer where there are not so many."""
    touched = set(subject.touched.tolist())
    order = random.permutation(len(pool))
    free = (pool[i] for i in order if touched.isdisjoint(pool[i].members.tolist()))
    return [group for group, _ in zip(free, subject.groups, strict=False)]


def _rates(p: _Set, fires: Bool[np.ndarray, "patterns rows"]) -> dict[str, Rate]:
    was_on = np.arange(p.changed.shape[1]) < p.on
    says = p.verdict[:, None]
    cells = {"on_on": (was_on, says), "off_off": (~was_on, ~says), "on_off": (was_on, ~says), "off_on": (~was_on, says)}
    return {name: Rate.of(fires == says, p.changed & start & verdict) for name, (start, verdict) in cells.items()}


def _each_literal(p: _Set, fires: Bool[np.ndarray, "patterns rows"]) -> Iterator[Sway]:
    """For each literal: patterns that differ in it alone and of which the rule says different things."""
    code = p.want @ (1 << np.arange(p.want.shape[1]))
    place = {c: i for i, c in enumerate(code.tolist())}
    for k in range(p.want.shape[1]):
        pairs = [(i, place.get(c ^ 1 << k)) for c, i in place.items() if not c >> k & 1]
        pairs = [(i, j) if p.verdict[j] else (j, i) for i, j in pairs if j is not None and p.verdict[i] != p.verdict[j]]
        yield Sway.of(np.array([fires[opens].astype(float) - fires[closes] for closes, opens in pairs]))
