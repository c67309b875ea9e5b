"""Figures of rules tried in the model: verified, by kind, beside controls; interchange, subsets, labels; and planted chains."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, median

import numpy as np
import torch
from _layers import Layer, coded
from _smollm import windows

import gatelens as gl
from gatelens.bench import Figure
from gatelens.evaluation.removed_gates import removed_gates
from gatelens.gates import Gate
from gatelens.gates.stage import Stage, sparse_rows
from gatelens.gates.tried import Tried
from gatelens.gates.verification import verify
from gatelens.planted.chains import FORMS, plant_chains

#: by kind: what is to be verified of the rules that hold; by layer
KINDS = {"or": 0.85, "and": 0.40, "and_not": 0.50, "mixed": 0.25}
VERIFIED = {"1": 0.38, "12": 0.42}
#: windows in which outputs are removed
REMOVED_IN = 160
RATES = ("on_on", "off_off", "on_off", "off_on")


def tried(at: Layer, levels: str = "chosen", most: int | None = None) -> Iterator[Figure]:
    """A uniform sample of outputs that have a rule of two literals or more that holds, tried as a user's gates are."""
    some = [g for g in at.read(levels) if g.read and g.rule is not None and len(g.rule.literals) > 1]
    drawn = np.random.default_rng(at.seed).permutation(len(some))[: most or at.sizes.rules]
    outs = sorted(at.sample[some[i].out] for i in drawn)  # a sample's gates are numbered by their place in it
    gates = at.tried(outs, levels)
    where, bar = f"layer {at.name}", VERIFIED.get(at.name)
    several = {out: g for out, g in gates.items() if g.read and g.rule is not None and len(g.rule.literals) > 1}
    if not several:
        yield Figure(f"{where}: rules verified", None, bar, note="no rule of two literals or more holds")
        return
    known = {out: g.tried for out, g in gates.items() if g.tried is not None}
    chance = fmean(_by_chance(t) for t in known.values())
    yield Figure(
        f"{where}: rules of two literals or more verified, of those that hold", fmean(g.verified is True for g in several.values()), bar,
        baselines={"by unrelated features": chance,
                   "of all outputs drawn, those left with one literal too": fmean(g.verified is True for g in gates.values())},
        note=f"{len(several)} rules; {len(gates)} outputs drawn, whose best rule on natural rows has two literals or more and holds; "
        f"{fmean(t.passes for t in known.values()):.0f} rows through the MLP each, besides the choice on fitting rows",
    )  # fmt: skip
    yield Figure(f"{where}: verified by unrelated features", chance, 0.02, better="lower")
    before = {at.sample[some[i].out]: str(some[i].kind) for i in drawn}
    yield from _by_kind(several, {out: (kind, gates[out].verified is True) for out, kind in before.items()}, where)
    yield from _rates(known, where)
    yield from _beside(list(known.values()), where)
    yield from _labels([g.tried for g in gates.values() if g.verified and g.tried is not None], where)
    why = [g.why for g in gates.values() if g.verified is False]
    yield Figure(
        f"{where}: rules overturned by what they leave out", sum(w.startswith("with IF") for w in why) / len(gates)
    )
    held = [g.mcc for g in several.values() if g.mcc is not None]
    yield Figure(f"{where}: held-out MCC of the rules chosen, median", median(held),
                 baselines={"literals, mean": fmean(len(g.rule.literals) for g in several.values() if g.rule)})  # fmt: skip


def removed(at: Layer) -> Iterator[Figure]:
    """The outputs of the first rules taken out where they are on: what the predictions make of it."""
    _, held = windows(at.model, at.data, at.sizes.rows, at.seed)
    part = held.part(torch.arange(min(REMOVED_IN, len(held.inputs))), held.name)
    acts = gl.collect(at.model, part, [at.segment])
    gates = [replace(g, out=at.sample[g.out]) for g in at.read("chosen")]
    f_out = coded(at.basis_out, acts[at.segment.hook_out])
    found = removed_gates(at.model, at.segment.hook_out, at.basis_out, gates, f_out, part, at.sizes.few, at.seed)
    if found is None:
        yield Figure(f"layer {at.name}: KL with an output removed", None, note="no output is on in these windows")
        return
    yield Figure(
        f"layer {at.name}: KL of the rest of the window with an output removed, median", found["own"],
        baselines={"as long a step along another output's direction": found["other"], "ratio, median": found["ratio"],
                   "share with more than the other": found["more_than_other"]},
        note=f"nats a position; the first {found['gates']} rules by grade and agreement, 4 windows each of {len(part.inputs)}",
    )  # fmt: skip


def _by_kind(gates: Mapping[int, Gate], before: Mapping[int, tuple[str, bool]], where: str) -> Iterator[Figure]:
    """By the kind of the rule that was taken; beside it by that of the best rule on natural rows: what is verified is taken where
    there is anything, so a kind that natural rows like and the model does not obey is left with those where nothing is."""
    by_kind: dict[str, list[bool]] = defaultdict(list)
    at_first: dict[str, list[bool]] = defaultdict(list)
    for gate in gates.values():
        by_kind[str(gate.kind)].append(gate.verified is True)
    for kind, verified in before.values():
        at_first[kind].append(verified)
    for kind, share in KINDS.items():
        known, first = by_kind.get(kind, []), at_first.get(kind, [])
        yield Figure(
            f"{where}: verified, {kind}", fmean(known) if known else None, share if where == "layer 1" else None,
            baselines={"outputs whose best rule on natural rows is of this kind": fmean(first) if first else None},
            note=f"{len(known)} rules; {len(first)} outputs of this kind before the model was asked",
        )  # fmt: skip


def _rates(known: Mapping[int, Tried], where: str) -> Iterator[Figure]:
    for name in RATES:
        parts = {
            which: _mean([vars(t)[which].get(name) for t in known.values()]) for which in ("rates", "control", "alone")
        }
        yield Figure(
            f"{where}: {name} as the rule says, by groups", parts["rates"],
            baselines={"unrelated features, equal number and length": parts["control"], "literals alone": parts["alone"]},
        )  # fmt: skip


def _beside(known: Sequence[Tried], where: str) -> Iterator[Figure]:
    """Interchange and subsets; bars are for trained layers."""
    swapped = [t for t in known if t.interchange is not None and t.placebo is not None]
    yield Figure(
        f"{where}: interchange accuracy less placebo, lower end of the interval at .3 or more",
        fmean(t.interval[0] >= 0.3 for t in swapped) if swapped else None, 0.5 if "-" not in where else None,
        baselines={"accuracy": _mean([t.interchange for t in swapped]), "placebo": _mean([t.placebo for t in swapped]),
                   "shuffled donors": _mean([t.shuffled for t in swapped])},
        note="share of the rules that hold",
    )  # fmt: skip
    worst, every = ([v for t in known if (v := vars(t)[name]) is not None] for name in ("worst_subset", "subsets"))
    yield Figure(
        f"{where}: rows that stay under the worst of 64 random subsets switched off", median(worst) if worst else None,
        baselines={"under all": median(every) if every else None},
    )  # fmt: skip


def _labels(verified: Sequence[Tried], where: str) -> Iterator[Figure]:
    yield Figure(
        f"{where}: balanced accuracy of the rule as a label, verified gates", _mean([t.detection for t in verified]),
        0.84 if where == "layer 1" else None,
        baselines={"top tokens of the output": _mean([t.detection_tokens for t in verified])}, note=f"{len(verified)} gates",
    )  # fmt: skip


def _by_chance(t: Tried) -> bool:
    """Whether the control would pass for the rule: all four rates above a half."""
    rates = [r for r in t.control.values() if r is not None]
    return bool(rates) and all(r > 0.5 for r in rates)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
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
