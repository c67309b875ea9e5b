"""Settings of Hugging Face configs: carried over, of no matter, or refused by name; logits are the original's."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import gatelens as gl
from gatelens.errors import ModelError
from gatelens.models import compared, huggingface
from support.small_models import gpt2_folder, llama_folder

TOKENS = torch.randint(0, 200, (2, 9), generator=torch.Generator().manual_seed(2))


def logits_of_original(folder):
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder).eval()(TOKENS).logits.log_softmax(-1)


def set_in(folder, **settings):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (gpt2_folder, {"scale_attn_by_inverse_layer_idx": True}),
        (gpt2_folder, {"scale_attn_weights": False}),
        (gpt2_folder, {"add_cross_attention": True}),
        (gpt2_folder, {"logit_softcap": 30.0}),
        (llama_folder, {"partial_rotary_factor": 0.5}),
        (llama_folder, {"attention_multiplier": 2.0}),
        (llama_folder, {"sliding_window": 8}),
        (llama_folder, {"quantization_config": {"quant_method": "gptq", "bits": 4}}),
        (llama_folder, {"attention_bias": True}),
        (llama_folder, {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
    ],
)
def test_settings_that_would_be_left_out_are_refused_by_name(tmp_path, make, settings):
    folder = set_in(make(tmp_path / "mini"), **settings)
    with pytest.raises(ModelError, match=rf"{next(iter(settings))}.*load_model\(folder, bridge=True\)"):
        gl.load_model(folder)


@pytest.mark.parametrize("make", [gpt2_folder, llama_folder])
def test_settings_of_no_matter_pass(tmp_path, make):
    settings = {"resid_pdrop": 0.3, "attention_dropout": 0.2, "use_cache": False, "initializer_range": 0.5, "somebodys_own": False, "torch_dtype": "bfloat16"}  # fmt: skip
    folder = set_in(make(tmp_path / "mini"), **settings)
    with torch.no_grad():
        found = gl.load_model(folder)(TOKENS).log_softmax(-1)
    wanted = logits_of_original(folder)
    assert (found - wanted).norm() / wanted.norm() < 1e-4


def test_a_base_that_is_no_integer_is_kept(tmp_path):
    folder = llama_folder(tmp_path / "mini")
    set_in(folder, rope_parameters={"rope_type": "default", "rope_theta": 12.75})
    with torch.no_grad():
        found = gl.load_model(folder)(TOKENS).log_softmax(-1)
    wanted = logits_of_original(folder)
    assert (found - wanted).norm() / wanted.norm() < 1e-4


def test_a_head_is_the_embedding_only_where_it_is_tied(tmp_path):
    folder = llama_folder(tmp_path / "mini")
    weights = load_file(folder / "model.safetensors")
    head = weights.pop("lm_head.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks the weights lm_head\.weight"):
        gl.load_model(folder)
    set_in(folder, tie_word_embeddings=True)
    with torch.no_grad():
        tied = gl.load_model(folder)(TOKENS).log_softmax(-1)
    save_file({**weights, "lm_head.weight": head}, folder / "model.safetensors", {"format": "pt"})
    with torch.no_grad():  # a head of its own that a file holds is used, as transformers does
        own = gl.load_model(folder)(TOKENS).log_softmax(-1)
    assert (own - logits_of_original(folder)).norm() / own.norm() < 1e-4
    assert (own - tied).norm() / own.norm() > 1e-2


@pytest.mark.parametrize(
    "change",
    [
        {"eps": 0.3},
        {"act_fn": "relu"},
        {"attn_scale": 1.5},
    ],
)
def test_what_a_conversion_loses_is_seen_in_the_logits(tmp_path, monkeypatch, change):
    folder, right = gpt2_folder(tmp_path / "mini"), huggingface.CONFIGS["gpt2"]
    monkeypatch.setitem(huggingface.CONFIGS, "gpt2", lambda config: right(config) | change)
    with pytest.raises(ModelError, match=r"differ from the original's by a relative \d.*bridge=True"):
        gl.load_model(folder)
    monkeypatch.setattr(compared, "available_memory", lambda: 10)
    with pytest.warns(gl.errors.GateLensWarning, match="was not compared with the original"):
        gl.load_model(folder)
