"""The first screen in words: what was analysed, how good the reading is, how much could be read at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..gates import Gate
from .document import count, figure, percent


def share_read(gates: Sequence[Gate], shown: Sequence[Gate]) -> str:
    """How much was read at all: the first thing to know about the list below it."""
    if not gates:
        return "No gates were read in this segment."
    read = [g for g in gates if str(g.kind) != "not_read"]
    verified = sum(g.verified is True for g in read)
    text = (
        f"{len(read):,} of {count(len(gates), 'output feature')} ({percent(len(read) / len(gates))}) were read as gates"
    )
    text += (
        f", {verified:,} of them verified by intervention."
        if any(g.verified is not None for g in gates)
        else "; none was tested by intervention."
    )
    cut = (
        f" Shown: the first {len(shown):,} by evidence (verified, then MCC, then firing count)."
        if len(shown) < len(gates)
        else ""
    )
    rest = " The others stay unread: their evidence does not carry a rule." if len(read) < len(gates) else ""
    return text + rest + cut


def title_of(circuit: Any, figures: Mapping[str, Any]) -> str:
    name = (figures.get("model") or {}).get("name") or circuit.info.get("model") or "A circuit"
    where = circuit.segments[0].name if len(circuit.segments) == 1 else f"{len(circuit.segments)} segments"
    return f"{name}: {where}"


def what_of(circuit: Any, acts: Any, figures: Mapping[str, Any]) -> str:
    """What was analysed, in one line."""
    info = circuit.info
    bases = {h: (figures.get("bases") or {}).get(h, {}) for h in circuit.bases}
    kinds = sorted({b.get("kind") or type(circuit.bases[h]).__name__ for h, b in bases.items()})
    solvers = sorted({c.solver.partition("(")[0] for c in circuit.connectors.values() if c.solver})
    parts = [
        str((figures.get("model") or {}).get("name") or info.get("model") or ""),
        str(info.get("data") or getattr(acts, "source", "") or ""),
        ", ".join(s.name for s in circuit.segments)
        if len(circuit.segments) <= 3
        else f"{len(circuit.segments)} segments",
        "features: " + ", ".join(kinds),
        ("wires: " + ", ".join(solvers)) if solvers else "",
        f"seed {figures.get('seed', info.get('seed'))}" if figures.get("seed", info.get("seed")) is not None else "",
    ]
    return " · ".join(p for p in parts if p)


def sentence(circuit: Any, figures: Mapping[str, Any]) -> str:
    """How good the reading is, in one honest sentence with its figures."""
    gates = [g for gs in circuit.gates.values() for g in gs]
    read = sum(str(g.kind) != "not_read" for g in gates)
    said = (
        f"{read:,} of {len(gates):,} output features ({percent(read / len(gates))}) could be read as gates"
        if gates
        else "no gates were read"
    )
    edges = sum(c.edges for c in circuit.connectors.values())
    model, replaced = figures.get("model") or {}, figures.get("all_replaced") or {}
    metric = model.get("metric")
    if metric is None or model.get("clean") is None or replaced.get(metric) is None:
        return f"{count(len(circuit.connectors), 'connector')} of {edges:,} wires; {said}. How well the wires stand in for the model was not measured here."
    digits = 3 if metric == "accuracy" else 2
    name = {"accuracy": "accuracy", "ce": "cross-entropy (nats a token)"}.get(metric, metric)
    many = len(circuit.segments)
    place = "With the MLP replaced by its wires" if many == 1 else f"With all {many} segments replaced by their wires"
    kept = replaced.get("gap_closed")
    share = (
        ""
        if kept is None
        else f" ({percent(kept) if kept > 0 else 'nothing'} of the way from mean ablation to the model)"
    )
    return (
        f"{place} ({edges:,} in all), {name} is {figure(float(replaced[metric]), digits)} against the model's own "
        f"{figure(float(model['clean']), digits)}{share}; {said}."
    )


def tiles(circuit: Any, figures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(name, figure, its null or its scale) for the first screen."""
    gates = [g for gs in circuit.gates.values() for g in gs]
    read = [g for g in gates if str(g.kind) != "not_read"]
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
    found.append(("median MCC of the rules", figure(mcc), f"random parents {figure(control)}"))
    verified, tested = sum(g.verified is True for g in read), any(g.verified is not None for g in gates)
    found.append(
        (
            "gates read",
            f"{len(read):,}",
            f"of {count(len(gates), 'output')}, {f'{verified:,} verified' if tested else 'none tested in the model'}",
        )
    )
    r2 = _median(
        [c.get("median_r2") for c in (figures.get("connectors") or {}).values()] if figures else [g.r2 for g in gates]
    )
    edges, outputs = (
        sum(c.edges for c in circuit.connectors.values()),
        sum(len(c.bias) for c in circuit.connectors.values()),
    )
    found.append(("wires", f"{edges:,}", f"{figure(edges / max(outputs, 1), 1)} an output, median R² {figure(r2)}"))
    return found


def _median(values: Sequence[float | None]) -> float | None:
    known = sorted(v for v in values if v is not None)
    if not known:
        return None
    middle = len(known) // 2
    return float(known[middle]) if len(known) % 2 else (known[middle - 1] + known[middle]) / 2
