"""Connectors for small widths: against scikit-learn, by hand, and on planted wires."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso, LinearRegression

import gatelens as gl
from gatelens.codes.csr import csr, to_csr
from gatelens.errors import GateLensWarning, NonFiniteError, SolverError, TooLargeError
from gatelens.segments import MLPWeights, Segment
from gatelens.solvers.gram import Gram
from gatelens.solvers.gram_lasso import least_squares
from gatelens.solvers.one_sided import newton, one_sided_fits
from gatelens.solvers.selection import Path, _fista, forward_selection
from gatelens.solvers.virtual_weights import keep_largest, virtual_weights


def planted(rows: int = 4000, m: int = 30, n: int = 8, seed: int = 0):
    """Sparse inputs, each output a ReLU of three of them; (f_in, f_out, true dense weights)."""
    g = torch.Generator().manual_seed(seed)
    f_in = torch.rand(rows, m, generator=g) * (torch.rand(rows, m, generator=g) < 0.2)
    weight = torch.zeros(n, m)
    for i in range(n):
        weight[i, torch.randperm(m, generator=g)[:3]] = torch.tensor([1.0, 0.7, -0.8])
    return f_in, torch.relu(f_in @ weight.T), weight


def test_gram_of_two_parts_is_gram_of_the_whole():
    f_in, f_out, _ = planted()
    whole, parts = Gram.of(f_in, f_out), Gram.of(f_in[:1000], f_out[:1000]) + Gram.of(f_in[1000:], f_out[1000:])
    torch.testing.assert_close(whole.in_in, parts.in_in)
    torch.testing.assert_close(whole.in_out, parts.in_out)
    assert whole.rows == parts.rows == 4000


def test_gram_of_sparse_rows_is_gram_of_dense_rows():
    f_in, f_out, _ = planted()
    sparse = Gram.of(to_csr(f_in), to_csr(f_out))
    torch.testing.assert_close(sparse.in_in, Gram.of(f_in, f_out).in_in)


def test_gram_of_few_active_features_is_the_dense_product(monkeypatch):
    g = torch.Generator().manual_seed(0)
    f_in, f_out = (torch.randn(500, m, generator=g) * (torch.rand(500, m, generator=g) < 0.05) for m in (30, 20))
    monkeypatch.setattr("gatelens.solvers.gram._FEATURES", 7)
    found, x, y = Gram.of(f_in, to_csr(f_out)), f_in.double(), f_out.double()
    expected = Gram(500, x.sum(0), y.sum(0), x.T @ x, x.T @ y)
    for name in vars(expected):
        kept = {"rtol": 1e-6, "atol": 1e-6} if name in ("in_in", "in_out") else {"rtol": 1e-12, "atol": 1e-12}
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), **kept, check_dtype=False)
    with pytest.raises(NonFiniteError, match="NaN or infinity"):
        Gram.of(f_in.index_put((torch.tensor([3]), torch.tensor([4])), torch.tensor(torch.nan)), f_out)


def test_selection_in_blocks_of_outputs_is_the_selection_of_all_at_once(monkeypatch):
    """More outputs than are searched together: a bar from a sample, blocks of eight; the wires allotted are the same ones."""
    g = torch.Generator().manual_seed(3)
    x = torch.rand(800, 40, generator=g, dtype=torch.float64) * (torch.rand(800, 40, generator=g) < 0.3)
    y = x @ (torch.rand(40, 60, generator=g) * (torch.rand(40, 60, generator=g) < 0.1)).double()
    y = y + 0.05 * torch.randn(800, 60, generator=g, dtype=torch.float64)
    covariance, products = Gram._of_dense(x, y).covariance
    whole = forward_selection(covariance, products, 200, 8).allot(200)
    for name, value in (("_TOGETHER", 20), ("_CACHED", 8 * 40)):
        monkeypatch.setattr(f"gatelens.solvers.selection.{name}", value)
    for wide, narrow in zip(whole, forward_selection(covariance, products, 200, 8).allot(200), strict=True):
        assert wide.tolist() == narrow.tolist()
    single = forward_selection(covariance.float(), products.float(), 200, 8).allot(200)
    assert [p.tolist() for p in single] == [p.tolist() for p in whole]


def test_least_squares_is_scikit_learns():
    f_in, f_out, _ = planted()
    parents = torch.tensor([2, 5, 11])
    weights, bias = least_squares(Gram.of(f_in, f_out), 0, parents)
    reference = LinearRegression().fit(f_in[:, parents].numpy(), f_out[:, 0].numpy())
    np.testing.assert_allclose(weights.numpy(), reference.coef_, atol=1e-5)
    assert bias == pytest.approx(reference.intercept_, abs=1e-5)


def test_fista_is_scikit_learns_lasso():
    f_in, f_out, _ = planted(rows=500)
    x, y = (f_in - f_in.mean(0)).double(), (f_out - f_out.mean(0)).double()
    G, C, penalty = x.T @ x, x.T @ y, 5.0
    step = 1 / torch.linalg.eigvalsh(G)[-1]
    W = _fista(G, C, torch.zeros_like(C), torch.tensor(penalty), step, 3000)
    reference = Lasso(alpha=penalty / 500, fit_intercept=False, tol=1e-10, max_iter=10000).fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(W.T.numpy(), reference.coef_, atol=1e-5)


def test_forward_selection_gains_are_drops_in_squared_error():
    f_in, f_out, _ = planted()
    path = forward_selection(*Gram.of(f_in, f_out).covariance, budget=1000, cap=4)
    y = f_out[:, 3].numpy()
    before = ((y - y.mean()) ** 2).sum()
    for step in range(4):
        x = f_in[:, path.inputs[3, : step + 1]].numpy()
        after = ((y - LinearRegression().fit(x, y).predict(x)) ** 2).sum()
        assert float(path.gains[3, step]) == pytest.approx(before - after, rel=1e-4)
        before = after


def test_forward_selection_picks_the_best_input_each_time():
    f_in, f_out, _ = planted()
    path = forward_selection(*Gram.of(f_in, f_out).covariance, budget=1000, cap=2)
    y = f_out[:, 0].numpy()
    first = int(path.inputs[0, 0])
    errors = []
    for j in range(f_in.shape[1]):
        x = f_in[:, [first, j]].numpy() if j != first else f_in[:, [first]].numpy()
        errors.append(((y - LinearRegression().fit(x, y).predict(x)) ** 2).sum())
    assert int(path.inputs[0, 1]) == int(np.argmin(errors))


def test_allotment_by_hand():
    # worth along the paths: output 0: 9, 4, 4 (the late 5 counts as the 4 before it); output 1: 6, 1
    path = Path(torch.tensor([[7, 3, 2], [5, 1, -1]]), torch.tensor([[9.0, 4.0, 5.0], [6.0, 1.0, 0.0]]))
    assert [p.tolist() for p in path.allot(4)] == [[7, 3, 2], [5]]
    assert [p.tolist() for p in path.allot(99)] == [[7, 3, 2], [5, 1]]


@pytest.mark.parametrize("selection", ["omp", "lasso"])
def test_gram_lasso_finds_planted_wires(selection):
    f_in, f_out, weight = planted()
    connector = gl.GramLasso(mean_wires=3, selection=selection).fit(f_in, f_out)
    assert torch.equal(connector.weight.to_dense() != 0, weight != 0)
    torch.testing.assert_close(connector.weight.to_dense(), weight, atol=0.03, rtol=0.03)
    assert (connector(f_in) - f_out).square().mean() < 1e-4


def test_newton_beats_least_squares_behind_a_relu():
    f_in, f_out, _ = planted()
    plain = gl.GramLasso(mean_wires=3, refit="least_squares").fit(f_in, f_out)
    newton = gl.GramLasso(mean_wires=3).fit(f_in, f_out)
    assert (newton(f_in) - f_out).square().sum() < 0.2 * (plain(f_in) - f_out).square().sum()


def test_one_sided_fit_reaches_the_minimum():
    f_in, f_out, _ = planted()
    X, y = f_in[:, :4].double(), f_out[:, 0].double()
    w, b = newton(X.numpy(), y.numpy(), np.zeros(4), 0.0)
    w, b = torch.from_numpy(w).requires_grad_(), torch.tensor(b, dtype=torch.float64, requires_grad=True)
    z = X @ w + b
    loss = torch.where(y > 0, z - y, z.clamp_min(0)).square().sum()
    grads = torch.autograd.grad(loss, (w, b))
    assert max(g.abs().max() for g in grads) < 1e-2  # per 4000 rows


def test_fits_that_visit_active_rows_only_are_those_of_all_rows():
    """Sparse features, outputs that no input explains in some rows, and a start with a positive bias: idle rows count as well."""
    from scipy.sparse import csc_matrix

    generator = torch.Generator().manual_seed(3)
    X = torch.rand(600, 6, generator=generator) * (torch.rand(600, 6, generator=generator) < 0.1)
    Y = (X[:, :3] @ torch.rand(3, 4, generator=generator) - 0.2).clamp_min(0)
    Y[::50] = 0.5
    support = [torch.tensor([0, 1, 2]), torch.tensor([3, 1]), torch.tensor([5]), torch.empty(0, dtype=torch.long)]
    starts = [(torch.full((len(s),), 0.1), 0.2) for s in support]
    assert (Y == 0).all(1).logical_and((X == 0).all(1)).any()
    sparse = one_sided_fits(csc_matrix(X.numpy()), csc_matrix(Y.numpy()), support, starts)
    for i, (weights, bias) in enumerate(sparse):
        w, b = newton(X[:, support[i]].numpy(), Y[:, i].numpy(), starts[i][0].numpy(), starts[i][1])
        torch.testing.assert_close(weights, torch.from_numpy(w).float(), atol=1e-3, rtol=1e-3)
        assert bias == pytest.approx(b, abs=1e-3)


def test_caps_and_budget_hold():
    f_in, f_out, _ = planted()
    connector = gl.GramLasso(mean_wires=2, cap=2).fit(f_in, f_out)
    assert connector.wires == 16
    assert int(connector.fan_in().max()) <= 2


def test_shuffled_inputs_explain_nothing():
    f_in, f_out, _ = planted()
    shuffled = f_in[torch.randperm(len(f_in), generator=torch.Generator().manual_seed(1))]
    half = len(f_in) // 2
    connector = gl.GramLasso(mean_wires=3).fit(shuffled[:half], f_out[:half])
    error = (connector(f_in[half:]) - f_out[half:]).square().sum()
    assert error > 0.9 * (f_out[half:] - f_out[:half].mean(0)).square().sum()


def test_signed_features_get_linear_outputs():
    x = torch.randn(2000, 6, generator=torch.Generator().manual_seed(0))
    y = x[:, :2] @ torch.tensor([[1.0, -2.0], [0.5, 0.0]])
    connector = gl.GramLasso(mean_wires=2, signed=True).fit(x, y)
    assert connector.activation == "identity"
    torch.testing.assert_close(connector(x), y, atol=1e-3, rtol=1e-3)


def test_virtual_weights_by_hand():
    # two inputs, one hidden unit with W_in = (1, 2) and W_out = (3, -1); neurons as bases: E W D is the product
    mlp = MLPWeights(torch.tensor([[1.0], [2.0]]), torch.tensor([5.0]), torch.tensor([[3.0, -1.0]]), torch.zeros(2))
    segment = Segment("a", "b", mlp, 2, 2, mlp)
    basis = gl.Rotation(torch.eye(2))
    x = torch.rand(10, 2)  # the unit is always on: its mean derivative is 1
    expected = torch.tensor([[3.0, 6.0], [-1.0, -2.0]])  # row = output
    torch.testing.assert_close(virtual_weights(segment, basis, basis, x), expected)


def test_keep_largest_by_hand():
    weight = torch.tensor([[3.0, -2.0, 0.5], [1.0, 0.1, -4.0]])
    kept = keep_largest(weight, torch.tensor([1.0, 2.0, 0.1]), budget=3, cap=None)
    assert kept.tolist() == [[3.0, -2.0, 0.0], [1.0, 0.0, 0.0]]


def test_sgd_learns_and_is_cut_to_its_budget():
    f_in, f_out, weight = planted(rows=2000)
    solver = gl.SgdL1(l1=1e-4, epochs=60, mean_wires=3, fine_tune=10, lr=1e-2, batch_size=256)
    connector = solver.fit(f_in, f_out)
    assert connector.wires == 24
    agreement = ((connector.weight.to_dense() != 0) == (weight != 0)).float().mean()
    assert agreement > 0.98


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: gl.GramLasso(mean_wires=0), SolverError, "must be positive"),
        (lambda: Gram.of(torch.ones(3, 2), torch.ones(4, 2)), SolverError, "3 rows and f_out 4"),
        (lambda: Gram.of(torch.ones(0, 2), torch.ones(0, 2)), SolverError, "at least one"),
        (lambda: Gram.of(torch.full((3, 2), torch.nan), torch.ones(3, 2)), NonFiniteError, "NaN or infinity"),
        (lambda: gl.VirtualWeights().fit(torch.ones(3, 2), torch.ones(3, 2)), SolverError, "call `.at"),
        (lambda: gl.SgdL1(start="virtual").fit(torch.ones(3, 2), torch.ones(3, 2)), SolverError, "call `.at"),
    ],
)
def test_bad_input(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_gram_that_would_not_fit_is_refused_before_it_is_made():
    wide = csr(torch.tensor([0, 1]), torch.tensor([0]), torch.tensor([1.0]), (1, 32768))
    with pytest.raises(TooLargeError, match="ReluOMP"):
        Gram.of(wide, wide)


def test_constant_and_silent_features_get_no_wire_and_no_nan():
    f_in, f_out, _ = planted()
    f_in[:, 0], f_in[:, 1], f_out[:, 0] = 0.0, 1.0, 0.0
    connector = gl.GramLasso(mean_wires=3).fit(f_in, f_out)
    weight = connector.weight.to_dense()
    assert torch.isfinite(weight).all()
    assert (weight[:, :2] == 0).all()
    assert (connector(f_in)[:, 0] == 0).all()


@pytest.mark.parametrize("selection", ["omp", "lasso"])
def test_a_feature_twice_is_wired_as_one(selection):
    """The copy takes or shares the wire: finite weights, the same values as without it."""
    f_in, f_out, _ = planted()
    twice = torch.cat([f_in, f_in[:, :3]], 1)
    once, both = (gl.GramLasso(mean_wires=3, selection=selection).fit(f, f_out)(f) for f in (f_in, twice))
    left = [(value - f_out).square().sum() / f_out.square().sum() for value in (once, both)]
    assert torch.isfinite(both).all()
    assert left[1] < left[0] + 0.05


def test_outputs_with_a_sign_are_warned_of():
    generator = torch.Generator().manual_seed(0)
    f_in = torch.rand(200, 6, generator=generator)
    turned = f_in @ torch.randn(6, 4, generator=generator)
    with pytest.warns(GateLensWarning, match=r"of the output features' power lies below zero.*signed=True"):
        gl.GramLasso(mean_wires=3).fit(f_in, turned)
    with warnings.catch_warnings():
        warnings.simplefilter("error", GateLensWarning)
        gl.GramLasso(mean_wires=3, signed=True).fit(f_in, turned)
        gl.GramLasso(mean_wires=3).fit(f_in, torch.nn.functional.gelu(turned + 1).to_sparse_csr())
