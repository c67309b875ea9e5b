"""Outputs removed from a model, and rules scored as labels: worked by hand, and on a small real model."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig

import gatelens as gl
from gatelens.data.given import as_batches
from gatelens.errors import DataError
from gatelens.evaluation.removal import removals
from gatelens.gates.detection import detection, top_tokens


def test_removing_a_hidden_neuron_is_setting_it_to_zero(digits):
    model, _, held_out = digits
    acts = gl.collect(model, held_out, ["hook_post.2"])
    f = scipy.sparse.csr_matrix(acts["hook_post.2"].numpy())
    found = removals(model, "hook_post.2", torch.eye(24), f, np.zeros(24), range(24), held_out)
    alive = {i for i in range(24) if f[:, i].nnz}
    assert set(found) == alive
    out = next(iter(alive))
    h = acts["hook_post.2"]
    without = h.clone()
    without[:, out] = 0
    last = model.layers[-1]
    with torch.no_grad():
        p, q = last(h).log_softmax(-1), last(without).log_softmax(-1)
    kl = (p.exp() * (p - q)).sum(-1)
    on = h[:, out] > 0
    assert found[out].windows == 4
    for each in found[out].own_in:
        assert torch.isclose(kl[on], torch.tensor(each), atol=1e-5).any()
    assert found[out].own == pytest.approx(np.mean(found[out].own_in))
    with pytest.raises(DataError, match="Give the batches"):
        removals(model, "hook_post.2", torch.eye(24), f[:10], np.zeros(24), [0], held_out)


@pytest.mark.parametrize("layer", [0, 2])
def test_a_pass_from_the_block_is_a_whole_pass(layer, data_folder):
    """On a transformer: the divergence over the rest of the window, positions before the first removal untouched."""
    model = gl.load_model(str(data_folder / "models" / "gpt2-mini"))
    _, held = gl.text_batches(model, str(data_folder / "text" / "lambada_test.txt"), rows=(4, 6), length=24, seed=0)
    hook = f"blocks.{layer}.hook_mlp_out"
    y = gl.collect(model, held, [hook])[hook]
    f = scipy.sparse.csr_matrix((y * (y > y.quantile(0.9, 0))).clamp_min(0).numpy())
    directions = torch.eye(y.shape[1])
    found = removals(model, hook, directions, f, np.zeros(y.shape[1]), [3, 7], held)
    place = held.keep.nonzero()
    windows = place[f[:, 3].nonzero()[0], 0].unique()
    amount = torch.zeros(held.keep.shape)
    amount[tuple(place[f[:, 3].nonzero()[0]].T)] = torch.from_numpy(f[:, 3].tocoo().data)

    def less(value, hook=None):
        return value - amount[..., None] * directions[3]

    with torch.no_grad():
        p = model(held.inputs).log_softmax(-1)
        q = model.run_with_hooks(held.inputs, fwd_hooks=[(hook, less)]).log_softmax(-1)
    kl, rest = (p.exp() * (p - q)).sum(-1), amount.cumsum(1) > 0
    each = ((kl * rest).sum(1) / rest.sum(1))[windows]
    for value in found[3].own_in:
        assert torch.isclose(each, torch.tensor(value), rtol=1e-2, atol=1e-6).any()


def test_a_rule_as_a_label_by_hand():
    """1,000 rows; on in the last 200, weakly in 100 before; the rule says the last 100, and 45 of the silent ones."""
    value = np.concatenate([np.full(100, 0.1), np.linspace(1, 2, 200)])
    fired = (np.arange(700, 1000), value)
    said = np.concatenate([np.arange(900, 1000), np.arange(0, 700, 14)])
    token = np.where(np.arange(1000) >= 950, 7, np.arange(1000) % 5)
    top = top_tokens(token, np.arange(800, 1000))
    assert top[0] == 7
    found = detection(said, fired, 0.5, 1000, (token, np.array([7])))
    assert (found.on, found.off) == (100, 100)
    assert found.rule == pytest.approx((0.5 + 1 - 50 / 700) / 2, abs=0.03)
    assert found.tokens == pytest.approx((0.25 + 1) / 2, abs=1e-9)
    assert detection(said, (np.zeros(0, int), np.zeros(0)), 0.0, 1000) is None
    assert detection(said, fired, 5.0, 1000) is None
    assert detection(said, fired, 0.5, 1000).tokens is None


def test_padding_on_the_left_changes_nothing():
    """Windows with padding before them have the divergence of the same windows without, in a model of rotary positions."""
    torch.manual_seed(0)
    cfg = HookedTransformerConfig(
        n_layers=2, d_model=8, n_ctx=12, d_head=4, n_heads=2, d_mlp=8, d_vocab=10, act_fn="relu", seed=1, device="cpu",
        positional_embedding_type="rotary", rotary_dim=4,
    )  # fmt: skip
    model, hook = HookedTransformer(cfg, move_to_device=False).eval().requires_grad_(False), "blocks.1.hook_mlp_out"
    for value in model.parameters():
        value.add_(0.3 * torch.randn_like(value))
    ids = torch.randint(1, 9, (3, 6))
    padded = torch.cat([torch.full((3, 4), 9), ids], 1)
    given = [{"input_ids": ids}, {"input_ids": padded, "attention_mask": (padded != 9).long()}]
    found = []
    for tokens in given:
        batches = as_batches(model, tokens)
        f = scipy.sparse.csr_matrix(gl.collect(model, batches, hook)[hook].clamp_min(0).numpy())
        found.append(removals(model, hook, torch.eye(8), f, np.zeros(8), range(8), batches))
    assert found[0]
    for out, removal in found[0].items():
        assert found[1][out].own == pytest.approx(removal.own, rel=1e-3)
        assert found[1][out].own_in == pytest.approx(removal.own_in, rel=1e-3)
