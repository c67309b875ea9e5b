"""compare: two circuits side by side; which wires stayed, went, came or changed weight, which gates changed kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import __version__
from ..basis.linear import directions
from ..circuits import Circuit
from ..errors import BasisError, ConfigError, GateLensError
from ..stability import Matching, gate_agreement, match_directions, wire_jaccard
from .document import Html, count, document, figure, fragment, percent, visible
from .drawing import KIND_NAMES, glyph_symbols
from .wires import Wires

#: pairs of features less alike than this are not taken for the same feature
ALIKE = 0.7
#: a weight that changed by more than this share of the larger one is reweighted
CHANGED = 0.25
#: rows of changed outputs that are listed for a segment
LISTED = 200


@dataclass(frozen=True)
class Wire:
    """A wire in one circuit or both, by the first one's names where there are any."""

    into: str
    fate: str
    before: float | None
    after: float | None


@dataclass(frozen=True)
class Pair:
    """One output feature and its counterpart."""

    first: int
    second: int
    likeness: float
    kinds: tuple[str, str]
    wires: Sequence[Wire]

    @property
    def changed_kind(self) -> bool:
        return self.kinds[0] != self.kinds[1]

    def number(self, fate: str) -> int:
        return sum(e.fate == fate for e in self.wires)


FATES = ("kept", "reweighted", "lost", "new")


def compare(first: Circuit, second: Circuit, names: Sequence[str] = ("first", "second"), alike: float = ALIKE) -> Html:
    """A page of what two circuits share: of two seeds, trainings, dictionaries or layers.

    Features are matched one to one by the cosine of their directions, without order or sign; pairs below `alike` count as different
    features. Segments are taken in order.

    Raises:
        GateLensError: another number of segments. ConfigError: not two names.
    """
    if len(names) != 2:
        raise ConfigError(f"compare: `names` are those of the two circuits, got {len(names)}")
    if len(first.segments) != len(second.segments):
        raise GateLensError(
            f"circuits to compare must have as many segments as each other; {names[0]} has {len(first.segments)} and "
            f"{names[1]} {len(second.segments)}. Compare runs over the same layers"
        )
    parts = [_segment(first, second, a, b, alike) for a, b in zip(first.segments, second.segments, strict=True)]
    body = fragment(
        "compare.html.j2",
        symbols=glyph_symbols(),
        names=[visible(n) for n in names],
        parts=parts,
        kinds=KIND_NAMES,
        alike=alike,
        changed=CHANGED,
        fates=FATES,
        version=__version__,
    )
    return document(f"{names[0]} and {names[1]}", body)


def _segment(first: Any, second: Any, a: Any, b: Any, alike: float) -> dict[str, Any]:
    name = a.name if a.name == b.name else f"{a.name} and {b.name}"
    if a.name not in first.connectors or b.name not in second.connectors:
        return {"name": name, "why": "One of the two circuits has no connector here."}
    try:
        inputs = _match(first, second, a.hook_in, b.hook_in, a.d_in, b.d_in)
        outputs = _match(first, second, a.hook_out, b.hook_out, a.d_out, b.d_out)
    except BasisError as error:
        return {"name": name, "why": f"Not comparable: {error}."}
    ours, theirs = first.connectors[a.name], second.connectors[b.name]
    gates = first.gates.get(a.name, []), second.gates.get(b.name, [])
    pairs = pair_up(Wires.of(ours), Wires.of(theirs), inputs, outputs, gates, alike)
    totals = {fate: sum(p.number(fate) for p in pairs) for fate in FATES}
    jaccard, null = wire_jaccard(ours, theirs, inputs, outputs)
    changed = sorted((p for p in pairs if p.changed_kind or p.number("kept") < len(p.wires)), key=_by_change)
    return {
        "name": name,
        "why": "",
        "sentence": _sentence(pairs, totals, inputs, outputs, alike),
        "rows": [
            (
                "outputs alike",
                f"{figure(outputs.mean)} mean cosine",
                f"{figure(outputs.random)} for a random counterpart",
            ),
            ("inputs alike", f"{figure(inputs.mean)} mean cosine", f"{figure(inputs.random)} for a random counterpart"),
            ("wires shared (Jaccard)", figure(jaccard), f"{figure(null)} with inputs matched at random"),
            *_gate_rows(gates, inputs, outputs),
        ],
        "totals": totals,
        "pairs": changed[:LISTED],
        "left_out": max(len(changed) - LISTED, 0),
    }


def _gate_rows(gates: tuple[Any, Any], inputs: Matching, outputs: Matching) -> list[tuple[str, str, str]]:
    if not (gates[0] and gates[1]):
        return []
    agreement = gate_agreement(*gates, inputs, outputs)
    if not agreement.gates:
        return [("gates to compare", "none", "no gate that was read has a counterpart")]
    return [
        (
            "gates of the same kind",
            f"{percent(agreement.kind)} of {agreement.gates}",
            f"{percent(agreement.random_kind)} for random counterparts",
        )
    ]


def _match(first: Any, second: Any, hook_a: str, hook_b: str, d_a: int, d_b: int) -> Matching:
    return match_directions(directions(first.bases[hook_a], d_a).float(), directions(second.bases[hook_b], d_b).float())


def pair_up(
    ours: Wires,
    theirs: Wires,
    inputs: Matching,
    outputs: Matching,
    gates: tuple[Sequence[Any], Sequence[Any]],
    alike: float,
) -> list[Pair]:
    """Each output with a counterpart, and the fate of each of its wires."""
    table_in = _sure(inputs, alike)
    kinds = tuple({g.out: str(g.kind) for g in part} for part in gates)
    before, after = _rows(ours), _rows(theirs)
    pairs = []
    for o, p in _sure(outputs, alike).items():
        wires = _wires(before.get(o, {}), after.get(p, {}), table_in)
        if wires:
            likeness = float(outputs.similarity[(outputs.first == o).nonzero()[0, 0]])
            pairs.append(Pair(o, p, likeness, (kinds[0].get(o, "not_read"), kinds[1].get(p, "not_read")), wires))
    return pairs


def _sure(matching: Matching, alike: float) -> dict[int, int]:
    keep = matching.similarity >= alike
    return dict(zip(matching.first[keep].tolist(), matching.second[keep].tolist(), strict=True))


def _rows(wires: Wires) -> dict[int, dict[int, float]]:
    rows: dict[int, dict[int, float]] = {}
    for o, i, w in zip(wires.out.tolist(), wires.into.tolist(), wires.weight.tolist(), strict=True):
        rows.setdefault(o, {})[i] = w
    return rows


def _wires(before: Mapping[int, float], after: Mapping[int, float], table: Mapping[int, int]) -> list[Wire]:
    found = []
    met = set()
    for i, w in before.items():
        j = table.get(i)
        if j is None or j not in after:
            found.append(Wire(f"IF_{i}", "lost", w, None))
            continue
        met.add(j)
        v = after[j]
        same = w * v > 0 and abs(w - v) <= CHANGED * max(abs(w), abs(v))
        found.append(Wire(f"IF_{i}" if i == j else f"IF_{i} → IF_{j}", "kept" if same else "reweighted", w, v))
    found += [Wire(f"IF_{j}", "new", None, v) for j, v in after.items() if j not in met]
    return found


def _by_change(pair: Pair) -> tuple:
    return (not pair.changed_kind, -(len(pair.wires) - pair.number("kept")), pair.first)


def _sentence(
    pairs: Sequence[Pair], totals: Mapping[str, int], inputs: Matching, outputs: Matching, alike: float
) -> str:
    both = sum(totals[f] for f in ("kept", "reweighted", "lost"))
    changed = sum(p.changed_kind for p in pairs)
    sure = int((outputs.similarity >= alike).sum())
    return (
        f"{sure} of {count(len(outputs.first), 'output feature')} have a counterpart with a cosine of at least {alike:g}. "
        f"Of the {count(both, 'wire')} into them, {totals['kept']} were kept, {totals['reweighted']} changed weight "
        f"and {totals['lost']} were lost; {totals['new']} are new. "
        f"{count(changed, 'gate')} changed kind."
    )
