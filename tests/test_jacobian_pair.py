"""Jacobian-penalised pairs: the block equals autograd's, the penalty makes it smaller, the dictionaries are sae-lens'."""

from __future__ import annotations

import pytest
import torch

from gatelens.errors import BasisError
from gatelens.gate_dictionaries.jacobian_pair import JacobianSAEPair, _TopK, activation_slope, active_jacobian
from gatelens.segments import ACTIVATIONS, MLPWeights, Segment

D, M = 6, 12


def segment(act="gelu", seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((D, M), (M,), (M, D), (D,))
    mlp = MLPWeights(*(torch.randn(*s, generator=generator) / 2 for s in shapes), act=act)
    return Segment("in", "out", mlp, D, D, mlp)


def rows(count=600):
    return torch.randn(count, D, generator=torch.Generator().manual_seed(1))


def test_the_block_is_what_autograd_says():
    s, x = segment(), rows(5)
    generator = torch.Generator().manual_seed(0)
    inner, outer = _TopK(x, 9, 3, generator), _TopK(s.forward(x), 9, 3, generator)
    on_in, value = inner.encode(x)
    x_hat = inner.decode(on_in, value)
    on_out, _ = outer.encode(s.forward(x_hat))
    block = active_jacobian(inner, outer, s.mlp, x_hat, on_in, on_out)
    for r in range(5):

        def features(v, r=r):
            y = s.forward(inner.decode(on_in[r : r + 1], v[None]))
            return ((y - outer.b_dec) @ outer.W_enc + outer.b_enc)[0, on_out[r]]

        assert torch.allclose(block[r], torch.autograd.functional.jacobian(features, value[r].detach()), atol=1e-4)


@pytest.mark.parametrize("act", ["relu", "gelu", "gelu_new", "silu", "identity"])
def test_slopes_are_derivatives(act):
    pre = torch.linspace(-3, 3, 31, dtype=torch.float64) + 0.01
    step = 1e-6
    numeric = (ACTIVATIONS[act](pre + step) - ACTIVATIONS[act](pre - step)) / (2 * step)
    assert torch.allclose(activation_slope(act, pre).double(), numeric, atol=1e-6)


def test_the_penalty_makes_the_active_block_smaller_and_the_result_is_sae_lens_own():
    s, x = segment(), rows()
    sizes, errors = [], []
    for penalty in (0.0, 3.0):
        bases = JacobianSAEPair(d_sae=16, k=3, penalty=penalty, samples=5_000, batch_size=50, lr=1e-2).fit(
            [s], {"in": x}
        )
        inner, outer = bases["in"], bases["out"]
        assert inner.cfg.architecture() == "topk"
        assert int((inner.encode(x) > 0).sum(1).max()) <= 3
        f = inner.encode(x)
        y = s.forward(inner.decode(f))
        on_in, on_out = f.topk(3, dim=1).indices, outer.encode(y).topk(3, dim=1).indices
        sizes.append(float(active_jacobian(inner, outer, s.mlp, inner.decode(f), on_in, on_out).abs().mean()))
        errors.append(float((inner.decode(f) - x).square().sum() / (x - x.mean(0)).square().sum()))
    assert sizes[1] < 0.7 * sizes[0]
    assert errors[1] < 0.8


def test_bad_input_is_refused():
    s = segment()
    gated = MLPWeights(s.mlp.W_in, s.mlp.b_in, s.mlp.W_out, s.mlp.b_out, "silu", s.mlp.W_in)
    with pytest.raises(BasisError, match=r"not exactly one MLP"):
        JacobianSAEPair(k=2).train(Segment("a", "b", gated, D, D, gated), rows(9))
    with pytest.raises(BasisError, match=r"k = 99"):
        JacobianSAEPair(d_sae=16, k=99).train(s, rows(9))
    with pytest.raises(BasisError, match=r"segments meet"):
        JacobianSAEPair(k=2).fit([s, Segment("out", "end", s.forward, D, D, s.mlp)], {"in": rows(9), "out": rows(9)})
    with pytest.raises(BasisError, match=r"at least 1"):
        JacobianSAEPair(k=0)
