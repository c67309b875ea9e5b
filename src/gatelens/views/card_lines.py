"""The equation, the facts and the truth table of a card as markup. Written without templates: a page has thousands of cards."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from markupsafe import Markup

from ..gates import Gate
from .document import figure, percent
from .labels import Label
from .truth import Pattern

#: wires that an equation writes out
MOST = 16


def equation(gate: Gate, label: Label, terms: Sequence[Any]) -> Markup:
    """OF_3 ≈ ReLU(1.00·IF_1 − 0.52·IF_7 + 0.1), each feature with the texts that name it."""
    head = f'<span class="of">OF_{gate.out}</span>{_naming(label)} ≈ '
    if gate.sums:
        return Markup(head + _product(gate, {t.feature: t.label for t in terms}))
    parts = [_term(t, first=place == 0) for place, t in enumerate(terms[:MOST])]
    more = f" + {len(terms) - MOST} more" if len(terms) > MOST else ""
    bias = f" {'−' if gate.bias < 0 else '+'} {figure(abs(gate.bias))}" if abs(gate.bias) >= 0.005 else ""
    made = "ReLU" if gate.activation == "relu" else ""
    return Markup(f"{head}{made}({''.join(parts)}{more}{bias})")


def _product(gate: Gate, labels: dict[int, Label]) -> str:
    """silu(0.31·IF_5 + 0.1) × (0.2·IF_9): both sums, each feature with the texts that name it."""
    sides = []
    for inputs, weights, bias in gate.sums:
        wires = list(zip(inputs, weights, strict=True))[:MOST]
        parts = [_wire(i, w, labels.get(i), first=place == 0) for place, (i, w) in enumerate(wires)]
        more = f" + {len(inputs) - MOST} more" if len(inputs) > MOST else ""
        rest = f" {'−' if bias < 0 else '+'} {figure(abs(bias))}" if abs(bias) >= 0.005 else ""
        sides.append(f"({''.join(parts)}{more}{rest})")
    made = "" if gate.activation in ("relu", "identity") else gate.activation
    return made + " × ".join(sides)


def _term(term: Any, first: bool) -> str:
    return _wire(term.feature, term.weight, term.label, first)


def _wire(feature: int, weight: float, label: Label | None, first: bool) -> str:
    side, minus = ("minus", "−") if weight < 0 else ("plus", "+")
    sign = "" if first and weight >= 0 else f' <b class="{side}">{minus}</b> '
    return f'{sign}<span class="term {side}">{figure(abs(weight))}·IF_{feature}{_naming(label)}</span>'


def _naming(label: Label | None) -> str:
    if not label:
        return ""
    texts = "".join(f'<span class="tok">{escape(text)}</span>' for text in label.shown)
    return f" <em>{texts}{'…' if label.more else ''}</em>"


def facts(known: Sequence[tuple[str, str, str]]) -> Markup:
    """Name and figure of each fact."""
    return Markup("".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value, _ in known))


def table_rows(table: Sequence[Pattern], was_set: bool) -> Markup:
    """The rows of a truth table.

    Args:
        was_set: with a column for the rate when the inputs were set to the pattern in the model.
    """
    return Markup("\n".join(_row(pattern, len(table[0].on or ()), was_set) for pattern in table))


def _row(p: Pattern, columns: int, was_set: bool) -> str:
    few = ' class="few"' if p.few else ""
    set_rate = f'<td class="n">{percent(p.set_rate)}</td>' if was_set else ""
    cells = f'{_lamps(p, columns)}<td class="n">{figure(p.count)}</td><td class="rate">{_rate(p)}</td>{set_rate}'
    return f'<tr{few}>{cells}<td class="n">{figure(p.magnitude)}</td><td>{_verdict(p)}</td></tr>'


def _lamps(p: Pattern, columns: int) -> str:
    if p.on is None:
        rarer = "rarer " if p.count else ""
        said = f"{p.pooled} {rarer}{'patterns' if p.pooled > 1 else 'pattern'}"
        return f'<td class="rest" colspan="{columns}">{said}</td>'
    return "".join('<td class="on">●</td>' if on else '<td class="off">○</td>' for on in p.on)


def _rate(p: Pattern) -> str:
    if p.rate is None:
        return '<span class="soft">never seen</span>'
    shares = f"--p:{p.rate:.3g};--lo:{p.low:.3g};--hi:{p.high:.3g}"
    return f'<i class="bar" style="{shares}"></i><span>{percent(p.rate)}</span>'


def _verdict(p: Pattern) -> str:
    if p.rule is None:
        return '<span class="soft">–</span>'
    mark = {True: '<span class="yes">✓</span>', False: '<span class="no">✗</span>'}
    few = '<span class="soft">· few rows</span>'
    return f"{'on' if p.rule else 'off'} {few if p.agrees is None else mark[p.agrees]}"
