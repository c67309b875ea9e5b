"""find_circuit: the whole walk in one call, for a model and batches at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..activations.collecting import Activations
from ..bases.sae.trained import TrainedSAE
from ..basis.ends import completed
from ..circuits import Circuit
from ..data import Batches
from ..data.given import as_batches
from ..errors import DataError
from ..errors.interrupt import keeping
from ..evaluation.report import Report
from ..lazy import shows_itself
from ..models import check_model
from ..segments import Segment, each_segment, mlp_segments
from ..solvers.protocol import as_solver
from . import finishing
from .config import Evaluation, check_evaluation
from .kept import kept
from .source import Given, checked_gate_options
from .state import State


@shows_itself
@dataclass(frozen=True, eq=False)
class Found:
    """What `find_circuit` found: the circuit, its evaluation, and the held-out activations that its page shows."""

    circuit: Circuit
    report: Report
    state: State = field(repr=False)

    @property
    def model(self) -> Any:
        return self.state.model

    @property
    def batches(self) -> Batches:
        """The held-out part."""
        return self.state.batches[1]

    @property
    def held_out(self) -> Activations:
        return self.state.acts[1]

    def page(self, **options: Any) -> Any:
        """One self-contained page; `.save("circuit.html")`."""
        return finishing.draw(self.state, self.report, **options)

    def __repr__(self) -> str:
        return f"{self.report}\n\n{self.circuit}"


def find_circuit(
    model: Any,
    batches: Any,
    segments: Segment | Sequence[Segment] | None = None,
    bases: Any = None,
    solver: Any = None,
    seed: int = 0,
    progress: bool | None = None,
    quick: bool = False,
    evaluation: Mapping[str, Any] | None = None,
    name: str = "circuit",
    **gate_options: Any,
) -> Found:
    """Collect, fit dictionaries, connect, read gates, evaluate: what `gatelens run` does, in memory.

    A config with the same recipes, solver and settings gives the same report, digit for digit.

    Args:
        batches: (fitting part, held-out part), as `image_batches` and `text_batches` give them; each may be anything that
            `collect` takes.
        segments: the stretches to explain, one or several; None for all MLPs.
        bases: a recipe, a mapping hook name -> basis or recipe, or None for BatchTopK SAEs four times as wide as the hook
            point.
        solver: None for the wires that gate dictionaries have built in, else the one for the size (`default_solver`).
        seed: of everything that is drawn.
        progress: bars on standard error; None: where somebody watches.
        quick: the circuit's own figures alone: no baselines, coverage, curves.
        evaluation: keywords of a config's section `evaluation` (baselines, ladder, curve_rows, polish).
        name: of the circuit, on its page.
        gate_options: for `type_gates`.

    Returns:
        What was found: `.circuit`, `.report`, `.held_out` (activations), `.page()`.

    Raises:
        ConfigError: a recipe without `fit`, a keyword that nobody has. SolverError: a solver without `fit`.

    Examples:
        >>> found = gl.find_circuit(model, (fit, held_out), segments, bases, gl.ReluOMP(), quick=True)
        >>> found.circuit.gate(2).kind == "or"
        True
    """
    check_model(model)
    fit, unseen = (as_batches(model, part) for part in _two_parts(batches))
    segments = mlp_segments(model) if segments is None else each_segment(segments)
    recipes = kept(bases if bases is not None else TrainedSAE(seed=seed), segments)
    completed(recipes, segments)  # refused before any work
    source = Given(
        model=model,
        batches=(fit, unseen),
        segments=segments,
        recipes=recipes,
        solver=None if solver is None else as_solver(solver),
        gate_options=checked_gate_options({"seed": seed} | gate_options, "find_circuit"),
        evaluation=check_evaluation(evaluation or {}) if evaluation else Evaluation(),
        seed=seed,
        name=name,
    )
    state = State(source, None, progress)
    with keeping(
        lambda: "find_circuit keeps nothing of what it began; `gatelens run CONFIG` keeps each room that is finished"
    ):
        return Found(state.circuit, finishing.report(state, quick), state)


def _two_parts(batches: Any) -> Sequence[Any]:
    if not isinstance(batches, tuple | list) or len(batches) != 2 or isinstance(batches[0], int | float | str):
        raise DataError(
            f"batches: expected two parts, (fitting, held out), got {type(batches).__name__}. "
            "text_batches(model, texts) and image_batches() give both"
        )
    return batches
