"""Coverage of verified gates, and faithfulness and completeness against wires, on a network whose gates are known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import gatelens as gl
from gatelens.circuits import Circuit
from gatelens.connectors import Connector
from gatelens.data import Batches
from gatelens.errors import BasisError, ConfigError, DataError
from gatelens.evaluation import circuit_wire_curves, measure_coverage, wire_curve
from gatelens.evaluation.coverage import firings_explained, rule_says
from gatelens.evaluation.recipes import PartialWires
from gatelens.gates import Grade
from gatelens.gates.rule import Literal, Rule
from gatelens.models import HookedMLP
from support.gates import ruled


@pytest.fixture(scope="module")
def known() -> tuple[HookedMLP, Circuit, Batches]:
    """Four inputs; hidden layer 0 copies them; layer 1: OR(0, 1), AND(2, 3); the logits read only the OR."""
    model = HookedMLP((4, 4, 2, 2))
    with torch.no_grad():
        model.layers[0].weight.copy_(torch.eye(4))
        model.layers[0].bias.zero_()
        model.layers[1].weight.copy_(torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]))
        model.layers[1].bias.copy_(torch.tensor([0.0, -1.0]))
        model.layers[2].weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
        model.layers[2].bias.copy_(torch.tensor([0.5, 0.0]))
    x = (torch.rand(400, 4, generator=torch.Generator().manual_seed(0)) < 0.4).float()
    data = Batches(x, ((x[:, 0] + x[:, 1]) > 0).long(), torch.ones(400, dtype=torch.bool), torch.arange(400), 64)
    segments = gl.mlp_segments(model)
    bases = gl.Neurons().fit(segments, gl.collect(model, data, segments))
    wires = Connector.from_dense(model.layers[1].weight.detach().clone(), model.layers[1].bias.detach().clone())
    gates = [
        ruled(0, (0, 1), grade="verified"),
        ruled(1, (2, 3), at_least=2, bias=-1.0),
    ]
    name = segments[0].name
    return model, Circuit(segments, bases, {name: wires}, {name: gates}), data


def test_rules_say():
    f = torch.tensor([[1.0, 0, 0], [1, 1, 0], [1, 1, 1], [0, 0, 0]])
    assert rule_says(ruled(0, (0, 1), (2,), at_least=2), f).tolist() == [False, True, False, False]
    high = replace(ruled(0, (0,)), rule=Rule((Literal(0, 1.5),)))
    assert rule_says(high, 2 * f).tolist() == [True, True, True, False]
    assert not rule_says(high, f).any()
    assert not rule_says(replace(high, rule=None), f).any()


def test_only_verified_gates_count(known):
    model, circuit, data = known
    report = measure_coverage(model, circuit, data)
    (found,) = report.circuit.values()
    y = data.inputs @ torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]) + torch.tensor([0.0, -1.0])
    y = y.relu()
    variance = y.var(0)
    fired = (y > 0).sum(0)
    assert (found.outputs, found.verified, found.wires) == (2, 1, 2)
    assert found.variance == pytest.approx(float(variance[0] / variance.sum()), abs=1e-4)
    assert found.firings == pytest.approx(float(fired[0] / fired.sum()))
    assert found.gap == pytest.approx(1)  # the logits read only what the verified gate computes
    assert found.all_variance == pytest.approx(1)
    assert found.dictionary_variance == pytest.approx(1)
    assert (found.read, found.read_variance) == (2, pytest.approx(1))


def test_nothing_verified_explains_nothing(known):
    model, circuit, data = known
    name = circuit.segments[0].name
    nothing = replace(circuit, gates={name: [replace(g, grade=Grade.HOLDS) for g in circuit.gates[name]]})
    other = replace(circuit, gates={name: [replace(g, grade=Grade.VERIFIED) for g in circuit.gates[name]]})
    report = measure_coverage(model, nothing, data, {"neurons": other, "random_weights": (model, nothing)})
    (found,) = report.circuit.values()
    assert (found.verified, found.firings, found.gap) == (0, 0, pytest.approx(0))
    assert found.variance == pytest.approx(0, abs=1e-6)
    assert report.sentence == (
        "Verified gates explain 0 % of the output variance of this MLP (all whose rule holds: 100 %); "
        "neurons at equal wires 100 %; a random model's 0 % (not measured: gates fitted to shuffled inputs)."
    )
    assert report.to_dict()["baselines"]["neurons"][name]["verified"] == 2
    assert "neurons" in repr(report)


@pytest.mark.parametrize("recipe", ["mean", "zero", "resample"])
def test_wire_curves_by_each_recipe(known, recipe):
    model, circuit, data = known
    curve = wire_curve(model, circuit, data, shares=(0, 0.5, 1), recipe=recipe)
    assert curve.wires == (0, 2, 4)
    assert curve.faithfulness[0] == pytest.approx(0)
    assert curve.faithfulness[-1] == pytest.approx(1)
    assert curve.completeness[0] == pytest.approx(1)
    assert curve.completeness[-1] == pytest.approx(0)
    assert recipe in repr(curve)
    assert curve.to_dict()["recipe"] == recipe


def test_curves_of_every_segment_by_every_recipe(known):
    model, circuit, data = known
    (by,) = circuit_wire_curves(model, circuit, data, shares=(0, 0.5)).values()
    assert list(by) == ["mean", "zero", "resample"]
    assert by["zero"] == wire_curve(model, circuit, data, shares=(0, 0.5), recipe="zero")


def test_what_is_explained_is_the_first_sentence_of_a_printed_report(known):
    model, circuit, data = known
    coverage = measure_coverage(model, circuit, data)
    report = replace(gl.evaluate(model, circuit, data), coverage=coverage.to_dict())
    assert repr(report).splitlines()[0] == coverage.sentence
    assert report.to_dict()["coverage"]["sentence"] == coverage.sentence


def test_mean_ablation_of_half_of_the_wires_by_hand(known):
    _, circuit, data = known
    wires = circuit.connectors[circuit.segments[0].name]
    keep = torch.tensor([True, False, True, False])
    mean = data.inputs.mean(0)
    partial = PartialWires(wires, keep, "mean", mean)
    expected = torch.stack([data.inputs[:, 0] + mean[1], data.inputs[:, 2] + mean[3] - 1], 1).relu()
    torch.testing.assert_close(partial(data.inputs), expected)


def test_refusals(known):
    model, circuit, data = known
    with pytest.raises(DataError, match="no gates were read"):
        measure_coverage(model, replace(circuit, gates={}), data)
    with pytest.raises(ConfigError, match="unknown ablation 'noise'"):
        measure_coverage(model, circuit, data, recipe="noise")
    with pytest.raises(ConfigError, match="between 0 and 1"):
        wire_curve(model, circuit, data, shares=(2.0,))
    with pytest.raises(BasisError, match="the circuit is of another model"):
        measure_coverage(HookedMLP((4, 7, 5, 2)), circuit, data)
    still = replace(
        data,
        inputs=torch.ones_like(data.inputs)[:5],
        **{k: getattr(data, k)[:5] for k in ("targets", "keep", "document")},
    )
    with pytest.raises(DataError, match="constant over 5 held-out rows"):
        measure_coverage(model, circuit, still)
    assert firings_explained([], torch.zeros(4, 3), torch.zeros(4, 2)) == (0, 0)
