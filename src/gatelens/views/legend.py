"""The legend of pictures: what each mark in them means, of those that occur; drawn with the very same strokes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from html import escape

from markupsafe import Markup

from . import shapes
from .lettering import text, wrapped
from .sketch import Sketch

#: the box of a mark, and the width of a legend that is drawn
_WIDE, _HIGH, WIDE = 48, 24, 400
_LINE, _SIZE = 15, 12


def marks_in(sketch: Sketch) -> frozenset[str]:
    """The marks that occur in the drawing of a gate."""
    arms, moment = sketch.arms, sketch.moment
    rated = [arm for arm in arms if arm.rate is not None and moment is None]
    shown = {
        **_common(sketch),
        "cut": any(arm.level for arm in arms),
        "k_of_n": any(stage.shape == "k_of_n" for stage in sketch.stages),
        "and_any": any(stage.shape == "and_any" for stage in sketch.stages),
        "copy": any(stage.shape == "copy" for stage in sketch.stages),
        "hatched": sketch.hatched,
        "alone": any(not arm.negated for arm in rated),
        "despite": any(arm.negated for arm in rated),
        "strong": sketch.kept is not None,
        "favours": bool(sketch.effect.tokens),
        "agreement": sketch.effect.t is not None,
        "null": sketch.effect.t is not None and sketch.effect.null is not None,
        "pixels": any(arm.picture for arm in arms) or bool(sketch.picture),
        "lamp": moment is not None and bool(arms),
    }
    return frozenset(mark for mark, occurs in shown.items() if occurs)


def marks_in_net(gates: Collection[Sketch], shape: Callable[[Sketch], str]) -> frozenset[str]:
    """The marks that occur where many gates are drawn in small. `shape`: which one stands for a gate."""
    found = {mark for gate in gates for mark, occurs in _common(gate).items() if occurs}
    return frozenset(found | {shape(gate) for gate in gates} & {"k_of_n", "copy"})


def _common(sketch: Sketch) -> dict[str, bool]:
    return {
        "adds": any(not arm.negative for arm in sketch.arms),
        "takes": any(arm.negative for arm in sketch.arms),
        "ring": any(arm.negated for arm in sketch.arms),
        sketch.grade: True,
    }


def _shape(shape: str, grade: str, amounts: bool = False, lettered: bool = False) -> str:
    return shapes.drawn(shape, grade, 2, (10, 3, 28, 18), amounts, lettered)


def _wire(negative: bool) -> str:
    return shapes.wire(f"M2 12H{_WIDE - 2}", 4.5, negative)


def _said(words: str) -> str:
    return text(_WIDE / 2, 16, words, "s", "middle")


#: mark -> what it looks like in its box, and what it means; in the order in which they are told
MARKS: dict[str, tuple[str, str]] = {
    "adds": (_wire(False), "adds to the output; width: its weight times the input's typical value"),
    "takes": (_wire(True), "dashed: takes away"),
    "cut": (
        f'<path class="w" stroke-width="1" d="M2 12H16"/>{shapes.cut(16, 12)}{shapes.wire("M16 12H46", 4.5, False)}',
        "level: the input is on above it (nothing at the left, its largest value at the right); no mark: above zero",
    ),
    "ring": (f'<path class="w" stroke-width="2" d="M6 12H22"/>{shapes.ring(30, 12)}', "NOT: this input must be off"),
    "copy": (_shape("copy", "holds"), "one input decides alone"),
    "k_of_n": (_shape("k_of_n", "holds", lettered=True), "on when at least so many inputs are on"),
    "and_any": (
        _shape("and_any", "holds", lettered=True),
        "on when what comes from before it is on, and one of its inputs",
    ),
    "verified": (
        _shape("and", "verified"),
        "double outline: verified, the model did what the rule says when its inputs were set",
    ),
    "holds": (_shape("and", "holds"), "holds on held-out rows, clearly better than nulls; not confirmed in the model"),
    "weak": (_shape("and", "weak"), "broken outline: weak, held-out rows hardly bear it out"),
    "none": (_shape("unknown", "none", lettered=True), "no rule was found; its strongest wires"),
    "hatched": (_shape("or", "holds", True), "hatched: how much the inputs are on decides more than which are"),
    "alone": (_said("alone"), "how often it fires when this input of the rule is on and no other"),
    "despite": (_said("despite"), "how often it fires although this input, which should stop it, is on"),
    "strong": (
        _said("strong"),
        "the output above a level of its own, which is what the rule tells; on: anything above zero",
    ),
    "pixels": (
        '<path class="w" stroke-width="5" d="M14 5h5M24 10h10M14 15h5"/><path class="w m" stroke-width="5" d="M19 5h5M14 10h5M24 20h5"/>'
        '<rect class="q" x="14" y="2" width="20" height="20"/>',
        "pixels that raise the feature blue, that lower it orange with dots; in grey: the mean of its strongest pictures",
    ),
    "favours": (_said("favours"), "the tokens or classes that the output raises most"),
    "agreement": (
        shapes.bar(2, 10, _WIDE - 4, 0.6, 1 / 3),
        "whether they really come next where it is on: t over documents; clear beyond the mark, at its null or at 4",
    ),
    "null": (_said("null"), "the t that other outputs' favours reach on the same rows, 1 in 20 exceeds it"),
    "lamp": (
        f"{shapes.lamp(8, 12, True)}{shapes.lamp(22, 12, False)}{shapes.wire('M27 12H46', 3, False, faint=True)}",
        "filled: the input is on here; empty and faint: it is off",
    ),
}


def listed(marks: Collection[str]) -> Markup:
    """The legend of these marks for a page, where it is folded as its reader likes it."""
    if not marks:
        return Markup("")
    items = "".join(
        f'<li><svg class="gp" viewBox="0 0 {_WIDE} {_HIGH}" aria-hidden="true">{drawn}</svg><span>{escape(says)}</span></li>'
        for mark, (drawn, says) in MARKS.items()
        if mark in marks
    )
    return Markup(
        f'<details class="how" open><summary>How to read these pictures</summary><ul class="legend">{items}</ul></details>'
    )


def drawn(marks: Collection[str]) -> str:
    """The same as one `<svg>` element, for a notebook."""
    parts, y, words = [], 0, []
    for mark in [mark for mark in MARKS if mark in marks]:
        swatch, says = MARKS[mark]
        lines = wrapped(says.split(" "), WIDE - _WIDE - 14, _SIZE, 3)
        parts.append(f'<g transform="translate(2 {y})">{swatch}</g>')
        parts += [text(_WIDE + 10, y + 16 + _LINE * k, line, "s") for k, line in enumerate(lines)]
        y += max(_HIGH, _LINE * len(lines) + 9)
        words.append(says)
    said = escape("How to read it: " + "; ".join(words))
    return f'<svg class="gp" viewBox="0 0 {WIDE} {y}" role="img" aria-label="{said}">{"".join(parts)}</svg>'
