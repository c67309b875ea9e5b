"""Obeyed: of the rules that natural rows suggest for an output, the best that the model obeys when their literals are set.

The rule that predicts best often names a literal that only comes with what matters, and the model does nothing when it is set. So
the candidates are set one by one first, and those that do not move the output are left out; rules over the others, and the parts
of the best rule, are then tried from the best on. All of this is on fitting rows: what comes of the rule that was chosen is
measured anew on held-out ones, by the same criterion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..distributed import shared, team
from ..errors.progress import bar
from ..store.shards import spans
from .companions import Group
from .group_trials import BLOCK, Subject, draw, group_trials
from .left_out import left_out
from .outside import Outside
from .patterns import Patterns, Ranked, Terms, cost, ranked_by_size
from .rule import Literal, Rule
from .setting import Setter
from .stage import CHUNK, Stage
from .verified import obeys, verified

#: an output that loses less than this share of its value is not moved by a candidate; rows in which that is seen, and at least
PULL, PULLED, FEWEST = 0.2, 16, 4
#: rules of each number of literals that are tried, and rules of an output in all
EACH, MOST = 3, 16
#: rows of the first trial; what passes it is tried in as many as any rule is
FIRST_ROWS = 48

Groups = Mapping[Literal, Group]


@dataclass(frozen=True)
class Suggested:
    """What natural rows suggest for an output.

    Attributes:
        best: the rule that is worth its literals. table: over the candidates that it was chosen from.
        by_size: the best rule of each number of literals.
    """

    best: Ranked
    table: Patterns
    by_size: Mapping[int, Ranked]


def obeyed(
    stage: Stage,
    suggested: Mapping[int, Suggested],
    outside: Outside,
    terms: Terms,
    least: float,
    seed: int = 0,
    progress: bool | None = None,
) -> dict[int, Ranked]:
    """For each output the rule that was found; an output without such a rule is left out.

    Args:
        stage: fitting rows. suggested: of each output.
        outside: all fitting rows, for companions and what a rule leaves out, with the levels of the stage.
        terms: what literals cost. least: fitting MCC of a rule that is tried.
    """
    together = outside.together
    groups = together.groups([literal for found in suggested.values() for literal in found.table.literals])
    outs = list(suggested)
    with bar(room="candidates", total=len(team().owned(len(outs))), progress=progress, unit="output") as shown:

        def proposed(i: int) -> list[Ranked]:
            found, random = suggested[outs[i]], np.random.default_rng((seed, outs[i], 3))
            shown.update()
            return proposals(found, _roles(stage, outs[i], found.table.literals, groups, random), terms, least)

        waiting = dict(zip(outs, shared(len(outs), proposed), strict=True))
    done: dict[int, Ranked] = {}
    for _ in bar(range(MOST), "rules tried", progress):
        now = {out: rules.pop(0) for out, rules in waiting.items() if rules and out not in done}
        if not now:
            break
        subjects = [Subject.of(out, found.rule, together) for out, found in now.items()]
        done |= {s.out: now[s.out] for s in _passing(stage, outside, subjects, seed)}
    return done


def _passing(stage: Stage, outside: Outside, subjects: Sequence[Subject], seed: int) -> list[Subject]:
    """The rules that the model obeys in a few rows, and then in others by the whole criterion."""

    def at_first(some: Sequence[Subject]) -> list[bool]:
        trials = group_trials(stage, some, FIRST_ROWS, seed, beside=False)
        return [bool(obeys(s.rule, trial)[0]) for s, trial in zip(some, trials, strict=True)]

    def again(some: Sequence[Subject]) -> list[bool]:
        trials = zip(
            group_trials(stage, some, seed=seed + 1, among=first), left_out(stage, outside, some, seed), strict=True
        )
        return [bool(verified(s.rule, *found)[0]) for s, found in zip(some, trials, strict=True)]

    first = _those(subjects, at_first)
    return _those(first, again)


def _those(subjects: Sequence[Subject], hold: Callable[[Sequence[Subject]], list[bool]]) -> list[Subject]:
    """The subjects that hold, blocks of them tried by each of several processes."""
    blocks = spans(len(subjects), BLOCK)
    found = [
        held
        for block in shared(len(blocks), lambda i: hold(subjects[blocks[i].start : blocks[i].stop]))
        for held in block
    ]
    return [s for s, held in zip(subjects, found, strict=True) if held]


# ---- which candidates move the output


def _roles(
    stage: Stage, out: int, literals: Sequence[Literal], groups: Groups, random: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Places of the candidates without which the output loses some of its value, and of those with which it does."""
    on = stage.states(out)[0]
    have = np.stack([stage.on(literal)[on] for literal in literals], 1)
    asked = [
        (place, state, rows)
        for place in range(len(literals))
        for state in (True, False)
        if len(rows := draw(on[have[:, place] == state], PULLED, random).astype(np.int64)) >= FEWEST
    ]
    x = [_switched(stage, groups[literals[place]], rows, not state) for place, state, rows in asked]
    after = _shown(stage, x, out)
    roles: tuple[list[int], list[int]] = ([], [])
    start = 0
    for place, state, rows in asked:
        lost = 1 - after[start : start + len(rows)] / stage.untouched(out, rows)
        start += len(rows)
        if lost.mean() > PULL:
            roles[0 if state else 1].append(place)
    return roles


def _switched(stage: Stage, group: Group, rows: Int[np.ndarray, " rows"], to: bool) -> Float[Tensor, "rows d_in"]:
    setter = Setter(stage, [group], rows)
    return stage.moved(rows, setter.step(setter.change(np.array([[to]])))[0])


def _shown(stage: Stage, x: Sequence[Tensor], out: int) -> Float[np.ndarray, " rows"]:
    every = torch.cat(list(x)) if x else stage.x[:0]
    parts = [stage.shown(part, np.full(len(part), out)) for part in every.split(CHUNK)]
    return np.concatenate(parts) if parts else np.zeros(0)


# ---- which rules are tried


def proposals(found: Suggested, roles: tuple[Sequence[int], Sequence[int]], terms: Terms, least: float) -> list[Ranked]:
    """The rules to be tried, the best first: over candidates that move the output, and the best rule with all its parts."""
    table, best = found.table, found.best
    exciters, inhibitors = [{table.literals[j] for j in places} for places in roles]
    rules = {best.rule: best.mcc}
    for places in ({*roles[0], *roles[1]}, set(roles[0])):
        if not places:
            continue
        for ranked in ranked_by_size(table.over(sorted(places)), terms, EACH):
            rule = ranked.rule
            if exciters.issuperset(rule.positive) and inhibitors.issuperset(rule.negative):
                rules[rule] = ranked.mcc
    for part in parts_of(best.rule):
        rules.setdefault(part, table.mcc(part))
    good = [Ranked(rule, mcc) for rule, mcc in rules.items() if mcc >= least]
    return sorted(good, key=lambda r: -(r.mcc - terms.price * cost(r.rule)))[:MOST]


def parts_of(rule: Rule) -> set[Rule]:
    """All rules that are left when literals are taken away."""
    smaller = {part for place in range(len(rule.literals)) if len(rule.literals) > 1 and (part := rule.without(place))}
    return smaller.union(*(parts_of(part) for part in smaller))
