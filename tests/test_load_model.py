"""Loading: the same logits as transformers, folding recorded, pickle and misfits refused, the hub's cache without a network."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from gatelens import load_model
from gatelens.errors import HubError, ModelError
from gatelens.models.fingerprint import model_record
from gatelens.models.load import Processing, find_local
from support.small_models import gpt2_folder, in_hub_cache, llama_folder

RAW = {"fold_ln": False, "center_writing_weights": False, "center_unembed": False, "fold_value_biases": False}
TOKENS = torch.randint(0, 200, (2, 12), generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {"gpt2": gpt2_folder(root / "mini-gpt2"), "llama": llama_folder(root / "mini-llama")}


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("bridge", [False, True])
def test_a_folder_gives_the_logits_of_transformers(folders, kind, bridge):
    theirs = AutoModelForCausalLM.from_pretrained(folders[kind]).eval()
    with torch.no_grad():
        expected = theirs(TOKENS).logits.log_softmax(-1)
        for options in ({}, RAW):
            ours = load_model(folders[kind], bridge=bridge, **options)
            assert torch.allclose(ours(TOKENS).log_softmax(-1), expected, atol=2e-4)
    assert not ours.training
    assert not any(p.requires_grad for p in ours.parameters())


def test_how_it_was_loaded_is_recorded(folders):
    folded, raw = load_model(folders["gpt2"]), load_model(folders["gpt2"], **RAW)
    records = model_record(folded), model_record(raw)
    assert [r["fold_ln"] for r in records] == [True, False]
    assert [r["center_writing_weights"] for r in records] == [True, False]
    assert records[0]["weights"] != records[1]["weights"]
    assert records[0]["tokenizer"] == records[1]["tokenizer"] is not None
    assert model_record(load_model(folders["gpt2"])) == records[0]
    json.dumps(records[0])


def test_what_cannot_be_folded_is_recorded_as_not_done(folders):
    record = model_record(load_model(folders["llama"]))
    assert record["fold_ln"]
    assert not record["center_writing_weights"]  # RMSNorm does not take the mean off


def test_a_state_dict_with_its_config(folders, tmp_path):
    from safetensors.torch import save_file

    model = load_model(folders["gpt2"], **RAW)
    state = {k: v.contiguous() for k, v in model.state_dict().items() if not k.endswith(("mask", "IGNORE"))}
    save_file(state, tmp_path / "tl_state_dict.safetensors")
    names = (
        "n_layers",
        "d_model",
        "n_ctx",
        "d_head",
        "n_heads",
        "d_mlp",
        "d_vocab",
        "act_fn",
        "normalization_type",
        "eps",
    )
    config = {name: getattr(model.cfg, name) for name in names}
    (tmp_path / "tl_config.json").write_text(json.dumps(config))
    for path in (tmp_path, tmp_path / "tl_state_dict.safetensors"):
        assert torch.allclose(load_model(path, **RAW)(TOKENS), model(TOKENS), atol=1e-5)
    assert load_model(tmp_path).cfg.normalization_type == "LNPre"

    (tmp_path / "tl_config.json").write_text(json.dumps(config | {"d_mlp": 64}))
    with pytest.raises(ModelError, match=r"blocks\.0\.mlp\.W_in has shape .*128.*config asks for .*64"):
        load_model(tmp_path)
    (tmp_path / "tl_config.json").write_text(json.dumps(config | {"n_layers": 3}))
    with pytest.raises(ModelError, match="weights are missing .blocks.2"):
        load_model(tmp_path)
    (tmp_path / "tl_config.json").write_text(json.dumps(config | {"wings": 2}))
    with pytest.raises(ModelError, match="wings"):
        load_model(tmp_path)
    (tmp_path / "tl_config.json").write_text(json.dumps(config))
    save_file(state | {"embed.W_E": state["embed.W_E"] * float("nan")}, tmp_path / "tl_state_dict.safetensors")
    with pytest.raises(ModelError, match=r"embed\.W_E holds NaN"):
        load_model(tmp_path)
    (tmp_path / "tl_state_dict.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["weights.pt", "pytorch_model.bin"])
def test_pickle_is_refused_and_the_converter_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x04.")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(ModelError, match=r"Python pickle.*weights_only=True"):
            load_model(path)


def test_what_is_no_model(tmp_path):
    with pytest.raises(ModelError, match="there is no model at"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="is no model: expected config.json"):
        load_model(tmp_path)
    with pytest.raises(ModelError, match="dtype must be the name"):
        load_model(tmp_path, dtype="float33")


def test_architectures_that_have_no_conversion_name_the_bridge(folders, tmp_path):
    (tmp_path / "model.safetensors").write_bytes((folders["llama"] / "model.safetensors").read_bytes())
    config = json.loads((folders["llama"] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "qwen9"}))
    with pytest.raises(ModelError, match="'qwen9'.*gpt2, llama.*bridge=True"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"attention_bias": True}))
    with pytest.raises(ModelError, match="attention_bias.*bridge=True"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ModelError, match="expected an object of settings"):
        load_model(tmp_path)


def test_a_bridge_is_processed_as_a_whole(folders):
    with pytest.raises(ModelError, match="all on or all off"):
        load_model(folders["gpt2"], bridge=True, fold_ln=False)


def test_hub_names(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="unknown model 'gpt-2-smal'.*did you mean 'gpt"):
        load_model("gpt-2-smal")
    with pytest.raises(HubError, match=r"gpt2 is not in the cache.*give the path of a folder"):
        load_model("gpt2")


def test_gpt2_loads_from_the_cache_without_a_network(folders, monkeypatch, tmp_path):
    """The cache layout of a download, with small random weights of the same names: all that the loader reads."""
    source = folders["gpt2"]
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    in_hub_cache(tmp_path, "gpt2", {name: source / name for name in names})
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path), raising=False)
    model = load_model("gpt2")
    assert model.cfg.normalization_type == "LNPre"
    assert model.cfg.d_model == 32
    assert torch.allclose(model(TOKENS).log_softmax(-1), load_model(source)(TOKENS).log_softmax(-1), atol=1e-4)


def test_the_shipped_model():
    model = load_model("gpt2-mini")
    text = '"Yes," said the old'
    best = model.tokenizer.decode(int(model(model.to_tokens(text))[0, -1].argmax()))
    assert best.strip().isalpha()
    assert find_local("gpt2-mini").is_dir()
    assert find_local("gpt2") is None
    assert Processing().fold_ln
