"""Tables, sums, contradictions, grades and interactions, against what is worked out row by row."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from gatelens.connectors import Connector
from gatelens.gates import Grade
from gatelens.gates.contradictions import against
from gatelens.gates.grade import judged
from gatelens.gates.graded import GradedSum
from gatelens.gates.harsanyi import dividends, magnitude
from gatelens.gates.parents import Parents
from gatelens.gates.predictor import explained
from gatelens.gates.rule import Literal
from gatelens.gates.scores import Score, counts
from gatelens.gates.search import Target
from gatelens.gates.tables import Cells, Columns, Counter, every, halves
from support.gates import rule_of


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    f = (rng.random((500, 6)) < 0.4) * rng.normal(1, 0.6, (500, 6))
    g = (rng.random((500, 2)) < 0.3) * rng.uniform(0.1, 2, (500, 2))
    return f, g


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(("level", "out_level"), [(0.0, 0.0), (0.8, 0.5)])
def test_cells_are_the_counts_of_each_pattern_also_for_signed_features(features, sparse, level, out_level):
    f, g = features
    f_in, f_out = torch.from_numpy(f), torch.from_numpy(g)
    columns = [Columns.of(t.to_sparse_csr() if sparse else t, "f") for t in (f_in, f_out)]
    counter = Counter(*columns)
    clear = (g[:, 1] <= 0) | (g[:, 1] > out_level)
    for parents in ([0], [2, 4, 1], [0, 1, 2, 3, 4]):
        cells = counter.cells(1, [Literal(p, level) for p in parents], out_level)
        for code, pattern in enumerate(cells.patterns):
            rows = clear & ((f[:, parents] > level) == pattern).all(1)
            on = rows & (g[:, 1] > out_level)
            assert cells.count[code] == rows.sum()
            assert cells.fired[code] == on.sum()
            assert cells.total[code] == pytest.approx(g[on, 1].sum())
        assert not counter.code.any()


def test_halves_and_statistics_are_those_of_the_rows(features):
    f, _ = features
    whole = Columns.of(torch.from_numpy(f), "f")
    first, second = halves(whole)
    for part, rows in ((first, f[:250]), (second, f[250:])):
        assert np.array_equal(part.firings(), (rows > 0).sum(0))
        assert np.allclose(part.mean_on(), [r[r > 0].mean() for r in rows.T])
        assert np.allclose(np.stack([part.dense(j) for j in range(6)], 1), rows)


def test_every_third_row(features):
    f, _ = features
    part = every(Columns.of(torch.from_numpy(f), "f"), 3)
    assert np.allclose(np.stack([part.dense(j) for j in range(6)], 1), f[::3])


def test_scores_agree_with_sklearn(features):
    from sklearn.metrics import average_precision_score, f1_score, jaccard_score, matthews_corrcoef, precision_score

    f, g = features
    predicted, fired = (f[:, 0] > 0) & ~(f[:, 1] > 0), g[:, 0] > 0
    found = Score.of(counts(np.flatnonzero(predicted), np.flatnonzero(fired), np.zeros(0, int), 500))
    assert found.mcc == pytest.approx(matthews_corrcoef(fired, predicted))
    assert found.precision == pytest.approx(precision_score(fired, predicted))
    assert found.f1 == pytest.approx(f1_score(fired, predicted))
    assert found.iou == pytest.approx(jaccard_score(fired, predicted))
    columns, target = Columns.of(torch.from_numpy(f), "f"), Target.at(np.flatnonzero(fired), g[fired, 0], 0.0)
    sums = GradedSum((0, 1, 4), np.array([1.0, -0.5, 0.3])).on(columns, target)
    z = f[:, [0, 1, 4]] @ [1.0, -0.5, 0.3]
    assert sums.average_precision() == pytest.approx(average_precision_score(fired, z))


def test_r2_agrees_with_dense_arithmetic(features):
    from sklearn.metrics import r2_score

    f, g = features
    g[:, 0] += np.maximum(f[:, 0] - f[:, 3], 0)
    weight, bias = torch.tensor([[0.8, 0.0, 0.0, -0.9, 0.0, 0.2]]), torch.tensor([-0.1])
    for rest, act in (
        ({}, lambda z: np.maximum(z, 0)),
        ({"threshold": torch.tensor([0.4])}, lambda z: z * (z > 0.4)),
        ({"activation": "identity"}, lambda z: z),
    ):
        connector = Connector.from_dense(weight, bias, **rest)
        found = explained(connector, Columns.of(torch.from_numpy(f), "f"), Columns.of(torch.from_numpy(g[:, :1]), "g"))
        z = f @ weight[0].double().numpy() - 0.1
        assert found == [pytest.approx(r2_score(g[:, 0], act(z)), abs=1e-6)]
    none = Connector.from_dense(torch.zeros(2, 6), torch.tensor([-0.1, 0.2]), activation="identity")
    y = np.stack([g[:, 0], np.zeros(500)], 1)
    found = explained(none, Columns.of(torch.from_numpy(f), "f"), Columns.of(torch.from_numpy(y), "g"))
    assert found == [pytest.approx(r2_score(g[:, 0], np.full(500, -0.1)), abs=1e-6), None]


def test_r2_of_many_outputs_and_products_agrees_with_dense_arithmetic(features, monkeypatch):
    """In blocks of any size, where a block may have no wire at all."""
    from sklearn.metrics import r2_score

    from gatelens.connectors import ProductConnector
    from gatelens.gates import predictor

    f, _ = features
    draw = np.random.default_rng(3)
    weights = [
        torch.from_numpy((draw.normal(size=(9, 6)) * (draw.random((9, 6)) < 0.4)).astype(np.float32)) for _ in range(2)
    ]
    weights[0][4:7] = weights[1][4:7] = 0
    biases = [torch.from_numpy(draw.normal(size=9).astype(np.float32) / 4) for _ in range(2)]
    sides = [Connector.from_dense(w, b) for w, b in zip(weights, biases, strict=True)]
    least = torch.full((9,), 0.2)
    for connector in (sides[0], ProductConnector.of(*sides), ProductConnector.of(*sides, least)):
        said = connector(torch.from_numpy(f).float()).double().numpy()
        y = np.maximum(said + draw.normal(size=said.shape) * 0.3, 0)
        parts = Columns.of(torch.from_numpy(f), "f"), Columns.of(torch.from_numpy(y), "y")
        wanted = [pytest.approx(r2_score(y[:, j], said[:, j]), abs=1e-5) for j in range(9)]
        for entries in (1, 300, 10**6):
            monkeypatch.setattr(predictor, "_ENTRIES", entries)
            assert explained(connector, *parts) == wanted


def test_a_weighted_sum_is_the_regression_and_its_cut_the_best(features):
    from sklearn.linear_model import LinearRegression
    from sklearn.metrics import matthews_corrcoef

    f, g = features
    g[:, 0] += np.maximum(f[:, 0] - f[:, 3] - 0.4, 0)
    level = 0.3
    row = np.flatnonzero(g[:, 0] > 0)
    target = Target.at(row, g[row, 0], level)
    clear = (g[:, 0] <= 0) | (g[:, 0] > level)
    x, on = f[clear][:, [0, 3]], g[clear, 0] > level
    columns = Columns.of(torch.from_numpy(f), "f")
    graded, _ = GradedSum.fitted(columns, (0, 3), target)
    assert graded.weights == pytest.approx(LinearRegression().fit(x, on).coef_, abs=1e-6)
    sums, z = graded.on(columns, target), x @ graded.weights
    best = max(matthews_corrcoef(on, z >= c) for c in z[z > 0])
    assert sums.cut_mcc(sums.best_cut()) == pytest.approx(best)


def cells_of(rates, count=500.0) -> Cells:
    count = np.full(len(rates), count)
    return Cells(count, count * np.array(rates), count * np.array(rates))


def test_an_xor_contradicts_the_or_that_fits_it_best():
    found = against(rule_of((3, 5)), cells_of([0.0, 0.9, 0.9, 0.0]), 10)
    assert found.words == "predicted on, but fired in only 0 of 500 rows with IF_3 and IF_5 on"
    assert found.clear
    assert against(rule_of((3, 5)), cells_of([0.0, 0.9, 0.9, 0.8]), 10) is None


def test_a_pattern_that_fires_against_the_rule_is_said_and_only_spoils_it_when_it_clearly_does_the_opposite():
    rule = rule_of((3,), (5,))
    leans = against(rule, cells_of([0.0, 0.9, 0.6, 0.0]), 10)
    assert leans.words == "predicted off, but fired in 300 of 500 rows with IF_5 on, IF_3 off"
    assert not leans.clear
    assert against(rule, cells_of([0.0, 0.9, 0.9, 0.0]), 10).clear
    assert against(rule, cells_of([0.0, 0.9, 0.9, 0.0]), 501) is None
    # what fires it with no literal on is outside the rule; and a few such rows among many are no more than an exception
    assert against(rule, cells_of([0.9, 0.9, 0.0, 0.0]), 10) is None
    rare = Cells(np.array([5e3, 5e3, 20, 500]), np.array([0, 4.9e3, 20, 0]), np.zeros(4))
    assert not against(rule, rare, 10).clear


GRADES = [
    (0.7, {}, "", "holds", ""),
    (0.45, {}, "", "weak", "under 0.5"),
    (None, {}, "", "weak", "could not be judged"),
    (0.7, {"random parents": 0.65}, "", "weak", "random parents reach 0.65"),
    (0.7, {"random parents": None, "shuffled rows": 0.3}, "", "holds", ""),
    (0.7, {"random parents": 0.1, "shuffled rows": 0.61}, "", "weak", "shuffled rows reach 0.61"),
    (0.9, {}, "predicted off, but fired", "weak", "predicted off, but fired"),
]


@pytest.mark.parametrize(("mcc", "nulls", "spoiled", "grade", "why"), GRADES)
def test_grades(mcc, nulls, spoiled, grade, why):
    found = judged(Score(mcc=mcc), nulls, against=spoiled)
    assert found[0] == Grade(grade)
    assert why in found[1]
    assert bool(found[1]) == (grade != "holds")


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


def test_dead_and_dense_wires_are_named():
    rng = np.random.default_rng(0)
    f = (rng.random((2000, 6)) < [0.05, 0.05, 0.05, 0.6, 0.0, 0.05]) * 1.0
    connector = Connector.from_dense(torch.tensor([[1.0, 0.5, 0.9, -0.4, 2.0, 0.0]]), torch.zeros(1))
    wires = Parents(connector, Columns.of(torch.from_numpy(f), "f")).of(0)
    assert wires.inputs == (0, 2, 1, 3)
    assert wires.weights == pytest.approx((1.0, 0.9, 0.5, -0.4))
    assert wires.notes == ("left out, never on: IF_4", "on in over 20% of rows: IF_3")
