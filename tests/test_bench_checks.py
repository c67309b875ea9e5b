"""The benchmark of causal checks, whole, on the digits: what it must tell apart there."""

from __future__ import annotations

import statistics

import pytest

import gatelens as gl
from gatelens import bench
from gatelens.models.training import Training


def figures_of(seed):
    checks = bench.load("checks")
    checks.CAUSAL_ROWS, checks.TOP_WIRES = 200, 60
    fit, held_out = gl.image_batches("digits")
    net = Training(epochs=30, lr=3e-3).fit(gl.HookedMLP((64, 32, 32, 10), seed=seed), fit, seed=seed)
    recipe = gl.TrainedSAE(expansion=2, k=6, samples=40_000, batch_size=128, trainer="sparse")
    first = lambda model: gl.mlp_segments(model, [0])[0]  # noqa: E731
    subject = checks.Subject("digits", net, first, fit, held_out, recipe, held_out)
    return {figure.name: figure for figure in checks._figures(subject, seed)}


@pytest.fixture(scope="module")
def figures():
    return figures_of(0)


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
    found = [figures[name], *(figures_of(seed)[name] for seed in (1, 2))]
    assert statistics.median(f.value for f in found) > 0.4
    assert abs(statistics.median(f.baselines["wires fitted to shuffled inputs"] for f in found)) < 0.35


def test_every_figure_stands_beside_neurons_and_random_weights(figures):
    for name, figure in figures.items():
        if "ladder" not in name:
            assert {"neurons, equal wires", "wires fitted to shuffled inputs", "random weights"} <= set(
                figure.baselines
            )
    assert "random weights: wires" in figures["digits, ladder: fraction of the variance of y that is left"].baselines
    kinds = [f.value for name, f in figures.items() if "share of outputs read as" in name]
    assert sum(kinds) == pytest.approx(1)
