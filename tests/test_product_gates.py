"""Product gates: they start as the model's neurons, few planted inputs a side are found, and plain MLPs are refused."""

from __future__ import annotations

import pytest
import torch
from _explained import explained

import gatelens as gl
from gatelens.codes.rows import Codes
from gatelens.connectors import Connector, ProductConnector
from gatelens.edits.counterfactual import Counterfactual
from gatelens.errors import BasisError
from gatelens.gate_dictionaries.gate_first import GateDictionary
from gatelens.gate_dictionaries.gate_run import GateTraining
from gatelens.gate_dictionaries.gate_start import Units
from gatelens.gate_dictionaries.product_gates import ProductRun
from gatelens.gate_dictionaries.rows import Rows
from gatelens.segments import Segment
from gatelens.segments.segment import MLPWeights
from support.dictionaries import Nonnegative

WIDTH, NEURONS, OUT = 12, 6, 8


def planted(rows=2000, noise=0.05):
    """A gated MLP each of whose neurons reads two inputs a side, and hardly anything of the others."""
    generator = torch.Generator().manual_seed(0)
    on = torch.rand(rows, WIDTH, generator=generator) < 0.3
    x = on * (0.5 + torch.rand(rows, WIDTH, generator=generator))
    few = torch.stack([torch.randperm(WIDTH, generator=generator)[:4] for _ in range(NEURONS)])
    gate, up = (noise * torch.randn(WIDTH, NEURONS, generator=generator) for _ in range(2))
    gate.scatter_(0, few[:, :2].T, 2.0)
    up.scatter_(0, few[:, 2:].T, 1.5)
    written = torch.randn(NEURONS, OUT, generator=generator)
    mlp = MLPWeights(up, torch.full((NEURONS,), 0.1), written, torch.zeros(OUT), "silu", gate)
    segment = Segment("in", "out", mlp, WIDTH, OUT, mlp=mlp)
    return segment, x, segment.forward(x), few


def recipe(**rest):
    settings = {"fan_in": 2, "l0": 5, "product": True, "inputs": Nonnegative(WIDTH), "counterfactual": None}
    return GateDictionary(**settings | {"samples": 20_000, "batch_size": 256, "refit_rows": 2_000} | rest)


@pytest.mark.parametrize("edits", [None, Counterfactual(pairs=10_000)])
def test_planted_inputs_are_found_and_the_output_explained(edits):
    segment, x, y, few = planted()
    basis = recipe(counterfactual=edits).fit([segment], {"in": x, "out": y})["out"]
    assert explained(basis, x, y) < 0.05
    for i, (a, b) in enumerate(zip(few[:, :2].tolist(), few[:, 2:].tolist(), strict=True)):
        first, second = (set(side.parents(i)[0].tolist()) for side in basis.connector.sides)
        assert (first, second) == (set(a), set(b))


def test_without_pruning_they_are_the_neurons_of_the_model():
    """All inputs, all gates on: the start computes what the MLP does, and so does the connector made of it."""
    segment, x, y, _ = planted(400)
    codes, units = Codes.of(x), Units.of(Codes.of(x), y)
    rows = Rows(units.codes(codes), units.y(y), None)
    settings = GateTraining(NEURONS, 0.0, 1, 64, 1e-2, 0, 0, 0)
    run = ProductRun(rows, segment, Nonnegative(WIDTH), units, torch.ones(WIDTH, dtype=torch.bool), WIDTH, settings)
    run.offset.data -= units.mean_out / units.size_out
    wires, dictionary, offset, _, _ = run.found(0, units, "")
    torch.testing.assert_close(wires(x) @ dictionary + offset, y, rtol=1e-4, atol=1e-4)


def test_they_are_read_with_what_they_say_and_kept_on_disk(tmp_path):
    segment, x, y, _ = planted()
    basis = recipe(l0=3).train(segment, Nonnegative(WIDTH), None, x, y)
    f = basis.features_from(x)
    assert float((f != 0).sum()) / len(x) == pytest.approx(3, rel=0.05)
    basis.connector.save(tmp_path / "wires")
    assert torch.equal(Connector.load(tmp_path / "wires")(x), basis.connector(x))
    gates = gl.type_gates(basis.connector, x[:1000], f[:1000], held_out=(x[1000:], f[1000:]))
    for gate in gates:
        assert gate.r2 == pytest.approx(1, abs=1e-4)
        assert gate.equation().count("×") == 1
        assert gate.equation().startswith(f"OF_{gate.out} = silu(")


def test_bad_input_is_refused():
    segment, x, *_ = planted(200)
    mlp = segment.mlp
    plain = MLPWeights(mlp.W_in, mlp.b_in, mlp.W_out, mlp.b_out, "relu")
    for other, said in ((Segment("in", "out", plain, WIDTH, OUT, mlp=plain), "a plain MLP"),
                        (Segment("in", "out", plain, WIDTH, OUT), "weights that are not known")):  # fmt: skip
        with pytest.raises(BasisError, match=f"neurons of a gated MLP.*{said}"):
            recipe().fit([other], {"in": x, "out": other.forward(x)})
    with pytest.raises(BasisError, match="product=True"):
        recipe(bypass="all")


def product_of_two_ors(rows=6000, m=12, wrong=0.02):
    """(IF_0 or IF_1) and (IF_2 or IF_3), as a product of two sums, with a few rows that say the opposite."""
    generator = torch.Generator().manual_seed(0)
    f_in = (torch.rand(rows, m, generator=generator) < 0.2) * (0.5 + torch.rand(rows, m, generator=generator))
    first, second = torch.zeros(1, m), torch.zeros(1, m)
    first[0, :2], second[0, 2:4] = torch.tensor([1.0, 0.8]), torch.tensor([0.7, 1.2])
    wires = ProductConnector.of(*(Connector.from_dense(side, torch.zeros(1)) for side in (first, second)))
    f_out = wires(f_in)
    flip = torch.rand(rows, generator=generator) < wrong
    f_out[flip, 0] = torch.where(f_out[flip, 0] > 0, 0.0, 0.5)
    return wires, f_in, f_out


def test_a_product_is_read_as_an_and_of_two_ors():
    wires, f_in, f_out = product_of_two_ors()
    [gate] = gl.type_gates(wires, f_in, f_out)
    sides = {frozenset(literal.feature for literal in half) for half in (gate.rule.literals[:2], gate.rule.also)}
    assert sides == {frozenset({0, 1}), frozenset({2, 3})}
    assert (gate.grade, gate.kind) == ("holds", "mixed")
    assert ") and (" in str(gate.rule)
    assert gate.mcc > 0.85 > 0.1 > max(gate.controls.shuffled, gate.controls.random_parents)
    assert f"is on when ({' or '.join(f'IF_{i}' for i in gate.rule.features[:2])} is on) and (" in gate._repr_html_()
    [sum_of_all] = gl.type_gates(Connector.from_dense(wires.weight.to_dense(), torch.zeros(1)), f_in, f_out)
    assert not sum_of_all.rule.also  # the form is a product's


def test_no_rule_of_a_product_in_shuffled_rows():
    wires, f_in, f_out = product_of_two_ors()
    for seed in range(3):
        order = torch.randperm(len(f_out), generator=torch.Generator().manual_seed(seed))
        [gate] = gl.type_gates(wires, f_in, f_out[order])
        assert not gate.read
        assert (gate.mcc or 0.0) < 0.1
