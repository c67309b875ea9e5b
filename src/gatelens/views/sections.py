"""A segment's part of the page: its best gates as cards, with everything that is shown of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from markupsafe import Markup

from ..gates import Gate
from . import picture
from .cards import Card, Examples, FeatureView, body_of, card_of, order_key
from .contexts import FeatureRows
from .drawing import KIND_NAMES
from .examples import Numbers, mistakes
from .known_features import known_of, rows_of
from .logits import effects_of, readout_of
from .matrix import layer_map
from .net import net_of
from .panels import panel, strips
from .sketch import drawn_inputs, sketch_of
from .steps import trace_for
from .summary import made_of, share_read

#: card bodies that stand in a page as they are, in bytes of all segments together; the bodies of further cards are packed
STATIC = 450_000
#: card bodies in one pack
PACK = 40
#: inputs of a gate whose examples are shown
PARENTS = 6
#: circuitsvis strips in a card
PANELS = 3


@dataclass(frozen=True)
class Section:
    """One segment's part of the page.

    Attributes:
        opened: cards that are open at first.
        bodies: what is seen of each card when it is open.
        static: cards whose bodies stand in the page; those of the others are packed.
        data: element id -> properties of the token panels among the cards.
    """

    name: str
    anchor: str
    share: str
    kinds: Sequence[tuple[str, str]]
    cards: Sequence[Card]
    matrix: Markup
    bodies: Sequence[Markup] = ()
    opened: int = 0
    static: int = 0
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Maker:
    """Makes the sections of one page.

    Attributes:
        source: of examples: token windows, pictures or numbers.
        labels: (hook name, feature) -> a name for it; None names features by the texts on which they fire.
        token_panels: draw the strongest contexts with circuitsvis too.
        trace: steps of the fit, as `page` takes them.
    """

    circuit: Any
    acts: Any
    source: Numbers
    model: Any = None
    tokenizer: Any = None
    labels: Callable[[str, int], str] | None = None
    token_panels: bool = False
    trace: Any = None

    def sections(self, max_cards: int) -> list[Section]:
        """One a segment; the cards are shared out evenly, each segment's best by evidence."""
        segments = self.circuit.segments
        gates = [sorted(self.circuit.gates.get(s.name, []), key=order_key) for s in segments]
        share = -(-max_cards // max(len(segments), 1))
        return [self._section(s, i, gs, gs[:share]) for i, (s, gs) in enumerate(zip(segments, gates, strict=True))]

    def _section(self, segment: Any, number: int, gates: Sequence[Gate], shown: Sequence[Gate]) -> Section:
        rows = rows_of(self.circuit, self.acts, segment, shown)
        seen: dict[tuple[str, int], FeatureView] = {}
        basis_out = self.circuit.bases[segment.hook_out]
        effects = effects_of(
            readout_of(self.model, segment.hook_out, segment.d_out, self.tokenizer), basis_out, segment.d_out
        )
        names = self._names(segment, rows)
        known = known_of(rows, names, seen, effects.favoured if effects else None)
        data: dict[str, Any] = {}
        cards, sketches = [], []
        for gate in shown:
            card = self._card(segment, gate, f"g{number}-{gate.out}", rows, seen, names)
            sketches.append(sketch_of(gate, known))
            if self.token_panels:
                card = self._with_panels(card, data)
            logits = effects.table(gate.out) if effects else Markup("")
            cards.append(replace(card, logits=logits, picture=Markup(picture.drawn(sketches[-1]))))
        kinds = [(k, n) for k, n in KIND_NAMES.items() if any(str(g.kind) == k for g in shown)]
        targets = {c.gate.out: c.anchor for c in cards}
        drawing = Markup("")
        if segment.name in self.circuit.connectors:
            trace = trace_for(self.trace, segment.name, len(self.circuit.segments))
            outs = [g.out for g in shown] or None
            ruled = net_of([s for s in sketches if s.grade != "none"])
            drawing = layer_map(self.circuit.connectors[segment.name], outs, trace, ruled, targets)
        bodies = [body_of(c) for c in cards]
        static = fitting(bodies, STATIC // len(self.circuit.segments))
        share = " ".join(filter(None, [share_read(gates, shown), made_of(segment, self.circuit.bases)]))
        return Section(segment.name, f"s{number}", share, kinds, cards, drawing, bodies, int(number == 0), static, data)

    def _card(
        self,
        segment: Any,
        gate: Gate,
        anchor: str,
        rows: tuple[FeatureRows, FeatureRows],
        seen: dict[tuple[str, int], FeatureView],
        names: Callable[[str, int], Any] | None,
    ) -> Card:
        f_in, f_out = rows
        shown = gate.inputs[:PARENTS]
        for i in dict.fromkeys([*shown, *drawn_inputs(gate)]):
            if ("in", i) not in seen:
                seen["in", i] = self._view(f_in, segment.hook_in, i, f"IF_{i}", brief=True)
        seen["out", gate.out] = self._view(f_out, segment.hook_out, gate.out, f"OF_{gate.out}", brief=False)
        signed = zip(shown, gate.weights, strict=False)
        return card_of(
            gate,
            segment.name,
            names,
            anchor,
            output=seen["out", gate.out],
            parents=[replace(seen["in", i], sign="−" if w < 0 else "+") for i, w in signed],
            misses=mistakes(gate, f_in, f_out, self.source),
        )

    def _view(self, rows: FeatureRows, hook: str, feature: int, name: str, brief: bool) -> FeatureView:
        seen = self.source.labels
        label = self.labels(hook, feature) if self.labels else seen.full(rows, feature) if seen else ""
        link = hosted_page(self.circuit.bases[hook], feature)
        return self.source.view(rows, hook, feature, brief, name=name, label=label, link=link)

    def _names(self, segment: Any, rows: tuple[FeatureRows, FeatureRows]) -> Callable[[str, int], Any] | None:
        """What stands beside a feature in an equation: ("in" | "out", feature) -> text."""
        given, seen = self.labels, self.source.labels
        hooks, values = {"in": segment.hook_in, "out": segment.hook_out}, {"in": rows[0], "out": rows[1]}
        if given:
            return lambda side, feature: given(hooks[side], feature)
        return (lambda side, feature: seen.short(values[side], feature)) if seen else None

    def _with_panels(self, card: Card, data: dict[str, Any]) -> Card:
        top: Examples | None = card.output.groups[0] if card.output and card.output.groups else None
        windows = list(top.windows)[:PANELS] if top else []
        largest = top.largest if top else None
        names = [f"{card.anchor}-cv{k}" for k in range(len(windows))]
        for name, w in zip(names, windows, strict=True):
            data[f"{name}-data"] = panel([t.text for t in w.tokens], [t.value for t in w.tokens], largest).props
        return replace(card, panels=strips(names))


def fitting(texts: Sequence[str], most: int) -> int:
    """How many of the texts, from the first on, take no more than `most` bytes together; at least one."""
    total = 0
    for place, text in enumerate(texts):
        total += len(text.encode("utf-8", "replace"))
        if total > most and place:
            return place
    return len(texts)


def hosted_page(basis: Any, feature: int) -> str:
    """The address of a feature's page on Neuronpedia, for a published dictionary that carries its id there; else empty."""
    config = getattr(basis, "cfg", None)
    metadata = getattr(config, "metadata", None)
    known = getattr(metadata, "neuronpedia_id", None) or getattr(config, "neuronpedia_id", None)
    return f"https://www.neuronpedia.org/{known}/{feature}" if isinstance(known, str) and known else ""
