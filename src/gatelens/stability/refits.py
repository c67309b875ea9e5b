"""Find a circuit again under changes, and say how much of it came back: features, wires, gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..activations.collecting import Activations, collect
from ..basis.linear import Basis, basis_width, directions
from ..circuits import Circuit, features_at
from ..data import Batches
from ..errors import BasisError
from .agreement import Agreement, gate_agreement, wire_jaccard
from .conditions import Condition
from .matching import Matching, match_activations, match_directions, mean_max_cosine

#: said where the column of verified gates is empty
NOTHING_VERIFIED = "No gate of the first reading was verified by intervention, so there is none to find again."


@runtime_checkable
class Refit(Protocol):
    """Finds a circuit with its gates; with `bases`, in those coordinates."""

    def __call__(self, model: Any, fit: Batches, seed: int, bases: Mapping[str, Basis] | None) -> Circuit: ...


@dataclass(frozen=True)
class StabilityRow:
    """One change and one segment: how much of the first reading came back. The level of chance is beside each figure.

    Attributes:
        matched_in, matched_out: mean similarity of matched features; random_in, random_out: of a random counterpart.
        mmcs, random_mmcs: mean max cosine of the output's directions; None where features are matched by activations.
        wires, random_wires: Jaccard index of the wires.
        gates, verified: agreement of all read gates, and of those that interventions confirmed.
        out: the matching of the output features, with its matrix; None where they are the same or too many for a picture.
    """

    change: str
    segment: str
    by: str
    matched_in: float
    random_in: float
    matched_out: float
    random_out: float
    mmcs: float | None
    random_mmcs: float | None
    wires: float
    random_wires: float
    gates: Agreement
    verified: Agreement
    control: bool = False
    note: str = ""
    out: Matching | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The figures, without the matching itself."""
        return {name: value for name, value in asdict(replace(self, out=None)).items() if name != "out"}


@dataclass(frozen=True)
class Stability:
    """All rows, printed as a table."""

    rows: tuple[StabilityRow, ...]
    seed: int = 0

    def row(self, change: str, segment: str | None = None) -> StabilityRow:
        """The row of a change (and a segment; the first one without)."""
        return next(r for r in self.rows if r.change == change and segment in (None, r.segment))

    def to_dict(self) -> dict[str, Any]:
        return {"seed": self.seed, "rows": [row.to_dict() for row in self.rows]}

    def __repr__(self) -> str:
        head = f"{'change':<28} {'in':>11} {'out':>11} {'wires':>11} {'gates':>11} {'verified':>11}   (chance)"
        lines = []
        for segment in dict.fromkeys(r.segment for r in self.rows):
            lines += [segment, head]
            rows = [row for row in self.rows if row.segment == segment]
            lines += [*map(_line, rows), *([NOTHING_VERIFIED] if not any(row.verified.gates for row in rows) else [])]
        return "\n".join(lines)


def stability(
    model: Any, refit: Refit, fit: Batches, held_out: Batches, conditions: Sequence[Condition], seed: int = 0
) -> Stability:
    """Find the circuit on `fit`, then again under each condition, and compare on the rows of `held_out`.

    Args:
        refit: finds a circuit for (model, fitting data, seed, bases or None).
        fit, conditions: as `standard_conditions` gives them.
    """
    first = refit(model, fit, seed, None)
    acts = collect(model, held_out, first.segments)
    rows: list[StabilityRow] = []
    for condition in conditions:
        bases = first.bases if condition.keep_bases else None
        second = refit(condition.model, condition.fit, condition.seed, bases)
        theirs = acts if condition.model is model else collect(condition.model, held_out, second.segments)
        rows += compare_circuits(first, second, acts, theirs, condition)
    return Stability(tuple(rows), seed)


def compare_circuits(
    first: Circuit, second: Circuit, acts: Activations, theirs: Activations, condition: Condition
) -> list[StabilityRow]:
    """One row a segment.

    Raises:
        BasisError: circuits of other segments, or of models whose hook points have other widths.
    """
    names = [s.name for s in first.segments]
    if names != [s.name for s in second.segments]:
        raise BasisError(
            f"two circuits of different models cannot be compared: the first has segments {', '.join(names)}, the second "
            f"{', '.join(s.name for s in second.segments)}. Compare circuits of the same hook points"
        )
    matchings = _matchings(first, second, acts, theirs, condition)
    return [_row(first, second, s, matchings, condition) for s in first.segments]


def _matchings(
    first: Circuit, second: Circuit, acts: Activations, theirs: Activations, condition: Condition
) -> dict[str, Matching]:
    if condition.keep_bases:
        widths = {h: basis_width(first.bases[h], _width(first, h)) for h in first.bases}
        return {h: _identity(n) for h, n in widths.items()}
    if condition.same_coordinates:
        return {h: match_directions(_directions(first, h), _directions(second, h)) for h in first.bases}
    ours = features_at(first.segments, first.bases, acts)
    other = features_at(second.segments, second.bases, theirs)
    return {h: match_activations(_dense(ours[h]), _dense(other[h])) for h in first.bases}


def _row(
    first: Circuit, second: Circuit, segment: Any, matchings: Mapping[str, Matching], condition: Condition
) -> StabilityRow:
    inputs, outputs = matchings[segment.hook_in], matchings[segment.hook_out]
    wires = wire_jaccard(first.connectors[segment.name], second.connectors[segment.name], inputs, outputs)
    ours, theirs = first.gates.get(segment.name, []), second.gates.get(segment.name, [])
    mmcs: tuple[float | None, float | None] = (None, None)
    if condition.same_coordinates:
        mmcs = mean_max_cosine(_directions(first, segment.hook_out), _directions(second, segment.hook_out))
    return StabilityRow(
        condition.name,
        segment.name,
        inputs.by,
        inputs.mean,
        inputs.random,
        outputs.mean,
        outputs.random,
        *mmcs,
        *wires,
        gate_agreement(ours, theirs, inputs, outputs),
        gate_agreement(ours, theirs, inputs, outputs, verified=True),
        condition.control,
        condition.note,
        outputs if outputs.matrix is not None else None,
    )


def _directions(circuit: Circuit, hook: str) -> Tensor:
    width = _width(circuit, hook)
    return directions(circuit.bases[hook], basis_width(circuit.bases[hook], width))


def _width(circuit: Circuit, hook: str) -> int:
    return next(s.d_in if s.hook_in == hook else s.d_out for s in circuit.segments if hook in (s.hook_in, s.hook_out))


def _identity(n: int) -> Matching:
    every = torch.arange(n)
    return Matching(every, every, torch.ones(n), float("nan"), "the same bases", torch.ones(n))


def _dense(f: Tensor) -> Tensor:
    return f.to_dense() if f.layout == torch.sparse_csr else f


def _line(row: StabilityRow) -> str:
    def show(value: float | None) -> str:
        return "-" if value is None or value != value else f"{value:.2f}"

    figures = (
        (row.matched_in, row.random_in),
        (row.matched_out, row.random_out),
        (row.wires, row.random_wires),
        (row.gates.whole, row.gates.random_whole),
        (row.verified.whole, row.verified.random_whole),
    )
    name = row.change + (" [control]" if row.control else "")
    return (
        f"{name:<28} "
        + " ".join(f"{f'{show(value)} ({show(chance)})':>11}" for value, chance in figures)
        + f"   {row.note}"
    )
