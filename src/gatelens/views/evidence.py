"""What is measured of a gate, as a card lists it: each figure beside its control."""

from __future__ import annotations

from collections.abc import Iterator

from ..gates import Gate
from ..gates.tried import Tried
from .document import figure, percent

#: name of a fact, its figure, what it means
Fact = tuple[str, str, str]

#: the four rates by the names that a card gives them
_RATES = {
    "on_on": ("stays on", "its literals set so that the rule stays open, the output stays on"),
    "off_off": ("stays off", "its literals set so that the rule stays closed, the output stays off"),
    "on_off": ("switches off", "its literals set so that the rule closes, the output goes off"),
    "off_on": ("switches on", "its literals set so that the rule opens, the output comes on"),
}
#: controls beside the MCC, by their name in `Controls`
_CONTROLS = {
    "shuffled": ("shuffled rows", "MCC of the best rule over the same candidates on shuffled rows: another null"),
    "single": ("one literal", "MCC of the best single literal"),
    "token": ("token table", "MCC of a table of the current token: what a reader of tokens alone would know"),
    "token_pair": ("two-token table", "MCC of a table of the current and the previous token"),
    "label": ("class table", "MCC of a table of the picture's class"),
    "ceiling": (
        "ceiling",
        "MCC of the exact MLP on the decoded code: no rule over these features can be expected to do better",
    ),
}


def evidence(gate: Gate) -> list[Fact]:
    """(name, figure, what it means) of everything measured on held-out rows."""
    return [*_natural(gate), *_controls(gate), *(_tried(gate.tried) if gate.tried is not None else ())]


def _natural(gate: Gate) -> Iterator[Fact]:
    yield "MCC", figure(gate.mcc), "Matthews correlation of the rule with the output's firing: 1 perfect, 0 chance"
    yield (
        "random parents",
        figure(gate.control_mcc),
        "the same for the best rule over random parents of like firing counts: the null",
    )
    yield (
        "precision",
        percent(gate.precision),
        "of the rows where the rule says on, the share on which the output fired",
    )
    yield "recall", percent(gate.recall), "of the rows on which the output fired, the share that the rule catches"
    yield "base rate", percent(gate.base_rate), "the share of held-out rows on which the output fired"
    yield (
        "fired on",
        f"{gate.firings:,} {'row' if gate.firings == 1 else 'rows'}",
        "of a handful of rows every figure here is uncertain",
    )
    yield "R²", figure(gate.r2), "of the equation's value for this output, over all held-out rows"


def _controls(gate: Gate) -> Iterator[Fact]:
    known = {} if gate.controls is None else vars(gate.controls)
    for name, (words, meaning) in _CONTROLS.items():
        if known.get(name) is not None:
            yield words, figure(known[name]), meaning


def _tried(tried: Tried) -> Iterator[Fact]:
    """The four rates in the model, each beside the same done to unrelated features; then interchange and the rule as a label."""
    for name, (words, meaning) in _RATES.items():
        if tried.rates.get(name) is not None:
            yield (
                words,
                _beside(tried.rates[name], tried.control.get(name)),
                f"{meaning}; in brackets by unrelated features",
            )
    if tried.interchange is not None:
        meaning = "with its literals' part of another row swapped in, the output becomes what the rule says of that row; in brackets"
        yield "interchange", _beside(tried.interchange, tried.placebo), f"{meaning} with random features swapped"
    if tried.detection is not None:
        meaning = (
            "balanced accuracy of the rule as a label of the output's firing; in brackets of the output's top tokens"
        )
        yield "as a label", _beside(tried.detection, tried.detection_tokens), meaning


def _beside(value: float | None, control: float | None) -> str:
    return percent(value) if control is None else f"{percent(value)} ({percent(control)})"
