"""Gates as JSON and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import torch

from .effects import Effect
from .gate import Controls, Evidence, Gate, TruthTable
from .grade import HOLDS, OVER_NULLS, Grade
from .rule import GateKind, Literal, Op, Rule
from .tried import Tried


def gate_to_dict(gate: Gate) -> dict[str, Any]:
    """Plain numbers, lists and strings; figures that are not defined are None."""
    return {f.name: _plain(getattr(gate, f.name)) for f in fields(gate)}


def gate_row(gate: Gate) -> dict[str, Any]:
    """A gate as one row of a table: its rule in words, kind, grade, wires, and figures beside their null."""
    plain = "out mcc precision recall firings base_rate level r2 verified bias why".split()
    return {
        **{name: getattr(gate, name) for name in plain},
        "kind": str(gate.kind),
        "grade": str(gate.grade),
        "rule": None if gate.rule is None else str(gate.rule),
        "random_parents": gate.control_mcc,
        "inputs": list(gate.inputs),
        "weights": list(gate.weights),
    }


def gate_from_dict(values: dict[str, Any]) -> Gate:
    """The gate that `gate_to_dict` wrote; one of an older version gets the rule that its inputs spell, and a grade."""
    known = {f.name: values[f.name] for f in fields(Gate) if f.name in values}
    known["kind"] = GateKind(known["kind"])
    for name in ("table", "intervention"):
        if known.get(name) is not None:
            known[name] = _table(known[name])
    for name, read in (
        ("rule", Rule.from_json),
        ("evidence", _evidence),
        ("controls", lambda v: Controls(**v)),
        ("tried", Tried.from_json),
        ("effect", Effect.from_json),
        ("sums", lambda v: tuple((tuple(i), tuple(w), bias) for i, w, bias in v)),
    ):
        if known.get(name) is not None:
            known[name] = read(known[name])
    if "grade" in known:
        known["grade"] = Grade(known["grade"])
    plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in known.items()}
    gate = Gate(**plain)
    return gate if "grade" in known else _of_old(gate)


def _of_old(gate: Gate) -> Gate:
    """A gate as 0.1.0 kept it: "at least m of these, none of those" becomes a rule; adders and unread gates get no grade."""
    if gate.kind in (GateKind.NOT_READ, GateKind.ADDER) or not gate.excite:
        return gate
    n = len(gate.excite)
    counted = 1 < gate.at_least < n
    head = gate.excite if counted else gate.excite[:1]
    op = Op.AND if gate.at_least == n else Op.OR
    steps = [(op, i) for i in gate.excite[len(head) :]] + [(Op.AND_NOT, i) for i in gate.inhibit]
    rule = Rule(tuple(map(Literal, head)), gate.at_least if counted else 1, tuple((o, Literal(i)) for o, i in steps))
    holds = gate.mcc is not None and gate.mcc >= max(HOLDS, (gate.control_mcc or 0.0) + OVER_NULLS)
    grade = Grade.VERIFIED if holds and gate.verified else Grade.HOLDS if holds else Grade.WEAK
    return replace(gate, rule=rule, grade=grade)


def _evidence(values: dict[str, Any]) -> Evidence:
    known: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return Evidence(**known)


def _plain(value: Any) -> Any:
    if isinstance(value, (Evidence, Controls)):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, (Rule, Tried, Effect)):
        return value.to_json()
    if isinstance(value, TruthTable):
        return {
            "patterns": value.patterns.int().tolist(),
            "count": value.count.tolist(),
            "fired": value.fired.tolist(),
            "magnitude": [_plain(m) for m in value.magnitude.tolist()],
            "source": value.source,
        }
    if isinstance(value, (GateKind, Grade)):
        return value.value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return dict(value) if isinstance(value, Mapping) else value


def _table(values: dict[str, Any]) -> TruthTable:
    magnitude = [math.nan if m is None else m for m in values["magnitude"]]
    patterns = torch.tensor(values["patterns"], dtype=torch.bool)
    return TruthTable(
        patterns.reshape(len(values["count"]), -1),
        torch.tensor(values["count"], dtype=torch.long),
        torch.tensor(values["fired"], dtype=torch.long),
        torch.tensor(magnitude),
        values["source"],
    )
