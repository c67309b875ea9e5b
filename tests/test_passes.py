"""Passes that start at the first hooked block give the figures of whole passes; where a model cannot, all are whole."""

from __future__ import annotations

import pytest
import torch

import gatelens as gl
from gatelens.evaluation import passes as passes_module
from gatelens.evaluation.passes import Passes, metric
from support.small_models import TEXT, gpt2_folder, llama_folder


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    make = gpt2_folder if request.param == "gpt2" else llama_folder
    return gl.load_model(make(folder, **({"n_layer": 4} if request.param == "gpt2" else {})))


@pytest.fixture(scope="module")
def held_out(model):
    return gl.text_batches(model, TEXT, rows=(8, 11), length=24, packed=False, batch_size=4)[1]


@pytest.fixture
def inputs(model, monkeypatch):
    """What each pass was started on: tokens (int) or a residual stream."""
    seen = []
    run = model.run_with_hooks
    monkeypatch.setattr(model, "run_with_hooks", lambda x, **how: seen.append(x) or run(x, **how))
    return seen


def halved(hook_name):
    return lambda keep: [(hook_name, lambda value, hook: torch.where(keep[..., None], value / 2, value))]


def whole(model, batches, hooks):
    return metric(model, batches, hooks)


@pytest.mark.parametrize("name", ["hook_resid_mid", "ln2.hook_normalized", "hook_mlp_out", "hook_resid_pre"])
def test_a_pass_from_the_hooked_block_gives_the_figure_of_a_whole_one(model, held_out, inputs, name):
    last = f"blocks.{model.cfg.n_layers - 1}."
    passes = Passes(model, held_out, [last + name])
    expected = whole(model, held_out, halved(last + name))
    assert passes.clean == pytest.approx(metric(model, held_out), abs=1e-6)
    inputs.clear()
    assert passes.metric(halved(last + name)) == pytest.approx(expected, abs=1e-6)
    assert expected != pytest.approx(passes.clean, abs=1e-4)
    assert len(inputs) == len(held_out)
    assert all(x.is_floating_point() for x in inputs)  # residual streams: nothing below was run


def test_hooks_further_down_get_a_whole_pass(model, held_out, inputs):
    passes = Passes(model, held_out, ["blocks.1.hook_mlp_out"])
    expected = whole(model, held_out, halved("blocks.0.hook_mlp_out"))
    inputs.clear()
    assert passes.metric(halved("blocks.0.hook_mlp_out")) == pytest.approx(expected, abs=1e-6)
    assert not inputs[-1].is_floating_point()
    assert passes.metric(lambda keep: []) == pytest.approx(passes.clean, abs=1e-6)
    assert passes.metric(halved("hook_embed")) == pytest.approx(whole(model, held_out, halved("hook_embed")), abs=1e-6)


def test_a_start_that_gives_other_logits_is_not_used(model, held_out, inputs, monkeypatch):
    expected = whole(model, held_out, halved("blocks.1.hook_mlp_out"))
    run = model.run_with_hooks

    def wrong(x, **how):
        return run(x, **how) + ("start_at_layer" in how) * torch.rand(1)

    monkeypatch.setattr(model, "run_with_hooks", wrong)
    passes = Passes(model, held_out, ["blocks.1.hook_mlp_out"])
    assert passes.metric(halved("blocks.1.hook_mlp_out")) == pytest.approx(expected, abs=1e-6)
    assert not inputs[-1].is_floating_point()


@pytest.mark.parametrize("obstacle", ["padding", "memory", "refusal"])
def test_what_cannot_start_later_runs_whole(model, held_out, inputs, monkeypatch, obstacle):
    expected = whole(model, held_out, halved("blocks.1.hook_mlp_out"))
    if obstacle == "padding":
        monkeypatch.setattr(model.tokenizer, "padding_side", "left")
        expected = whole(model, held_out, halved("blocks.1.hook_mlp_out"))
    elif obstacle == "memory":
        monkeypatch.setattr(passes_module, "KEPT_BYTES", 1000)
    else:
        run = model.run_with_hooks

        def refusing(x, **how):
            if "start_at_layer" in how:
                raise NotImplementedError("start_at_layer is not supported in TransformerBridge.")
            return run(x, **how)

        monkeypatch.setattr(model, "run_with_hooks", refusing)
    passes = Passes(model, held_out, ["blocks.1.hook_mlp_out"])
    inputs.clear()
    assert passes.metric(halved("blocks.1.hook_mlp_out")) == pytest.approx(expected, abs=1e-6)
    assert not any(x.is_floating_point() for x in inputs if obstacle != "refusal")


def test_a_network_without_blocks_runs_whole():
    model = gl.HookedMLP((4, 3, 3, 2))
    x = torch.rand(20, 4, generator=torch.Generator().manual_seed(0))
    data = gl.data.Batches(x, torch.zeros(20, dtype=torch.long), torch.ones(20, dtype=torch.bool), torch.arange(20))
    passes = Passes(model, data, ["hook_post.0"])
    zero = [("hook_post.0", lambda value, hook: value * 0)]
    assert passes.metric(lambda keep: zero) == metric(model, data, lambda keep: zero)
    assert passes.clean == metric(model, data)
