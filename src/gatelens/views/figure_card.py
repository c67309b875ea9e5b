"""card_svg: one gate as a drawing for a paper: glyph, equation, truth table, figures. Text stays text, nothing is fetched."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..gates import Gate
from .cards import card_of, evidence
from .document import Html, figure, percent, visible
from .drawing import GLYPHS
from .truth import Pattern, shown_inputs

_INK, _SOFT, _LINE, _PLUS, _MINUS = "#1a1f24", "#59636e", "#d8dde2", "#2166ac", "#b35806"
_ROW, _LEFT, _CHARACTER = 20, 24, 7.3
_MONO = 'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace"'


def card_svg(gate: Gate, label: str = "", width: int = 640) -> Html:
    """A gate as an SVG document; `.save("gate.svg")`. White ground, made for print.

    For a PNG, let a browser draw the file, at twice the size here (the SVG's own width and height in `--window-size`):
    `chromium --headless --force-device-scale-factor=2 --window-size=640,480 --screenshot=gate.png gate.svg`.

    Args:
        label: a name for the output, shown as text.
    """
    c = card_of(gate, labels=(lambda side, feature: label if side == "out" else "") if label else None)
    parts: list[str] = []
    y = _head(parts, c.kind, c.kind_name, c.verdict)
    y = _equation(parts, gate, y + 30, width)
    y = _text(parts, c.rule, y + 26, width, 14)
    y = _text(parts, " · ".join(f"{name} {value}" for name, value, _ in evidence(gate)), y + 22, width, 12, _SOFT)
    if c.table:
        y = _table(parts, gate, c.table, y + 30)
    height = y + 24
    ground = f'<rect width="{width}" height="{height}" fill="#fff"/>'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="DejaVu Sans, Helvetica, Arial, sans-serif" fill="{_INK}">'
    )
    return Html(f"{head}{ground}{''.join(parts)}</svg>", whole=False)


def _head(parts: list[str], kind: str, name: str, verdict: str) -> int:
    shape = GLYPHS[kind].replace('class="w"', 'fill="none"').replace('class="open"', 'stroke-dasharray="3 2.5"')
    parts.append(
        f'<g transform="translate({_LEFT} 16)" fill="#f6f7f8" stroke="{_INK}" stroke-width="1.6" stroke-linejoin="round">{shape}</g>'
    )
    parts.append(f'<text x="{_LEFT + 44}" y="33" font-size="16" font-weight="700">{escape(name)}</text>')
    parts.append(
        f'<text x="{_LEFT + 44 + 12 * len(name) + 8}" y="33" font-size="12" fill="{_SOFT}">{escape(verdict)}</text>'
    )
    return 40


def _equation(parts: list[str], gate: Gate, y: int, width: int) -> int:
    """The terms one after the other, underlined solid for plus and dashed for minus; a new line where one would stick out."""
    x = float(_LEFT)

    def put(text: str, colour: str = _INK) -> None:
        nonlocal x
        parts.append(
            f'<text x="{x:.1f}" y="{y}" font-size="12" {_MONO} fill="{colour}" xml:space="preserve">{escape(text)}</text>'
        )
        x += _CHARACTER * len(text)

    put(f"OF_{gate.out} ≈ ")
    for place, (inputs, weights, bias) in enumerate(gate.sums or ((gate.inputs, gate.weights, gate.bias),)):
        made = "ReLU" if gate.activation == "relu" and not gate.sums else ""
        put(" × (" if place else f"{made}(")
        for k, (i, w) in enumerate(zip(inputs, weights, strict=True)):
            text, minus = f"{figure(abs(w))}·IF_{i}", w < 0
            if x + _CHARACTER * (len(text) + 4) > width - _LEFT:
                x, y = _LEFT + 20.0, y + 22
            if k or minus:
                put(" − " if minus else " + ", _MINUS if minus else _PLUS)
            start = x
            put(text)
            dash = ' stroke-dasharray="4 3"' if minus else ""
            parts.append(
                f'<path d="M{start:.1f} {y + 5}H{x:.1f}" stroke="{_MINUS if minus else _PLUS}" stroke-width="2"{dash}/>'
            )
        if abs(bias) >= 0.005:
            put(f" {'−' if bias < 0 else '+'} {figure(abs(bias))}")
        put(")")
    return y


def _text(parts: list[str], text: str, y: int, width: int, size: int, colour: str = _INK) -> int:
    """A paragraph, broken at spaces by the width of a typical letter."""
    line, most = "", int((width - 2 * _LEFT) / (size * 0.58))
    for word in visible(text).split(" "):
        if line and len(line) + len(word) >= most:
            parts.append(f'<text x="{_LEFT}" y="{y}" font-size="{size}" fill="{colour}">{escape(line)}</text>')
            line, y = "", y + size + 6
        line = f"{line} {word}" if line else word
    parts.append(f'<text x="{_LEFT}" y="{y}" font-size="{size}" fill="{colour}">{escape(line)}</text>')
    return y


def _table(parts: list[str], gate: Gate, table: Sequence[Pattern], y: int) -> int:
    inputs = [gate.inputs[c] for c in shown_inputs(gate)]
    k = len(inputs)
    step = 58 if k <= 5 else 46
    ends = _LEFT + k * step
    heads = [(_LEFT + j * step + step / 2 - 8, f"IF_{i}", "middle") for j, i in enumerate(inputs)]
    heads += [(ends + 46, "rows", "end"), (ends + 62, f"OF_{gate.out} fired", "start"), (ends + 250, "rule", "start")]
    for x, text, anchor in heads:
        parts.append(
            f'<text x="{x:.0f}" y="{y}" font-size="11" fill="{_SOFT}" text-anchor="{anchor}">{escape(text)}</text>'
        )
    for p in table:
        y += _ROW
        parts.append(f'<path d="M{_LEFT} {y - 14}H{ends + 300}" stroke="{_LINE}"/>')
        _pattern(parts, p, y, k, step, ends)
    return y


def _pattern(parts: list[str], p: Pattern, y: int, k: int, step: int, ends: int) -> None:
    if p.on is None:
        parts.append(
            f'<text x="{_LEFT}" y="{y}" font-size="11" fill="{_SOFT}">{p.pooled} {"rarer " if p.count else ""}patterns</text>'
        )
    for j, on in enumerate(p.on or ()):
        fill = _INK if on else "#fff"
        parts.append(
            f'<circle cx="{_LEFT + j * step + step / 2 - 8:.0f}" cy="{y - 4}" r="4.5" fill="{fill}" stroke="{_INK}"/>'
        )
    parts.append(f'<text x="{ends + 46}" y="{y}" font-size="11" text-anchor="end">{figure(p.count)}</text>')
    x = ends + 62
    if p.rate is None:
        parts.append(f'<text x="{x}" y="{y}" font-size="11" fill="{_SOFT}">never seen</text>')
    else:
        parts.append(
            f'<rect x="{x}" y="{y - 9}" width="110" height="9" fill="{_LINE}"/>'
            f'<rect x="{x}" y="{y - 9}" width="{110 * p.rate:.1f}" height="9" fill="{_PLUS}"/>'
        )
        parts.append(
            f'<path d="M{x + 110 * p.low:.1f} {y - 4.5}H{x + 110 * p.high:.1f}" stroke="{_INK}" stroke-width="2"/>'
        )
        parts.append(f'<text x="{x + 118}" y="{y}" font-size="11">{percent(p.rate)}</text>')
    said = "–" if p.rule is None else ("on" if p.rule else "off") + {True: " ✓", False: " ✗", None: ""}[p.agrees]
    parts.append(f'<text x="{ends + 250}" y="{y}" font-size="11">{said}</text>')
