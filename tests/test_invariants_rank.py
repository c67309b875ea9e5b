"""Ranks, consistency, subspaces and their witness, against mathematics worked by hand or by torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles

from gatelens import invariants
from gatelens.data import Batches
from gatelens.errors import BasisError, DataError, GateLensWarning, HookNameError, NonFiniteError
from gatelens.invariants.principal_angles import principal_cosines
from gatelens.models import HookedMLP
from gatelens.segments import mlp_segments


def batches(x: torch.Tensor, y: torch.Tensor) -> Batches:
    n = len(x)
    return Batches(x, y, torch.ones(n, dtype=torch.bool), torch.arange(n), 64, "accuracy", "rows")


def test_ranks_of_known_spectra():
    diagonal = torch.diag_embed(torch.tensor([[3.0, 3.0, 3.0, 0.0], [10.0, 1.0, 1.0, 1.0]]))
    ranks = invariants.ranks(diagonal)
    assert ranks.exact.tolist() == [3, 4]
    assert ranks.energy_rank().tolist() == [3, 1]  # 100 / 103 is over 95 %
    assert ranks.energy_rank(0.99).tolist() == [3, 3]  # 102 / 103 is over 99 %, 101 / 103 is not
    torch.testing.assert_close(ranks.participation, torch.tensor([3.0, 103.0**2 / 10003.0]))
    p = torch.tensor([10.0, 1.0, 1.0, 1.0]) / 13
    torch.testing.assert_close(ranks.entropy_rank, torch.stack([torch.tensor(3.0), torch.exp(-(p * p.log()).sum())]))


def test_zero_jacobians_are_counted_and_all_zero_is_refused():
    some = torch.stack([torch.eye(3), torch.zeros(3, 3)])
    ranks = invariants.ranks(some)
    assert ranks.zero == 1
    assert len(ranks.singular) == 1
    assert "1 inputs with a zero Jacobian" in repr(ranks)
    with pytest.raises(DataError, match="all 2 Jacobians are zero"):
        invariants.ranks(torch.zeros(2, 3, 3))
    with pytest.raises(NonFiniteError, match="NaN or infinity"):
        invariants.ranks(torch.full((1, 2, 2), torch.nan))


def test_segment_jacobians_are_the_closed_form_and_rank_is_bounded_by_active_units():
    model = HookedMLP((6, 5, 4, 3), seed=1)
    (segment,) = mlp_segments(model)
    x = torch.rand(7, 5, generator=torch.Generator().manual_seed(0))
    weight, bias = model.layers[1].weight, model.layers[1].bias
    on = (x @ weight.T + bias > 0).float()
    torch.testing.assert_close(invariants.segment_jacobians(segment, x), (on[:, :, None] * weight).detach())
    ranks = invariants.segment_ranks(segment, x)
    assert ranks.active is not None
    assert (ranks.exact <= ranks.active).all()


def test_whitened_rank_does_not_depend_on_scale_and_raw_does():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 3, generator=generator) * torch.tensor([1.0, 3.0, 9.0])
    matrix = torch.eye(3)
    whitened, note = invariants.whiten_jacobians(matrix[None], x, x @ matrix.T)
    assert note == ""
    torch.testing.assert_close(whitened[0], torch.eye(3), atol=1e-4, rtol=0)
    stretched = torch.diag(torch.tensor([1.0, 10.0, 100.0]))
    rescaled, _ = invariants.whiten_jacobians(stretched[None], x, x @ stretched.T)
    torch.testing.assert_close(invariants.ranks(rescaled).singular, torch.ones(1, 3), atol=1e-3, rtol=0)
    assert invariants.ranks(stretched[None]).participation.item() < 1.1


def test_singular_covariance_is_regularised_and_said():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    x[:, 2] = 0
    with pytest.warns(GateLensWarning, match="1 of 3 eigenvalues raised"):
        subspace = invariants.oblique_subspace(torch.eye(3, dtype=torch.float64), x)
    assert "singular" in repr(subspace)
    torch.testing.assert_close(subspace.read @ subspace.write, torch.eye(3), atol=1e-4, rtol=0)
    with pytest.raises(DataError, match="constant over 50 rows"):
        invariants.oblique_subspace(torch.eye(3, dtype=torch.float64), torch.ones(50, 3))


def test_sketched_singular_values_match_the_exact_ones():
    generator = torch.Generator().manual_seed(0)
    inner = torch.randn(20, 30, generator=generator) * torch.logspace(0, -3, 20)[:, None]
    outer = torch.randn(25, 20, generator=generator)

    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x @ inner.T) @ outer.T

    x = 0.1 * torch.randn(4, 30, generator=generator)
    exact = invariants.ranks(invariants.segment_jacobians(function, x))
    sketch = invariants.randomised_singular_values(function, x, 6, passes=2)
    torch.testing.assert_close(sketch.singular, exact.singular[:, :6], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(sketch.energy, exact.energy, rtol=0.8, atol=0)
    assert sketch.sketched
    assert "at least" in repr(sketch)
    with pytest.raises(DataError, match="expected 1 to 25 singular values"):
        invariants.randomised_singular_values(function, x, 26)


def test_principal_cosines_agree_with_scipy():
    a, b = torch.linalg.qr(torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    expected = np.cos(subspace_angles(a.numpy(), b.numpy()))[::-1]
    np.testing.assert_allclose(principal_cosines(a, b).numpy(), expected, atol=1e-12)


def test_consistency_tells_one_shared_subspace_from_another_one_each_time():
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(5, 2, generator=generator)
    same = torch.stack([torch.randn(4, 2, generator=generator) @ shared.T for _ in range(40)])
    each = torch.randn(40, 4, 2, generator=generator) @ torch.randn(40, 2, 5, generator=generator)
    one, other = invariants.consistency(same, 2), invariants.consistency(each, 2)
    assert one.overlap == pytest.approx(1, abs=1e-6)
    assert one.pooled == pytest.approx(1, abs=1e-6)
    assert other.own == pytest.approx(1, abs=1e-6)
    assert other.pooled < 0.75
    # Haar-random: the mean squared cosine is r / d exactly
    assert one.random_overlap == pytest.approx(2 / 5, abs=0.03)
    assert other.overlap == pytest.approx(2 / 5, abs=0.05)
    with pytest.raises(DataError, match="expected a rank from 1 to 4"):
        invariants.consistency(same, 5)
    with pytest.raises(DataError, match="at least two nonzero"):
        invariants.consistency(torch.zeros(3, 4, 5), 2)


def test_output_sensitivity_is_the_mean_of_jtj():
    model = HookedMLP((4, 6, 5, 3), seed=0)
    x = torch.rand(10, 4, generator=torch.Generator().manual_seed(0))
    data = batches(x, torch.zeros(10, dtype=torch.long))
    _, cache = model.run_with_cache(x)

    def rest(h: torch.Tensor) -> torch.Tensor:
        return model.layers[2](torch.relu(model.layers[1](h)))

    jacobians = invariants.segment_jacobians(rest, cache["hook_post.0"].detach())
    expected = torch.einsum("noi,noj->ij", jacobians, jacobians) / 10
    ours = invariants.output_sensitivity(model, data, "hook_post.0")
    torch.testing.assert_close(ours.float(), expected)
    torch.testing.assert_close(invariants.segment_sensitivity(rest, cache["hook_post.0"].detach()).float(), expected)
    with pytest.raises(HookNameError, match=r"hook_post\.9"):
        invariants.output_sensitivity(model, data, "hook_post.9")


def test_fisher_sensitivity_is_the_fisher_matrix():
    model = HookedMLP((4, 6, 3), seed=0)
    x = torch.rand(400, 4, generator=torch.Generator().manual_seed(0))
    logits, cache = model.run_with_cache(x)
    p = logits.softmax(-1).detach()
    fisher = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    weight = model.layers[1].weight.detach()
    expected = (weight.T @ fisher @ weight).mean(0)
    ours = invariants.output_sensitivity(
        model, batches(x, torch.zeros(400, dtype=torch.long)), "hook_post.0", "fisher", 60
    )
    assert cache["hook_post.0"].shape == (400, 6)
    torch.testing.assert_close(ours.float(), expected, atol=0.02 * float(expected.abs().max()), rtol=0.1)


def test_subspaces_order_by_effect_and_by_spread():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5000, 3, generator=generator) * torch.tensor([10.0, 1.0, 0.01]) + 5
    sensitivity = torch.diag(torch.tensor([0.0, 1.0, 4.0])).double()
    active = invariants.active_subspace(sensitivity, x)
    oblique = invariants.oblique_subspace(sensitivity, x)
    principal = invariants.principal_subspace(x)
    assert active.read[0].abs().argmax() == 2  # the strongest effect, although it hardly moves
    assert oblique.read[0].abs().argmax() == 1  # effect times spread
    assert principal.read[0].abs().argmax() == 0  # spread alone
    for subspace in (active, oblique, principal, invariants.random_subspace(x)):
        torch.testing.assert_close(subspace.project(x, 3), x, atol=2e-3, rtol=0)
        torch.testing.assert_close(subspace.project(x, 0), subspace.mean.expand_as(x))
        once = subspace.project(x, 2)
        torch.testing.assert_close(subspace.project(once, 2), once, atol=2e-3, rtol=0)
    with pytest.raises(BasisError, match="expected k from 0 to 3 dimensions, got 4"):
        active.project(x, 4)
    with pytest.raises(DataError, match="rank-0 Jacobians"):
        invariants.active_subspace(torch.zeros(3, 3, dtype=torch.float64), x)
    with pytest.raises(DataError, match="constant over 20 rows"):
        invariants.principal_subspace(torch.ones(20, 3))


def test_summary_curve_keeps_what_the_readout_reads():
    model = HookedMLP((3, 8, 2), seed=0)
    with (
        torch.no_grad()
    ):  # the hidden layer carries x as relu(x), relu(-x); the readout reads only the first input's sign
        model.layers[0].weight.copy_(torch.cat([torch.eye(3), -torch.eye(3), torch.zeros(2, 3)]))
        model.layers[0].bias.zero_()
        model.layers[1].weight.zero_()
        model.layers[1].weight[0, 0], model.layers[1].weight[1, 3] = 1.0, 1.0
        model.layers[1].bias.zero_()
    x = torch.randn(300, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 9.0, 9.0])
    data = batches(x, (x[:, 0] < 0).long())
    _, cache = model.run_with_cache(x)
    hidden = cache["hook_post.0"].detach()
    active = invariants.active_subspace(invariants.output_sensitivity(model, data, "hook_post.0"), hidden)
    curve = invariants.summary_curve(
        model, data, "hook_post.0", [active, invariants.principal_subspace(hidden)], (2, 8)
    )
    assert curve.clean == 1.0
    assert curve.lost("active subspace", 2) == 0.0
    assert curve.lost("principal components", 2) > 0.2
    assert curve.smallest("active subspace") == 2
    assert curve.smallest("principal components") == 8
    assert "active subspace" in repr(curve)
    assert curve.to_dict()["k"] == [2, 8]
    with pytest.raises(BasisError, match="expected k from 0 to 8"):
        invariants.summary_curve(model, data, "hook_post.0", [active], (9,))


def test_bottleneck_witness_sees_two_numbers_where_there_are_two():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1500, 12, generator=generator)
    hidden = x[:, :2]
    y = torch.stack([hidden.prod(1), hidden.sum(1).relu(), hidden[:, 0] - hidden[:, 1]], 1)
    two = invariants.Bottleneck(2, hidden=64, steps=400).fit(x, y)
    assert two.fvu < 0.1
    assert two.random_encoder > 0.5
    assert two.linear > 0.2
    assert "x -> 2 -> y" in repr(two)
    with pytest.raises(DataError, match="expected r from 1 to 12"):
        invariants.Bottleneck(13).fit(x, y)
    with pytest.raises(DataError, match="y is constant"):
        invariants.Bottleneck(2).fit(x, torch.ones(1500, 3))


def test_rank_report_of_a_small_network():
    model = HookedMLP((4, 10, 9, 3), seed=0)
    x = torch.rand(200, 4, generator=torch.Generator().manual_seed(0))
    data = batches(x, torch.randint(3, (200,), generator=torch.Generator().manual_seed(1)))
    (segment,) = mlp_segments(model)
    report = invariants.rank_report(model, segment, data, data, ks=(2, 10), rank=3, inputs=64, steps=50)
    assert report.curve.values["active subspace"][-1] == pytest.approx(report.curve.clean)
    # four inputs reach h1 through one linear map per gate pattern: the covariance of h1 may well be regular, the text says so if not
    text = repr(report)
    for words in ("Ranks(raw", "Ranks(whitened", "random weights", "Consistency(top 3", "Witness(x -> 3 -> y"):
        assert words in text
    assert report.to_dict()["witness"]["r"] == 3
    with pytest.raises(DataError, match="at least 32 rows"):
        invariants.rank_report(model, segment, data.take(20), data)
