"""The benchmark of causal checks, whole, on the digits: what it must tell apart there."""

from __future__ import annotations

import statistics

import pytest

import gatelens as gl
from gatelens import bench
from gatelens.evaluation.baselines import baseline_circuits
from gatelens.gates.stage import Stage
from gatelens.models.training import Training

checks = bench.load("checks")
WIRES = 60


def subject_of(seed):
    fit, held_out = gl.image_batches("digits")
    net = Training(epochs=30, lr=3e-3).fit(gl.HookedMLP((64, 32, 32, 10), seed=seed), fit, seed=seed)
    recipe = gl.TrainedSAE(expansion=2, k=6, samples=40_000, batch_size=128, trainer="sparse")
    return checks.Subject("digits", net, lambda model: gl.mlp_segments(model, [0])[0], fit, held_out, recipe, held_out)


@pytest.fixture(scope="module")
def figures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "CAUSAL_ROWS", 200)
        patch.setattr(checks, "TOP_WIRES", WIRES)
        return {figure.name: figure for figure in checks._figures(subject_of(0), 0)}


def rank_correlations(seed):
    """Of the wires and of those fitted to shuffled inputs, with ablation, on another network: the one figure, without the others."""
    from _wire_ablation import ablate_wires

    subject = subject_of(seed)
    segment, fit, held = subject.rows(subject.model)
    bases, solver = subject.recipe.fit([segment], fit), checks._solver()
    wires = gl.build_circuit(subject.model, [segment], bases, fit, solver, gates=False)
    shuffled = baseline_circuits(subject.model, wires, fit, solver, gates=False)["shuffled"]
    ends = bases[segment.hook_in], bases[segment.hook_out]
    found, stage = [], Stage.of(segment, *ends, held[segment.hook_in])
    for connector in (c.connectors[segment.name] for c in (wires, shuffled)):
        found.append(ablate_wires(stage, connector, WIRES, seed=seed).figures(seed)["rank_correlation"])
    return found


def test_wires_foresee_what_wires_of_shuffled_inputs_do_not(figures):
    for edit in ("removals", "subsets", "restoring", "additions"):
        found = figures[f"digits: R2 of the predicted change in y, {edit}"]
        assert found.value > 0.4
        assert found.baselines["wires fitted to shuffled inputs"] < 0.1
        assert found.baselines["wires, other rows' predictions"] < 0
        assert found.baselines["wires, local Jacobian"] > 0.8


def test_the_strongest_wires_are_those_that_ablation_finds_strong(figures):
    """By the median of three networks: some thirty wires of one have an effect, whose ranks say little alone."""
    name = "digits: rank correlation of the strongest wires with ablation in the model"
    first = figures[name].value, figures[name].baselines["wires fitted to shuffled inputs"]
    found = [first, *map(rank_correlations, (1, 2))]
    assert statistics.median(wires for wires, _ in found) > 0.4
    assert abs(statistics.median(shuffled for _, shuffled in found)) < 0.35


def test_every_figure_stands_beside_neurons_and_random_weights(figures):
    for name, figure in figures.items():
        if "ladder" not in name:
            assert {"neurons, equal wires", "wires fitted to shuffled inputs", "random weights"} <= set(
                figure.baselines
            )
    assert "random weights: wires" in figures["digits, ladder: fraction of the variance of y that is left"].baselines
    kinds = [f.value for name, f in figures.items() if "share of outputs read as" in name]
    assert sum(kinds) == pytest.approx(1)
