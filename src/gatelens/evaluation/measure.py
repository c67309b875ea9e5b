"""evaluate: put the circuit's parts into the model on held-out data, and write down what happens."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from ..activations.collecting import check_made_by, collect, hook_names
from ..basis.linear import basis_kind, basis_width
from ..basis.output import at_output
from ..circuits import Circuit
from ..data import Batches
from ..data.given import as_batches
from ..errors.progress import bar
from ..gates.grade import Grade
from ..models import check_model, device_of, why_no_logits
from ..segments import Segment
from .figures import connector_figures, dictionary_figures, gap_closed
from .parts import Coded
from .passes import Passes, Tally
from .removed_gates import removed_gates
from .report import Report
from .rule_counts import gate_summary
from .splicing import splice

#: held-out tokens on which cross-entropies are measured: each costs a pass through the whole model. Everything else uses all rows
TOKENS = 4_096
#: what a report names, None where it was not asked for
BASELINES = ("neurons", "virtual_weights", "shuffled", "random_weights")


def evaluate(
    model: Any,
    circuit: Circuit,
    held_out: Any,
    acts: Mapping[str, Tensor] | None = None,
    means: Mapping[str, Tensor] | None = None,
    baselines: Mapping[str, Circuit | tuple[Any, Circuit]] | None = None,
    name: str | None = None,
    seed: int | None = None,
    removals: int = 0,
    progress: bool | None = None,
    tokens: int = TOKENS,
) -> Report:
    """Measure a circuit on data that nothing was fitted on.

    Args:
        held_out: the held-out part, or anything else that `collect` takes.
        acts: held-out activations where they are at hand; else they are collected.
        means: hook name -> mean activation on the fitting part, for ablations; else the held-out means serve.
        baselines: name -> circuit evaluated in the same way, beside; (model, circuit) for one of another model.
        name: of the model, for the report. seed: that the report says it was made with.
        removals: of so many gates a segment, the first by grade and agreement, what the model's predictions make of their removal;
            about a dozen passes of four windows each.
        progress: bars on standard error; None: where somebody watches.
        tokens: held-out tokens that cross-entropies are measured on; everything else uses all rows.

    Returns:
        A `Report`; `print(report)` shows it, `report.to_dict()` is `report.json`. Of a model of which only the first blocks were
        loaded the figures that need its predictions are None, and `report.model["missing"]` says why.

    Raises:
        ModelError: another model than the one that the circuit or the activations come from, or hooks left on it.

    Examples:
        >>> report = gl.evaluate(model, circuit, held_out, acts=unseen)
        >>> report.gates[net.segment.name]["verified"] > 15
        True
    """
    check_model(model)
    circuit.check_model(model)
    held_out = as_batches(model, held_out)
    check_made_by(model, acts, batches=held_out)
    acts = collect(model, held_out, circuit.segments, progress=progress) if acts is None else acts
    with bar(room="evaluate", progress=progress):
        measuring = Measuring(model, circuit, held_out, acts, means, tokens)
        own = measuring.with_removals(measuring.own(name, seed), removals)
        return measuring.with_beside(own, baselines or {})


def first_tokens(held_out: Batches, tokens: int) -> Batches:
    """The first examples with so many tokens in all; everything where the metric is no cross-entropy."""
    if held_out.metric != "ce" or held_out.rows <= tokens:
        return held_out
    return held_out.take(max(1, round(tokens * held_out.examples / held_out.rows)))


class Measuring:
    """One circuit in one model over one set of held-out rows; features, and each pass through the model, are computed once."""

    def __init__(
        self,
        model: Any,
        circuit: Circuit,
        held_out: Batches,
        acts: Mapping[str, Tensor] | None = None,
        means: Mapping[str, Tensor] | None = None,
        tokens: int = TOKENS,
    ):
        self.acts = collect(model, held_out, circuit.segments) if acts is None else acts
        self.passes = Passes(model, first_tokens(held_out, tokens), hook_names(circuit.segments))
        self.missing = why_no_logits(model) or None
        self.ablations: dict[tuple[str, ...], Tally | None] = {}
        self._begin(circuit)
        self.means = means or {h: self.acts[h].mean(0) for h in hook_names(circuit.segments)}

    def own(self, name: str | None = None, seed: int | None = None) -> Report:
        """The circuit's own figures."""
        circuit = self.circuit
        return Report(
            model={
                "name": name or str(circuit.info.get("model", type(self.passes.model).__name__)),
                "metric": self.passes.batches.metric,
                "clean": self.clean,
                "tokens": self.passes.batches.rows if self.passes.batches.metric == "ce" else None,
                "ablated": self.ablated(circuit.segments),
                "missing": self.missing,
            },
            bases=self.bases(),
            connectors=self.connectors(),
            all_replaced=self.all_replaced(),
            gates={n: gate_summary(g) | {"removal": None} for n, g in circuit.gates.items()},
            baselines=dict.fromkeys(BASELINES),
            seed=seed,
        )

    def with_beside(self, report: Report, baselines: Mapping[str, Circuit | tuple[Any, Circuit]]) -> Report:
        """The report with baselines measured in the same way; those that nobody asked for are None."""
        batches = self.passes.batches  # the same tokens for a model of its own
        beside = {
            n: _baseline(Measuring(*b, batches) if isinstance(b, tuple) else self.of(b)) for n, b in baselines.items()
        }
        return replace(report, baselines=report.baselines | beside)

    def with_removals(self, report: Report, most: int) -> Report:
        """The report with what the predictions make of the first gates of each segment; as it was where they cannot be had."""
        if not most or self.missing is not None:
            return report
        gates = dict(report.gates)
        for segment in self.circuit.segments:
            if known := self.circuit.gates.get(segment.name):
                hook, passes = segment.hook_out, self.passes
                basis, f_out = self.circuit.bases[hook], self.coded.at(hook)(slice(0, passes.batches.rows))
                found = removed_gates(passes.model, hook, basis, known, f_out, passes.batches, most, report.seed or 0)
                gates[segment.name] = {**gates[segment.name], "removal": found}
        return replace(report, gates=gates)

    def of(self, circuit: Circuit) -> Measuring:
        """Another circuit of the same segments in the same model: the clean model and its ablations are the same there."""
        other = copy.copy(self)
        other._begin(circuit)
        return other

    def _begin(self, circuit: Circuit) -> None:
        self.circuit, self.replacements = circuit.at(device_of(self.passes.model)), {}
        self.coded = Coded(circuit.segments, self.circuit.bases, self.acts)

    @property
    def clean(self) -> float | None:
        return self.passes.clean if self.missing is None else None

    def ablated(self, segments: Sequence[Segment]) -> float | None:
        return self._once(self.ablations, segments, how="mean", means=self.means)

    def replaced(self, segments: Sequence[Segment]) -> float | None:
        return self._once(self.replacements, segments, how="connectors")

    def _once(
        self, scores: dict[tuple[str, ...], Tally | None], segments: Sequence[Segment], **how: Any
    ) -> float | None:
        key = tuple(s.name for s in segments)
        if key not in scores:
            scores[key] = self._spliced(segments, **how)
        return _mean(scores[key])

    def _spliced(self, segments: Sequence[Segment], **how: Any) -> Tally | None:
        if self.missing is not None:
            return None
        return self.passes.tally(lambda keep: splice(self.circuit, segments, keep=keep, **how))

    def _interval(self, segments: Sequence[Segment]) -> tuple[float, float] | None:
        found = self.replacements.get(tuple(s.name for s in segments))
        return None if found is None else found.interval(self.passes.clean_tally)

    def bases(self) -> dict[str, Any]:
        return {hook: self._basis(hook, basis) for hook, basis in self.circuit.bases.items() if hook in self.coded.rows}

    def _basis(self, hook: str, basis: Any) -> dict[str, Any]:
        x = self.acts[hook]
        dictionary = at_output(basis)
        reads = dictionary.reads_output  # a dictionary of a pair of points cannot be spliced in by itself
        return {
            "kind": basis_kind(basis),
            "d_in": x.shape[1],
            "features": self.coded.widths[hook] if not reads else basis_width(basis, x.shape[1]),
            **dictionary_figures(basis, x, self.coded.at(hook)),
            "spliced": _mean(self._spliced([], how="dictionaries", hooks=[hook])) if reads else None,
            "bypassed": dictionary.bypassed,
        }

    def connectors(self) -> dict[str, Any]:
        return {s.name: self._connector(s) for s in self.circuit.segments}

    def _connector(self, segment: Segment) -> dict[str, Any]:
        connector, basis_out = self.circuit.connectors[segment.name], self.circuit.bases[segment.hook_out]
        f_in, f_out = self.coded.at(segment.hook_in), self.coded.at(segment.hook_out)
        replaced = self.replaced([segment])
        return {
            **connector_figures(
                connector, basis_out, f_in, f_out, self.acts[segment.hook_out], self.acts[segment.hook_in]
            ),
            "replaced": replaced,
            "gap_closed": gap_closed(self.clean, self.ablated([segment]), replaced),
        }

    def all_replaced(self) -> dict[str, Any]:
        segments = self.circuit.segments
        replaced = self.replaced(segments)
        return {
            self.passes.batches.metric: replaced,
            "interval": self._interval(segments),
            "dictionaries": _mean(self._spliced(segments, how="dictionaries")),
            "gap_closed": gap_closed(self.clean, self.ablated(segments), replaced),
        }


def _baseline(measuring: Measuring) -> dict[str, Any]:
    circuit, parts = measuring.circuit, measuring.connectors()
    r2 = [c["median_r2"] for c in parts.values() if c["median_r2"] is not None]
    gates = [gate for gates in circuit.gates.values() for gate in gates if gate.looked_for]
    return {
        "clean": measuring.clean,
        "edges": sum(c["edges"] for c in parts.values()),
        "median_r2": statistics.median(r2) if r2 else None,
        "replaced": measuring.replaced(circuit.segments),
        "gap_closed": {n: c["gap_closed"] for n, c in parts.items()},
        "logic": sum(g.read for g in gates) if gates else None,
        "verified": sum(g.grade == Grade.VERIFIED for g in gates) if gates else None,
        "tried": sum(g.verified is not None for g in gates) if gates else None,
        "outputs": len(gates) or None,
    }


def _mean(tally: Tally | None) -> float | None:
    return None if tally is None else tally.mean
