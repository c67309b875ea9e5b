"""A prompt's reading as a page: the prompt as a strip of tokens, behind each token what fires there and why. No script is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ..errors.progress import bar
from .document import Html, document, fragment, visible
from .drawing import glyph, glyph_symbols
from .known_features import known
from .picture import gate

#: firings that are listed for a token; how many of these have their gate drawn; local readings on a page, those of the largest
#: effects of the whole prompt
LISTED, DRAWN, LOCAL = 8, 3, 12
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


def prompt_page(reading: Any, local: int = LOCAL, title: str | None = None) -> Html:
    """A page of one prompt: click a token to see what fires on it, a firing to see why.

    Args:
        reading: a `PromptReading`.
        local: how many firings, those of the largest effect, are explained by a local reading.
    """
    strongest = reading.firings(most=local)
    why = {(f.layer.segment.name, f.position, f.out): f.why() for f in bar(strongest, "local readings")}
    title = title or "What fires on this prompt"
    body = fragment("prompt.html.j2", title=title, symbols=glyph_symbols(), **_values(reading, why, LISTED, "at-"))
    return document(title, body)


def prompt_fragment(reading: Any) -> Markup:
    """The same without local readings and links, for a notebook."""
    return fragment("prompt_body.html.j2", **_values(reading, {}, NOTEBOOK, ""))


def _values(reading: Any, why: Mapping[Any, Any], listed: int, anchor: str) -> dict[str, Any]:
    places = [_place(reading, position, listed) for position in range(len(reading))]
    top = max((p.strength for p in places), default=0.0) or 1.0
    drawn = _pictures(reading, places) if anchor else {}
    return {
        "reading": reading,
        "places": places,
        "why": why,
        "drawn": drawn,
        "top": top,
        "anchor": anchor,
        "kind_of": _kind,
    }


def _pictures(reading: Any, places: Sequence[Place]) -> dict[Any, str]:
    """The gates behind the strongest firings of each token, those that have a rule, as pictures."""
    seen: dict[str, Any] = {}
    found = {}
    for firing in (f for place in places for f in place.firings[:DRAWN] if f.said is not None):
        name = firing.layer.segment.name
        acts = reading.ordinary.acts
        if name not in seen:
            seen[name] = None if acts is None else known(reading.circuit, acts, segment=name, model=reading.model)
        found[name, firing.position, firing.out] = Markup(gate(firing.gate, seen[name]).svg)
    return found


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
