"""find_circuit: the whole walk in one call, for a model and batches at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..activations.collecting import Activations, collect
from ..bases.sae.trained import TrainedSAE
from ..basis.fitting import fit_bases
from ..circuits import Circuit, build_circuit, default_solver
from ..connectors import Solver
from ..data import Batches
from ..data.given import as_batches
from ..errors import ConfigError, DataError
from ..evaluation.measure import evaluate
from ..evaluation.report import Report
from ..lazy import shows_itself
from ..models import check_model
from ..segments import Segment, each_segment, mlp_segments


@shows_itself
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
    batches: Any,
    segments: Segment | Sequence[Segment] | None = None,
    bases: Any = None,
    solver: Solver | None = None,
    seed: int = 0,
    progress: bool | None = None,
    **gate_options: Any,
) -> Found:
    """Collect, fit dictionaries, connect, read gates, evaluate.

    Args:
        batches: (fitting part, held-out part), as `image_batches` and `text_batches` give them; each may be anything that
            `collect` takes.
        segments: the stretches to explain, one or several; None for all MLPs.
        bases: a recipe, a mapping hook name -> basis, or None for BatchTopK SAEs four times as wide as the hook point.
        solver: None: by size (`BySize`), or the wires that gate dictionaries have built in.
        gate_options: for `type_gates`.
    """
    check_model(model)
    fit, unseen = (as_batches(model, part) for part in _two_parts(batches))
    segments = mlp_segments(model) if segments is None else each_segment(segments)
    acts = collect(model, fit, segments, progress=progress)
    held_out = collect(model, unseen, segments, progress=progress)
    found = _bases(bases, segments, acts, seed, progress)
    solver = default_solver(segments, found) if solver is None else solver
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
    return Found(
        circuit,
        evaluate(model, circuit, unseen, held_out, means, seed=seed, progress=progress),
        held_out,
        model,
        unseen,
    )


def _two_parts(batches: Any) -> Sequence[Any]:
    if not isinstance(batches, tuple | list) or len(batches) != 2 or isinstance(batches[0], int | float | str):
        raise DataError(
            f"batches: expected two parts, (fitting, held out), got {type(batches).__name__}. "
            "text_batches(model, texts) and image_batches() give both"
        )
    return batches


def _bases(
    bases: Any, segments: Sequence[Segment], acts: Activations, seed: int, progress: bool | None
) -> dict[str, Any]:
    if isinstance(bases, Mapping):
        return dict(bases)
    if bases is not None and not hasattr(bases, "fit"):
        raise ConfigError(
            f"bases: expected a recipe, TrainedSAE() for instance, or hook name -> basis; got {type(bases).__name__}"
        )
    return fit_bases({"": bases if bases is not None else TrainedSAE(seed=seed)}, segments, acts, progress)
