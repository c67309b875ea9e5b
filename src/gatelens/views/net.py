"""Gates that share inputs, as one drawing: named inputs at the left, each gate with its shape and its name at the right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from . import shapes
from .document import figure
from .legend import marks_in_net
from .lettering import fitted, text
from .picture import NAME, WIDE, names
from .sketch import Arm, Sketch
from .svg import Drawing

#: inputs and gates in one drawing at most
NODES = 30
_ROW, _LEFT, _AT, _SHAPE, _RIGHT = 36, 132, 232, 30, 276


@dataclass(frozen=True)
class Net:
    """Gates and the inputs that they share, as drawn.

    Attributes:
        gates: from top to bottom.
        inputs: from top to bottom.
        largest: strength of the widest wire drawn.
        left_out: gates that would belong here too.
    """

    gates: tuple[Sketch, ...]
    inputs: tuple[Arm, ...]
    largest: float
    left_out: int = 0


def net_of(sketches: Sequence[Sketch], nodes: int = NODES, first: int | None = None) -> Net:
    """The gates, in this order, that fit with their inputs into so many nodes; then ordered so that few wires cross.

    Args:
        first: output of a gate that stays at the top.
    """
    kept: list[Sketch] = []
    inputs: dict[int, Arm] = {}
    for sketch in sketches:
        more = {arm.feature: arm for arm in sketch.arms if arm.feature not in inputs}
        if len(kept) + 1 + len(inputs) + len(more) <= nodes:
            kept.append(sketch)
            inputs |= more
    order, gates = _untangled(kept, list(inputs), first)
    largest = max((arm.strength for sketch in kept for arm in sketch.arms), default=0.0)
    return Net(tuple(gates), tuple(inputs[i] for i in order), largest, len(sketches) - len(kept))


def _untangled(gates: list[Sketch], inputs: list[int], first: int | None) -> tuple[list[int], list[Sketch]]:
    """Inputs and gates by turns in the order of the mean place of what they are wired to."""
    for _ in range(6):
        place = {i: k for k, i in enumerate(inputs)}
        gates = sorted(gates, key=lambda g: (g.out != first, _mean([place[a.feature] for a in g.arms]), g.out))
        at = {i: [k for k, g in enumerate(gates) for a in g.arms if a.feature == i] for i in inputs}
        inputs = sorted(inputs, key=lambda i: (_mean(at[i]), i))
    return inputs, gates


def _mean(places: Sequence[int]) -> float:
    return sum(places) / len(places) if places else 0.0


def drawn(net: Net, targets: Mapping[int, str] | None = None) -> str:
    """The `<svg>` element.

    Args:
        targets: output -> the anchor of its card, for links.
    """
    targets = targets or {}
    height = _ROW * max(len(net.gates), len(net.inputs), 1) + 8
    y_in = {a.feature: y for a, y in zip(net.inputs, _spread(len(net.inputs), height), strict=True)}
    y_out = _spread(len(net.gates), height)
    parts: list[str] = []
    for gate, y in zip(net.gates, y_out, strict=True):
        parts += _wires(gate, y, y_in, net.largest)
    for gate, y in zip(net.gates, y_out, strict=True):
        node = _node(gate, y)
        parts.append(f'<a href="#{escape(targets[gate.out])}">{node}</a>' if gate.out in targets else node)
    parts += [_input(arm, y_in[arm.feature]) for arm in net.inputs]
    said = f"{len(net.inputs)} inputs and {len(net.gates)} gates that share them"
    return (
        f'<svg class="gp net" viewBox="0 0 {WIDE} {height:g}" role="group" aria-label="{said}">{"".join(parts)}</svg>'
    )


def drawing(net: Net) -> Drawing:
    """The same as a value that shows itself."""
    from .picture import said

    return Drawing(drawn(net), "\n".join(said(gate) for gate in net.gates), marks_in_net(net.gates, _shape))


def _wires(gate: Sketch, y: float, y_in: Mapping[int, float], largest: float) -> list[str]:
    arms = sorted(gate.arms, key=lambda arm: y_in[arm.feature])
    tall = _tall(gate)
    shape = _shape(gate)
    done = []
    for k, arm in enumerate(arms):
        share = (k + 0.5) / len(arms)
        y1 = y - tall / 2 + 3 + (tall - 6) * share
        x1 = _AT + shapes.entry(shape, (y1 - y + tall / 2) / tall, _SHAPE) - (7 if arm.negated else 0)
        wide = 1.2 + 3.8 * arm.strength / largest if largest else 1.2
        sign, dash = ("m", f' stroke-dasharray="{3 + wide:.0f} {2 + wide / 2:.1f}"') if arm.negative else ("p", "")
        y0 = y_in[arm.feature]
        middle = (_LEFT + x1) / 2
        done.append(
            f'<path class="w e {sign}" data-i="{arm.feature}" data-o="{gate.out}" data-w="{arm.strength:.4g}" '
            f'stroke-width="{wide:.1f}"{dash} d="M{_LEFT + 5} {y0:g}C{middle:g} {y0:g} {middle:g} {y1:g} {x1:g} {y1:g}">'
            f"<title>{arm.name} → {gate.name}: {'−' if arm.negative else ''}{figure(arm.strength, 3)}</title></path>"
        )
        if arm.negated:
            done.append(f'<circle class="n" cx="{x1 + 3.5:g}" cy="{y1:g}" r="3.5"/>')
    return done


def _tall(gate: Sketch) -> float:
    return max(24.0, 6.0 * len(gate.arms) + 8)


def _shape(gate: Sketch) -> str:
    """The shape that stands for a gate in small: that of its exciters; a copy that is held back is an AND."""
    first = gate.stages[0]
    joined = first.shape == "copy" or gate.stages[-1].shape == "and_any"
    return "and" if joined and len(gate.stages) > 1 else first.shape


def _node(gate: Sketch, y: float) -> str:
    tall, room = _tall(gate), WIDE - _RIGHT - 2
    shape = shapes.drawn(_shape(gate), gate.grade, gate.stages[0].at_least, (_AT, y - tall / 2, _SHAPE, tall), False)
    line = f'<path class="o" d="M{_AT + _SHAPE} {y:g}h8"/>'
    hint = escape(gate.hint or f"{gate.name}: {gate.label}")
    return (
        f'<g class="v" data-o="{gate.out}" tabindex="0"><title>{hint}</title>{line}{shape}'
        f"{_lettered(gate.label, gate.name, _RIGHT, y, room, '')}</g>"
    )


def _input(arm: Arm, y: float) -> str:
    hint = escape(arm.hint or f"{arm.name}: {arm.label}")
    words = _lettered(arm.label, arm.name, _LEFT, y, _LEFT - 4, "end")
    return f'<g class="v" data-i="{arm.feature}" tabindex="0"><title>{hint}</title>{words}</g>'


def _lettered(label: object, name: str, x: float, y: float, room: float, anchor: str) -> str:
    lines = names(label, room, 1)
    if not lines:
        return text(x, y + 4, fitted(name, room, NAME, True), "l", anchor)
    return text(x, y + 1, lines[0], "l", anchor) + text(x, y + 14, name, "s", anchor)


def _spread(n: int, height: float) -> list[float]:
    return [(k + 0.5) * height / max(n, 1) for k in range(n)]
