"""Rules counted: how many outputs obey one, how well, of what kind and grade, and what their controls reach."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..gates import Gate, GateKind, Grade
from ..gates.effects import favourites
from ..gates.tried import Tried

#: held-out rows on which an output must be on to be counted among those that fire often
OFTEN = 60
#: accuracy less the placebo's, at the lower end of its interval, from which an interchange is clear
AHEAD = 0.3
#: MCC that shares are told over
BARS = (0.5, 0.7, 0.8)
#: what stands beside a rule, by its name in `Controls`
CONTROLS = ("random_parents", "shuffled", "single", "neurons", "token", "token_pair", "label", "ceiling")


def gate_summary(gates: Sequence[Gate]) -> dict[str, Any]:
    """Counts by kind and by grade, shares of the outputs that fire often by the MCC of their rule, and the same of controls.

    `controls` holds for each its median MCC and its share over .5 among these outputs; None where it was not measured.
    """
    gates = [g for g in gates if g.looked_for]
    often = [g for g in gates if g.firings >= OFTEN]
    ruled = [g for g in often if g.rule is not None]
    read = [g for g in gates if g.read]
    grades = Counter(str(g.grade) for g in gates)
    kinds = Counter(str(g.kind) for g in read)
    mcc = [g.mcc for g in read if g.mcc is not None]
    control = [g.control_mcc for g in read if g.control_mcc is not None]
    beats = [g.controls.beats_lookup for g in ruled if g.controls is not None and g.controls.beats_lookup is not None]
    kept = [g.evidence.kept for g in ruled if g.evidence is not None and g.evidence.kept is not None]
    return {
        "outputs": len(gates),
        "often": len(often),
        "counts": {str(k): kinds.get(str(k), 0) for k in GateKind if k not in (GateKind.ADDER, GateKind.NOT_READ)},
        "grades": {str(g): grades.get(str(g), 0) for g in Grade},
        "shares": {f"{bar:g}": _over([g.mcc for g in often], bar) for bar in BARS},
        "controls": {name: _control(often, name) for name in CONTROLS},
        "beats_lookup": statistics.fmean(beats) if beats else None,
        "median_kept": statistics.median(kept) if kept else None,
        "not_read": len(gates) - len(read),
        "logic": len(read),
        "median_mcc": statistics.median(mcc) if mcc else None,
        "median_control_mcc": statistics.median(control) if control else None,
        "tried": sum(g.verified is not None for g in gates),
        "verified": grades.get(str(Grade.VERIFIED), 0),
        "agreement": _agreement(gates),
        "rates": _rates([g.tried for g in gates if g.tried is not None]),
        "interchange": _interchange([g.tried for g in gates if g.tried is not None]),
    }


def _agreement(gates: Sequence[Gate]) -> dict[str, Any] | None:
    """Of outputs whose effect was judged, the shares that favour what comes next; with a rule that holds besides."""
    shares = favourites([g.effect for g in gates])
    if not shares["outputs"]:
        return None
    both = sum(g.read and g.effect is not None and g.effect.agrees for g in gates)
    return shares | {"rule_and_agree": both / (shares["outputs"] or 1)}


def _rates(tried: Sequence[Tried]) -> dict[str, dict[str, float | None]] | None:
    """Of rules that were tried: how often the output does as the rule says, by what is asked of it, beside unrelated features."""
    if not tried:
        return None
    return {
        name: {which: _mean([vars(t)[where].get(name) for t in tried]) for which, where in _BY}
        for name in ("on_on", "off_off", "on_off", "off_on")
    }


#: what each rate stands beside, and where a trial keeps it
_BY = (("rule", "rates"), ("control", "control"), ("alone", "alone"))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.fmean(known) if known else None


def _interchange(tried: Sequence[Tried]) -> dict[str, Any] | None:
    """Of rules that were tried: mean accuracies by swapping in other rows and as labels; the share clearly ahead of the placebo."""
    known = [t for t in tried if t.interchange is not None and t.placebo is not None]
    if not known:
        return None
    means = {
        name: statistics.fmean(getattr(t, name) or 0.0 for t in known)
        for name in ("interchange", "placebo", "shuffled")
    }
    scored = {
        name: [v for t in tried if (v := getattr(t, name)) is not None] for name in ("detection", "detection_tokens")
    }
    means |= {name: statistics.fmean(values) if values else None for name, values in scored.items()}
    return means | {"ahead": statistics.fmean(t.interval[0] >= AHEAD for t in known), "rules": len(known)}


def _over(values: Sequence[float | None], bar: float) -> float | None:
    """The share above a bar; an output without a rule is below it."""
    return sum(v is not None and v > bar for v in values) / len(values) if values else None


def _control(gates: Sequence[Gate], name: str) -> dict[str, float] | None:
    found = [getattr(g.controls, name) if g.controls is not None else None for g in gates]
    known = [v for v in found if v is not None]
    if not known:
        return None
    return {"median": statistics.median(known), "over": _over(found, BARS[0]) or 0.0}


def rules_sentence(gates: Mapping[str, Mapping[str, Any]]) -> str:
    """How many outputs obey a rule, beside what its controls reach, in one sentence; of reports that know of no grades none."""
    known = [g for g in gates.values() if g.get("grades") and g.get("often")]
    if not known:
        return ""
    often = sum(g["often"] for g in known)
    found = round(sum(g["shares"]["0.5"] * g["often"] for g in known))
    beside = [f"{words} {n:,}" for name, words in _NAMES.items() if (n := _number(known, name)) is not None]
    tried, verified = (sum(g[key] for g in known) for key in ("tried", "verified"))
    model = f"; of {tried:,} tried in the model {verified:,} are verified" if tried else "; none was tried in the model"
    return (
        f"{found:,} of {often:,} output features that fire often obey a rule of a few inputs (held-out MCC over .5; "
        f"{', '.join(beside)}){model}."
    )


#: the controls that a sentence names
_NAMES = {
    "random_parents": "random parents",
    "shuffled": "shuffled rows",
    "token": "a table of tokens",
    "token_pair": "of pairs of tokens",
    "label": "the class alone",
    "ceiling": "the exact MLP on the same code",
}


def rates_line(gates: Mapping[str, Mapping[str, Any]]) -> str:
    """The four rates over all rules that were tried, each beside its control; "" where none was tried."""
    known = [(g["rates"], g["tried"]) for g in gates.values() if g.get("rates") and g.get("tried")]
    rules = sum(n for _, n in known)
    parts = []
    for name, words in _RATES.items():
        ours, control = (
            sum((rates[name][which] or 0.0) * n for rates, n in known) / max(rules, 1) for which in ("rule", "control")
        )
        parts.append(f"{words} {ours:.0%} ({control:.0%})")
    return (
        f"set in the model, outputs do as {rules:,} rules say (unrelated features): {', '.join(parts)}" if known else ""
    )


_RATES = {"on_on": "stay on", "off_off": "stay off", "on_off": "switch off", "off_on": "switch on"}


def _number(known: Sequence[Mapping[str, Any]], name: str) -> int | None:
    shares = [(g["controls"].get(name), g["often"]) for g in known]
    if any(control is None for control, _ in shares):
        return None
    return round(sum(control["over"] * often for control, often in shares))


def removal_line(gates: Mapping[str, Mapping[str, Any]]) -> str:
    """What the predictions make of the first gates, beside as long a step elsewhere; "" where it was not measured."""
    known = [found for g in gates.values() if (found := g.get("removal"))]
    if not known:
        return ""
    n = sum(found["gates"] for found in known)
    own, other = (sum(found[key] * found["gates"] for found in known) / n for key in ("own", "other"))
    more = sum(found["more_than_other"] * found["gates"] for found in known) / n
    return (
        f"the first {n:,} gates removed where they are on: KL {own:.2g} nats a position, as long a step along another output's "
        f"direction {other:.2g}; more than that for {more:.0%} of them"
    )
