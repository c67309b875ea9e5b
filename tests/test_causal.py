"""Causal figures on a segment whose every effect is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _causal_figures import causal_figures
from _rule_flips import levels_of, rule_flips
from _wire_ablation import ablate_wires, drop_contradicted

from gatelens.basis import Rotation
from gatelens.codes.rows import Codes
from gatelens.connectors import Connector
from gatelens.edits import Counterfactual
from gatelens.edits.counterfactual import Library
from gatelens.edits.kinds import decisive, removal, subset
from gatelens.errors import DataError
from gatelens.evaluation.causal import edit_figures, restoring_figures
from gatelens.gate_dictionaries.gate_basis import GateBasis
from gatelens.gates import type_gates
from gatelens.gates.stage import Stage
from gatelens.segments import MLPWeights, Segment

WIDTH, ROWS = 8, 3000
#: y0 = relu(f0 + f1), y1 = relu(f2 + f3 - 1.4), y2 = relu(f4 - 2 f5): an OR, an AND, an AND-NOT
WEIGHT = torch.zeros(WIDTH, 3)
WEIGHT[0, 0] = WEIGHT[1, 0] = WEIGHT[2, 1] = WEIGHT[3, 1] = WEIGHT[4, 2] = 1.0
WEIGHT[5, 2] = -2.0
BIAS = torch.tensor([-0.01, -1.4, -0.01])


class Cut(Rotation):
    """A rotation that never reads less than nothing."""

    def encode(self, x):
        return (x @ self.matrix.T).clamp_min(1e-3) - 1e-3


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(0)
    on = rng.random((ROWS, WIDTH)) < 0.3
    f = torch.from_numpy((on * rng.uniform(0.9, 1.1, on.shape)).astype(np.float32))
    rotation = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(1)))[0]
    mlp = MLPWeights(rotation.T @ WEIGHT, BIAS)
    segment = Segment("in", "out", mlp, WIDTH, 3, mlp)
    return segment, Cut(rotation), Rotation(torch.eye(3)), f @ rotation


def exact(scale: float = 1.0) -> Connector:
    return Connector.from_dense(WEIGHT.T * scale, BIAS)


def test_the_true_connector_foresees_every_edit(world):
    segment, basis_in, basis_out, x = world
    figures = causal_figures(segment, basis_in, basis_out, exact(), x[:1000], rows=400)
    for edit in ("removals", "subsets", "additions"):
        found = figures[edit]
        assert found["r2"] > 0.99
        assert found["shuffled_r2"] < 0.0
        assert found["on_off" if edit != "additions" else "off_on"]["happened"] > 0.99
        assert found["on_off" if edit != "additions" else "off_on"]["recall"] > 0.95
    assert figures["rules"] is None


def test_a_connector_of_the_wrong_sign_is_worse_than_none(world):
    segment, basis_in, basis_out, x = world
    found = causal_figures(segment, basis_in, basis_out, exact(-1.0), x, rows=500)
    assert found["removals"]["r2"] < 0
    assert found["edges"]["sign_agreement"] == 0.0


def test_r2_is_the_share_of_squared_change_that_is_foreseen(world):
    """On a linear segment with half of the true weights: 1 - (1 - 1/2)^2."""
    _, basis_in, basis_out, x = world
    linear = MLPWeights(basis_in.matrix.T @ WEIGHT, torch.zeros(3), act="identity")
    segment = Segment("in", "out", linear, WIDTH, 3, linear)
    connector = Connector.from_dense(WEIGHT.T * 0.5, torch.zeros(3), activation="identity")
    found = edit_figures(segment, basis_in, basis_out, connector, x, removal, torch.Generator().manual_seed(0))
    assert found["r2"] == pytest.approx(0.75, abs=1e-3)
    assert found["local_jacobian_r2"] == pytest.approx(1.0, abs=1e-4)
    everything = Counterfactual(drop=(1, 1), drop_share=1, add_share=0).edit
    nothing_left = edit_figures(segment, basis_in, basis_out, connector, x, everything, torch.Generator())
    y, change = linear(x), linear(basis_in.encode(x) @ basis_in.matrix)
    assert nothing_left["size"] == pytest.approx(
        float(change.square().sum() / (y - y.mean(0)).square().sum()), rel=1e-4
    )


#: an OR with both on, an AND with both, an AND-NOT without what it forbids, a feature that nothing reads
FOUR = torch.zeros(4, WIDTH)
FOUR[0, [0, 1]] = FOUR[1, [2, 3]] = FOUR[2, 4] = FOUR[3, 7] = 1.0


def test_what_closes_an_output_by_itself_is_found():
    codes, generator = Codes.of(FOUR), torch.Generator().manual_seed(0)
    change = decisive(lambda f: exact()(f) > 0)(codes, Library.observed(codes), generator).change.dense()
    assert change[0].abs().sum() == 0  # the other arm of the OR keeps it open
    assert sorted(change[1, 2:4].tolist()) == [-1, 0]
    assert (change[2].nonzero().flatten().tolist(), float(change[2, 4])) == ([4], -1)
    assert change[3].abs().sum() == 0


def test_restoring_starts_where_the_rule_is_closed_and_opens_it(world):
    """By hand: the AND and the AND-NOT come back with .6 and .99; wires of half the strength foresee 1 - (1/2)^2 of that."""
    segment, basis_in, basis_out, _ = world
    x = (FOUR * (1 + 1e-3) @ basis_in.matrix).repeat(40, 1)
    for scale, r2 in ((1.0, 1.0), (0.5, 0.75)):
        wires = Connector.from_dense(WEIGHT.T * scale, BIAS * scale)
        found = restoring_figures(segment, basis_in, basis_out, wires, x, torch.Generator().manual_seed(0))
        assert found["r2"] == pytest.approx(r2, abs=1e-2)
        assert found["off_on"]["predicted"] == 80  # two of the four rows, forty times
        assert found["off_on"]["happened"] == 1.0
        y = segment.forward(x)
        assert found["on_off"]["predicted"] == 0
    closed = y.clone()
    closed[1::4, 1] = closed[2::4, 2] = 0.0  # the output from which restoring starts
    change = 40 * (0.6**2 + 0.99**2)
    assert found["size"] == pytest.approx(change / float((closed - closed.mean(0)).square().sum()), rel=2e-2)
    linear = Connector.from_dense(WEIGHT.T, BIAS, activation="identity")
    assert restoring_figures(segment, basis_in, basis_out, linear, x, torch.Generator()) is None


def test_flips_of_features_of_the_input_are_judged_by_the_output(world):
    """True gates are borne out; with the dictionary turned round, y moves the wrong way, though every gate still flips as said."""
    segment, basis_in, _, x = world
    shares = []
    for sign in (1.0, -1.0):
        gates = GateBasis(basis_in, exact(), sign * torch.eye(3), torch.zeros(3), WIDTH)
        generator = torch.Generator().manual_seed(0)
        found = edit_figures(segment, basis_in, gates, exact(), x[:400], subset, generator)["on_off"]
        assert found["predicted"] > 20
        assert found["base_rate"] < 0.9
        shares.append(found["happened"])
    assert shares == [1.0, 0.0]


def test_wires_agree_with_ablation_or_are_dropped(world):
    segment, basis_in, basis_out, x = world
    stage = Stage.of(segment, basis_in, basis_out, x)
    wrong = exact().weight.to_dense()
    wrong[0, 0] *= -1  # the wire's sign denies what removal does
    wrong[2, 7] = 0.3  # nothing happens when 7 is removed
    connector = Connector.from_dense(wrong, BIAS)
    ablation = ablate_wires(stage, connector, top=None)
    wires = list(zip(ablation.out.tolist(), ablation.parent.tolist(), strict=True))
    flagged = {wire for wire, bad in zip(wires, ablation.contradicted.tolist(), strict=True) if bad}
    silent = {wire for wire, idle in zip(wires, ablation.silent.tolist(), strict=True) if idle}
    assert flagged == {(0, 0)}
    assert silent == {(2, 7)}
    expected = wrong.clone()
    expected[0, 0] = 0
    assert torch.equal(drop_contradicted(connector, ablation).weight.to_dense(), expected)
    expected[2, 7] = 0
    assert torch.equal(drop_contradicted(connector, ablation, silent=True).weight.to_dense(), expected)
    figures = ablation.figures()
    assert (figures["edges"], figures["contradicted"], figures["silent"]) == (7, 1, 1)
    assert figures["sign_agreement"] == pytest.approx(5 / 6)


def test_effects_of_ablation_are_mean_differences_of_the_real_output(world):
    segment, basis_in, basis_out, x = world
    stage = Stage.of(segment, basis_in, basis_out, x)
    ablation = ablate_wires(stage, exact(), top=1, rows=10_000)
    out, parent = int(ablation.out[0]), int(ablation.parent[0])
    assert (out, parent) == (2, 5)
    f = basis_in.encode(x)[:, parent]
    rows = f > 0
    removed = x[rows] - f[rows, None] * basis_in.matrix[parent]
    effect = segment.forward(x[rows])[:, out] - segment.forward(removed)[:, out]
    assert ablation.effect[0] == pytest.approx(float(effect.mean()), abs=1e-6)
    assert ablation.error[0] == pytest.approx(float(effect.std() / len(effect) ** 0.5), abs=1e-5)


def test_rules_that_hold_in_the_model_make_it_flip(world):
    segment, basis_in, basis_out, x = world
    f_in, f_out = basis_in.encode(x), basis_out.encode(segment.forward(x))
    model = {"segment": segment, "basis_in": basis_in, "basis_out": basis_out, "x": x}
    gates = type_gates(exact(), f_in, f_out, held_out=(f_in, f_out), **model)
    assert [str(g.kind) for g in gates] == ["or", "and", "and_not"]
    figures = rule_flips(Stage.of(segment, basis_in, basis_out, x, levels_of(gates, 3)), gates).figures()
    assert figures["gates"] == 3
    for way in ("on_off", "off_on"):
        assert figures[way]["required"] == 96
        assert figures[way]["made"] == 1.0
        assert figures[way]["random_features"] < 0.3


def test_gates_of_the_input_are_held_against_what_the_model_gives(world):
    """A gate dictionary agrees with its own rules whatever the model does: rules and wires are judged by y."""
    segment, basis_in, _, x = world
    f_in = basis_in.encode(x)
    gates = type_gates(exact(), f_in, exact()(f_in))
    for sign, right in ((1.0, 1.0), (-1.0, 0.0)):
        basis = GateBasis(basis_in, exact(), sign * torch.eye(3), torch.zeros(3), WIDTH)
        stage = Stage.of(segment, basis_in, basis, x, levels_of(gates, 3))
        flips = rule_flips(stage, gates).figures()
        assert flips["gates"] == 3
        assert flips["off_on"]["made"] == right
        assert flips["on_off"]["made"] == (1.0 if right else None)  # turned round, no output shows its feature
        wires = ablate_wires(stage, exact(), top=None).figures()
        assert wires["silent"] == (0 if right else 6)
        assert wires["sign_agreement"] == (1.0 if right else None)


def test_one_row_is_not_enough(world):
    segment, basis_in, basis_out, x = world
    with pytest.raises(DataError, match="two rows or more at in"):
        causal_figures(segment, basis_in, basis_out, exact(), x[:1])
