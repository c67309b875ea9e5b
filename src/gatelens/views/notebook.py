"""What values show of themselves in a notebook: small, apart from the notebook's style, nothing fetched, fine when shown twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from markupsafe import Markup

from . import images, legend
from .cards import card_list, card_of, lead_key
from .document import NOTEBOOK_LIMIT, count, figure, fragment
from .drawing import glyph_symbols
from .explained import explained, sentence_of
from .figures import report_tables
from .isolated import isolated
from .known_features import known as known_features
from .legend import marks_in
from .matrix import layer_map
from .picture import drawn
from .sketch import Known, Sketch, sketch_of
from .summary import sentence

#: gates that a circuit shows of itself
BEST = 8
#: outputs whose wires a connector shows
OUTPUTS = 40
#: a rotation of more coordinates is not drawn
WIDEST = 512


def show(value: Any) -> str:
    """Markup for a `Circuit`, `Gate`, `Connector`, `Found`, `JacobianPicture`, `Report`, `Rotation` or `PromptReading`; its
    printed form for anything else.

    Under 300 KB: a value that would take more is shown as it prints.
    """
    draw = _DRAWN.get(_kind(value))
    body = draw(value) if draw else Markup("")
    text = isolated(body) if body else ""
    small = len(text.encode("utf-8", "replace")) < NOTEBOOK_LIMIT
    return text if body and small else f"<pre>{escape(repr(value))}</pre>"


def _kind(value: Any) -> str:
    """The name of the class that says how a value is drawn: its own or an ancestor's."""
    return next((c.__name__ for c in type(value).__mro__ if c.__name__ in _DRAWN), "")


def _gate(gate: Any) -> Markup:
    card = card_of(gate)
    return _cards([card], opened=1) + _legend([card.sketch])


def _legend(sketches: Sequence[Sketch]) -> Markup:
    """What the marks in these pictures mean."""
    marks = frozenset[str]().union(*map(marks_in, sketches))
    return Markup('<div class="pic">{}</div>').format(Markup(legend.drawn(marks)))


def _cards(cards: Sequence[Any], opened: int) -> Markup:
    return glyph_symbols() + card_list(cards, opened)


def _connector(connector: Any) -> Markup:
    shape = connector.weight.shape
    strongest = np.argsort(-np.bincount(*_rows_and_sizes(connector), minlength=shape[0]), kind="stable")
    outs = [int(o) for o in strongest[:OUTPUTS] if int(connector.fan_in()[int(o)])]
    return Markup("<p><b>{}</b></p>").format(repr(connector)) + layer_map(connector, outs)


def _rows_and_sizes(connector: Any) -> tuple[np.ndarray, np.ndarray]:
    weight = connector.weight
    rows = np.repeat(np.arange(weight.shape[0]), np.diff(weight.crow_indices().numpy()))
    return rows, np.abs(weight.values().detach().numpy()).astype(np.float64)


def _circuit(circuit: Any) -> Markup:
    return _read(circuit, {}) + _pictured(circuit, {})


def _read(circuit: Any, figures: Any) -> Markup:
    """What was read, in a sentence and a table of the segments."""
    rows = [
        [
            s.name.replace("->", "→"),
            _wired(circuit.connectors.get(s.name)),
            count(sum(sketch_of(g).grade != "none" for g in circuit.gates.get(s.name, [])), "rule"),
        ]
        for s in circuit.segments
    ]
    table = fragment(
        "tables.html.j2",
        tables=[{"title": "Segments", "what": "", "head": ["segment", "wires", "read"], "rows": rows}],
        heading="",
    )
    return Markup("<p>{}</p>").format(sentence(circuit, figures)) + table


def _wired(connector: Any) -> str:
    """How many wires, and how many an output; short, so that the table fits a cell."""
    if connector is None:
        return "none"
    return f"{connector.wires:,}, {figure(connector.wires / max(len(connector.bias), 1), 1)} an output"


def _pictured(circuit: Any, known: Mapping[str, Known]) -> Markup:
    """The best gates as pictures; known: segment name -> what is known of its features."""
    gates = sorted(((g, name) for name, gs in circuit.gates.items() for g in gs), key=lambda pair: lead_key(pair[0]))
    sketches = [sketch_of(g, known.get(name)) for g, name in gates[: 3 * BEST]]
    best = [s for s in sketches if s.grade != "none"][:BEST]
    if not best:
        return Markup("<p>No rule was found.</p>")
    pictures = Markup("").join(
        Markup('<div class="one"><div class="pic">{}</div></div>').format(Markup(drawn(s))) for s in best
    )
    return Markup("<h3>The best gates</h3>") + Markup('<div class="best">{}</div>').format(pictures) + _legend(best)


def _found(found: Any) -> Markup:
    known = {
        s.name: known_features(found.circuit, found.held_out, segment=s.name, model=found.model, batches=found.batches)
        for s in found.circuit.segments
    }
    figures = found.report.to_dict()
    said = Markup("").join(Markup("<p>{}</p>").format(s) for s in (sentence_of(figures), found.report.summary()) if s)
    return said + _pictured(found.circuit, known) + _read(found.circuit, figures)


def _jacobians(picture: Any) -> Markup:
    from .jacobians import jacobian_figure

    return Markup('<div class="scroll rotated">{}</div>').format(Markup(jacobian_figure(picture)))


def _rotation(rotation: Any) -> Markup:
    matrix = rotation.matrix.detach().double().numpy()
    head = Markup("<p><b>{}</b></p>").format(repr(rotation))
    if max(matrix.shape) > WIDEST:
        return head
    url, top, _ = images.field(matrix, size=280)
    picture = Markup(
        '<figure><img src="{}" width="280" height="{}" alt="matrix"><figcaption>The matrix, a row a feature; blue plus, '
        "orange-brown with dots minus, full strength {:.2f}.</figcaption></figure>"
    ).format(url, max(280 * matrix.shape[0] // matrix.shape[1], 20), top)
    return head + Markup('<div class="heat">') + picture + Markup("</div>")


def _report(report: Any) -> Markup:
    figures = report.to_dict()
    said = Markup("").join(Markup("<p>{}</p>").format(s) for s in (sentence_of(figures), report.summary()) if s)
    return said + explained(figures) + report_tables(figures)


def _prompt(reading: Any) -> Markup:
    from .prompt import prompt_fragment

    return prompt_fragment(reading)


_DRAWN: dict[str, Callable[[Any], Markup]] = {
    "PromptReading": _prompt,
    "Gate": _gate,
    "Found": _found,
    "JacobianPicture": _jacobians,
    "Connector": _connector,
    "Circuit": _circuit,
    "Rotation": _rotation,
    "Report": _report,
}
