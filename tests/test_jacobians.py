"""Jacobians against float64 autograd, in every coordinate system; sparsity measures worked by hand."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
import torch

from gatelens.bases.rotation.result import Invertible
from gatelens.bases.rotation.starts import polar, random_rotation
from gatelens.basis.linear import Rotation
from gatelens.errors import BasisError, GateLensWarning, NonFiniteError, SegmentError, TooLargeError
from gatelens.jacobians import active_block, feature_jacobian, jacobian_columns, points_near, pull, push, sparsity
from gatelens.segments import ACTIVATIONS, MLPWeights, Segment

D_IN, M, D_OUT, ROWS = 7, 12, 5, 4


def mlp(act="relu", gated=False, out=True, dtype=torch.float64, seed=0) -> MLPWeights:
    g = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)

    ends = {"W_out": draw(M, D_OUT), "b_out": draw(D_OUT)} if out else {}
    return MLPWeights(draw(D_IN, M), draw(M), act=act, W_gate=draw(D_IN, M) if gated else None, **ends)


def segment_of(weights, prenorm=None, closed=True) -> Segment:
    forward = weights if prenorm is None else (lambda x: weights(prenorm(x)))
    d_out = M if weights.W_out is None else D_OUT
    return Segment("in", "out", forward, D_IN, d_out, weights if closed else None, prenorm if closed else None)


def rows(dtype=torch.float64) -> torch.Tensor:
    return torch.randn(ROWS, D_IN, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(dtype)


def by_autograd(function, x) -> torch.Tensor:
    return torch.stack([torch.autograd.functional.jacobian(lambda r: function(r[None])[0], row) for row in x])


def layer_norm(x):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()


@pytest.mark.parametrize("act", sorted(ACTIVATIONS))
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("out", [False, True])
def test_closed_forms_match_autograd_for_every_activation_function(act, gated, out):
    weights, x = mlp(act, gated, out), rows()
    true = by_autograd(weights, x)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        found = feature_jacobian(segment_of(mlp(act, gated, out, dtype)), x.to(dtype)).double()
        assert (found - true).norm() <= tolerance * true.norm()


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("prenorm", [None, layer_norm])
def test_push_and_pull_are_products_with_the_jacobian(closed, prenorm):
    segment, x = segment_of(mlp("gelu"), prenorm, closed), rows()
    true = by_autograd(segment.forward, x)
    v, u = torch.randn(ROWS, D_IN, 3, dtype=torch.float64), torch.randn(ROWS, D_OUT, 3, dtype=torch.float64)
    torch.testing.assert_close(push(segment, x, v), true @ v)
    torch.testing.assert_close(pull(segment, x, u), true.transpose(1, 2) @ u)
    torch.testing.assert_close(push(segment, x, v[:1]), true @ v[:1])


def test_between_two_bases_it_is_the_derivative_of_encode_forward_decode():
    segment, x = segment_of(mlp("gelu")), rows()
    into = Rotation(polar(random_rotation(D_IN, 1)))
    out = Invertible.from_matrix(
        torch.randn(D_OUT, D_OUT, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    )
    true = by_autograd(lambda f: out.encode(segment.forward(into.decode(f))), into.encode(x))
    torch.testing.assert_close(feature_jacobian(segment, x, into, out), true)
    stack = true / true.square().mean((1, 2), keepdim=True).sqrt()
    torch.testing.assert_close(
        jacobian_columns(segment, x, basis_in=into, basis_out=out), stack.transpose(0, 1).flatten(1)
    )
    rows_of = stack.transpose(1, 2).transpose(0, 1).flatten(1)
    torch.testing.assert_close(jacobian_columns(segment, x, side="in", basis_in=into, basis_out=out), rows_of)


def test_random_columns_are_columns_of_the_whole_jacobian():
    segment, x = segment_of(mlp()), rows()
    whole = feature_jacobian(segment, x)
    few = jacobian_columns(segment, x, per_input=3, normalise=False, seed=2)
    assert few.shape == (D_OUT, ROWS * 3)
    for i, row in enumerate(few.reshape(D_OUT, ROWS, 3).transpose(0, 1)):
        distance = torch.cdist(row.T, whole[i].T)
        assert (distance.min(1).values < 1e-9).all()
        assert len(set(distance.argmin(1).tolist())) == 3
    assert torch.equal(few, jacobian_columns(segment, x, per_input=3, normalise=False, seed=2))
    assert not torch.equal(few, jacobian_columns(segment, x, per_input=3, normalise=False, seed=3))


def soft_dictionary(d, f, seed, power=1.0):
    """A ReLU dictionary; with another power its encoder is not linear where it is active."""
    g = torch.Generator().manual_seed(seed)
    encode, decode = (
        torch.randn(d, f, generator=g, dtype=torch.float64),
        torch.randn(f, d, generator=g, dtype=torch.float64),
    )
    return SimpleNamespace(
        W_enc=encode, W_dec=decode, encode=lambda x: torch.relu(x @ encode - 1) ** power, decode=lambda f: f @ decode
    )


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_the_active_block_is_the_whole_jacobian_on_active_features(power):
    segment, x = segment_of(mlp("gelu"), layer_norm), rows()
    into, out = soft_dictionary(D_IN, 11, 1), soft_dictionary(D_OUT, 9, 2, power)
    block = active_block(segment, x, into, out)
    step = by_autograd(lambda r: out.encode(segment.forward(r)), x) @ into.W_dec.T
    active = (into.encode(x) > 0)[:, None, :] & (out.encode(segment.forward(x)) > 0)[:, :, None]
    torch.testing.assert_close(block.dense(9, 11), step * active)
    assert "rows" in repr(block)


def test_an_empty_active_block_is_an_error():
    silent = soft_dictionary(D_IN, 11, 1)
    silent.encode = lambda x: torch.zeros(len(x), 11, dtype=x.dtype)
    with pytest.raises(BasisError, match="no feature is active"):
        active_block(segment_of(mlp()), rows(), silent, soft_dictionary(D_OUT, 9, 2))


def test_measures_worked_by_hand():
    # two entries of size 1 among eight zeros: root mean square 1 / sqrt(5), so y = sqrt(5) at two of ten places
    found = sparsity(torch.tensor([[3.0, 0, 0, 0, 0], [0, -3.0, 0, 0, 0]]), eps=(0.5,))
    root = 5**0.5
    assert found.l1 == pytest.approx(0.2 * root)
    assert found.l4 == pytest.approx(5.0)
    assert found.hoyer == pytest.approx((10**0.5 - 2**0.5) / (10**0.5 - 1))
    assert (found.f90, found.f99) == (0.2, 0.2)
    assert found.reciprocal[0.5] == pytest.approx(0.8 * 2 + 0.2 / (root + 0.5))
    assert found.above[0.5] == pytest.approx(0.2)
    assert found.to_dict()["reciprocal"]["0.5"] == found.reciprocal[0.5]


def test_a_stack_is_scaled_input_by_input_and_no_scale_counts():
    stack = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    scaled = stack * torch.tensor([1.0, 100.0, 0.01])[:, None, None]
    assert sparsity(stack).l1 == pytest.approx(sparsity(scaled).l1, rel=1e-5)


def test_inputs_with_a_zero_jacobian_are_left_out_and_counted():
    weights = MLPWeights(torch.eye(2), torch.tensor([-1.0, -1.0]))
    segment = Segment("in", "out", weights, 2, 2, weights)
    with pytest.warns(GateLensWarning, match="1 of 2 inputs have a zero Jacobian"):
        assert jacobian_columns(segment, torch.tensor([[2.0, 0.0], [0.0, 0.0]])).shape == (2, 2)
    with pytest.raises(BasisError, match="zero at every input"):
        jacobian_columns(segment, torch.zeros(3, 2))


def test_bad_input_is_named():
    segment, x = segment_of(mlp()), rows()
    with pytest.raises(SegmentError, match="rows of width 3"):
        feature_jacobian(segment, x[:, :3])
    with pytest.raises(SegmentError, match="vectors of width 2 where 5 was expected"):
        pull(segment, x, torch.zeros(ROWS, 2, 1, dtype=torch.float64))
    with pytest.raises(NonFiniteError, match="at row 2"):
        jacobian_columns(segment, x.index_fill(0, torch.tensor([2]), float("nan")))
    broken = mlp()
    broken.W_in[0, 0] = float("inf")
    with pytest.raises(NonFiniteError, match="the Jacobian of in -> out holds NaN or infinity at row 0"):
        jacobian_columns(segment_of(broken), x)
    with pytest.raises(BasisError, match="per_input must be at least 1, got 0"):
        jacobian_columns(segment, x, per_input=0)
    with pytest.raises(BasisError, match="got 'left'"):
        jacobian_columns(segment, x, side="left")
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(BasisError, match="eps must be positive"):
            sparsity(torch.ones(2, 2), eps=(bad,))
    with pytest.raises(BasisError, match="every entry is zero"):
        sparsity(torch.zeros(2, 2))
    with pytest.raises(NonFiniteError, match="NaN or infinity"):
        sparsity(torch.tensor([[1.0, float("inf")]]))


def test_whole_jacobians_of_a_big_map_are_refused_before_they_are_made():
    wide = Segment("in", "out", lambda x: x, 20_000, 20_000)
    with pytest.raises(TooLargeError, match=r"2 GiB at most.*jacobian_columns"):
        feature_jacobian(wide, torch.zeros(2, 20_000))


def test_no_warning_without_cause():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jacobian_columns(segment_of(mlp("gelu")), rows())


def test_points_nearby_scatter_as_the_inputs_do():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(20, 3, generator=g) @ torch.randn(3, 3, generator=g) + 5
    away = points_near(x, 2_000, 0.3) - x.repeat(2_000, 1)
    torch.testing.assert_close(torch.cov(away.T), 0.09 * torch.cov(x.T), atol=0.01, rtol=0.03)
    assert away.mean(0).abs().max() < 0.02
    assert torch.equal(points_near(x, 2), points_near(x, 2))
    two = torch.tensor(
        [[0.0, 1.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0]]
    )  # fewer rows than dimensions: only where they differ
    away = points_near(two, 500, 1.0) - two.repeat(500, 1)
    assert away[:, [0, 2, 3]].abs().max() == 0
    assert float(away[:, 1].var()) == pytest.approx(2.0, rel=0.15)
    assert torch.equal(points_near(two[:1], 3), two[:1].repeat(3, 1))
    for bad in ((two[:0], 3, 0.3), (two, 0, 0.3), (two, 3, 0.0), (two, 3, float("nan"))):
        with pytest.raises(BasisError, match="at least one row, each of 1 or more and a spread over 0; got"):
            points_near(*bad)
