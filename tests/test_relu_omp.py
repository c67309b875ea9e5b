"""ReluOMP: its one-sided fit against scipy, its wires against planted gates, its files, its refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from gatelens.connectors import Solver
from gatelens.errors import NonFiniteError, SolverError, StoreError
from gatelens.planted import IN_CLASS, PlantedFeatures
from gatelens.solvers import ReluOMP
from gatelens.solvers.one_sided import fit_one_sided
from gatelens.solvers.relu_omp_output import Search
from gatelens.solvers.sparse_rows import SparseRows


def _one_sided_loss(theta, X, y, v):
    z = X @ theta[:-1] + theta[-1]
    return v @ np.where(y > 0, z - y, np.maximum(z, 0)) ** 2


@pytest.mark.parametrize("seed", range(5))
def test_the_one_sided_fit_is_scipys_minimum_under_a_bias_of_at_most_zero(seed):
    rng = np.random.default_rng(seed)
    X = rng.random((200, 3)) * (rng.random((200, 3)) < 0.6)
    X[~(X > 0).any(1), 0] = 0.5  # every row is reached
    y = np.maximum(X @ [1.0, 0.8, -1.5] + [0.3, -0.4][seed % 2] + 0.05 * rng.normal(size=200), 0)
    v = rng.uniform(0.5, 2, 200)
    fit = fit_one_sided(X, y, v, np.zeros(3))
    bounds = [(None, None)] * 3 + [(None, 0.0)]
    best = minimize(_one_sided_loss, np.zeros(4), (X, y, v), "L-BFGS-B", bounds=bounds, tol=1e-14)
    theta = np.append(fit.weights, fit.bias)
    assert fit.bias <= 0
    assert _one_sided_loss(theta, X, y, v) <= best.fun * (1 + 1e-5)
    assert fit.loss == pytest.approx(v @ (np.maximum(X @ fit.weights + fit.bias, 0) - y) ** 2)


def test_rows_that_no_parent_reaches_do_not_hold_the_bias_at_zero():
    """An AND, y = a + b - 1, with as many firings for no reason: by hand, w = (1, 1) and b = -1 leave 60."""
    X = np.array([[1.0, 1.0]] * 40 + [[1.0, 0.0]] * 80 + [[0.0, 1.0]] * 80 + [[0.0, 0.0]] * 60)
    y = np.array([1.0] * 40 + [0.0] * 160 + [1.0] * 60)
    fit = fit_one_sided(X, y, np.ones(len(y)), np.zeros(2))
    assert (fit.weights + fit.bias).max() <= 1e-3
    assert fit.weights.sum() + fit.bias == pytest.approx(1.0, abs=1e-3)
    assert fit.loss == pytest.approx(60.0, abs=1e-3)


def _scores(planted, connector, f_out, least=60):
    """Wires right, found and true over outputs that fire often enough, and whether all signs are right."""
    firings = torch.bincount(f_out.col_indices(), minlength=planted.width_out)
    right = found = true = 0
    for gate in planted.gates:
        if firings[gate.out] < least:
            continue
        wires = dict(zip(*(part.tolist() for part in connector.parents(gate.out)), strict=True))
        truth = dict(zip(gate.inputs, gate.weights, strict=True))
        right += sum(i in truth and truth[i] * w > 0 for i, w in wires.items())
        found, true = found + len(wires), true + len(truth)
    return right / found, right / true


@pytest.fixture(scope="module")
def planted():
    return PlantedFeatures(width_in=256, width_out=96, seed=5).plant()


@pytest.fixture(scope="module")
def features(planted):
    return planted.sample(10_000)


@pytest.fixture(scope="module")
def connector(features):
    return ReluOMP(block=16).fit(*features)


def test_planted_wires_are_found_with_their_signs(planted, features, connector):
    precision, recall = _scores(planted, connector, features[1])
    assert precision >= 0.98
    assert recall >= 0.97
    assert connector.fan_in().max() <= 8
    assert (connector.bias <= 0).all()
    assert isinstance(ReluOMP(), Solver)


@pytest.mark.parametrize("kind", [*IN_CLASS])
def test_each_kind_of_gate_alone(kind):
    planted = PlantedFeatures(width_in=256, width_out=16, mix={kind: 1.0}, seed=1).plant()
    features = planted.sample(15_000)
    precision, recall = _scores(planted, ReluOMP().fit(*features), features[1], least=150)
    assert precision >= 0.98
    assert recall >= 0.95


def test_shuffled_rows_give_no_wires(features):
    f_in, f_out = features
    order = torch.randperm(len(f_in), generator=torch.Generator().manual_seed(0))
    shuffled = f_in.to_dense()[order]
    assert (ReluOMP().fit(shuffled, f_out).fan_in() > 0).float().mean() <= 0.01


def test_dense_and_sparse_inputs_give_the_same(features, connector):
    again = ReluOMP(block=100).fit(*(f.to_dense() for f in features))
    assert torch.equal(again.weight.to_dense(), connector.weight.to_dense())
    assert torch.equal(again.bias, connector.bias)


def test_two_processes_and_resumed_blocks_give_the_same(tmp_path, features, connector):
    recipe = ReluOMP(block=16, workers=2, store=tmp_path)
    assert torch.equal(recipe.fit(*features).weight.to_dense(), connector.weight.to_dense())
    blocks = sorted((tmp_path / "blocks").glob("shard-*.safetensors"))
    kept = blocks[0].stat().st_mtime_ns
    blocks[1].unlink()
    again = ReluOMP(block=16, store=tmp_path).fit(*features)
    assert torch.equal(again.weight.to_dense(), connector.weight.to_dense())
    assert blocks[0].stat().st_mtime_ns == kept
    with pytest.raises(StoreError):
        ReluOMP(block=16, store=tmp_path, rho=0.5).fit(*features)


def test_a_worker_that_fails_is_reported(tmp_path, features, monkeypatch):
    monkeypatch.setattr(SparseRows, "save", lambda self, folder: folder.mkdir(parents=True))
    with pytest.raises(SolverError, match="2 of 2 ReluOMP processes"):
        ReluOMP(workers=2, store=tmp_path).fit(*features)


def test_strange_features_do_not_disturb(features):
    """A copy shares or takes the wire, a constant feature gets none, dead ones stay without wires, on both sides."""
    rng = np.random.default_rng(0)
    a = torch.from_numpy((rng.random(4000) < 0.05) * rng.uniform(0.5, 1.5, 4000)).float()
    b = torch.from_numpy((rng.random(4000) < 0.05) * rng.uniform(0.5, 1.5, 4000)).float()
    f_in = torch.stack([a, a, torch.ones(4000), torch.zeros(4000), b], 1)
    f_out = torch.stack([2 * a, torch.zeros(4000), b], 1)
    connector = ReluOMP().fit(f_in, f_out)
    assert (connector(f_in) - f_out).abs().max() < 1e-3
    dense = connector.weight.to_dense()
    assert not dense[:, 2:4].any()
    assert connector.fan_in()[1] == 0
    assert ReluOMP().fit(f_in, torch.ones(4000, 1)).fan_in()[0] == 0


def test_entries_of_rows(features):
    rows = SparseRows.of(features[0], "inputs")
    chosen = np.array([5, 0, 17])
    place, column, value = rows.take(chosen)
    dense = np.zeros((3, rows.width), np.float32)
    dense[place, column] = value
    assert np.array_equal(dense, features[0].to_dense().numpy()[chosen])
    assert np.allclose(rows.power(), features[0].to_dense().double().square().sum(0))


def test_scratch_space_is_clean_after_each_output(features):
    inputs, outputs = (SparseRows.of(f, "f") for f in features)
    search = Search(inputs, ReluOMP().settings(inputs.width))
    for out in range(20):
        search.solve(*outputs.column_of(out))
        assert (search.place == -1).all()


@pytest.mark.parametrize(
    ("f_in", "f_out", "error", "part"),
    [
        (torch.randn(50, 3), torch.rand(50, 2), SolverError, "GramLasso"),
        (torch.rand(50, 3), torch.full((50, 2), float("nan")), NonFiniteError, "output features"),
        (torch.rand(50, 3), torch.rand(49, 2), SolverError, "49"),
        (torch.rand(0, 3), torch.rand(0, 2), SolverError, "0 rows"),
    ],
)
def test_features_that_it_cannot_read_are_refused(f_in, f_out, error, part):
    with pytest.raises(error, match=part):
        ReluOMP().fit(f_in, f_out)


@pytest.mark.parametrize("bad", [{"max_fan_in": 0}, {"workers": 0}, {"rho": -1.0}])
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(SolverError, match=next(iter(bad))):
        ReluOMP(**bad)


def test_it_ends_with_every_bar_switched_off():
    f_in, f_out = PlantedFeatures(width_in=64, cluster=16, width_out=6, seed=1).plant().sample(1500)
    connector = ReluOMP(noise_factor=0.0, tau=0.0, max_fan_in=4).fit(f_in, f_out)
    assert connector.fan_in().max() <= 4
