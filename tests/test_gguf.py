"""GGUF files: converted to what they were made from, kept under their hash, made anew when damaged, refused by name."""

from __future__ import annotations

import json
import threading

import pytest
import torch

pytest.importorskip("gguf", reason='gguf is not installed: pip install "gatelens[smollm2]"')

from transformers import AutoModelForCausalLM, AutoTokenizer

from gatelens import load_model, mlp_segments
from gatelens.errors import ModelError
from gatelens.models import gguf_cache
from gatelens.models.fingerprint import model_record
from support.gguf_models import gguf_file
from support.small_models import TEXT, gpt2_folder, llama_folder

RAW = {"fold_ln": False, "center_writing_weights": False, "center_unembed": False, "fold_value_biases": False}
TOKENS = torch.randint(0, 200, (2, 12), generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {"gpt2": gpt2_folder(root / "mini-gpt2"), "llama": llama_folder(root / "mini-llama")}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GATELENS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_file_gives_the_logits_of_the_folder_it_was_made_from(folders, tmp_path, kind):
    theirs = AutoModelForCausalLM.from_pretrained(folders[kind]).eval()
    file = gguf_file(folders[kind], tmp_path / "mini.gguf")
    with torch.no_grad():
        expected = theirs(TOKENS).logits
        assert torch.allclose(load_model(file, **RAW)(TOKENS), expected, atol=1e-4)
        assert torch.allclose(load_model(file)(TOKENS).log_softmax(-1), expected.log_softmax(-1), atol=2e-4)
        bridge = load_model(file, bridge=True, **RAW)
        assert torch.allclose(bridge(TOKENS), expected, atol=1e-4)


@pytest.mark.parametrize("quantised", ["F16", "Q8_0", "Q4_1"])
def test_quantised_numbers_are_those_that_transformers_reads(tmp_path, quantised):
    folder = _in_blocks_of_32(tmp_path / "blocks")
    file = gguf_file(folder, tmp_path / "mini.gguf", quantised)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32).eval()
    with torch.no_grad():
        ours, expected = load_model(file, **RAW)(TOKENS), theirs(TOKENS).logits
        plain = load_model(folder, **RAW)(TOKENS)
    assert torch.allclose(ours, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert not torch.allclose(ours, plain, atol=1e-6)  # the numbers were rounded, or nothing was tested


def _in_blocks_of_32(folder):
    from transformers import LlamaConfig, LlamaForCausalLM

    from support.small_models import tokenizer_files

    tokenizer_files(folder, 200)
    config = LlamaConfig(
        vocab_size=200, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_the_tokenizer_is_the_folders(folders, tmp_path):
    theirs = AutoTokenizer.from_pretrained(folders["llama"])
    ours = load_model(gguf_file(folders["llama"], tmp_path / "mini.gguf")).tokenizer
    for text in [*TEXT[:5], "the  king ;said\n<|endoftext|> and"]:
        assert ours(text, add_special_tokens=False)["input_ids"] == theirs(text)["input_ids"]
        assert ours.decode(theirs(text)["input_ids"]) == theirs.decode(theirs(text)["input_ids"])
    cut = load_model(gguf_file(folders["llama"], tmp_path / "digits.gguf", pre="smollm")).tokenizer
    words = [word for word, _ in cut.backend_tokenizer.pre_tokenizer.pre_tokenize_str("in 2024")]
    assert words == ["in", "Ġ", "2", "0", "2", "4"]


def test_it_is_converted_once_by_whoever_comes_first(folders, tmp_path, cache, monkeypatch):
    file = gguf_file(folders["llama"], tmp_path / "mini.gguf")
    made, convert = [], gguf_cache._converted
    monkeypatch.setattr(gguf_cache, "_converted", lambda *args: made.append(1) or convert(*args))
    threads = [threading.Thread(target=gguf_cache.gguf_folder, args=(file,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
    (kept,) = (path for path in cache.iterdir() if path.is_dir())
    first = model_record(load_model(file))
    assert len(made) == 1
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    (copy / "mini.gguf").write_bytes(file.read_bytes())
    assert model_record(load_model(copy / "mini.gguf"))["weights"] == first["weights"]
    assert len(made) == 1  # the same bytes at another place
    other = gguf_file(folders["llama"], tmp_path / "other.gguf", "F16")
    load_model(other)
    assert len(made) == 2

    shard = next(kept.glob("model-00002*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x7f")
    assert model_record(load_model(file))["weights"] == first["weights"]
    assert len(made) == 3


def test_the_first_blocks_alone(folders, tmp_path):
    for source in (folders["gpt2"], gguf_file(folders["llama"], tmp_path / "mini.gguf")):
        whole, first = load_model(source), load_model(source, first_layers=1)
        hooks = ["blocks.0.ln2.hook_normalized", "blocks.0.hook_mlp_out"]
        _, full = whole.run_with_cache(TOKENS, names_filter=hooks)
        _, part = first.run_with_cache(TOKENS, names_filter=hooks, stop_at_layer=1)
        assert all(torch.equal(full[hook], part[hook]) for hook in hooks)
        assert model_record(first, hooks) == model_record(whole, hooks)
        assert model_record(first) != model_record(whole)
        assert mlp_segments(first)[0].outside is not None  # nothing of it needs the blocks behind
        with pytest.raises(ModelError, match=r"first_layers=1, so its logits cannot be had.*Load it whole"):
            first(TOKENS)
        with pytest.raises(ModelError, match=r"first_layers = 3: .* has 2 blocks. Give a number from 1 to 2"):
            load_model(source, first_layers=3)
    with pytest.raises(ModelError, match="a bridge loads every block"):
        load_model(folders["gpt2"], bridge=True, first_layers=1)


def test_what_is_not_read_is_named(folders, tmp_path):
    falcon = gguf_file(folders["llama"], tmp_path / "falcon.gguf", architecture="falcon")
    with pytest.raises(ModelError, match=r"architecture 'falcon'; GGUF files are read for llama and gpt2"):
        load_model(falcon)
    spm = gguf_file(folders["llama"], tmp_path / "spm.gguf", model="llama")
    with pytest.raises(ModelError, match=r"tokenizer is of the kind 'llama'"):
        load_model(spm)
    cut = gguf_file(folders["llama"], tmp_path / "cut.gguf", pre="tekken")
    with pytest.raises(ModelError, match=r"cut as 'tekken' does it; known here are"):
        load_model(cut)
    (tmp_path / "half.gguf").write_bytes(cut.read_bytes()[:5000])
    (tmp_path / "noise.gguf").write_bytes(b"GGUF" + bytes(range(256)))
    for name in ("half", "noise"):
        with pytest.raises(ModelError, match="is not a whole GGUF file"):
            load_model(tmp_path / f"{name}.gguf")
    with pytest.raises(ModelError, match=r"there is no model at .*or a .gguf file"):
        load_model(tmp_path / "nowhere.gguf")


def test_weights_that_a_config_does_not_speak_of(folders, tmp_path):
    """A bias that is left out gives another model without a word: transformers only warns."""
    from safetensors.torch import load_file, save_file

    config = json.loads((folders["llama"] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = load_file(folders["llama"] / "model.safetensors")
    save_file(weights | {"model.layers.1.self_attn.q_proj.bias": torch.ones(32)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"1 are unknown \(model.layers.1.self_attn.q_proj.bias\)"):
        load_model(tmp_path)
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"lacks the weights model.layers.1.mlp.up_proj.weight"):
        load_model(tmp_path)


def test_a_cache_that_cannot_be_written(folders, tmp_path, monkeypatch):
    file = gguf_file(folders["llama"], tmp_path / "mini.gguf")
    (tmp_path / "a-file").write_text("")
    monkeypatch.setenv("GATELENS_CACHE", str(tmp_path / "a-file"))
    with pytest.raises(ModelError, match="Set GATELENS_CACHE to a folder that can be written"):
        load_model(file)
