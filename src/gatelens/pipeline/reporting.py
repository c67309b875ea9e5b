"""What a run reports: the evaluation of its circuit, with the baselines that the config asks for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..circuits import Circuit
from ..errors import ConfigError, unknown
from ..evaluation.baselines import baseline_circuits
from ..evaluation.coverage import measure_coverage
from ..evaluation.measure import evaluate
from ..evaluation.report import Report
from ..evaluation.wire_curves import circuit_wire_curves
from ..ladder.measuring import Entry, Measure, Rows, measure_ladder, replaced_metric
from .building import keywords
from .config import Config
from .null_model import random_model
from .resume import versions

if TYPE_CHECKING:
    from .walk import Walk

BASELINES = ("neurons", "virtual_weights", "shuffled", "random_weights")


def report_of(walk: Walk, circuit: Circuit) -> Report:
    """The circuit evaluated on the held-out part, its baselines beside it."""
    fit, held_out = walk.acts
    beside = _baselines(walk, circuit)
    report = evaluate(
        walk.model,
        circuit,
        walk.batches[1],
        acts=held_out,
        means={hook: x.mean(0) for hook, x in fit.items()},
        baselines=beside,
        name=walk.model_name,
        seed=walk.config.seed,
    )
    return replace(
        report,
        versions=versions(),
        rotations=_rotations(walk),
        coverage=_coverage(walk, circuit, beside),
        curves=_curves(walk, circuit),
        ladder=_ladder(walk, circuit),
    )


def _coverage(walk: Walk, circuit: Circuit, beside: dict[str, Any]) -> dict[str, Any]:
    """What share verified gates explain, beside every baseline that has gates; empty for a circuit without."""
    if not any(circuit.gates.values()):
        return {}
    rivals = {n: c for n, c in beside.items() if any((c[1] if isinstance(c, tuple) else c).gates.values())}
    acts, seed = walk.acts[1], walk.config.seed
    return measure_coverage(walk.model, circuit, walk.batches[1], rivals, seed=seed, acts=acts).to_dict()


def _curves(walk: Walk, circuit: Circuit) -> dict[str, Any]:
    """Faithfulness and completeness of each segment by each ablation recipe, on the first of the held-out rows."""
    held_out = walk.batches[1]
    examples = round(walk.config.evaluation.curve_rows * held_out.examples / held_out.rows)
    if examples < 1:
        return {}
    found = circuit_wire_curves(walk.model, circuit, held_out.take(examples), seed=walk.config.seed)
    return {name: {recipe: curve.to_dict() for recipe, curve in by.items()} for name, by in found.items()}


def _ladder(walk: Walk, circuit: Circuit) -> dict[str, Any]:
    """segment -> rung -> figures: the circuit between its ceilings, rivals and null; empty unless the config asks for it."""
    settings = ladder_settings(walk.config)
    if settings is None:
        return {}
    found = {}
    for segment in circuit.segments:
        fit, held_out = (Rows(part[segment.hook_in], part[segment.hook_out]) for part in walk.acts)
        entry = Entry(circuit.bases[segment.hook_out], circuit.connectors[segment.name])
        measure = replace(settings, replaced=replaced_metric(walk.model, walk.batches[1], segment))
        ladder = measure_ladder(
            segment, circuit.bases[segment.hook_in], {"this circuit": entry}, fit, held_out, measure
        )
        rungs = ladder.to_dict().items()  # without their seconds: the same run leaves the same bytes
        found[segment.name] = {rung: {k: v for k, v in row.items() if k != "seconds"} for rung, row in rungs}
    return found


def ladder_settings(config: Config) -> Measure | None:
    """What `evaluation.ladder` says; None where no ladder is asked for."""
    given = config.evaluation.ladder
    if given is None:
        return None
    reserved = ("pairs", "lam", "replaced")
    return Measure(**keywords(Measure, {"seed": config.seed} | given, "evaluation.ladder", reserved))


def _rotations(walk: Walk) -> dict[str, Any]:
    """hook -> the fitted rotation there beside its nulls; empty for a run without rotations."""
    from ..bases.rotation.baselines import rotation_report

    recipe = _rotation_recipe(walk)
    return {} if recipe is None else rotation_report(walk.segments, walk.bases, *walk.acts, recipe)


def pictures_of(walk: Walk) -> dict[str, Any]:
    """segment -> its Jacobians before and after the rotations; empty for a run without rotations."""
    from ..bases.rotation import rotation_pictures

    recipe = _rotation_recipe(walk)
    return {} if recipe is None else rotation_pictures(walk.segments, walk.bases, *walk.acts, recipe)


def _rotation_recipe(walk: Walk) -> Any:
    """The recipe of the run's rotations, the first of several; None without."""
    from ..bases.rotation import JacobianRotation

    return next((r for r in walk.recipes.values() if isinstance(r, JacobianRotation)), None)


def _baselines(walk: Walk, circuit: Circuit) -> dict[str, Any]:
    wanted = walk.config.evaluation.baselines
    for name in wanted:
        if name not in BASELINES:
            raise ConfigError(f"evaluation.baselines: {unknown('baseline', name, BASELINES)}")
    fit, held_out = walk.acts
    found: dict[str, Any] = {}
    if {*wanted} & {"neurons", "virtual_weights", "shuffled"}:
        options = {k: v for k, v in walk.gate_options.items() if k != "interventions"}
        found |= baseline_circuits(walk.model, circuit, fit, walk.solver, held_out, **options)
    if "random_weights" in wanted and (null := random_model(walk)) is not None:
        found["random_weights"] = null
    return {name: circuit for name, circuit in found.items() if name in wanted}
