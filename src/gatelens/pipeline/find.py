"""find_circuit: the whole walk in one call, for a model and batches at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..activations.collecting import Activations, collect
from ..bases.sae.trained import TrainedSAE
from ..basis.fitting import fit_bases
from ..basis.linear import Basis
from ..circuits import Circuit, build_circuit
from ..data import Batches
from ..evaluation.measure import evaluate
from ..evaluation.report import Report
from ..gate_dictionaries.gate_basis import GateBasis
from ..segments import Segment, mlp_segments
from ..solvers.built_in import BuiltInWires
from ..solvers.gram_lasso import GramLasso


@dataclass(frozen=True, eq=False)
class Found:
    """What `find_circuit` found: the circuit, its evaluation, and the held-out activations that its page shows."""

    circuit: Circuit
    report: Report
    held_out: Activations
    model: Any = field(repr=False)
    batches: Batches = field(repr=False)

    def page(self, **options: Any) -> Any:
        """One self-contained page; `.save("circuit.html")`."""
        from .. import views

        tokenizer = getattr(self.model, "tokenizer", None)
        return views.page(
            self.circuit,
            self.held_out,
            self.report,
            batches=self.batches,
            model=self.model,
            tokenizer=tokenizer,
            **options,
        )

    def __repr__(self) -> str:
        return f"{self.report}\n\n{self.circuit}"


def find_circuit(
    model: Any,
    batches: tuple[Batches, Batches],
    segments: Sequence[Segment] | None = None,
    bases: Any = None,
    solver: Any = None,
    seed: int = 0,
    progress: bool = False,
    **gate_options: Any,
) -> Found:
    """Collect, fit dictionaries, connect, read gates, evaluate.

    Args:
        batches: (fitting part, held-out part), as `image_batches` and `text_batches` give them.
        segments: the stretches to explain; None for all MLPs.
        bases: a recipe, a mapping hook name -> basis, or None for BatchTopK SAEs four times as wide as the hook point.
        solver: None for `GramLasso()`, or for the wires that gate dictionaries have built in.
        gate_options: for `type_gates`.
    """
    fit, unseen = batches
    segments = list(segments) if segments is not None else mlp_segments(model)
    acts = collect(model, fit, segments, progress=progress)
    held_out = collect(model, unseen, segments, progress=progress)
    found = _bases(bases, segments, acts, seed, progress)
    if solver is None:
        gates = [isinstance(found.get(s.hook_out), GateBasis) for s in segments]
        solver = BuiltInWires() if all(gates) else GramLasso()
    circuit = build_circuit(
        model,
        segments,
        found,
        acts,
        solver,
        held_out=held_out,
        info={"data": fit.name, "seed": seed, "solver": repr(solver)},
        progress=progress,
        **{"seed": seed, **gate_options},
    )
    means = {hook: x.mean(0) for hook, x in acts.items()}
    return Found(circuit, evaluate(model, circuit, unseen, held_out, means, seed=seed), held_out, model, unseen)


def _bases(bases: Any, segments: Sequence[Segment], acts: Activations, seed: int, progress: bool) -> dict[str, Basis]:
    if isinstance(bases, Mapping):
        return dict(bases)
    return fit_bases({"": bases if bases is not None else TrainedSAE(seed=seed)}, segments, acts, progress)
