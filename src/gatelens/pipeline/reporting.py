"""What a run reports: the evaluation of its circuit, with the baselines that the config asks for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..circuits import Circuit
from ..evaluation.baselines import baseline_circuits
from ..evaluation.coverage import measure_coverage
from ..evaluation.report import Report
from ..evaluation.wire_curves import circuit_wire_curves
from ..ladder.measuring import Entry, Measure, Rows, measure_ladder, replaced_metric
from .building import keywords
from .config import Evaluation
from .null_model import null_gates, random_model
from .resume import versions
from .state import State


def own_report(state: State) -> Report:
    """The circuit evaluated on the held-out part by itself: no baselines, coverage, curves."""
    return replace(state.measuring.own(state.source.model_name, state.seed), versions=versions())


def whole_report(state: State, own: Report) -> Report:
    """The circuit's own figures with everything that stands beside them."""
    if own.model["missing"]:  # what is beside needs the model's predictions
        return own
    circuit = state.circuit
    beside = _baselines(state, circuit)
    own = state.measuring.with_removals(own, state.source.evaluation.removals)
    return replace(
        state.measuring.with_beside(own, beside),
        rotations=_rotations(state),
        coverage=_coverage(state, circuit, beside),
        curves=_curves(state, circuit),
        ladder=_ladder(state, circuit),
    )


def _coverage(state: State, circuit: Circuit, beside: dict[str, Any]) -> dict[str, Any]:
    """What share verified gates explain, beside every baseline that has gates; empty for a circuit without."""
    if not state.source.evaluation.coverage or not any(circuit.gates.values()):
        return {}
    rivals = {n: c for n, c in beside.items() if any((c[1] if isinstance(c, tuple) else c).gates.values())}
    acts, seed, few = state.acts[1], state.seed, state.measuring.passes.batches
    return measure_coverage(state.model, circuit, few, rivals, seed=seed, acts=acts).to_dict()


def _curves(state: State, circuit: Circuit) -> dict[str, Any]:
    """Faithfulness and completeness of each segment by each ablation recipe, on the first of the held-out rows."""
    held_out = state.batches[1]
    examples = round(state.source.evaluation.curve_rows * held_out.examples / held_out.rows)
    if examples < 1:
        return {}
    found = circuit_wire_curves(state.model, circuit, held_out.take(examples), seed=state.seed)
    return {name: {recipe: curve.to_dict() for recipe, curve in by.items()} for name, by in found.items()}


def _ladder(state: State, circuit: Circuit) -> dict[str, Any]:
    """segment -> rung -> figures: the circuit between its ceilings, rivals and null; empty unless the config asks for it."""
    settings = ladder_settings(state.source.evaluation, state.seed)
    if settings is None:
        return {}
    found = {}
    for segment in circuit.segments:
        fit, held_out = (Rows(part[segment.hook_in], part[segment.hook_out]) for part in state.acts)
        entry = Entry(circuit.bases[segment.hook_out], circuit.connectors[segment.name])
        # on the tokens of the report's own cross-entropies: a rung costs a pass through the model
        measure = replace(settings, replaced=replaced_metric(state.model, state.measuring.passes.batches, segment))
        ladder = measure_ladder(
            segment, circuit.bases[segment.hook_in], {"this circuit": entry}, fit, held_out, measure
        )
        rungs = ladder.to_dict().items()  # without their seconds: the same run leaves the same bytes
        found[segment.name] = {rung: {k: v for k, v in row.items() if k != "seconds"} for rung, row in rungs}
    return found


def ladder_settings(evaluation: Evaluation, seed: int) -> Measure | None:
    """What `evaluation.ladder` says; None where no ladder is asked for."""
    given = evaluation.ladder
    if given is None:
        return None
    reserved = ("pairs", "lam", "replaced")
    return Measure(**keywords(Measure, {"seed": seed} | given, "evaluation.ladder", reserved))


def _rotations(state: State) -> dict[str, Any]:
    """hook -> the fitted rotation there beside its nulls; empty for a run without rotations."""
    from ..bases.rotation.baselines import rotation_report

    recipe = _rotation_recipe(state)
    return {} if recipe is None else rotation_report(state.segments, state.bases, *state.acts, recipe)


def pictures_of(state: State) -> dict[str, Any]:
    """segment -> its Jacobians before and after the rotations; empty for a run without rotations."""
    from ..bases.rotation import rotation_pictures

    recipe = _rotation_recipe(state)
    return {} if recipe is None else rotation_pictures(state.segments, state.bases, *state.acts, recipe)


def _rotation_recipe(state: State) -> Any:
    """The recipe of the run's rotations, the first of several; None without."""
    return next((r for r in state.recipes.values() if r.is_rotation), None)


def _baselines(state: State, circuit: Circuit) -> dict[str, Any]:
    wanted = state.source.evaluation.baselines
    fit, held_out = state.acts
    found: dict[str, Any] = {}
    if names := {*wanted} - {"random_weights"}:
        options = null_gates(state)
        found = baseline_circuits(
            state.model, circuit, fit, state.solver, held_out, names=names, features=state.features, **options
        )
    if "random_weights" in wanted and (null := random_model(state)) is not None:
        found["random_weights"] = null
    return {name: circuit for name, circuit in found.items() if name in wanted}
