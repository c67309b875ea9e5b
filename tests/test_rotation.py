"""fit_rotation: what it finds, how it finds it, and what it refuses."""

from __future__ import annotations

import warnings

import pytest
import torch
from _rotation_matching import match_rotations, random_match, row_energy

from gatelens.bases.rotation import METHODS, FittedRotation, Invertible, fit_rotation
from gatelens.bases.rotation.baselines import baseline_table, verdict
from gatelens.bases.rotation.checks import check_columns
from gatelens.bases.rotation.quasi_newton import cayley, column_blocks, evaluate
from gatelens.bases.rotation.stages import Reciprocal, SmoothL1, Stage, stages
from gatelens.bases.rotation.starts import distinct_columns, polar, qr_rotation, random_rotation
from gatelens.errors import BasisError, GateLensWarning, NonFiniteError
from gatelens.jacobians import sparsity


def planted(n=16, columns=400, dense=0.1, noise=0.02, seed=0) -> tuple[torch.Tensor, torch.Tensor]:
    """Columns Q S of a rotation Q and sparse S, and Q^T, whose rows are to be found."""
    g = torch.Generator().manual_seed(seed)
    s = torch.randn(n, columns, generator=g) * (torch.rand(n, columns, generator=g) < dense)
    s = s / s.square().mean().sqrt() + noise * torch.randn(n, columns, generator=g)
    q = random_rotation(n, seed + 100)
    return q.T @ s, q


@pytest.mark.parametrize(("objective", "start"), [("l1", "svd"), ("l1", "random"), ("reciprocal", "svd")])
def test_a_planted_rotation_is_found(objective, start):
    columns, q = planted()
    found = fit_rotation(columns, "lbfgs", objective=objective, start=start)
    assert match_rotations(found.matrix, q) > 0.995
    torch.testing.assert_close(found.matrix @ found.matrix.T, torch.eye(16), atol=1e-6, rtol=0)


def test_the_chain_finds_it_too_and_is_the_same_every_time():
    columns, q = planted(columns=16 * 40)
    first, second = fit_rotation(columns), fit_rotation(columns, seed=9)
    assert match_rotations(first.matrix, q) > 0.995
    assert torch.equal(first.matrix, second.matrix)  # no random start
    assert list(dict.fromkeys(first.trace.stage)) == ["L1, mu 1", "L1, mu 0.3", "L1, mu 0.02"]
    assert "L1, mu 0.3: " in repr(first)


def test_neurons_that_are_sparse_already_are_a_start_too_and_the_better_run_is_kept():
    g = torch.Generator().manual_seed(0)
    sparse = torch.randn(12, 500, generator=g) * (torch.rand(12, 500, generator=g) < 0.4)
    columns = sparse + 0.1 * torch.randn(12, 500, generator=g)
    found, plain = fit_rotation(columns), fit_rotation(columns, start="svd")
    l1 = {name: sparsity(r @ columns).l1 for name, r in (("kept", found.matrix), ("svd", plain.matrix))}
    assert l1["kept"] <= l1["svd"] + 1e-6
    assert l1["kept"] <= sparsity(columns).l1
    assert list(dict.fromkeys(found.trace.stage))[3:] == [
        "from the neurons: L1, mu 0.3",
        "from the neurons: L1, mu 0.02",
    ]
    # neurons that no rotation can better are kept as they are
    kept = fit_rotation(sparse)
    assert match_rotations(kept.matrix, torch.eye(12)) == pytest.approx(1.0)
    assert verdict(baseline_table(sparse, sparse, kept, noise=False)).startswith("the neurons are kept")
    # no run from neurons that are like any other basis, none when a start is named, none without time
    turned = random_rotation(12, 3) @ columns
    for other in (fit_rotation(turned), plain, fit_rotation(columns, seconds=1e-9)):
        assert not any("neurons" in stage for stage in other.trace.stage)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "invertible"])
def test_every_method_returns_a_rotation_and_no_method_is_worse_than_its_start(method):
    columns, _ = planted(n=8, columns=160)
    found = fit_rotation(columns, method, start="random", iterations=20, seed=3)
    assert isinstance(found, FittedRotation)
    torch.testing.assert_close(found.matrix @ found.matrix.T, torch.eye(8), atol=2e-6, rtol=0)
    x = torch.randn(5, 8)
    torch.testing.assert_close(found.decode(found.encode(x)), x, atol=1e-5, rtol=0)
    if method in ("chain", "lbfgs"):
        start = random_rotation(8, 3)
        assert sparsity(found.matrix @ columns).l1 <= sparsity(start @ columns).l1 + 1e-6
        assert len(found.trace) > 0


def test_oblique_directions_need_the_invertible_map():
    g = torch.Generator().manual_seed(0)
    s = torch.randn(12, 700, generator=g) * (torch.rand(12, 700, generator=g) < 0.15)
    mixing = torch.eye(12) + 0.2 * torch.randn(12, 12, generator=g)
    columns = mixing @ s
    rotation, oblique = fit_rotation(columns), fit_rotation(columns, "invertible", iterations=250)
    assert isinstance(oblique, Invertible)
    assert oblique.condition > 1.2
    assert sparsity(oblique.encode(columns.T)).l1 < 0.9 * sparsity(rotation.encode(columns.T)).l1
    unmixed = torch.nn.functional.normalize(torch.linalg.inv(mixing), dim=1)
    assert match_rotations(oblique.W_enc.T, unmixed) > 0.95 > match_rotations(rotation.matrix, unmixed)
    torch.testing.assert_close(oblique.decode(oblique.encode(columns.T)), columns.T, atol=1e-4, rtol=0)


@pytest.mark.parametrize("objective", [SmoothL1(), Reciprocal(0.3)])
def test_value_gradient_and_curvature_are_those_of_autograd(objective):
    columns, _ = planted(n=5, columns=300)
    columns, rotation = columns.double(), random_rotation(5, 2).double()
    plain = {
        "L1, mu 0.02": lambda y: -(y**2 + 0.02**2).sqrt(),
        "reciprocal measure, eps 0.3": lambda y: (y**2 + 0.09) ** -0.5,
    }[objective.name]
    b = torch.zeros(5, 5, dtype=torch.float64, requires_grad=True)
    value = plain(torch.matrix_exp(b - b.T) @ rotation @ columns).mean()
    value.backward()
    found, gradient, curvature = evaluate(column_blocks(columns), rotation, objective, True)
    assert found == pytest.approx(float(value.detach()))
    # B - B^T: each entry of B turns a pair once; the mean is over n M entries, the gradient over M columns
    torch.testing.assert_close(gradient, b.grad * 5)
    assert (curvature > 0).all()
    torch.testing.assert_close(curvature, curvature.T)


def test_the_curvature_of_a_pair_bounds_the_second_derivative_of_the_objective_there():
    columns, _ = planted(n=2, columns=500)
    columns, objective = columns.double(), SmoothL1()
    blocks = column_blocks(columns)
    for angle in (0.1, 0.7, 1.2):
        c, s = torch.cos(torch.tensor(angle)), torch.sin(torch.tensor(angle))
        rotation = torch.stack([torch.stack([c, s]), torch.stack([-s, c])]).double()
        value, gradient, curvature = evaluate(blocks, rotation, objective, True)
        for t in (-0.05, 0.05):
            turn = torch.matrix_exp(torch.tensor([[0.0, t], [-t, 0.0]], dtype=torch.float64))
            ahead, _, _ = evaluate(blocks, turn @ rotation, objective, False)
            # F is a mean over n M entries, gradient and curvature are over M columns
            bound = value + (gradient[0, 1] * t - 0.5 * 1.05 * curvature[0, 1] * t * t) / 2
            assert ahead >= float(bound)


def test_cayley_is_a_rotation_close_to_the_exponential():
    skew = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.05
    skew = skew - skew.T
    turned = cayley(skew)
    torch.testing.assert_close(turned @ turned.T, torch.eye(6, dtype=torch.float64))
    torch.testing.assert_close(turned, torch.matrix_exp(skew), atol=5e-3, rtol=0)


def test_stages_lower_mu_and_eps_step_by_step():
    def plan(*arguments, lead=False):
        return [s.objective.name for s in stages(*arguments, 128, lead)]

    reciprocal = [
        f"reciprocal measure, eps {e:g}" for e in (1.0, 0.3, 0.3, 0.1)
    ]  # .3 on a sample, and again on all columns
    assert plan("reciprocal", 0.1, False) == plan("reciprocal", 0.1, False, lead=True) == reciprocal
    assert plan("l1", 0.1, True) == ["L1, mu 0.02", "reciprocal measure, eps 0.3", "reciprocal measure, eps 0.1"]
    assert plan("l1", 0.5, True) == ["L1, mu 0.02", "reciprocal measure, eps 0.5"]
    assert plan("l1", 0.1, False, lead=True) == ["L1, mu 1", "L1, mu 0.3", "L1, mu 0.02"]


@pytest.mark.parametrize("eps", [0.0, -0.1, float("nan"), float("inf")])
def test_an_eps_that_is_not_positive_is_refused_before_the_fit(eps):
    for objective in ("l1", "reciprocal"):
        with pytest.raises(BasisError, match="eps must be positive"):
            fit_rotation(planted()[0], objective=objective, eps=eps)


def test_in_many_dimensions_the_first_stage_sees_a_sample_and_the_last_all_columns():
    for dimensions, sampled in ((128, 256), (512, 16), (1600, 4)):
        first, second, last = stages("l1", 0.1, False, dimensions)
        assert (first.columns, second.columns, last.columns) == (sampled, None, None)
    columns = torch.arange(60.0).reshape(2, 30)
    few = Stage(SmoothL1(), columns=4).sample(columns)
    assert few.shape == (2, 8)
    assert torch.equal(few[1] - few[0], torch.full((8,), 30.0))  # whole columns, not entries
    assert len(few[0].unique()) == 8
    assert Stage(SmoothL1(), columns=99).sample(columns) is columns


@pytest.mark.parametrize("method", METHODS)
def test_no_method_makes_a_tensor_on_the_default_device(method):
    """With "meta" as the default, a tensor that did not take its device from the columns would fail beside them."""
    columns, _ = planted(n=8, columns=300)
    columns[3] = 0
    with torch.device("meta"):
        found = fit_rotation(columns, method, iterations=3, restarts=2, zeros=True)
        assert found.encode(columns.T).device.type == "cpu"


def test_the_zeros_polish_trades_l1_for_the_reciprocal_measure():
    # heavy tails around a dense floor: where the two measures disagree
    g = torch.Generator().manual_seed(4)
    columns = random_rotation(12, 1) @ (torch.randn(12, 700, generator=g) ** 3)
    plain, zeros = fit_rotation(columns), fit_rotation(columns, zeros=True)
    assert sparsity(zeros.matrix @ columns).reciprocal[0.1] >= sparsity(plain.matrix @ columns).reciprocal[0.1]


def test_restarts_keep_the_best_and_a_time_budget_is_kept():
    columns, _ = planted(n=12, columns=120, seed=5)
    one = fit_rotation(columns, "lbfgs", start="random", iterations=30)
    best = fit_rotation(columns, "lbfgs", start="random", iterations=30, restarts=4)
    assert sparsity(best.matrix @ columns).l1 <= sparsity(one.matrix @ columns).l1
    short = fit_rotation(columns, "invertible", iterations=10**6, seconds=0.05)
    assert 0 < len(short.trace) < 10**6
    assert short.trace.seconds[-1] < 5


def test_the_watcher_sees_whole_rotations():
    columns, _ = planted(n=6, columns=100)
    columns[2] = 0
    seen = []
    fit_rotation(columns, iterations=3, watcher=lambda stage, value, rotation: seen.append(rotation))
    for rotation in seen:
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(6), atol=1e-5, rtol=0)


def test_dead_coordinates_are_left_as_they_are_and_counted():
    columns, _ = planted(n=8, columns=200)
    columns[[1, 5]] = 0
    found = fit_rotation(columns)
    assert found.dead == 2
    torch.testing.assert_close(found.matrix[-2:], torch.eye(8)[[1, 5]])
    assert found.matrix[:-2, [1, 5]].abs().max() == 0


def test_a_rank_deficient_stack_is_warned_of_and_its_span_fitted():
    columns, q = planted(n=5, columns=200)
    wide = random_rotation(9, 7)[:, :5] @ columns
    with pytest.warns(GateLensWarning, match="span 5 of 9 live dimensions"):
        found = fit_rotation(wide)
    assert sparsity(found.matrix[:5] @ wide).l1 == pytest.approx(sparsity(q @ columns).l1, rel=0.02)
    assert (found.matrix[5:] @ wide).abs().max() < 1e-4
    torch.testing.assert_close(found.matrix @ found.matrix.T, torch.eye(9), atol=1e-5, rtol=0)


def test_fewer_columns_than_dimensions_still_give_a_whole_rotation_with_both_warnings():
    columns = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    with (
        pytest.warns(GateLensWarning, match=r"span 3 of 9 live dimensions \(from 3 columns\)"),
        pytest.warns(GateLensWarning, match="3 columns for 3 dimensions: under 12"),
    ):
        found = fit_rotation(columns)
    torch.testing.assert_close(found.matrix @ found.matrix.T, torch.eye(9), atol=1e-5, rtol=0)
    assert (found.matrix[3:] @ columns).abs().max() < 1e-5


def test_a_start_in_full_coordinates_survives_dead_ones():
    columns, _ = planted(n=8, columns=200)
    columns[3] = 0
    start = fit_rotation(columns).matrix
    again = fit_rotation(columns, "lbfgs", start=start, iterations=2)
    assert match_rotations(again.matrix, start) > 0.999
    with pytest.raises(BasisError, match=r"all 8 dimensions, \[8, 8\]; got \(3, 3\)"):
        fit_rotation(columns, "lbfgs", start=torch.eye(3))


def test_few_columns_and_few_directions_are_warned_of():
    columns, _ = planted(n=8, columns=31)
    with pytest.warns(GateLensWarning, match="31 columns for 8 dimensions: under 32"):
        fit_rotation(columns, iterations=5)
    g = torch.Generator().manual_seed(0)
    repeated = torch.randn(8, 8, generator=g).repeat(1, 20) * torch.rand(160, generator=g)
    with pytest.warns(GateLensWarning, match="only 8 directions in 8 dimensions.*plain QR gives"):
        found = fit_rotation(repeated, "qr")
    # QR makes them triangular: half of the entries off the diagonal are zero
    assert sparsity(found.matrix @ repeated, eps=(1e-4,)).above[1e-4] == pytest.approx(36 / 64, abs=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_rotation(planted(n=8, columns=200)[0], iterations=2)


@pytest.mark.parametrize("seed", range(8))
def test_distinct_columns_are_counted_in_spite_of_rounding_sign_and_scale(seed):
    g = torch.Generator().manual_seed(seed)
    scale = torch.rand(500, generator=g) * torch.where(torch.rand(500, generator=g) < 0.5, -1.0, 1.0)
    repeated = torch.randn(12, 50, generator=g).repeat(1, 10) * scale
    repeated[:, 100] = 0
    assert torch.equal(distinct_columns(repeated), torch.arange(50))


def test_columns_at_points_nearby_are_seen_by_a_last_ascent():
    columns, _ = planted()
    near = columns + 0.5 * torch.randn(columns.shape, generator=torch.Generator().manual_seed(3))
    alone, beside = fit_rotation(columns), fit_rotation(columns, near=7 * near)  # the scale is set right
    assert list(dict.fromkeys(beside.trace.stage)) == [
        *dict.fromkeys(alone.trace.stage),
        "with points nearby: L1, mu 0.02",
    ]
    both = torch.cat([check_columns(columns), check_columns(near)], 1)

    def objective(found):
        return float(SmoothL1(0.02)(found.matrix @ both)[0]) / both.numel()

    assert objective(beside) > objective(alone) + 5e-5
    assert beside.trace.value[-1] == pytest.approx(objective(beside), abs=1e-6)
    torch.testing.assert_close(beside.matrix @ beside.matrix.T, torch.eye(16), atol=1e-6, rtol=0)


def test_a_coordinate_that_is_dead_at_the_inputs_is_left_out_at_points_nearby():
    columns, _ = planted()
    columns[5] = 0
    found = fit_rotation(columns, near=torch.randn(16, 300, generator=torch.Generator().manual_seed(0)))
    assert found.dead == 1
    assert found.matrix[-1, 5] == 1


def test_bad_columns_are_named():
    columns, _ = planted(n=8, columns=200)
    with pytest.raises(NonFiniteError, match="column 7 of 200"):
        fit_rotation(columns.index_fill(1, torch.tensor([7]), float("inf")))
    with pytest.raises(BasisError, match="every column is zero"):
        fit_rotation(torch.zeros(4, 40))
    with pytest.raises(BasisError, match=r"matrix of columns \[d, M\]; got shape \(0, 3\)"):
        fit_rotation(torch.zeros(0, 3))
    with pytest.raises(BasisError, match=r"got shape \(2, 4, 5\). Stack the columns of all Jacobians side by side"):
        check_columns(torch.ones(2, 4, 5))
    with pytest.raises(NonFiniteError, match="the start holds NaN"):
        fit_rotation(columns, "lbfgs", start=torch.full((8, 8), float("nan")))
    with pytest.raises(BasisError, match="did you mean 'chain'"):
        fit_rotation(columns, "chian")
    with pytest.raises(BasisError, match="unknown objective 'l2'"):
        fit_rotation(columns, objective="l2")
    with pytest.raises(BasisError, match="unknown start 'svdd'"):
        fit_rotation(columns, "lbfgs", start="svdd")
    with pytest.raises(BasisError, match="restarts >= 1"):
        fit_rotation(columns, restarts=0)
    with pytest.raises(BasisError, match="must have the 8 rows of the others; got 7"):
        fit_rotation(columns, near=columns[:7])
    with pytest.raises(BasisError, match="for the method \"chain\"; got them with 'svd'"):
        fit_rotation(columns, "svd", near=columns)
    with pytest.raises(NonFiniteError, match="column 7 of 200"):
        fit_rotation(columns, near=columns.index_fill(1, torch.tensor([7]), float("nan")))


def test_half_precision_columns_are_fitted_in_float32_and_float64_in_float64():
    columns, _ = planted()
    assert fit_rotation(columns.bfloat16(), iterations=30).matrix.dtype == torch.float32
    exact = fit_rotation(columns.double()).matrix
    assert exact.dtype == torch.float64
    torch.testing.assert_close(exact @ exact.T, torch.eye(16, dtype=torch.float64), atol=1e-12, rtol=0)


def test_matching_ignores_order_and_sign_and_weighs_by_energy():
    rotation = random_rotation(10, 0)
    shuffled = -rotation[torch.randperm(10)]
    assert match_rotations(rotation, shuffled) == pytest.approx(1.0, abs=1e-6)
    assert random_match(10) < 0.8
    turned = rotation.clone()
    turned[:2] = torch.tensor([[0.6, 0.8], [-0.8, 0.6]]) @ rotation[:2]
    assert match_rotations(rotation, turned) == pytest.approx(0.96, abs=1e-6)  # (8 x 1 + 2 x .8) / 10
    energy = torch.tensor([0.0, 0.0] + [1.0] * 8)
    assert match_rotations(rotation, turned, energy) == pytest.approx(1.0, abs=1e-6)
    assert float(row_energy(rotation, torch.randn(10, 30)).sum()) == pytest.approx(1.0)
    with pytest.raises(BasisError, match="one shape"):
        match_rotations(rotation, rotation[:5])


def test_polar_and_qr():
    matrix = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    near = polar(matrix)
    torch.testing.assert_close(near @ near.T, torch.eye(5, dtype=torch.float64))
    for seed in range(5):
        assert (near - matrix).norm() <= (random_rotation(5, seed).double() - matrix).norm()
    upper = qr_rotation(matrix) @ matrix
    torch.testing.assert_close(upper, upper.triu())
