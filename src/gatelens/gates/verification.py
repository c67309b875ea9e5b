"""Verification: everything that is tried of a rule in the real model, and what comes of it; the entrance to this part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import scipy.sparse

from ..distributed import shared, team
from ..errors.progress import bar
from ..store.shards import spans
from .group_trials import BLOCK, GroupTrial, Subject, group_trials
from .interchange import Interchange, interchanges
from .left_out import LeftOut, left_out
from .outside import Outside
from .rule import Rule
from .stage import Stage
from .subsets import Subsets, worst_subsets
from .verified import verified


@dataclass(frozen=True)
class Verification:
    """One rule, tried in the model.

    Attributes:
        verified, why: the verdict; None where the rule could not be tried.
        trial: its literals set by groups. left_out: what natural rows hold against it, set beside it.
        interchange: its literals' part swapped between rows. subsets: random features outside it switched off.
        companions: of each literal, the features that were set with it.
    """

    verified: bool | None
    why: str
    trial: GroupTrial
    left_out: tuple[LeftOut, ...]
    interchange: Interchange
    subsets: Subsets
    companions: tuple[tuple[int, ...], ...]

    @property
    def passes(self) -> int:
        """Rows that went through the segment: what this verification cost."""
        asked = sum(found.flipped.tried for found in self.left_out)
        return self.trial.passes + asked + 3 * self.interchange.accuracy.tried + self.subsets.every.tried


def verify(
    stage: Stage,
    rules: Mapping[int, Rule],
    fitting: tuple[scipy.sparse.csr_matrix, scipy.sparse.csr_matrix],
    seed: int = 0,
    progress: bool | None = None,
) -> dict[int, Verification]:
    """Try each rule in the model, blocks of rules by each of several processes.

    Args:
        stage: held-out rows, the segment, and the levels above which outputs are on.
        rules: output -> its rule.
        fitting: features (in, out) of fitting rows, above zero, CSR: companions and what a rule leaves out are looked for there.

    Raises:
        DataError: a literal that is on in none of the fitting rows.
    """
    f_in, f_out = fitting
    outside = Outside.of(f_in, f_out, stage.levels)
    outside.together.groups([literal for rule in rules.values() for literal in rule.literals])  # all at once
    subjects = [Subject.of(out, rule, outside.together) for out, rule in rules.items()]
    blocks = spans(len(subjects), BLOCK)
    total = sum(len(blocks[i]) for i in team().owned(len(blocks)))
    with bar(room="verify", total=total, progress=progress, unit="rule") as shown:

        def tried(i: int) -> list[Verification]:
            some = subjects[blocks[i].start : blocks[i].stop]
            parts = zip(
                some,
                group_trials(stage, some, seed=seed, among=subjects),
                left_out(stage, outside, some, seed),
                interchanges(stage, some, seed=seed),
                worst_subsets(stage, some, seed=seed),
                strict=True,
            )
            found = [_judged(*part) for part in parts]
            shown.update(len(found))
            return found

        done = [found for block in shared(len(blocks), tried) for found in block]
    return {subject.out: found for subject, found in zip(subjects, done, strict=True)}


def _judged(
    subject: Subject, trial: GroupTrial, against: tuple[LeftOut, ...], swapped: Interchange, subsets: Subsets
) -> Verification:
    holds, why = verified(subject.rule, trial, against)
    companions = tuple(group.companions for group in subject.groups)
    return Verification(holds, why, trial, against, swapped, subsets, companions)
