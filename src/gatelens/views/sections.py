"""A segment's part of the page: its best gates as cards, and the index of all of them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from markupsafe import Markup

from ..basis.linear import published_as
from ..gates import Gate
from . import labels
from .cards import Card, Examples, FeatureView, Parent, body_of, card_of, lead_key, order_key
from .document import fragment
from .drawing import KIND_NAMES
from .examples import Numbers, mistakes
from .index import Row, apart, row_of
from .known_features import known_of, rows_of
from .legend import marks_in
from .logits import effects_of, readout_of
from .matrix import layer_map
from .net import net_of
from .panels import panel, strips
from .sketch import Known, Sketch, drawn_inputs, sketch_of
from .steps import trace_for
from .summary import made_of, share_read

#: cards that stand in a page as they are, and bytes of their bodies, of all segments together; further ones are packed
STATIC_CARDS, STATIC = 40, 400_000
#: card bodies, or features, in one pack
PACK = 40
#: inputs of a gate whose examples are shown
PARENTS = 6
#: gates that lead the page
LEAD = 6
#: circuitsvis strips in a card
PANELS = 3
#: gates beyond those with cards whose pictures are kept
PICTURES = 2_000


@dataclass(frozen=True)
class Section:
    """One segment's part of the page.

    Attributes:
        cards: that stand in the page as they are; bodies: what is seen of each when it is open; opened: at first.
        rows: one for every gate, in order.
        packs: name -> bodies and features for the script to open. features: input feature -> its place among them.
        data: element id -> properties of the token panels among the cards.
        known: what is known of its features, for further drawings.
        marks: that occur in its pictures.
        feeds: anchor of the next segment's part, where it begins at this one's end; fed: of the one before.
    """

    name: str
    anchor: str
    share: str
    kinds: Sequence[tuple[str, str]]
    grades: Sequence[str]
    cards: Sequence[Card]
    matrix: Markup
    bodies: Sequence[Markup] = ()
    opened: int = 0
    rows: Sequence[Row] = ()
    packs: dict[str, Any] = field(default_factory=dict)
    features: dict[int, int] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    best: Sequence[Card] = ()
    known: Known = field(default_factory=Known)
    marks: frozenset[str] = frozenset()
    feeds: str = ""
    fed: str = ""

    def index(self) -> dict[str, Any]:
        """Everything that the page's script needs of this part."""
        return {
            "rows": [row.packed() for row in self.rows],
            "features": {str(i): place for i, place in self.features.items()},
            "feeds": self.feeds,
            "fed": self.fed,
        }


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
        share = -(-max_cards // max(len(segments), 1))
        starts, ends = {s.hook_in: i for i, s in enumerate(segments)}, {s.hook_out: i for i, s in enumerate(segments)}
        with uncollected():
            made = [_Part(self, segment, number).section(share) for number, segment in enumerate(segments)]
        return [
            replace(
                section,
                feeds=f"s{starts[segment.hook_out]}" if segment.hook_out in starts else "",
                fed=f"s{ends[segment.hook_in]}" if segment.hook_in in ends else "",
            )
            for section, segment in zip(made, segments, strict=True)
        ]


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the collector of cycles: what is drawn holds none, and it would walk through thousands of cards again and again."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class _Part:
    """One segment while its section is made."""

    def __init__(self, maker: Maker, segment: Any, number: int):
        self.maker, self.segment, self.number = maker, segment, number
        self.circuit = maker.circuit
        gates = self.circuit.gates.get(segment.name, [])
        self.rows = rows_of(self.circuit, maker.acts, segment, gates)
        self.basis_out = self.circuit.bases[segment.hook_out]
        readout = readout_of(maker.model, segment.hook_out, segment.d_out, maker.tokenizer)
        self.effects = effects_of(readout, self.basis_out, segment.d_out)
        self.views: dict[tuple[str, int], FeatureView] = {}
        self.named: dict[tuple[str, int], Any] = {}
        self.shares: dict[tuple[str, int], Sequence[tuple[str, float]]] = {}
        self.called = readout.name if readout else None
        favoured = self.effects.favoured if self.effects else None
        self.known = known_of(self.rows, self.name, self.views, favoured, self.called)
        marks = {g.out: self._marks(g.out) for g in gates}
        self.gates = sorted(gates, key=lambda g: order_key(g, marks[g.out]))
        self.led = sorted((g for g in self.gates if not marks[g.out]), key=lead_key)
        self.sketches: dict[int, Sketch] = {}

    def section(self, most: int) -> Section:
        """The section with so many cards."""
        segment, shown = self.segment, self.gates[:most]
        data: dict[str, Any] = {}
        for gate in [*shown, *self.led[:LEAD]]:
            self._see(gate)
        cards = [self._card(gate, data) for gate in shown]
        self.sketches |= {g.out: sketch_of(g, self.known) for g in self.gates if g.out not in self.sketches}
        shares = max(len(self.circuit.segments), 1)
        whole = [body_of(self._whole(c)) for c in cards[: -(-STATIC_CARDS // shares)]]
        static = fitting(whole, STATIC // shares)
        later = [body_of(c) for c in cards[static:]]
        pictured = [g for g in self.gates[most:] if self.sketches[g.out].grade != "none"][:PICTURES]
        later += [body_of(self._bare(g)) for g in pictured]
        anchor = f"s{self.number}"
        place = {c.gate.out: k for k, c in enumerate(cards[static:])}
        place |= {g.out: len(cards) - static + k for k, g in enumerate(pictured)}
        features = sorted({p.feature for c in cards for p in c.parents})
        drawn = {c.gate.out: c for c in cards}
        lead = [drawn.get(g.out) or self._bare(g) for g in self.led if self.sketches[g.out].grade != "none"][:LEAD]
        share = " ".join(filter(None, [share_read(self.gates, shown), made_of(segment, self.circuit.bases)]))
        return Section(
            segment.name,
            anchor,
            share,
            [(k, n) for k, n in KIND_NAMES.items() if any(str(g.kind) == k for g in self.gates)],
            [g for g in ("verified", "holds", "weak", "none") if any(s.grade == g for s in self.sketches.values())],
            cards[:static],
            self._map(shown),
            whole[:static],
            int(self.number == 0),
            [self._row(g, drawn.get(g.out), place.get(g.out, -1)) for g in self.gates],
            _packs(anchor, later) | _packs(f"{anchor}f", [self.markup("in", i) for i in features]),
            {i: k for k, i in enumerate(features)},
            data,
            lead,
            self.known,
            frozenset[str]().union(*(marks_in(self.sketches[g.out]) for g in [*shown, *pictured])),
        )

    def anchor(self, gate: Gate) -> str:
        return f"g{self.number}-{gate.out}"

    def name(self, side: str, feature: int) -> Any:
        """What a feature is called: by whoever made the page, else by the texts on which it fires."""
        key = (side, feature)
        if key not in self.named:
            given = self.maker.labels
            hook = self.segment.hook_in if side == "in" else self.segment.hook_out
            self.named[key] = (given and given(hook, feature)) or labels.short(self._shares(side, feature))
        return self.named[key]

    def _shares(self, side: str, feature: int) -> Sequence[tuple[str, float]]:
        """Texts on which a feature fires, with their shares; looked up once."""
        seen, key = self.maker.source.labels, (side, feature)
        if key not in self.shares:
            self.shares[key] = seen.shares(self.rows[0 if side == "in" else 1], feature) if seen else ()
        return self.shares[key]

    def markup(self, side: str, feature: int) -> Markup:
        """A feature's examples; made once, however many gates it feeds."""
        return self._markups.setdefault((side, feature), fragment("feature.html.j2", f=self.views[side, feature]))

    @cached_property
    def _markups(self) -> dict[tuple[str, int], Markup]:
        return {}

    def _marks(self, out: int) -> bool:
        seen = self.maker.source.labels
        return bool(seen) and seen.marks(self.rows[1], out)

    def _see(self, gate: Gate) -> None:
        """Examples of the features that a card shows."""
        for i in dict.fromkeys([*gate.inputs[:PARENTS], *drawn_inputs(gate)]):
            if ("in", i) not in self.views:
                self.views["in", i] = self._view("in", i)
        self.views["out", gate.out] = self._view("out", gate.out)

    def _view(self, side: str, feature: int) -> FeatureView:
        maker, rows = self.maker, self.rows[0 if side == "in" else 1]
        hook = self.segment.hook_in if side == "in" else self.segment.hook_out
        label = (maker.labels and maker.labels(hook, feature)) or labels.full(self._shares(side, feature))
        name = published_as(self.circuit.bases[hook])
        link = f"https://www.neuronpedia.org/{name}/{feature}" if name else ""
        name = f"{'IF' if side == 'in' else 'OF'}_{feature}"
        return maker.source.view(rows, hook, feature, side == "in", name=name, label=label, link=link)

    def _card(self, gate: Gate, data: dict[str, Any]) -> Card:
        signed = zip(gate.inputs[:PARENTS], gate.weights, strict=False)
        self.sketches[gate.out] = sketch_of(gate, self.known)
        card = replace(
            self._bare(gate),
            output=self.views["out", gate.out],
            parents=[Parent(i, "−" if w < 0 else "+") for i, w in signed],
            misses=mistakes(gate, *self.rows, self.maker.source),
            logits=self.effects.table(gate.out) if self.effects else Markup(""),
            sentence=gate.effect.sentence(self.called) if gate.effect and self.called else "",
        )
        return self._with_panels(card, data) if self.maker.token_panels else card

    def _bare(self, gate: Gate) -> Card:
        """A card without examples."""
        return card_of(gate, self.segment.name, self.name, self.anchor(gate), self.sketches[gate.out])

    def _whole(self, card: Card) -> Card:
        """A card that needs no script to show its inputs."""
        return replace(card, parents=[replace(p, markup=self.markup("in", p.feature)) for p in card.parents])

    def _row(self, gate: Gate, card: Card | None, body: int) -> Row:
        centres = card.centres if card is not None else ()
        return row_of(gate, self.sketches[gate.out], self.anchor(gate), centres, apart(gate, self.rows[0]), body)

    def _map(self, shown: Sequence[Gate]) -> Markup:
        name = self.segment.name
        if name not in self.circuit.connectors:
            return Markup("")
        trace = trace_for(self.maker.trace, name, len(self.circuit.segments))
        ruled = [self.sketches[g.out] for g in self.gates if self.sketches[g.out].grade != "none"]
        led = {g.out for g in self.led}
        net = net_of(sorted(ruled, key=lambda s: s.out not in led))
        targets = {g.out: self.anchor(g) for g in self.gates}
        return layer_map(self.circuit.connectors[name], [g.out for g in shown] or None, trace, net, targets)

    def _with_panels(self, card: Card, data: dict[str, Any]) -> Card:
        top: Examples | None = card.output.groups[0] if card.output and card.output.groups else None
        windows = list(top.windows)[:PANELS] if top else []
        largest = top.largest if top else None
        names = [f"{card.anchor}-cv{k}" for k in range(len(windows))]
        for name, w in zip(names, windows, strict=True):
            data[f"{name}-data"] = panel([t.text for t in w.tokens], [t.value for t in w.tokens], largest).props
        return replace(card, panels=strips(names))


def _packs(name: str, texts: Sequence[Markup]) -> dict[str, list[str]]:
    """Texts a pack at a time, for the script to open."""
    return {f"{name}-{n}": [str(t) for t in texts[at : at + PACK]] for n, at in enumerate(range(0, len(texts), PACK))}


def fitting(texts: Sequence[str], most: int) -> int:
    """How many of the texts, from the first on, take no more than `most` bytes together; at least one."""
    total = 0
    for place, text in enumerate(texts):
        total += len(text.encode("utf-8", "replace"))
        if total > most and place:
            return place
    return len(texts)
