"""Coverage: what share of a segment's computation its verified gates explain, beside neurons, a shuffled null, a random model.

A gate counts only when interventions in the model confirmed it. Its output is then computed by its equation from its wires;
every other output feature gets a stand-in (mean, zero, or resampled), and three things are asked: how much of the model's
metric comes back, how many of the output features' firings the verified rules say, how much output variance is explained.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..activations.collecting import collect, hook_names
from ..basis.output import decoded_output
from ..circuits import Circuit
from ..codes.csr import blocks
from ..connectors import through
from ..data import Batches
from ..errors import BasisError, DataError
from ..gates import Gate
from ..gates.grade import Grade
from ..models import device_of
from ..segments import Segment
from .figures import gap_closed
from .parts import Coded, summed
from .passes import Passes
from .recipes import PartialOutputs, check_recipe, with_wires
from .splicing import splice

_ROWS = 1_024


@dataclass(frozen=True)
class Coverage:
    """One segment, held out. Shares in [0, 1]; variance and gap can fall below 0 where the gates do harm.

    Attributes:
        outputs, verified, wires: output features; those with a verified gate; wires into those.
        looked_for: outputs that were read at all; the others explain nothing here.
        variance: share of the segment's output variance that the verified gates' equations explain beyond stand-ins for all.
        firings: share of all firings of output features that verified rules say (and the feature does fire).
        gap: share of the metric that ablating every output costs and the verified gates win back; None when it costs nothing.
        read, read_variance: outputs whose rule holds, tried in the model or not, and what those explain.
        all_variance, all_gap: the same with every output's equation, verified or not: what the wires could give.
        dictionary_variance: the same with the true features: what the dictionary could give.
    """

    outputs: int
    verified: int
    wires: int
    variance: float
    firings: float
    gap: float | None
    read: int
    read_variance: float
    all_variance: float
    all_gap: float | None
    dictionary_variance: float
    recipe: str
    looked_for: int | None = None


@dataclass(frozen=True)
class CoverageReport:
    """segment name -> coverage, of the circuit and of everything that stands beside it."""

    circuit: Mapping[str, Coverage]
    beside: Mapping[str, Mapping[str, Coverage]]
    metric: str

    @property
    def sentence(self) -> str:
        """The first thing to read: what the verified gates explain, and what neurons and a random model do."""
        which = "this MLP" if len(self.circuit) == 1 else f"these {len(self.circuit)} MLPs (mean)"
        read = sum(c.read_variance for c in self.circuit.values()) / max(len(self.circuit), 1)
        said = (
            f"Verified gates explain {_percent(_mean(self.circuit))} of the output variance of {which} "
            f"(all whose rule holds: {_percent(read)})"
        )
        some = sum(c.looked_for or c.outputs for c in self.circuit.values())
        whole = sum(c.outputs for c in self.circuit.values())
        said += f", with {some:,} of {whole:,} outputs read" if some < whole else ""
        names = {
            "neurons": "neurons at equal wires",
            "shuffled": "gates fitted to shuffled inputs",
            "random_weights": "a random model's",
        }
        rest = [f"{text} {_percent(_mean(self.beside[n]))}" for n, text in names.items() if n in self.beside]
        missing = [text for n, text in names.items() if n not in self.beside]
        unmeasured = f" (not measured: {', '.join(missing)})" if missing else ""
        return "; ".join([said, *rest]) + unmeasured + "."

    def to_dict(self) -> dict[str, Any]:
        return {
            "sentence": self.sentence,
            "segments": {name: asdict(c) for name, c in self.circuit.items()},
            "baselines": {n: {s: asdict(c) for s, c in found.items()} for n, found in self.beside.items()},
        }

    def __repr__(self) -> str:
        lines = [
            self.sentence,
            f"{'':<18} {'verified':>12} {'wires':>7} {'variance':>9} {'if read':>8} {'firings':>8} {self.metric + ' gap':>13}",
        ]
        for name in self.circuit:
            lines.append(name)
            for label, found in {"circuit": self.circuit, **self.beside}.items():
                if name in found:
                    lines.append(_line(label, found[name]))
        return "\n".join(lines)


def measure_coverage(
    model: Any,
    circuit: Circuit,
    held_out: Batches,
    beside: Mapping[str, Circuit | tuple[Any, Circuit]] | None = None,
    recipe: str = "mean",
    seed: int = 0,
    acts: Mapping[str, Tensor] | None = None,
) -> CoverageReport:
    """Coverage of a circuit, and of others beside it.

    Args:
        beside: name -> circuit of the same model, or (model, circuit); "neurons", "shuffled" and "random_weights" come into
            the sentence.
        recipe: what unexplained outputs get: "mean", "zero" or "resample" (values of other rows).
        acts: the model's held-out activations where they are at hand.

    Raises:
        BasisError: a circuit whose hook points the model does not have at that width.
        DataError: a segment without gates.
    """
    check_recipe(recipe)
    passes = Passes(model, held_out, hook_names(circuit.segments))
    others = {
        name: circuit_coverage(*other, held_out, recipe, seed)
        if isinstance(other, tuple)
        else circuit_coverage(model, other, held_out, recipe, seed, acts, passes)
        for name, other in (beside or {}).items()
    }
    return CoverageReport(
        circuit_coverage(model, circuit, held_out, recipe, seed, acts, passes), others, held_out.metric
    )


def circuit_coverage(
    model: Any,
    circuit: Circuit,
    held_out: Batches,
    recipe: str = "mean",
    seed: int = 0,
    acts: Mapping[str, Tensor] | None = None,
    passes: Passes | None = None,
) -> dict[str, Coverage]:
    """segment name -> coverage, each segment taken by itself; `passes` of the model, where others share them."""
    circuit = circuit.at(device_of(model))
    acts = collect(model, held_out, circuit.segments) if acts is None else acts
    for segment in circuit.segments:
        found = (acts[segment.hook_in].shape[1], acts[segment.hook_out].shape[1])
        if found != (segment.d_in, segment.d_out):
            raise BasisError(
                f"the circuit is of another model: its segment {segment.name} is {segment.d_in} -> {segment.d_out}, "
                f"here these hook points have widths {found[0]} and {found[1]}. Give the model that it was found in"
            )
    coded = Coded(circuit.segments, circuit.bases, acts)
    passes = passes or Passes(model, held_out, hook_names(circuit.segments))
    return {s.name: _coverage(passes, circuit, s, coded, recipe, seed) for s in circuit.segments}


def _coverage(passes: Passes, circuit: Circuit, segment: Segment, coded: Coded, recipe: str, seed: int) -> Coverage:
    gates = circuit.gates.get(segment.name, [])
    if not gates:
        raise DataError(
            f"no gates were read in segment {segment.name}: coverage is theirs. Build the circuit with gates=True"
        )
    connector, n = circuit.connectors[segment.name], coded.widths[segment.hook_out]
    verified = torch.zeros(n, dtype=torch.bool)
    verified[[g.out for g in gates if g.grade == Grade.VERIFIED]] = True
    mean = coded.mean(segment.hook_out)
    some = PartialOutputs(connector, verified, recipe, mean, seed)
    none = PartialOutputs(connector, torch.zeros_like(verified), recipe, mean, seed)

    def score(wires: Any) -> float:
        changed = with_wires(circuit, segment.name, wires)
        return passes.metric(lambda keep: splice(changed, [segment], "connectors", keep=keep))

    clean, ablated = passes.clean, score(none)
    read = torch.zeros(n, dtype=torch.bool)
    read[[g.out for g in gates if g.read]] = True
    readings = PartialOutputs(connector, read, recipe, mean, seed)

    explained = Explained.of(segment, circuit.bases[segment.hook_out], coded, (none, some, readings, connector), gates)
    held, by_some, by_readings, by_all, by_dictionary = explained.shares
    return Coverage(
        n,
        int(verified.sum()),
        int(connector.fan_in().cpu()[verified].sum()),
        by_some - held,
        explained.firings,
        gap_closed(clean, ablated, score(some) if verified.any() else ablated),
        int(read.sum()),
        by_readings - held,
        by_all,
        gap_closed(clean, ablated, score(connector)),
        by_dictionary,
        recipe,
        sum(g.looked_for for g in gates),
    )


@dataclass(frozen=True)
class Explained:
    """Sums over held-out rows.

    Attributes:
        errors: squared error of y as each of some wires says it, then as the true features do.
        variance: of y, summed. fired: firings of output features; said: those that a verified rule says.
        rows: how many.
    """

    errors: tuple[float, ...]
    variance: float
    fired: int
    said: int
    rows: int

    @classmethod
    def of(cls, segment: Segment, basis: Any, coded: Coded, wires: Sequence[Any], gates: Sequence[Gate]) -> Explained:
        """Parts of the rows by each of several processes; a bypass counts here, and in what no gate explains alike."""
        x, y = coded.rows[segment.hook_in], coded.rows[segment.hook_out]
        f_in, f_out = coded.at(segment.hook_in), coded.at(segment.hook_out)
        mean, sure = y.mean(0), [g for g in gates if g.grade == Grade.VERIFIED]

        def part(rows: slice) -> tuple[Any, ...]:
            inside, outside, own = f_in(rows), f_out(rows), y[rows]
            said = [through(w, inside, _ROWS) for w in wires] + [blocks(outside, _ROWS)]
            errors = (_error(basis, parts, x[rows], own) for parts in said)
            return *errors, float((own - mean).double().square().sum()), *firings_explained(sure, inside, outside)

        *errors, variance, explained, fired = summed(len(y), part)
        return cls(tuple(errors), variance, fired, explained, len(y))

    @property
    def shares(self) -> list[float]:
        """1 - squared error over the variance, of each."""
        if self.variance == 0:
            raise DataError(
                f"the segment's output is constant over {self.rows} held-out rows: there is no variance to explain"
            )
        return [1 - error / self.variance for error in self.errors]

    @property
    def firings(self) -> float:
        """The share of firings that verified rules say."""
        return self.said / self.fired if self.fired else 0.0


def _error(basis: Any, parts: Iterable[Tensor], x: Float[Tensor, "rows d_in"], y: Float[Tensor, "rows d"]) -> float:
    """Squared error of what features say about y; they come in parts, in the order of the rows.

    Args:
        x: the rows at the segment's input, which a bypass reads.
    """
    error, start = 0.0, 0
    with torch.no_grad():
        for part in parts:
            rows = slice(start, start + len(part))
            error += float((decoded_output(basis, part, x[rows]) - y[rows]).double().square().sum())
            start += len(part)
    return error


def firings_explained(gates: Sequence[Gate], f_in: Tensor, f_out: Tensor) -> tuple[int, int]:
    """Firings in f_out (of its own feature) on which a gate's rule says that its output fires; and all firings, of every feature."""
    explained, fired = 0, 0
    for inside, outside in zip(blocks(f_in, _ROWS), blocks(f_out, _ROWS), strict=True):
        out = outside > 0
        fired += int(out.sum())
        for gate in gates:
            explained += int((rule_says(gate, inside) & out[:, gate.out]).sum())
    return explained, fired


def rule_says(gate: Gate, f_in: Float[Tensor, "rows m"]) -> Bool[Tensor, " rows"]:
    """The rows on which the rule has its output on; none for a gate without a rule."""
    if gate.rule is None:
        return torch.zeros(len(f_in), dtype=torch.bool)
    level = torch.tensor([literal.level for literal in gate.rule.literals])
    on = f_in[:, list(gate.rule.features)].cpu() > level
    return torch.from_numpy(gate.rule.evaluate(on.numpy()))


def _mean(found: Mapping[str, Coverage]) -> float:
    return sum(c.variance for c in found.values()) / max(len(found), 1)


def _percent(share: float) -> str:
    return f"{100 * share + 0.0:.0f} %".replace("-0 %", "0 %")


def _line(label: str, c: Coverage) -> str:
    gap = "-" if c.gap is None else f"{c.gap:.3f}"
    gates, shares = f"{c.verified} of {c.outputs}", f"{c.variance:>9.3f} {c.read_variance:>8.3f} {c.firings:>8.3f}"
    return f"  {label:<16} {gates:>12} {c.wires:>7} {shares} {gap:>13}"
