"""Gates as JSON and back."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import torch

from .gate import Gate, GateKind, TruthTable


def gate_to_dict(gate: Gate) -> dict[str, Any]:
    """Plain numbers, lists and strings; figures that are not defined are None."""
    return {f.name: _plain(getattr(gate, f.name)) for f in fields(gate)}


def gate_from_dict(values: dict[str, Any]) -> Gate:
    known = {f.name: values[f.name] for f in fields(Gate) if f.name in values}
    known["kind"] = GateKind(known["kind"])
    for name in ("table", "intervention"):
        if known.get(name) is not None:
            known[name] = _table(known[name])
    plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in known.items()}
    return Gate(**plain)


def _plain(value: Any) -> Any:
    if isinstance(value, TruthTable):
        return {
            "patterns": value.patterns.int().tolist(),
            "count": value.count.tolist(),
            "fired": value.fired.tolist(),
            "magnitude": [_plain(m) for m in value.magnitude.tolist()],
            "source": value.source,
        }
    if isinstance(value, GateKind):
        return value.value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return list(value) if isinstance(value, tuple) else value


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
