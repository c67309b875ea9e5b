"""Figures of rules tried in the model, and of what outputs favour; used by `rules.py`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
from _shuffled_mlp import shuffled_segment

from gatelens.bench import Figure
from gatelens.gates.agreement import Rows, agreement
from gatelens.gates.logit_effects import logit_effects
from gatelens.gates.rule import Rule
from gatelens.gates.stage import Stage, sparse_rows
from gatelens.gates.verification import Verification, verify
from gatelens.planted.chains import FORMS, plant_chains

#: by kind: what is to be verified of the rules that hold
KINDS = {"or": 0.85, "and": 0.40, "and_not": 0.50, "mixed": 0.25}


def sample(rules: Mapping[int, Rule], most: int = 200, seed: int = 0) -> dict[int, Rule]:
    """A uniform sample of the rules of two literals or more."""
    several = [out for out, rule in rules.items() if len(rule.literals) > 1]
    chosen = np.random.default_rng(seed).permutation(several)[:most]
    return {int(out): rules[int(out)] for out in sorted(chosen)}


def tried(found: Mapping[int, Verification], rules: Mapping[int, Rule], where: str, bar: float) -> Iterator[Figure]:
    """Shares verified, of all and by kind, with the control; then the parts."""
    if not found:
        yield Figure(f"{where}: rules verified", None, bar, note="no rule of two literals or more holds")
        return
    verified = [v.verified is True for v in found.values()]
    chance = [_by_chance(v) for v in found.values()]
    n = f"{len(found)} rules of two literals or more that hold, by groups; {fmean(v.passes for v in found.values()):.0f} rows through the MLP each"
    yield Figure(
        f"{where}: rules verified", fmean(verified), bar, baselines={"by unrelated features": fmean(chance)}, note=n
    )
    yield Figure(f"{where}: verified by unrelated features", fmean(chance), 0.02, better="lower")
    by_kind: dict[str, list[bool]] = defaultdict(list)
    for out, ok in zip(found, verified, strict=True):
        by_kind[str(rules[out].kind())].append(ok)
    for kind, share in KINDS.items():
        known = by_kind.get(kind, [])
        yield Figure(f"{where}: verified, {kind}", fmean(known) if known else None, share, note=f"{len(known)} rules")
    for name in ("on_on", "off_off", "on_off", "off_on"):
        parts = {which: _mean(found, which, name) for which in ("rates", "control", "alone")}
        yield Figure(
            f"{where}: {name} as the rule says, by groups", parts["rates"],
            baselines={"unrelated features, equal number and length": parts["control"], "literals alone": parts["alone"]},
        )  # fmt: skip
    yield from _beside(found, where)


def _beside(found: Mapping[int, Verification], where: str) -> Iterator[Figure]:
    """Interchange, subsets, what is left out."""
    swapped = [v.interchange for v in found.values() if v.interchange.less_placebo is not None]
    clear = [s.interval[0] >= 0.3 for s in swapped]
    yield Figure(
        f"{where}: interchange accuracy less placebo, lower end of the interval at .3 or more", fmean(clear) if clear else None, 0.5,
        baselines={
            "accuracy": fmean(s.accuracy.share or 0 for s in swapped) if swapped else None,
            "placebo": fmean(s.placebo.share or 0 for s in swapped) if swapped else None,
            "shuffled donors": fmean(s.shuffled.share or 0 for s in swapped) if swapped else None,
        },
        note="share of the rules",
    )  # fmt: skip
    worst = [v.subsets.worst.share for v in found.values() if v.subsets.worst.share is not None]
    every = [v.subsets.every.share for v in found.values() if v.subsets.every.share is not None]
    yield Figure(
        f"{where}: rows that stay under the worst of 64 random subsets switched off", median(worst) if worst else None,
        baselines={"under all": median(every) if every else None},
    )  # fmt: skip
    overturned = [any(x.overturns for x in v.left_out) for v in found.values()]
    yield Figure(f"{where}: rules overturned by what they leave out", fmean(overturned))


def _by_chance(v: Verification) -> bool:
    """Whether the control would pass for the rule: all four rates above a half."""
    rates = [r for r in v.trial.control.values() if r.tried]
    return bool(rates) and all(2 * r.made > r.tried for r in rates)


def _mean(found: Mapping[int, Verification], which: str, name: str) -> float | None:
    known = [s for v in found.values() if (s := getattr(v.trial, which)[name].share) is not None]
    return fmean(known) if known else None


def misleading(seeds: Sequence[int]) -> Iterator[Figure]:
    """Two-hop chains written as one hop: 40 of each form, with the middle apart from its parts and a companion of them."""
    wrong, right = [], []
    for seed in seeds:
        for form in FORMS:
            for together in (0.2, 0.7):
                planted = plant_chains(form, together, seed=seed)
                stage = Stage.of(planted.segment, planted.basis_in, planted.transcoder, planted.x)
                fitting = sparse_rows(planted.x_fit), sparse_rows(planted.transcoder.features_from(planted.x_fit))
                for rules, shares in ((planted.wrong, wrong), (planted.right, right)):
                    shares += [v.verified is True for v in verify(stage, rules, fitting, seed).values()]
    note = f"{len(wrong)} planted chains; both rules agree with every natural row"
    yield Figure("planted chains: wrong mechanism verified", fmean(wrong), 0.01, better="lower", note=note)
    yield Figure("planted chains: right mechanism verified", fmean(right), 0.9)


def agreements(
    model: Any,
    segment: Any,
    acts: Any,
    dictionary: Any,
    retrain: Any,
    where: str,
    bars: tuple[float, float],
    holds: Any = None,
) -> Iterator[Figure]:
    """Outputs that agree with what really comes next, beside an MLP of shuffled weights with a dictionary of its own.

    Args:
        acts: held-out activations of both ends. dictionary: of the output. retrain: (rows of y) -> a dictionary trained like it, given
            the null's segment.
        holds: [n] outputs whose rule holds, where known.
    """  # fmt: skip
    real = _agreement(model, segment, acts, dictionary)
    nulls = {}
    for name, by_row in (("weights shuffled row by row", True), ("all weights shuffled", False)):
        null = shuffled_segment(segment, 0, by_row)
        nulls[name] = _agreement(model, null, acts, retrain(null))
    for key, words, bar in (("agree", "agreement, t > 4 over documents", bars[0]),
                            ("agree_held", "the same, current token held fixed", bars[1])):  # fmt: skip
        beside = {name: found.figures()[key] for name, found in nulls.items()}
        note = f"{real.figures()['outputs']} outputs on in 60 rows or more; disagree as clearly: {real.figures()[key.replace('agree', 'disagree')]}"
        yield Figure(f"{where}: outputs with {words}", real.figures()[key], bar, baselines=beside, note=note)
    if holds is not None:
        with np.errstate(invalid="ignore"):
            both = (real.t > 4) & holds
        yield Figure(f"{where}: a rule that holds and agreement", float(both[np.isfinite(real.t)].mean()))


def _agreement(model: Any, segment: Any, acts: Any, dictionary: Any) -> Any:
    with torch.no_grad():
        parts = [dictionary.encode(segment.forward(x)) for x in acts[segment.hook_in].split(4096)]
    f = sparse_rows(torch.cat(parts))
    effects = logit_effects(model, segment.hook_out, dictionary.W_dec)
    if effects is None:
        raise ValueError(f"no linear way leads from {segment.hook_out} to the outputs")
    return agreement(effects, f, np.zeros(f.shape[1]), Rows.of(acts))
