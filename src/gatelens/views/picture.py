"""The gate as a picture: named inputs, wires, the shape an engineer knows, the named output and what it favours.

One drawing of 400 units across, so that it reads at its own size on a telephone; colours come from the page or, alone,
from the reader's light or dark setting. What is measured is drawn: nothing stands in it without a figure behind it.
"""

from __future__ import annotations

from dataclasses import replace
from html import escape
from typing import Any

from ..gates import Gate
from . import shapes
from .document import figure, percent
from .legend import marks_in
from .lettering import fitted, text, width_of, wrapped
from .sketch import Arm, Known, Moment, Sketch, Stage, sketch_of
from .svg import Drawing

WIDE, STEP = 400, 52
_ROW, _TOP, _SHAPE = 46, 8, 40
#: the bar of agreement is full at so many times the t beyond which it is clear, where its mark stands
FULL = 3
#: letters of names, and of what stands beneath them
NAME, SMALL = 14, 12
#: the widest wire; a wire of no strength is drawn as a hairline
_WIDEST, _HAIR = 7.0, 0.8
#: the stretch of a wire on which a level is marked, from nothing to the feature's largest value
_CUT = 20
_THUMB = 40
#: how outputs of a model that tells classes apart are called
CLASS = "class "


def gate(gate: Gate, known: Known | None = None) -> Drawing:
    """A gate as a drawing: return it in a notebook, `.save("gate.svg")`, or `.show_code()`.

    Args:
        known: labels, typical values and contexts; `views.known(circuit, acts, ...)` reads them from activations.
    """
    found = sketch_of(gate, known)
    return Drawing(drawn(found), said(found), marks_in(found))


def on_row(gate: Gate, known: Known | None, moment: Moment) -> Sketch:
    """A gate on one row: inputs that are on have a filled lamp, the wires of the others are faint."""
    return replace(sketch_of(gate, known), moment=moment)


def drawn(sketch: Sketch) -> str:
    """The `<svg>` element of a sketch, styled by the page that it stands in."""
    return _Picture(sketch).svg()


class _Picture:
    """Places of one drawing: texts and wires at the left, shapes in the middle, the output at the right."""

    def __init__(self, sketch: Sketch):
        self.sketch, self.parts = sketch, []
        self.shift = STEP * max(len(sketch.stages) - 2, 0)
        self.thumbs = _THUMB + 6 if any(arm.picture for arm in sketch.arms) else 0
        two = len(sketch.stages) > 1
        self.start = 136 if two else 146
        self.straight = _CUT + 4 if any(arm.level for arm in sketch.arms) else 8
        self.strongest = max((arm.strength for arm in sketch.arms), default=0.0)
        self.shapes_at = [(184 if two else 206) + STEP * k + (4 if two else 0) * k for k in range(len(sketch.stages))]
        self.right = self.shapes_at[-1] + _SHAPE + 28

    def svg(self) -> str:
        arms = self.sketch.arms
        rows = {id(arm): _TOP + _ROW * (k + 0.5) for k, arm in enumerate(arms)}
        right = _output(self.sketch, self.right, WIDE + self.shift - self.right - 2)
        tall = max(_ROW * max(len(arms), 1), right[1] + 10) + 2 * _TOP
        if right[1] > _ROW * len(arms):  # the output takes more room than the inputs: these move to its middle
            rows = {key: y + (right[1] - _ROW * len(arms)) / 3 for key, y in rows.items()}
        middle = self._stages(rows)
        self._out(middle, right, tall)
        foot = _foot(self.sketch, WIDE + self.shift - 8)
        self.parts += [text(4, tall + 12 + 16 * k, line, kind) for k, (line, kind) in enumerate(foot)]
        height = tall + 16 * len(foot) + 8
        box = f'viewBox="0 0 {WIDE + self.shift} {height:g}"'
        return f'<svg class="gp" {box} role="img" aria-label="{escape(said(self.sketch))}">{"".join(self.parts)}</svg>'

    def _stages(self, rows: dict[int, float]) -> float:
        """Wires, then shapes; the height at which the last shape gives its output."""
        before: float | None = None
        for x, stage in zip(self.shapes_at, self.sketch.stages, strict=True):
            ends = [rows[id(arm)] for arm in stage.arms] + ([before] if before is not None else [])
            number = max(len(ends), 1)
            middle = sum(ends) / number if ends else _TOP + _ROW / 2
            tall = max(36, 15 * number + 8)
            entries = _entries(middle - tall / 2, tall, ends)
            if before is not None:
                self._between(x, before, entries.pop(), stage, tall, middle)
            for arm, y in zip(stage.arms, entries, strict=True):
                self._input(arm, rows[id(arm)])
                self._wire(arm, rows[id(arm)], x, y, stage, (y - middle + tall / 2) / tall)
            box = (x, middle - tall / 2, _SHAPE, tall)
            self.parts.append(shapes.drawn(stage.shape, self.sketch.grade, stage.at_least, box, self.sketch.hatched))
            self.parts += [shapes.ring(x, y) for arm, y in zip(stage.arms, entries, strict=True) if arm.negated]
            before = middle
        return before if before is not None else _TOP + _ROW / 2

    def _between(self, x: float, y0: float, y1: float, stage: Stage, tall: float, middle: float) -> None:
        x0 = x - STEP - 4 + _SHAPE
        x1 = x + shapes.entry(stage.shape, (y1 - middle + tall / 2) / tall, _SHAPE)
        self.parts.append(f'<path class="o" d="M{x0:g} {y0:g}C{x0 + 8:g} {y0:g} {x1 - 8:g} {y1:g} {x1:g} {y1:g}"/>')

    def _input(self, arm: Arm, y: float) -> None:
        """Name, id, thumbnail, and what shows when it is pointed at."""
        hint = arm.hint or f"{arm.name}: {arm.label}"
        room = self.start - 12 - self.thumbs
        lines = names(arm.label, room, 2) or [arm.name]
        said = [(line, "l") for line in lines]
        said += [(line, "s") for line in self._beneath(arm, room, 3 - len(lines))]
        top = y - 2 - 8 * (len(said) - 2)
        words = [text(room + 4, top + 14 * k, line, kind, "end") for k, (line, kind) in enumerate(said)]
        if arm.picture:
            words.append(_thumbnail(arm.picture, self.start - _THUMB - 4, y - _THUMB / 2))
        if self.sketch.moment is not None:
            words.append(shapes.lamp(self.start - 1, y, self._lit(arm)))
        self.parts.append(f'<g data-i="{arm.feature}"><title>{escape(hint)}</title>{"".join(words)}</g>')

    def _lit(self, arm: Arm) -> bool:
        """Whether its literal is on; always, where no row is drawn."""
        moment = self.sketch.moment
        return moment is None or moment.inputs.get(arm.feature, (False, 0.0))[0]

    def _beneath(self, arm: Arm, room: float, most: int) -> list[str]:
        """Its id, and how often the output fires when it alone is on; on a row, whether it is on and its value."""
        moment, said = self.sketch.moment, ""
        if moment is not None:
            on, value = moment.inputs.get(arm.feature, (False, 0.0))
            said = f"{'on' if on else 'off'}, {figure(value)}"
        elif arm.rate is not None:
            rate = percent(arm.rate)
            said = _fitting(room, f"despite it {rate}", f"despite {rate}") if arm.negated else f"alone {rate}"
        parts = [part for part in (arm.name if arm.label else "", said) if part]
        both = " · ".join(parts)
        return [both] if parts and width_of(both, SMALL) <= room else parts[-most:]

    def _wire(self, arm: Arm, y0: float, x1: float, y1: float, stage: Stage, share: float) -> None:
        """A hairline up to the level, a cut mark there, then the wire in its width."""
        wide = _HAIR + (_WIDEST - _HAIR) * arm.strength / self.strongest if self.strongest else _HAIR
        wide = max(wide, 1.6)
        faint = not self._lit(arm)
        x0, end = self.start, x1 + shapes.entry(stage.shape, share, _SHAPE) - (8 if arm.negated else 0)
        cut = x0 + 2 + _CUT * arm.level if arm.level else x0
        if arm.level:
            sign = f"{' m' if arm.negative else ''}{' x' if faint else ''}"
            self.parts.append(f'<path class="w{sign}" stroke-width="1" d="M{x0:g} {y0:g}H{cut:g}"/>')
            self.parts.append(shapes.cut(cut, y0))
        turn = x0 + self.straight
        bend = max((end - turn) * 0.5, 6)
        path = f"M{cut:g} {y0:g}H{turn:g}C{turn + bend:g} {y0:g} {end - bend:g} {y1:g} {end:g} {y1:g}"
        self.parts.append(shapes.wire(path, wide, arm.negative, faint))

    def _out(self, middle: float, right: tuple[list[Any], float], tall: float) -> None:
        x0 = self.shapes_at[-1] + _SHAPE
        fired = self.sketch.moment is None or self.sketch.moment.fired
        self.parts.append(f'<path class="o{"" if fired else " x"}" d="M{x0:g} {middle:g}H{self.right - 6:g}"/>')
        lines, height = right
        y = min(max(middle - 10, _TOP + 4), max(tall - height - 2, _TOP))
        hint = self.sketch.hint or f"{self.sketch.name}: {self.sketch.label}"
        self.parts.append(f"<g><title>{escape(hint)}</title>")
        self.parts += [part(y) for part in lines]
        self.parts.append("</g>")


def _entries(top: float, tall: float, ends: list[float]) -> list[float]:
    """Where each line goes in, evenly down the side of the shape in the order of their heights."""
    order = sorted(range(len(ends)), key=lambda k: ends[k])
    step = (tall - 8) / max(len(ends), 1)
    return [top + 4 + step * (order.index(k) + 0.5) for k in range(len(ends))]


def names(label: Any, room: float, lines: int) -> list[str]:
    """A label's texts with bars between them, on so many lines."""
    shown = [_quoting(said) for said in label.shown]
    if label.more and shown:
        shown[-1] += " …"
    return wrapped(shown, room, NAME, lines, bold=True, joint=" |") if shown else []


def _quoting(said: str) -> str:
    """Marks alone stand in quotes, else a full stop is hardly seen."""
    return said if any(c.isalnum() or c in "⏎⇥∅·" for c in said) else f"‘{said}’"


def _thumbnail(address: str, x: float, y: float) -> str:
    place = f'x="{x:g}" y="{y:g}" width="{_THUMB}" height="{_THUMB}"'
    return f'<image href="{escape(address)}" {place}/><rect class="q" {place}/>'


def _fitting(room: float, said: str, shorter: str) -> str:
    return said if width_of(said, SMALL) <= room else shorter


def _output(sketch: Sketch, x: float, room: float) -> tuple[list[Any], float]:
    """What stands at the right, as functions of the height where it begins; and its own height."""
    lines: list[Any] = []
    y = 0.0

    def put(said: str, kind: str, step: float = 14.0) -> None:
        nonlocal y
        y += step
        lines.append(
            lambda top, y=y: text(x, top + y, fitted(said, room, NAME if kind == "l" else SMALL, kind == "l"), kind)
        )

    shown = names(sketch.label, room, 2)
    for line in shown or [sketch.name]:
        put(line, "l", 15)
    if shown:
        put(sketch.name, "s")
    if sketch.moment is not None:
        put(f"{'on' if sketch.moment.fired else 'off'}, {figure(sketch.moment.came)}", "s")
    elif sketch.share is not None:
        put(_fitting(room, f"on in {percent(sketch.share)} of rows", f"on in {percent(sketch.share)}"), "s")
    if sketch.kept is not None:
        put(_fitting(room, f"{percent(sketch.kept)} of it strong", f"{percent(sketch.kept)} strong"), "s")
    if sketch.picture:
        lines.append(lambda at, y=y: _thumbnail(sketch.picture, x, at + y + 6))
        y += 6 + _THUMB
    effect = sketch.effect
    if effect.tokens:
        classes = all(token.startswith(CLASS) for token in effect.tokens)
        put("favours class" if classes else "favours", "s", 19)
        for line in wrapped(
            [token.removeprefix(CLASS) if classes else token for token in effect.tokens],
            room,
            NAME,
            2,
            bold=True,
            joint=",",
        ):
            put(line, "l", 15)
    if effect.t is not None:
        top, share, mark = y + 7, effect.t / (FULL * effect.clear), 1 / FULL
        lines.append(lambda at, top=top: shapes.bar(x, at + top, min(room, 92), share, mark))
        y += 14
        for part in effect.verdict.split("; "):
            for line in wrapped(part.split(" "), room, SMALL, 2):
                put(line, "s", 13)
    return lines, y + 2


def _foot(sketch: Sketch, room: float) -> list[tuple[str, str]]:
    """Lines under the drawing: how often it fires where the rule says on, and off; what the drawing leaves out."""
    said = [] if sketch.moment is None else [sketch.moment.words]
    if sketch.when_on is not None and sketch.moment is None:
        off = f", {percent(sketch.when_off)} elsewhere" if sketch.when_off is not None else ""
        fires = "fires" if sketch.kept is None else "strong"
        said.append(f"{fires} in {percent(sketch.when_on)} where the rule says on{off}")
    rest = {
        "verified": "verified in the model",
        "holds": "",
        "weak": "weak evidence",
        "none": "no rule found",
    }[sketch.grade]
    more = f"{sketch.beside} more {'wire' if sketch.beside == 1 else 'wires'} not in the rule" if sketch.beside else ""
    amounts = "amounts matter" if sketch.amounts and sketch.grade != "none" else ""
    second = " · ".join(part for part in (rest, amounts, more) if part)
    lines = [line for line in (*said, second) if line]
    return [(piece, "s") for line in lines for piece in wrapped(line.split(" "), room, SMALL, 2)]


def said(sketch: Sketch) -> str:
    """The picture in words, for those who do not see it."""
    kind = {"copy": "Copy", "unknown": "Output without a rule"}.get(sketch.stages[0].shape, "")
    out = f"{sketch.name}{_quoted(sketch.label)}"
    if sketch.stages[0].shape == "unknown":
        wires = ", ".join(_named(arm) for arm in sketch.arms)
        return f"No rule was found for {out}; its strongest wires: {wires or 'none'}."
    condition = ""
    for stage in sketch.stages:
        condition = _stage_said(stage, condition)
    grade = {"verified": "Verified", "holds": "Holds on held-out rows", "weak": "Weak", "none": ""}[sketch.grade]
    amounts = " Amounts matter beside the pattern." if sketch.amounts else ""
    effect = f" It favours {', '.join(sketch.effect.tokens)}" if sketch.effect.tokens else ""
    effect += (f" ({sketch.effect.verdict})." if sketch.effect.verdict else ".") if effect else ""
    here = _here(sketch)
    return f"{f'{kind}: ' if kind else ''}{out} is on when {condition}. {grade}.{amounts}{effect}{here}"


def _here(sketch: Sketch) -> str:
    """Which inputs are on in the row that is drawn."""
    if sketch.moment is None:
        return ""
    states = [
        f"{arm.name} is {'on' if sketch.moment.inputs.get(arm.feature, (False,))[0] else 'off'}" for arm in sketch.arms
    ]
    return f" Here {', '.join(states)}; {sketch.moment.words.removeprefix('here ')}."


def _stage_said(stage: Stage, before: str) -> str:
    plain = [_named(arm) for arm in stage.arms if not arm.negated]
    off = [_named(arm) for arm in stage.arms if arm.negated]
    if stage.shape == "and_any":
        return f"({before}) and ({' or '.join(plain)} is on)"
    word = " or " if stage.shape == "or" else " and "
    if stage.shape == "k_of_n":
        core = f"at least {stage.at_least} of {', '.join(plain)} are on"
    elif plain:
        core = f"{word.join(plain)} {'is' if len(plain) == 1 or stage.shape == 'or' else 'are'} on"
    else:
        core = ""
    both = f"({before}){word}{core}" if before and core else before or core
    return f"{both}, unless {' or '.join(off)} is on" if off else both


def _named(arm: Arm) -> str:
    return f"{arm.name}{_quoted(arm.label)}"


def _quoted(label: Any) -> str:
    return f" ({' | '.join(label.shown)})" if label else ""
