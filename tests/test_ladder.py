"""The ladder: figures worked by hand on a segment that is known, ceilings above rivals, the null at nothing."""

from __future__ import annotations

import json

import pytest
import torch

from gatelens.basis.linear import Rotation
from gatelens.connectors import Connector
from gatelens.edits.counterfactual import Counterfactual
from gatelens.errors import DataError
from gatelens.evaluation.readings import table_mcc
from gatelens.evaluation.rivals import ridge_to_output
from gatelens.ladder.measuring import STATIC, Entry, Ladder, Measure, Rows, linear_wires, measure_ladder
from gatelens.segments import Segment
from support.dictionaries import Nonnegative

WIDTH, GATES = 12, 6


def known(rows=1500, seed=0):
    """y_i = relu(x_2i + x_2i+1 - 1.2): an AND of two inputs, each on in a third of the rows."""
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(rows, WIDTH, generator=generator) < 0.33) * (
        0.8 + 0.4 * torch.rand(rows, WIDTH, generator=generator)
    )
    weight = torch.zeros(GATES, WIDTH).scatter_(1, torch.arange(WIDTH).view(GATES, 2), 1.0)
    bias = torch.full((GATES,), -1.2)
    segment = Segment("in", "out", lambda x: (x @ weight.T + bias).clamp_min(0), WIDTH, GATES)
    return segment, Rows(x, segment.forward(x)), Connector.from_dense(weight, bias)


@pytest.fixture(scope="module")
def ladder():
    segment, fit, true = known()
    held = known(700, seed=1)[1]
    outputs = Rotation(torch.eye(GATES), label="neurons")
    entries = {"true gates": Entry(outputs, true), "one wire each": Entry(outputs, OneWire())}
    return measure_ladder(
        segment, Nonnegative(WIDTH), entries, fit, held, Measure(causal_rows=300, pairs=Counterfactual(pairs=2_000))
    )


class OneWire:
    """A solver: each output from its best single input."""

    def fit(self, f_in, f_out):
        return linear_wires(f_in, f_out, 1)


def test_the_true_gates_get_full_marks(ladder):
    true = ladder["true gates"]
    for name in (
        "median_r2",
        "over_07",
        "removals",
        "subsets",
        "restoring",
        "additions",
        "patches",
        "on_off",
        "opened",
        "off_on",
    ):
        assert true[name] == pytest.approx(1, abs=1e-4), name
    assert true["fvu"] == pytest.approx(0, abs=1e-6)
    assert true["edges"] == WIDTH
    assert true["fan_in"] == 2
    assert true["l0"] == true["true_l0"]
    assert ladder["exact MLP on decoded inputs"]["fvu"] == pytest.approx(0, abs=1e-6)


def test_the_rungs_stand_in_their_order(ladder):
    assert ladder["true gates"]["read"] == 1.0  # two inputs that must both be on
    assert ladder["one wire each"]["fvu"] > ladder["gate-free ridge"]["fvu"] > 0.1
    assert ladder["gate-free ridge"]["fvu"] <= ladder["gate-free ridge, same loss"]["fvu"] + 0.02
    null = ladder["null: other rows' inputs"]
    assert null["fvu"] > 0.9
    assert null["median_r2"] < 0
    assert null["read"] == 0.0
    # the raw inputs are the features here, so two of them explain as much as a linear map can; components mix them
    assert ladder["neurons, equal wires"]["fvu"] < ladder["principal components, equal wires"]["fvu"]


def test_beside_it_stands_what_as_many_wires_can_carry(ladder):
    """Each input moves one output here: one wire an input carries everything, whatever it is fitted to."""
    assert ladder[STATIC] == {"removals": pytest.approx(1), "additions": pytest.approx(1)}


def test_it_prints_and_becomes_json(ladder):
    text = repr(ladder)
    for name in ladder.rungs:
        assert name in text
    assert json.loads(json.dumps(ladder.to_dict(), allow_nan=False))["true gates"]["edges"] == WIDTH
    both = ladder.beside(Ladder("s", {"a": {"fvu": float("nan")}}), "random weights")
    assert both.to_dict()["random weights: a"]["fvu"] is None
    assert "random weights: a" in repr(both)


def test_a_truth_table_by_hand():
    """AND over the four patterns: 3 of 4 rows with both on are on, all others off; the table says "both"."""
    f = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1], [1, 1], [1, 1], [1, 1]]).float()
    out = torch.tensor([[0, 0, 0, 0, 1, 1, 1]]).T.float()
    mcc = table_mcc(Connector.from_dense(torch.ones(1, 2), torch.zeros(1)), f, out, f, out)
    tp, tn, fp, fn = 3, 3, 1, 0
    expected = (tp * tn - fp * fn) / ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) ** 0.5
    assert float(mcc[0]) == pytest.approx(expected)
    never = table_mcc(Connector.from_dense(torch.ones(1, 2), torch.zeros(1)), f, torch.zeros_like(out), f, out)
    assert float(never[0]) == 0.0


def test_the_ridge_is_sklearns_and_the_pair_loss_is_its_normal_equations():
    from sklearn.linear_model import Ridge

    segment, fit, _ = known(500)
    ours = ridge_to_output(segment, Nonnegative(WIDTH), fit.x, fit.y)
    power = float(fit.x.double().square().sum(0).mean())
    theirs = Ridge(alpha=1e-3 * power).fit(fit.x.double().numpy(), fit.y.double().numpy())
    assert torch.allclose(ours.weight.to_dense().double(), torch.from_numpy(theirs.coef_), atol=1e-4)
    edits, lam = Counterfactual(pairs=500), 3.0
    with_pairs = ridge_to_output(segment, Nonnegative(WIDTH), fit.x, fit.y, edits, lam)
    weight = with_pairs.weight.to_dense().clone().requires_grad_()
    bias = with_pairs.bias.clone().requires_grad_()
    loss = torch.zeros(())
    for pair in edits.pairs_of(segment, Nonnegative(WIDTH), fit.x, batch_size=4_096):
        natural, edited = (codes.dense() @ weight.T + bias for codes in (pair.codes, pair.edit.codes))
        loss = loss + (natural - pair.y).square().sum() + (edited - pair.y_edited).square().sum()
        loss = loss + lam * (edited - natural - (pair.y_edited - pair.y)).square().sum()
    loss.backward()
    scale = 2 * float(fit.y.square().sum())
    assert float(weight.grad.abs().max()) < 5e-3 * scale  # only the shrinkage is left
    assert float(bias.grad.abs().max()) < 1e-3 * scale


def test_rows_that_do_not_match_are_refused():
    with pytest.raises(DataError, match=r"3 and 2"):
        Rows(torch.zeros(3, 2), torch.zeros(2, 2))


def test_rows_are_taken_from_all_documents():
    document = torch.arange(100).repeat_interleave(30)[:, None].float()
    few = Rows(document, document).spread(200)
    assert len(few.x) == 200
    assert few.x.unique().numel() == 100
    assert torch.equal(Rows(document, document).spread(5_000).x, document)
