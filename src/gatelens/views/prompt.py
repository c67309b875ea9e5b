"""A prompt's reading as a page or a part of one: the prompt as a strip of tokens, behind each token its gates as pictures, behind
each gate the model's own local table. Everything is in the file: no script is needed to read it, and none asks a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ..errors import DataError
from ..errors.progress import bar
from ..prompts.literals import rule_of
from ..prompts.prompt import Prompt, prompt_of
from ..prompts.reading import PromptReading, read_prompt
from .document import Html, document, fragment, visible
from .drawing import glyph, glyph_symbols
from .glossary import words
from .known_features import known
from .legend import listed, marks_in
from .panels import bundle, panel
from .picture import drawn, on_row
from .sketch import Known, Moment, Sketch

#: firings that are listed for a token; how many of these have their gate drawn; local readings of a prompt, those of its largest
#: effects
LISTED, DRAWN, LOCAL = 8, 3, 40
#: firings of a token in a notebook
NOTEBOOK = 4


@dataclass(frozen=True)
class Place:
    """One token, and what fires on it."""

    position: int
    text: str
    following: str
    chance: float
    strength: float
    firings: Sequence[Any]
    more: int


@dataclass(frozen=True)
class Part:
    """One prompt's part of a page.

    Attributes:
        title: the prompt itself; body: its markup; strip: what circuitsvis is given for its tokens; marks: in its pictures.
    """

    title: str
    body: Markup
    strip: dict[str, Any]
    marks: frozenset[str]


def prompt_page(reading: PromptReading, local: int = LOCAL, title: str | None = None) -> Html:
    """A page of one prompt: click a token to see what fires on it, a gate to see why.

    Args:
        reading: a `PromptReading`.
        local: how many firings, those of the largest effect, are explained by a local reading.
    """
    found = part(reading, names_of(reading), "", local)
    title = title or "What fires on this prompt"
    symbols, key = glyph_symbols(), listed(found.marks)
    body = fragment("prompt.html.j2", title=title, symbols=symbols, part=found, prompt_legend=key, glossary=words())
    return document(title, body, {"at-strip": found.strip}, [bundle()])


def readable(model: Any, prompts: Sequence[Any]) -> list[Prompt]:
    """Prompts as the model reads them, before anything is drawn.

    Raises:
        DataError: one that the model cannot read, or no model.
    """
    if prompts and model is None:
        raise DataError("prompts are read by the model: give the page its `model`, or no prompts")
    return [prompt_of(model, prompt) for prompt in prompts]


def prompt_parts(
    circuit: Any, model: Any, prompts: Sequence[Prompt], acts: Any, names: Mapping[str, Known]
) -> list[Part]:
    """Prompts as parts of the circuit's page; `names`: segment name -> what is known of its features."""
    readings = [read_prompt(circuit, model, prompt, acts) for prompt in prompts]
    return [part(reading, names, f"p{number}-", LOCAL) for number, reading in enumerate(readings)]


def part(reading: Any, names: Mapping[str, Known], prefix: str, local: int) -> Part:
    """One prompt with its local readings.

    Args:
        names: segment name -> what is known of its features. prefix: put before the ids of this part's elements.
    """
    strongest = reading.firings(most=local)
    why = {(f.layer.segment.name, f.position, f.out): f.why() for f in bar(strongest, "local readings")}
    values = _values(reading, why, LISTED, f"{prefix}at-", names)
    tokens = [place.text for place in values["places"]]
    strip = panel(tokens, [place.strength for place in values["places"]], values["top"]).props
    title = ", ".join(reading.prompt.texts) if reading.prompt.images else "".join(_counted(reading))
    return Part(title.strip(), fragment("prompt_body.html.j2", **values), strip, values["marks"])


def _counted(reading: Any) -> list[str]:
    """The prompt's own tokens, without a BOS."""
    return [t for t, kept in zip(reading.prompt.texts, reading.prompt.keep, strict=True) if kept]


def prompt_fragment(reading: Any) -> Markup:
    """The same without local readings and links, for a notebook."""
    return fragment("prompt_body.html.j2", **_values(reading, {}, NOTEBOOK, "", names_of(reading)))


def names_of(reading: Any) -> dict[str, Known]:
    """What is known of the features of each segment, where the reading has rows at hand."""
    acts, circuit = reading.ordinary.acts, reading.circuit
    if acts is None:
        return {}
    return {s.name: known(circuit, acts, segment=s.name, model=reading.model) for s in circuit.segments}


def _values(
    reading: Any, why: Mapping[Any, Any], listed: int, anchor: str, names: Mapping[str, Known]
) -> dict[str, Any]:
    places = [_place(reading, position, listed) for position in range(len(reading))]
    top = max((p.strength for p in places), default=0.0) or 1.0
    sketches = _sketches(places, names) if anchor else {}
    return {
        "reading": reading,
        "places": places,
        "why": why,
        "drawn": {key: Markup(drawn(sketch)) for key, sketch in sketches.items()},
        "marks": frozenset[str]().union(*map(marks_in, sketches.values())),
        "top": top,
        "anchor": anchor,
        "kind_of": _kind,
    }


def _sketches(places: Sequence[Place], names: Mapping[str, Known]) -> dict[Any, Sketch]:
    """The gates behind the strongest firings of each token, those that have a rule, as they are on that token."""
    found = {}
    for place in places:
        for firing in [f for f in place.firings if f.said is not None][:DRAWN]:
            name = firing.layer.segment.name
            found[name, firing.position, firing.out] = on_row(firing.gate, names.get(name), _moment(firing))
    return found


def _moment(firing: Any) -> Moment:
    """What the firing's gate does there."""
    rule = rule_of(firing.gate)
    features = rule.features if rule is not None else ()
    inputs = {i: (on, value) for i, (_, on, value) in zip(features, firing.literals, strict=True)}
    return Moment(inputs, bool(firing.said), firing.came, firing.on)


def _place(reading: Any, position: int, listed: int) -> Place:
    firings = reading.firings(position)
    chances = reading.logits[position].softmax(-1)
    target = int(reading.targets[position])
    counted = reading.prompt.keep[position]
    sizes = [abs(f.came if f.effect is None else f.effect) for f in firings] if counted else []
    return Place(
        position,
        visible(reading.prompt.texts[position], spaces=True),
        visible(reading.text_of(target), spaces=True),
        float(chances[target]),
        max(sizes, default=0.0),
        firings[:listed],
        max(0, len(firings) - listed),
    )


def _kind(firing: Any) -> Markup:
    """The glyph of a firing's gate; of a gate that was not read where there is none."""
    return glyph("not_read" if firing.gate is None else str(firing.gate.kind), whole=True)
