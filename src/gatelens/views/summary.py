"""The first screen in words: what was analysed, how good the reading is, how much could be read at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..activations.collecting import with_origins
from ..basis.linear import basis_kind
from ..basis.output import at_output
from ..evaluation.rule_counts import OFTEN
from ..gates import Gate
from .document import count, figure, percent
from .sketch import grade_of


@dataclass(frozen=True)
class Tally:
    """How many outputs of one or more segments obey a rule: those whose rule holds or is verified, the verified, the weak.

    Attributes:
        outputs: for which a rule was looked for; in_all: with those that a sample left out.
    """

    outputs: int
    read: int
    verified: int
    weak: int
    tested: bool
    in_all: int

    @classmethod
    def of(cls, gates: Iterable[Gate]) -> Tally:
        every = list(gates)
        gates = [g for g in every if g.looked_for]
        grades = [grade_of(g) for g in gates]
        verified, weak = grades.count("verified"), grades.count("weak")
        read = verified + grades.count("holds")
        return cls(len(gates), read, verified, weak, any(g.verified is not None for g in gates), len(every))

    def sentence(self) -> str:
        """The share that obeys a rule."""
        if not self.outputs:
            return "no gates were read"
        share = percent(self.read / self.outputs)
        which = count(self.outputs, "output feature")
        sample = f" (a sample of all {self.in_all:,})" if self.outputs < self.in_all else ""
        return f"{self.read:,} of {which}{sample}, {share}, obey a rule that holds on held-out rows"


def share_read(gates: Sequence[Gate], shown: Sequence[Gate]) -> str:
    """How many obey a rule at all: the first thing to know about the list below it."""
    if not gates:
        return "No gates were read in this segment."
    tally = Tally.of(gates)
    text = tally.sentence()
    verified = f"{tally.verified:,} {'is' if tally.verified == 1 else 'are'}" if tally.verified else "none is"
    text += f"; {verified} verified by intervention." if tally.tested else "; none was tested by intervention."
    rest = tally.outputs - tally.read - tally.weak
    if tally.weak or rest:
        text += f" The others: {tally.weak:,} with a weak rule, {rest:,} without any; each says why."
    if len(shown) < len(gates):
        text += f" Shown: the first {len(shown):,} by evidence (grade, on in {OFTEN} rows or more, then MCC)."
    return text


def made_of(segment: Any, bases: Mapping[str, Any]) -> str:
    """Which dictionaries of ours stand at the segment's ends, and what their figures cannot show because it holds by construction."""
    said = []
    for hook in (segment.hook_in, segment.hook_out):
        basis = bases.get(hook)
        if holds := at_output(basis).by_construction:
            said.append(f"At {hook}: {basis_kind(basis)}; by construction, {holds}.")
    return " ".join(said)


def title_of(circuit: Any, figures: Mapping[str, Any]) -> str:
    name = (figures.get("model") or {}).get("name") or circuit.info.get("model") or "A circuit"
    where = circuit.segments[0].name if len(circuit.segments) == 1 else f"{len(circuit.segments)} segments"
    return f"{name}: {where}".replace("->", "→")


def what_of(circuit: Any, acts: Any, figures: Mapping[str, Any]) -> str:
    """What was analysed, in one line."""
    info = circuit.info
    bases = {h: (figures.get("bases") or {}).get(h, {}) for h in circuit.bases}
    kinds = sorted({b.get("kind") or type(circuit.bases[h]).__name__ for h, b in bases.items()})
    solvers = sorted({c.solver.partition("(")[0] for c in circuit.connectors.values() if c.solver})
    parts = [
        str((figures.get("model") or {}).get("name") or info.get("model") or ""),
        str(info.get("data") or ("" if (known := with_origins(acts)) is None else known.source)),
        ", ".join(s.name for s in circuit.segments)
        if len(circuit.segments) <= 3
        else f"{len(circuit.segments)} segments",
        "features: " + ", ".join(kinds),
        ("wires: " + ", ".join(solvers)) if solvers else "",
        f"seed {figures.get('seed', info.get('seed'))}" if figures.get("seed", info.get("seed")) is not None else "",
    ]
    return " · ".join(dict.fromkeys(p for p in parts if p)).replace("->", "→")


def sentence(circuit: Any, figures: Mapping[str, Any]) -> str:
    """How good the reading is, in one honest sentence with its figures."""
    said = Tally.of(g for gs in circuit.gates.values() for g in gs).sentence()
    wires = sum(c.wires for c in circuit.connectors.values())
    model, replaced = figures.get("model") or {}, figures.get("all_replaced") or {}
    metric = model.get("metric")
    if metric is None or model.get("clean") is None or replaced.get(metric) is None:
        unmeasured = "How well the wires stand in for the model was not measured here."
        return f"{count(len(circuit.connectors), 'connector')} of {wires:,} wires; {said}. {unmeasured}"
    digits = 3 if metric == "accuracy" else 2
    name = {"accuracy": "accuracy", "ce": "cross-entropy (nats a token)"}.get(metric, metric)
    many = len(circuit.segments)
    place = "With the MLP replaced by its wires" if many == 1 else f"With all {many} segments replaced by their wires"
    bypassed = sum(at_output(basis).bypassed for basis in circuit.bases.values())
    past = f" and a linear map of {bypassed:,} inputs past them" if bypassed else ""
    kept = replaced.get("gap_closed")
    share = (
        ""
        if kept is None
        else f" ({percent(kept) if kept > 0 else 'nothing'} of the way from mean ablation to the model)"
    )
    return (
        f"{place} ({wires:,} in all){past}, {name} is {figure(float(replaced[metric]), digits)} against the model's own "
        f"{figure(float(model['clean']), digits)}{share}; {said}."
    )


def plain_sentence(figures: Mapping[str, Any]) -> str:
    """How much of the MLP the gates account for, and what the same procedure gives on a random model."""
    coverage = figures.get("coverage") or {}
    segments = coverage.get("segments") or {}
    if not segments:
        return _counted_alone(figures)
    null = (coverage.get("baselines") or {}).get("random_weights") or {}
    said = []
    for name, found in segments.items():
        own, read = _amount(found.get("variance")), _amount(found.get("read_variance"))
        where = f"At {name.replace('->', '→')} the" if len(segments) > 1 else "The"
        text = f"{where} gates read here account for {read} of what this MLP writes, the verified ones among them for {own}"
        random = null.get(name) or {}
        if random.get("read_variance") is not None:
            both = f"{_amount(random['read_variance'])} and {_amount(random.get('variance'))}"
            text += f"; the same procedure on a model with random weights gives {both}"
        said.append(text + ".")
    return " ".join(said)


#: nulls by what they are, the one that says most first
_NULLS = {"random_weights": "a model with random weights", "shuffled": "shuffled rows"}


def _counted_alone(figures: Mapping[str, Any]) -> str:
    """Without a measure of how much the gates carry: how many there are, beside a null, and what all wires carry."""
    unmeasured = "how much of the MLP these gates account for was not measured here"
    counted = list((figures.get("gates") or {}).values())
    if not counted:
        return f"{unmeasured[0].upper()}{unmeasured[1:]}."
    total = {key: sum(c.get(key) or 0 for c in counted) for key in ("outputs", "logic", "verified")}
    said = f"{total['logic']:,} of {count(total['outputs'], 'output')} obey a rule that holds, {total['verified']:,} of them verified"
    baselines = figures.get("baselines") or {}
    for key, name in _NULLS.items():
        null = baselines.get(key) or {}
        if null.get("logic") is not None:
            said += f"; the same procedure on {name} gives {null['logic']:,} of {null['outputs']:,}, {null.get('verified') or 0:,} verified"
            break
    kept = (figures.get("all_replaced") or {}).get("gap_closed")
    wires = (
        ""
        if kept is None
        else f"All wires together bring the model {percent(max(kept, 0))} of the way back from mean ablation; "
    )
    return f"{said}. {f'{wires}{unmeasured}' if wires else unmeasured[0].upper() + unmeasured[1:]}."


def _amount(share: float | None) -> str:
    return "an unknown share" if share is None else "nothing" if share < 0.0005 else percent(share)


def tiles(circuit: Any, figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(name, figure, its null or its scale) for the first screen."""
    gates = [g for gs in circuit.gates.values() for g in gs]
    read = [g for g in gates if g.read]
    found: list[tuple[str, str, str]] = []
    model, replaced = figures.get("model") or {}, figures.get("all_replaced") or {}
    metric = model.get("metric")
    if metric and replaced.get(metric) is not None:
        digits = 3 if metric == "accuracy" else 2
        ends = f"model {figure(model.get('clean'), digits)}, mean-ablated {figure(model.get('ablated'), digits)}"
        found.append(
            (
                "accuracy, all replaced" if metric == "accuracy" else "cross-entropy, all replaced",
                figure(float(replaced[metric]), digits),
                ends,
            )
        )
    mcc, control = _median([g.mcc for g in read]), _median([g.control_mcc for g in read])
    found.append(("median MCC, rules that hold", figure(mcc), f"random parents {figure(control)}"))
    tally = Tally.of(gates)
    tested = f"{tally.verified:,} verified" if tally.tested else "none tested in the model"
    found.append(("outputs that obey a rule", f"{tally.read:,}", f"of {count(tally.outputs, 'output')}; {tested}"))
    r2 = _median(
        [c.get("median_r2") for c in (figures.get("connectors") or {}).values()] if figures else [g.r2 for g in gates]
    )
    wires, outputs = (
        sum(c.wires for c in circuit.connectors.values()),
        sum(len(c.bias) for c in circuit.connectors.values()),
    )
    found.append(("wires", f"{wires:,}", f"{figure(wires / max(outputs, 1), 1)} an output, median R² {figure(r2)}"))
    return found


def _median(values: Sequence[float | None]) -> float | None:
    known = sorted(v for v in values if v is not None)
    if not known:
        return None
    middle = len(known) // 2
    return float(known[middle]) if len(known) % 2 else (known[middle - 1] + known[middle]) / 2
