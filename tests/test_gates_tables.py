"""Tables, rules and interactions, against counts and sums worked out row by row."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from gatelens.connectors import Connector
from gatelens.gates.evidence import Predictor, best_cut, contradiction, cut_mcc, decisive, score
from gatelens.gates.gate import Gate, GateKind
from gatelens.gates.harsanyi import dividends, magnitude
from gatelens.gates.hypotheses import Rule, decide, explained, weight_rule
from gatelens.gates.interventions import SetTable
from gatelens.gates.parents import Parents
from gatelens.gates.tables import Cells, Columns, Counter, halves
from gatelens.gates.verdict import verdict


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    f = (rng.random((500, 6)) < 0.4) * rng.normal(1, 0.6, (500, 6))
    g = (rng.random((500, 2)) < 0.3) * rng.uniform(0.1, 2, (500, 2))
    return f, g


@pytest.mark.parametrize("sparse", [False, True])
def test_cells_are_the_counts_of_each_pattern_also_for_signed_features(features, sparse):
    f, g = features
    f_in, f_out = torch.from_numpy(f), torch.from_numpy(g)
    columns = [Columns.of(t.to_sparse_csr() if sparse else t, "f") for t in (f_in, f_out)]
    counter = Counter(*columns)
    for parents in ([0], [2, 4, 1], [0, 1, 2, 3, 4]):
        cells = counter.cells(1, parents)
        for code in range(1 << len(parents)):
            rows = np.ones(500, bool)
            for j, parent in enumerate(parents):
                rows &= (f[:, parent] > 0) == bool(code >> j & 1)
            assert cells.count[code] == rows.sum()
            assert cells.fired[code] == (g[rows, 1] > 0).sum()
            assert cells.total[code] == pytest.approx(g[rows, 1].sum())


def test_marginal_tables_are_the_tables_of_fewer_parents(features):
    counter = Counter(*(Columns.of(torch.from_numpy(t), "f") for t in features))
    wide, narrow = counter.cells(0, [3, 1, 5]), counter.cells(0, [5, 3])
    assert np.array_equal(wide.marginal([2, 0]).count, narrow.count)
    assert np.allclose(wide.marginal([2, 0]).total, narrow.total)


def test_halves_and_statistics_are_those_of_the_rows(features):
    f, _ = features
    whole = Columns.of(torch.from_numpy(f), "f")
    first, second = halves(whole)
    for part, rows in ((first, f[:250]), (second, f[250:])):
        assert np.array_equal(part.firings(), (rows > 0).sum(0))
        assert np.allclose(part.mean_on(), [r[r > 0].mean() for r in rows.T])
        assert np.allclose(np.stack([part.dense(j) for j in range(6)], 1), rows)


def test_counterexamples_are_rows_of_both_kinds(features):
    f, g = features
    counter = Counter(*(Columns.of(torch.from_numpy(t), "f") for t in features))
    missed, false_alarms = counter.counterexamples(0, [2, 3], Rule(0b11, 0, 2).open, most=400)
    both = (f[:, 2] > 0) & (f[:, 3] > 0)
    assert set(missed) == set(np.flatnonzero((g[:, 0] > 0) & ~both))
    assert set(false_alarms) == set(np.flatnonzero((g[:, 0] == 0) & both))
    assert not counter.code.any()


def test_scores_agree_with_sklearn(features):
    from sklearn.metrics import matthews_corrcoef, precision_score, recall_score

    f, g = features
    counter = Counter(*(Columns.of(torch.from_numpy(t), "f") for t in features))
    rule = Rule(0b01, 0b10, 1)
    predicted, fired = (f[:, 0] > 0) & ~(f[:, 1] > 0), g[:, 0] > 0
    found = score(rule, counter.cells(0, [0, 1]))
    assert found.mcc == pytest.approx(matthews_corrcoef(fired, predicted))
    assert found.precision == pytest.approx(precision_score(fired, predicted))
    assert found.recall == pytest.approx(recall_score(fired, predicted))


def test_scores_of_what_never_fires_are_undefined():
    cells = Cells(np.array([5.0, 5.0]), np.zeros(2), np.zeros(2))
    assert score(Rule(1, 0, 1), cells).mcc is None
    assert score(Rule(1, 0, 1), cells).recall is None


def test_r2_and_the_best_cut_agree_with_dense_arithmetic(features):
    from sklearn.metrics import matthews_corrcoef, r2_score

    f, g = features
    g[:, 0] += np.maximum(f[:, 0] - f[:, 3], 0)
    weight, bias = torch.tensor([[0.8, 0.0, 0.0, -0.9, 0.0, 0.2]]), torch.tensor([-0.1])
    for rest, act in (
        ({}, lambda z: np.maximum(z, 0)),
        ({"threshold": torch.tensor([0.4])}, lambda z: z * (z > 0.4)),
        ({"activation": "identity"}, lambda z: z),
    ):
        connector = Connector.from_dense(weight, bias, **rest)
        predictor = Predictor(connector, Columns.of(torch.from_numpy(f), "f"), Columns.of(torch.from_numpy(g), "g"))
        sums = predictor.sums(0, [0, 3, 5], weight[0, [0, 3, 5]].tolist())
        z = f @ weight[0].double().numpy() - 0.1
        assert predictor.r2(0, sums) == pytest.approx(r2_score(g[:, 0], act(z)), abs=1e-6)
    cut = best_cut(sums)
    best = max(matthews_corrcoef(g[:, 0] > 0, z >= c) for c in z[z > -0.1])
    assert cut_mcc(sums, cut) == pytest.approx(best)


def cells_of(rates, count=500.0) -> Cells:
    count = np.full(len(rates), count)
    return Cells(count, count * np.array(rates), count * np.array(rates))


@pytest.mark.parametrize(
    ("rates", "weights", "rule"),
    [
        ([0.01, 0.9], [1], Rule(0b1, 0, 1)),
        ([0.01, 0.9, 0.9, 0.9], [1, 1], Rule(0b11, 0, 1)),
        ([0.01, 0.03, 0.03, 0.9], [1, 1], Rule(0b11, 0, 2)),
        ([0.01, 0.9, 0.01, 0.05], [1, -1], Rule(0b01, 0b10, 1)),
        ([0.01, 0.9, 0.01, 0.5], [1, -1], Rule(0b01, 0b10, 1)),  # a soft NOT
        ([0.01, 0.05, 0.05, 0.7, 0.05, 0.7, 0.7, 0.7], [1, 1, 1], Rule(0b111, 0, 2)),
        ([0.01, 0.7, 0.7, 0.7, 0.01, 0.05, 0.05, 0.05], [1, 1, -1], Rule(0b011, 0b100, 1)),
        ([0.01, 0.9, 0.01, 0.9], [1, 1], Rule(0b01, 0, 1)),  # a wire that does nothing is dropped
        ([0.01, 0.9, 0.01, 0.01], [1, 1], Rule(0b01, 0b10, 1)),  # a wire of the wrong sign is turned
    ],
)
def test_the_likeliest_rule_is_the_one_that_made_the_table(rates, weights, rule):
    weights = np.array(weights, float)
    assert decide(cells_of(rates), weights, np.ones(len(weights)), -0.5) == rule


def test_no_rule_where_firing_does_not_depend_on_the_parents():
    assert decide(cells_of([0.3, 0.3, 0.3, 0.3]), np.ones(2), np.ones(2), 0.0) in (None, Rule(1, 0, 1), Rule(2, 0, 1))


def test_kinds_follow_from_the_rule():
    kinds = {
        (0b1, 0, 1): GateKind.COPY,
        (0b11, 0, 1): GateKind.OR,
        (0b11, 0, 2): GateKind.AND,
        (0b111, 0, 2): GateKind.K_OF_N,
        (0b1, 0b10, 1): GateKind.AND_NOT,
        (0b11, 0b100, 1): GateKind.MIXED,
    }
    assert {rule: Rule(*rule).kind for rule in kinds} == kinds


def test_what_the_wires_alone_say():
    ones = np.ones(3)
    assert weight_rule(np.array([1.0, 1.0, 1.0]), ones, -0.5) == Rule(0b111, 0, 1)
    assert weight_rule(np.array([1.0, 1.0, 1.0]), ones, -1.5) == Rule(0b111, 0, 2)
    assert weight_rule(np.array([2.0, 1.0, 1.0]), ones, -2.5) is None  # A and (B or C) is outside the family
    assert weight_rule(np.array([1.0, 1.0, -5.0]), ones, -0.5) == Rule(0b011, 0b100, 1)


def test_decisive_patterns_of_an_and_are_its_parts_and_their_union():
    cells = cells_of([0.0, 0.0, 0.0, 1.0])
    found = {cell.on: cell.is_open for cell in decisive(Rule(0b11, 0, 2), cells)}
    assert found == {(0, 1): True, (0,): False, (1,): False}


def test_an_xor_contradicts_the_or_that_fits_it_best():
    cell = contradiction(Rule(0b11, 0, 1), cells_of([0.0, 0.9, 0.9, 0.0]), 10)
    assert cell is not None
    assert (cell.on, cell.is_open, cell.rate) == ((0, 1), True, 0.0)
    assert contradiction(Rule(0b11, 0, 1), cells_of([0.0, 0.9, 0.9, 0.8]), 10) is None


def test_two_rates_explain_a_gate_and_not_a_slope():
    assert explained(Rule(0b11, 0, 1), cells_of([0.0, 0.9, 0.9, 0.9])) > 0.99
    assert explained(Rule(0b11, 0, 1), cells_of([0.0, 0.3, 0.6, 0.95])) < 0.9


def test_dividends_are_sums_over_subsets_with_alternating_signs():
    values = np.random.default_rng(0).normal(size=8)
    found = dividends(values)
    for code in range(8):
        members = [j for j in range(3) if code >> j & 1]
        expected = sum(
            (-1) ** (len(members) - size) * values[sum(1 << j for j in subset)]
            for size in range(len(members) + 1)
            for subset in combinations(members, size)
        )
        assert found[code] == pytest.approx(expected)
        inside = [c for c in range(8) if c & code == c]
        assert values[code] == pytest.approx(found[inside].sum())


def test_magnitudes_of_sums_and_of_saturating_gates():
    def table(values):
        count = np.full(len(values), 100.0)
        return Cells(count, count, count * np.array(values))

    assert magnitude(table([0, 1, 2, 3]), 10) == "adder"
    assert magnitude(table([0, 1, 1, 1]), 10) == "saturating"
    assert magnitude(table([0, 0, 0, 1]), 10) == ""
    assert magnitude(table([0, 1, 2, 3]), 1000) == ""


def test_copies_dead_and_dense_inputs_are_named():
    rng = np.random.default_rng(0)
    f = (rng.random((2000, 6)) < [0.05, 0.05, 0.05, 0.6, 0.0, 0.05]) * 1.0
    f[:, 2] = f[:, 0] * 0.7
    connector = Connector.from_dense(torch.tensor([[1.0, 0.5, 0.9, 0.4, 2.0, 0.1]]), torch.zeros(1))
    wires = Parents(connector, Columns.of(torch.from_numpy(f), "f"), max_inputs=3).of(0)
    assert wires.table == (0, 1, 3)
    assert wires.inputs == (0, 1, 3, 2, 5)
    assert wires.weights == pytest.approx((1.0, 0.5, 0.4, 0.9, 0.1))
    assert any("never on: IF_4" in note for note in wires.notes)
    assert any("IF_2 fires with IF_0" in note for note in wires.notes)
    assert any("pooled over 1 weaker" in note for note in wires.notes)
    assert any("over 20% of rows: IF_3" in note for note in wires.notes)


@pytest.mark.parametrize(("rates", "verified"), [((0.0, 1.0), True), ((0.0, 0.45), None), ((0.0, 0.1), False)])
def test_a_model_that_is_in_two_minds_is_undecided(rates, verified):
    gate = Gate(0, GateKind.COPY, (3,), (1.0,), 0.0, excite=(3,))
    table = SetTable(cells_of(rates, 32.0), cells_of(rates, 32.0))
    found, why = verdict(Rule(1, 0, 1), gate, table, 10)
    assert found is verified
    assert ("undecided" in why, "disagree" in why) == (verified is None, verified is False)


def test_too_few_rows_of_one_kind_decide_nothing():
    gate = Gate(0, GateKind.COPY, (3,), (1.0,), 0.0, excite=(3,))
    found, why = verdict(Rule(1, 0, 1), gate, SetTable(cells_of((0, 1.0), 4.0), cells_of((0, 1.0), 32.0)), 10)
    assert found is None
    assert "fires on 4 of the rows" in why
