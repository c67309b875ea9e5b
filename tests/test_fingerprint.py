"""The fingerprint of a model: every weight counts, block by block, and so do hooks left on it and settings that compute."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
import torch

import gatelens as gl
from gatelens.errors import StoreError
from gatelens.models.fingerprint import (
    active_hooks,
    block_fingerprints,
    blocks_needed,
    model_record,
    weights_fingerprint,
)


@pytest.fixture
def model():
    return gl.load_model("gpt2-mini")


def test_every_single_value_counts():
    """Changes where a sample of evenly spaced values would not look, in any type, by the smallest step."""
    net = torch.nn.Linear(997, 101)
    net.register_parameter("short", torch.nn.Parameter(torch.ones(333, dtype=torch.bfloat16)))
    whole = weights_fingerprint(net)
    draw = torch.Generator().manual_seed(0)
    for value in (net.weight, net.bias, net.short):
        flat = value.detach().view(-1)
        for at in torch.randint(len(flat), (20,), generator=draw).tolist():
            before = flat[at].clone()
            flat[at] = torch.nextafter(before, torch.full_like(before, 9.0))
            assert weights_fingerprint(net) != whole
            flat[at] = before
    assert weights_fingerprint(net) == whole


def test_a_change_shows_in_its_block_alone(model):
    before = block_fingerprints(model)
    assert list(before) == ["before", "0", "1", "2", "3", "after"]
    with torch.no_grad():
        model.blocks[2].mlp.W_out.data[-1, 17] += 1e-6  # .data: PyTorch's own version counter does not see it
    after = block_fingerprints(model)
    assert [place for place in before if before[place] != after[place]] == ["2"]
    early, late = ["blocks.1.hook_mlp_out"], ["blocks.2.hook_mlp_out"]
    untouched = gl.load_model("gpt2-mini")
    assert weights_fingerprint(model, early) == weights_fingerprint(untouched, early)
    assert weights_fingerprint(model, late) != weights_fingerprint(untouched, late)
    assert weights_fingerprint(model) != weights_fingerprint(untouched)


def test_how_deep_hook_points_lie():
    assert blocks_needed(["blocks.1.ln2.hook_normalized", "blocks.4.hook_mlp_out"]) == 5
    assert blocks_needed(["hook_embed"]) == 0
    assert blocks_needed(["blocks.1.hook_mlp_out", "ln_final.hook_normalized"]) is None
    assert blocks_needed(["hook_post.0"]) is None


def test_a_store_of_activations_refuses_a_model_that_was_touched(model, tmp_path):
    batches, _ = gl.text_batches(model, "gpt2-mini-sample", rows=(8, 4), length=32)
    hooks = ["blocks.1.hook_mlp_out"]
    first = gl.collect(model, batches, hooks, store=tmp_path)[hooks[0]]
    model.blocks[3].mlp.W_out.data += 1  # behind what was collected: nothing changes
    assert torch.equal(gl.collect(model, batches, hooks, store=tmp_path)[hooks[0]], first)
    handle = model.blocks[0].hook_mlp_out.register_forward_hook(lambda *_: None)
    with pytest.raises(StoreError, match=r"active_hooks\.blocks\.0\.hook_mlp_out: stored nothing, asked for 1"):
        gl.collect(model, batches, hooks, store=tmp_path)
    handle.remove()
    model.blocks[0].mlp.W_in.data[5, 5] += 1e-4
    with pytest.raises(StoreError, match=r"other settings: .*blocks\.0: stored"):
        gl.collect(model, batches, hooks, store=tmp_path)


def test_hooks_left_on_a_model_are_counted(model):
    assert active_hooks(model) == {}
    with model.hooks(fwd_hooks=[("blocks.1.hook_mlp_out", lambda value, hook: value * 0)]):
        assert model_record(model)["active_hooks"] == {"blocks.1.hook_mlp_out": 1}
    model.add_perma_hook("hook_embed", lambda value, hook: value)
    assert active_hooks(model) == {"hook_embed": 1}


def placed_by(module: str):
    """A function as another library's code puts it in the place of a module's forward: bound to the module by `partial`."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return type(self).forward(self, x)

    forward.__module__ = module
    return forward


@pytest.mark.parametrize(
    ("put", "counted"),
    [
        (lambda m: lambda x: x, 1),
        (lambda m: torch.zeros_like, 1),
        (lambda m: torch.nn.Identity().forward, 1),
        (lambda m: partial(placed_by("somebody.else"), m), 1),
        (lambda m: partial(placed_by("accelerate.hooks"), m), 0),
        (lambda m: partial(placed_by("transformers.utils.generic"), m), 0),
    ],
    ids=["a lambda", "a builtin", "a method", "a partial", "accelerate's", "transformers'"],
)
def test_a_forward_put_in_the_place_of_a_modules_own_is_counted_as_a_hook(model, put, counted):
    mlp = model.blocks[0].mlp
    mlp.forward = put(mlp)
    assert active_hooks(model) == ({"blocks.0.mlp": 1} if counted else {})


def test_settings_that_compute_are_recorded(model):
    record = model_record(model)
    model.cfg.eps = 1e-3
    assert model_record(model)["settings"] != record["settings"]
    assert model_record(model)["weights"] == record["weights"]
    json.dumps(record)


def test_a_small_mlp_has_a_fingerprint_too():
    one, other = gl.HookedMLP((4, 3, 2), seed=0), gl.HookedMLP((4, 3, 2), seed=1)
    assert weights_fingerprint(one) != weights_fingerprint(other)
    assert weights_fingerprint(one) == weights_fingerprint(gl.HookedMLP((4, 3, 2), seed=0))
