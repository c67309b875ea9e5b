"""page: a circuit with its evidence, as one self-contained file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from .. import __version__
from ..gates import Gate
from .cards import Card, card_of, order_key
from .contexts import FeatureRows
from .document import Html, count, document, figure, fragment, percent
from .drawing import KIND_NAMES, glyph_symbols
from .examples import Numbers, mistakes, source_of_examples
from .figures import jacobian_maps, report_tables
from .matrix import layer_map


#: cards of a segment that are in the page as they are; the bodies of further ones are packed
STATIC = 60
#: card bodies in one pack
PACK = 40


@dataclass(frozen=True)
class Section:
    """One segment's part of the page."""

    name: str
    anchor: str
    share: str
    kinds: Sequence[tuple[str, str]]
    cards: Sequence[Card]
    matrix: Markup = Markup("")
    opened: int = 0
    static: int = 0


def page(
    circuit: Any,
    acts: Any,
    report: Any = None,
    *,
    batches: Any = None,
    model: Any = None,
    tokenizer: Any = None,
    title: str | None = None,
    max_cards: int = 50,
    labels: Callable[[str, int], str] | None = None,
) -> Html:
    """Everything about a circuit that a person wants to look at, in one file.

    Args:
        circuit: segments, bases, connectors and gates.
        acts: held-out activations at the segments' hook points.
        report: an `evaluation.Report`, or a mapping with the keys of report.json.
        batches: the held-out data; float inputs [n, d] of square images are shown as pictures.
        model: for pixel fields, and for its tokenizer; None leaves them out.
        tokenizer: when the model has none of its own and the rows are tokens.
        max_cards: gates shown in full, the best of each segment by evidence; the page says how many there are.
        labels: (hook name, feature) -> a name for it, shown as text.
    """
    figures = _plain(report)
    source = source_of_examples(acts, batches, model, tokenizer, circuit)
    sections = _sections(circuit, acts, source, max_cards, labels)
    everything = sorted((c for s in sections for c in s.cards), key=lambda c: order_key(c.gate))
    title = title or _title(circuit, figures)
    body = fragment(
        "page.html.j2",
        symbols=glyph_symbols(),
        title=title,
        what=_what(circuit, acts, figures),
        sentence=sentence(circuit, figures),
        tiles=tiles(circuit, figures),
        best=[c for c in everything if c.kind != "not_read"][:3],
        segments=sections,
        figures=report_tables(figures),
        jacobians=_jacobians(circuit, acts, model),
        rows=getattr(acts, "rows", None),
        version=__version__,
        per_pack=PACK,
    )
    return document(title, body, packs={k: v for s in sections for k, v in packed(s).items()})


def packed(section: Section) -> dict[str, list[str]]:
    """Bodies of the cards beyond the first ones, a pack at a time, for the script to open."""
    bodies = [str(fragment("packed.html.j2", c=c, g=c.gate)) for c in section.cards[section.static :]]
    return {
        f"{section.anchor}-{n}": bodies[start : start + PACK] for n, start in enumerate(range(0, len(bodies), PACK))
    }


def _jacobians(circuit: Any, acts: Any, model: Any) -> list[tuple[str, Markup]]:
    """(segment, maps) where the model is at hand and the features are few enough to be seen."""
    if model is None:
        return []
    maps = [
        (s.name, jacobian_maps(s, circuit.bases[s.hook_in], circuit.bases[s.hook_out], acts[s.hook_in]))
        for s in circuit.segments
        if not hasattr(circuit.bases[s.hook_out], "features_from")
    ]
    return [(name, drawn) for name, drawn in maps if drawn]


def _plain(report: Any) -> dict[str, Any]:
    if report is None:
        return {}
    return dict(report.to_dict() if hasattr(report, "to_dict") else report)


def _sections(circuit: Any, acts: Any, source: Numbers, max_cards: int, labels: Any) -> list[Section]:
    """The best gates of each segment; each segment gets an equal share of the cards."""
    gates = {s.name: sorted(circuit.gates.get(s.name, []), key=order_key) for s in circuit.segments}
    share = -(-max_cards // max(len(gates), 1))
    return [
        _section(circuit, s, i, gates[s.name], gates[s.name][:share], acts, source, labels)
        for i, s in enumerate(circuit.segments)
    ]


def _section(
    circuit: Any,
    segment: Any,
    number: int,
    gates: Sequence[Gate],
    shown: Sequence[Gate],
    acts: Any,
    source: Numbers,
    labels: Any,
) -> Section:
    bases = circuit.bases
    f_in = FeatureRows.read(bases[segment.hook_in], acts[segment.hook_in], {i for g in shown for i in g.inputs})
    made_from = acts[segment.hook_in] if hasattr(bases[segment.hook_out], "features_from") else acts[segment.hook_out]
    f_out = FeatureRows.read(bases[segment.hook_out], made_from, {g.out for g in shown})
    hooks = {"in": segment.hook_in, "out": segment.hook_out}
    name = (lambda side, feature: labels(hooks[side], feature)) if labels else (lambda side, feature: "")
    seen: dict[int, Any] = {}
    cards = []
    for gate in shown:
        output = source.view(
            f_out, segment.hook_out, gate.out, False, name=f"OF_{gate.out}", label=name("out", gate.out)
        )
        parents = []
        for i, w in list(zip(gate.inputs, gate.weights, strict=True))[:6]:
            if i not in seen:
                seen[i] = source.view(f_in, segment.hook_in, i, True, name=f"IF_{i}", label=name("in", i))
            parents.append(replace(seen[i], sign="−" if w < 0 else "+"))
        wrong = mistakes(gate, f_in, f_out, source)
        cards.append(
            card_of(gate, segment.name, name, f"g{number}-{gate.out}", output=output, parents=parents, misses=wrong)
        )
    kinds = [(k, n) for k, n in KIND_NAMES.items() if any(str(g.kind) == k for g in shown)]
    drawing = layer_map(
        circuit.connectors[segment.name],
        [g.out for g in shown] or None,
        f"map{number}",
        {c.gate.out: c.anchor for c in cards},
    )
    return Section(
        segment.name,
        f"s{number}",
        _share(gates, shown),
        kinds,
        cards,
        drawing,
        opened=1 if number == 0 else 0,
        static=STATIC,
    )


def _share(gates: Sequence[Gate], shown: Sequence[Gate]) -> str:
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


def _title(circuit: Any, figures: Mapping[str, Any]) -> str:
    name = (figures.get("model") or {}).get("name") or circuit.info.get("model") or "A circuit"
    where = circuit.segments[0].name if len(circuit.segments) == 1 else f"{len(circuit.segments)} segments"
    return f"{name}: {where}"


def _what(circuit: Any, acts: Any, figures: Mapping[str, Any]) -> str:
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
