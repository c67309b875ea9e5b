"""Products of two features: planted ones are found, the closed form is least squares, shuffled partners do worse, bad input is refused."""

from __future__ import annotations

import json
import re
from copy import copy
from itertools import combinations

import pytest
import torch
from _explained import explained

import gatelens as gl
from gatelens.circuits import Circuit
from gatelens.codes.rows import Codes
from gatelens.connectors import Connector, ProductConnector
from gatelens.edits.counterfactual import Counterfactual
from gatelens.edits.kinds import removal
from gatelens.errors import BasisError, ConfigError, SolverError
from gatelens.evaluation.causal import edit_figures
from gatelens.gate_dictionaries.gate_first import GateDictionary
from gatelens.gate_dictionaries.input_tuning import InputTuning
from gatelens.gate_dictionaries.pair_bypass import PairBypass
from gatelens.gate_dictionaries.products import Candidates, Products
from gatelens.gate_dictionaries.rows import Sample
from gatelens.gates.saving import gate_from_dict, gate_to_dict
from gatelens.pipeline.building import build
from gatelens.saving import load_basis, save_basis
from gatelens.segments import Segment
from gatelens.views.export import circuit_json
from support.dictionaries import Nonnegative

WIDTH, OUT = 16, 10
PLANTED = ((0, 1), (2, 5), (3, 9), (4, 12), (10, 11))


def planted(rows=2500, seed=0):
    """x sparse and never negative; y = x V + five products, a direction each."""
    generator = torch.Generator().manual_seed(seed)
    on = torch.rand(rows, WIDTH, generator=generator) < 0.3
    x = on * (0.5 + torch.rand(rows, WIDTH, generator=generator))
    linear, directions = torch.randn(WIDTH, OUT, generator=generator), torch.randn(5, OUT, generator=generator)
    first, second = torch.tensor(PLANTED).T

    def forward(x):
        return x @ linear + 2 * (x[:, first] * x[:, second]) @ directions

    return Segment("in", "out", forward, WIDTH, OUT), x, forward(x)


def recipe(**rest):
    settings = {"pairs": 5, "inputs": Nonnegative(WIDTH), "counterfactual": Counterfactual(pairs=2500), "shrink": 1e-4}
    return PairBypass(**{**settings, **rest})


@pytest.fixture(scope="module")
def fitted():
    segment, x, y = planted()
    return segment, x, y, recipe().fit([segment], {"in": x, "out": y})["out"]


@pytest.fixture(scope="module")
def read(fitted):
    """The products as gates, tried in the model, and the rows that judged them."""
    segment, x, _, basis = fitted
    other = planted(seed=1)[1]
    unseen = other, basis.features_from(other)
    ends = {"segment": segment, "basis_in": Nonnegative(WIDTH), "basis_out": basis, "x": other}
    return gl.type_gates(basis.connector, x, basis.features_from(x), held_out=unseen, **ends), unseen


def pairs_in(basis):
    return {tuple(sorted(basis.connector.parents(i)[0].tolist())) for i in range(len(basis.W_dec))}


@pytest.mark.parametrize("edits", [None, Counterfactual(pairs=2500)])
def test_planted_products_are_found_and_explain_other_rows(edits):
    segment, x, y = planted()
    basis = recipe(counterfactual=edits).train(segment, Nonnegative(WIDTH), x, y)
    assert pairs_in(basis) == set(PLANTED)
    other = planted(seed=1)[1]
    assert explained(basis, other, segment.forward(other)) < 1e-4
    figures = edit_figures(segment, Nonnegative(WIDTH), basis, basis.connector, other, removal, torch.Generator())
    assert figures["r2"] > 0.999


def test_shuffled_partners_do_worse(fitted):
    segment, x, y, basis = fitted
    null = recipe(shuffled=True).train(segment, Nonnegative(WIDTH), x, y)
    assert len(null.W_dec) == 5 == len(pairs_in(null))
    assert not pairs_in(null) & set(PLANTED)
    assert explained(null, x, y) > 10 * explained(basis, x, y)


def test_a_product_is_one_where_both_are_on_as_usual():
    f = torch.tensor([[2.0, 4.0, 0.0], [4.0, 0.0, 1.0], [0.0, 8.0, 3.0]])
    products = Products(torch.tensor([0, 1]), torch.tensor([1, 2]), Codes.of(f).typical())
    expected = torch.tensor([[2 / 3 * 4 / 6, 0], [0, 0], [0, 8 / 6 * 3 / 2]])
    torch.testing.assert_close(products.of(Codes.of(f)).dense(), expected)


def test_scores_are_the_fall_of_the_loss_by_hand():
    """Against every pair written out in float64: natural rows, edits, and sqrt(lam) times the differences."""
    generator = torch.Generator().manual_seed(3)
    f = torch.rand(40, 6, generator=generator) * (torch.rand(40, 6, generator=generator) < 0.5)
    edited = f * (torch.rand(40, 6, generator=generator) < 0.8)
    left, left_edited = torch.randn(2, 40, 3, generator=generator)
    typical, lam = Codes.of(f).typical(), 3.0
    found = Candidates.of(Sample((Codes.of(f), left), (Codes.of(edited), left_edited)), typical, 4, lam)
    a, b = (f / typical).double(), (edited / typical).double()
    target = torch.cat([left, left_edited, lam**0.5 * (left_edited - left)]).double()
    expected = {}
    for i, j in combinations(range(6), 2):
        if int(((f[:, i] > 0) & (f[:, j] > 0)).sum()) >= 4:
            p, q = a[:, i] * a[:, j], b[:, i] * b[:, j]
            column = torch.cat([p, q, lam**0.5 * (q - p)])
            expected[i, j] = float((column @ target).square().sum() / column.square().sum())
    pairs = zip(found.products.first.tolist(), found.products.second.tolist(), strict=True)
    assert dict(zip(pairs, found.score.tolist(), strict=True)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("edits", [None, Counterfactual(pairs=600)])
def test_the_closed_form_is_ridge_by_hand(edits):
    """Float64 least squares on the rows written out, the penalty as further rows."""
    segment, x, y = planted(600)
    shrink, lam = 1e-2, 3.0
    basis = recipe(counterfactual=edits, shrink=shrink).train(segment, Nonnegative(WIDTH), x, y)
    first, second = (side.weight.col_indices() for side in basis.connector.sides)
    f = Nonnegative(WIDTH).encode(x)
    typical = Codes.of(f).typical()

    def terms(f):
        f = (f / typical).double()
        return torch.cat([f, f[:, first] * f[:, second]], 1)

    one = torch.ones(len(x), 1, dtype=torch.float64)
    design, target = torch.cat([terms(f), one], 1), y.double()
    if edits is not None:
        (pair,) = edits.pairs_of(segment, Nonnegative(WIDTH), x, 1000)
        before, after = terms(pair.codes.dense()), terms(pair.edit.codes.dense())
        change = lam**0.5 * torch.cat([after - before, 0 * one], 1)
        design = torch.cat([torch.cat([before, one], 1), torch.cat([after, one], 1), change])
        target = torch.cat([pair.y, pair.y_edited, lam**0.5 * (pair.y_edited - pair.y)]).double()
    power = design[:, :-1].square().sum(0).mean()
    penalty = (shrink * power).sqrt() * torch.eye(design.shape[1], dtype=torch.float64)[:-1]
    rows, wanted = torch.cat([design, penalty]), torch.cat([target, torch.zeros(len(penalty), OUT)])
    solution = torch.linalg.lstsq(rows, wanted).solution.float()
    torch.testing.assert_close(basis.W_dec, solution[WIDTH:-1], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(basis.bypass_in, solution[:WIDTH] / typical[:, None], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(basis.b_dec, solution[-1], rtol=1e-3, atol=1e-4)


def test_a_pair_is_read_as_an_and_and_verified_beside_its_control(fitted, read):
    for gate in read[0]:
        assert set(gate.rule.features) == set(fitted[3].connector.parents(gate.out)[0].tolist())
        assert str(gate.kind) == "and"
        assert gate.verified
        assert gate.tried.rates["off_on"] > 0.9 > 0.3 > gate.tried.control["off_on"]
        assert gate.r2 == pytest.approx(1, abs=1e-5)
        assert (gate.table.fired > 0).tolist() == gate.table.patterns.all(1).tolist(), "on where both are, else nowhere"
        assert gate_from_dict(json.loads(json.dumps(gate_to_dict(gate)))).equation() == gate.equation()


def test_a_pair_is_drawn_as_a_product_of_what_it_reads(fitted, read):
    segment, _, _, basis = fitted
    gates, (f_in, f_out) = read
    circuit = Circuit(
        [segment], {"in": Nonnegative(WIDTH), "out": basis}, {segment.name: basis.connector}, {segment.name: gates}
    )
    (first, second), scale = basis.connector.parents(0)[0].tolist(), basis.connector.weight.values()[:2]
    a, b = basis.connector.sides[0].parents(0)[0].item(), basis.connector.sides[1].parents(0)[0].item()
    assert {a, b} == {first, second}
    told = rf"OF_0.* ≈ \(.*·IF_{a}.*\) × \(.*·IF_{b}.*\)"
    assert re.search(told, re.sub("<[^>]+>", "", gl.views.card(gates[0]).text))
    known = circuit_json(circuit)["segments"][0]["connector"]
    assert [next(i for o, i, _ in side["wires"] if o == 0) for side in known["sides"]] == [a, b]
    both = int(f_out[:, 0].argmax())
    assert float(f_in[both, a] * f_in[both, b] * scale.prod()) == pytest.approx(float(f_out[both, 0]), rel=1e-5)


def test_products_are_kept_on_disk(fitted, tmp_path):
    _, x, _, basis = fitted
    with_saved_input = copy(basis)
    with_saved_input.basis_in = gl.Rotation(torch.eye(WIDTH))
    save_basis(with_saved_input, tmp_path / "basis")
    again = load_basis(tmp_path / "basis")
    f = x[:50]
    assert torch.equal(again.connector(f), basis.connector(f))
    assert torch.equal(again.bypass_in, basis.bypass_in)
    assert again.connector.wires == 10
    basis.connector.save(tmp_path / "wires")
    assert torch.equal(Connector.load(tmp_path / "wires")(f), basis.connector(f))


def test_a_product_of_sums_by_hand():
    first = Connector.from_dense(torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([-1.0]), activation="silu")
    second = Connector.from_dense(torch.tensor([[0.0, 3.0, -1.0]]), torch.tensor([0.5]))
    both, f = ProductConnector.of(first, second), torch.tensor([[1.0, 1.0, 2.0], [0.0, 0.5, 1.0]])
    a, b = torch.tensor([2.0, 0.0]), torch.tensor([1.5, 1.0])
    torch.testing.assert_close(both(f)[:, 0], torch.nn.functional.silu(a) * b)
    assert both.weight.to_dense().tolist() == [[1.0, 2.0, -1.0]]
    assert (both.wires, int(both.fan_in())) == (4, 3)
    absent = torch.tensor([5.0, 7.0, 9.0])  # the wire from the second input is not kept, in either sum
    a, b = f[:, 0] + 2 * 7 - 1, 3 * 7 - f[:, 2] + 0.5
    kept = torch.tensor([True, False, True])
    torch.testing.assert_close(both.partly(f, kept, absent)[:, 0], torch.nn.functional.silu(a) * b)
    with pytest.raises(SolverError, match="the same inputs and outputs"):
        ProductConnector.of(first, Connector.from_dense(torch.ones(2, 3), torch.zeros(2)))


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"pairs": 121, "counterfactual": None}, ("pairs = 121", "120 pairs")),
        ({"pairs": 5, "min_together": 400}, ("pairs = 5", "in at least 400")),
        ({"pairs": 3000}, ("from 2500 rows", "as many rows")),
        ({"pairs": 0}, ("pairs 0",)),
        ({"shrink": 0.0}, ("shrink 0.0",)),
        ({"pairs": 100, "shuffled": True}, ("null of 100 products", "20 are left")),
        ({"inputs": gl.Rotation(torch.eye(WIDTH))}, ("never negative",)),
    ],
)
def test_bad_input_is_refused(change, parts):
    segment, x, y = planted()
    with pytest.raises(BasisError) as caught:
        recipe(**change).fit([segment], {"in": x - (0.5 if "inputs" in change else 0.0), "out": y})
    for part in parts:
        assert part in str(caught.value)


def test_segments_that_meet_are_refused():
    segment, x, y = planted(600)
    following = Segment("out", "end", lambda x: x, OUT, OUT)
    with pytest.raises(BasisError, match="segments meet at out"):
        recipe().fit([segment, following], {"in": x, "out": y, "end": y})


def test_a_config_names_it_with_recipes_nested_in_it():
    section = {
        "use": "PairBypass",
        "pairs": 7,
        "inputs": {"use": "SegmentSAE"},
        "counterfactual": {"use": "Counterfactual"},
    }
    built = build(section, "bases")
    assert (built.pairs, type(built.inputs).__name__, built.counterfactual) == (7, "SegmentSAE", Counterfactual())
    with pytest.raises(ConfigError, match="pair"):
        build(section | {"pair": 3}, "bases")


def test_gates_are_trained_on_what_products_leave():
    """y = products + gates of three inputs: the gate dictionary with products in its bypass explains both."""
    segment, x, _ = planted()
    generator = torch.Generator().manual_seed(7)
    written = torch.linalg.qr(torch.randn(OUT, 4, generator=generator))[0].T
    wires = torch.zeros(4, WIDTH).scatter_(1, torch.arange(12).view(4, 3), 1.0)
    whole = Segment(
        "in", "out", lambda x: segment.forward(x) + 20 * (x @ wires.T - 2.2).clamp_min(0) @ written, WIDTH, OUT
    )
    y = whole.forward(x)
    settings = {"fan_in": 3, "l0": 1.0, "rounds": 3, "swap": 1, "batch_size": 128, "lr": 2e-2, "counterfactual": None}
    gates = GateDictionary(
        inputs=Nonnegative(WIDTH), outputs=gl.Rotation(written), samples=60_000, bypass=recipe(), **settings
    )
    both = gates.fit([whole], {"in": x, "out": y})["out"]
    products = recipe().train(whole, Nonnegative(WIDTH), x, y)
    assert explained(both, x, y) < 0.7 * explained(products, x, y)
    assert both.W_dec.shape == (4 + 5, OUT)
    assert torch.equal(both.W_dec[4:], products.W_dec)
    assert torch.equal(both.features_from(x)[:, 4:], products.features_from(x))
    torch.testing.assert_close(both.from_codes(Codes.of(x)), both.reconstruct(x), rtol=1e-4, atol=1e-4)
    assert both.connector.fan_in().tolist() == [3] * 4 + [2] * 5
    with pytest.raises(BasisError, match="expected one of the two"):
        GateDictionary(bypass=recipe(), tune_inputs=InputTuning())
