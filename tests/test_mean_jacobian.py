"""MeanJacobian against a mean of whole Jacobians, its budget and its cap."""

from __future__ import annotations

import pytest
import torch

from gatelens.basis.linear import Rotation
from gatelens.codes.csr import take_rows
from gatelens.errors import SolverError
from gatelens.planted import PlantedFeatures
from gatelens.segments import MLPWeights, Segment
from gatelens.solvers import MeanJacobian, mean_jacobian


def _segment(d=6, m=9, seed=0):
    g = torch.Generator().manual_seed(seed)
    mlp = MLPWeights(torch.randn(d, m, generator=g), torch.zeros(m), torch.randn(m, d, generator=g), torch.zeros(d))
    return Segment("in", "out", mlp, d, d, mlp)


class _ReluBasis:
    """Features that are on where the coordinate is positive."""

    def __init__(self, d):
        self.W_dec = torch.eye(d)

    def encode(self, x):
        return x.clamp_min(0)

    def decode(self, f):
        return f


def _expected(segment, f, basis):
    """By whole Jacobians of encode(forward(decode(f))), row by row."""
    signed, size, count = (torch.zeros(6, 6) for _ in range(3))
    for row in f:
        J = torch.autograd.functional.jacobian(lambda r: basis.encode(segment.forward(basis.decode(r))), row)
        on = (basis.encode(segment.forward(row)) > 0)[:, None] & (row > 0)[None]
        signed, size, count = signed + J * on, size + J.abs() * on, count + on
    return signed / count.clamp_min(1), size


@pytest.mark.parametrize("pairs", [2**24, 0])
def test_weights_are_mean_derivatives_where_both_ends_are_on(pairs, monkeypatch):
    monkeypatch.setattr(mean_jacobian, "_DENSE_PAIRS", pairs)
    segment, basis = _segment(), _ReluBasis(6)
    f = torch.randn(64, 6, generator=torch.Generator().manual_seed(1)).clamp_min(0)
    f_out = basis.encode(segment.forward(f))
    mean, size = _expected(segment, f, basis)
    whole = MeanJacobian(mean_wires=6).at(segment, basis, basis).fit(f, f_out)
    torch.testing.assert_close(whole.weight.to_dense(), mean, rtol=1e-4, atol=1e-5)
    some = MeanJacobian(mean_wires=2).at(segment, basis, basis).fit(f, f_out)
    worth = size * f.square().mean(0).sqrt()
    best = worth.flatten().topk(12).indices.sort().values
    assert torch.equal(some.weight.to_dense().flatten().nonzero().squeeze(1), best)
    capped = MeanJacobian(mean_wires=6, cap=2).at(segment, basis, basis).fit(f, f_out).weight.to_dense()
    for row, full in zip(capped, worth, strict=True):
        best = [i for i in full.topk(2).indices.tolist() if full[i] > 0]
        assert sorted(best) == row.nonzero().squeeze(1).tolist()


def test_rotations_and_refusals():
    segment, basis = _segment(), Rotation(torch.eye(6))
    f = torch.randn(40, 6, generator=torch.Generator().manual_seed(2))
    assert MeanJacobian(mean_wires=3).at(segment, basis, basis).fit(f, segment.forward(f)).wires == 18
    with pytest.raises(SolverError, match="at\\(segment"):
        MeanJacobian().fit(f, f)
    with pytest.raises(SolverError, match="39"):
        MeanJacobian().at(segment, basis, basis).fit(f, f[:39])
    with pytest.raises(SolverError, match="mean_wires"):
        MeanJacobian(mean_wires=0)


def test_rows_of_a_sparse_matrix():
    f_in = PlantedFeatures(width_in=64, cluster=16).plant().sample(50)[0]
    rows = torch.tensor([7, 0, 49])
    assert torch.equal(take_rows(f_in, rows).to_dense(), f_in.to_dense()[rows])
