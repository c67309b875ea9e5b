"""Small GGUF files, written with gguf from Hugging Face folders as llama.cpp's converter does it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

LLAMA = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
GPT2 = {
    "ln_1": "attn_norm", "ln_2": "ffn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
}  # fmt: skip
OUTER = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "transformer.wte": "token_embd", "transformer.wpe": "position_embd", "transformer.ln_f": "output_norm",
}  # fmt: skip


def gguf_file(folder: Path, path: Path, quantised: str = "F32", **fields: Any) -> Path:
    """The model of a folder as GGUF; `fields` are set over what the config says (architecture, pre, ...)."""
    import gguf

    config = json.loads((folder / "config.json").read_text())
    kind = config["model_type"]
    writer = gguf.GGUFWriter(path, fields.pop("architecture", kind))
    if kind == "llama":
        _llama_settings(writer, config)
    else:
        _gpt2_settings(writer, config)
    _tokenizer(writer, folder, **fields)
    for name, value in load_file(folder / "model.safetensors").items():
        value = _stored(name, value, config)
        if value is None:
            continue
        type_ = gguf.GGMLQuantizationType.F32 if value.ndim == 1 else gguf.GGMLQuantizationType[quantised]
        writer.add_tensor(_name(name), gguf.quantize(value, type_), raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _llama_settings(writer: Any, config: dict[str, Any]) -> None:
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])


def _gpt2_settings(writer: Any, config: dict[str, Any]) -> None:
    writer.add_block_count(config["n_layer"])
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(4 * config["n_embd"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])


def _tokenizer(writer: Any, folder: Path, pre: str = "gpt-2", model: str = "gpt2") -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    special = {token["content"] for token in tokenizer["added_tokens"] if token["special"]}
    tokens = sorted(vocabulary, key=vocabulary.get)
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)


def _name(name: str) -> str:
    stem, end = name.rsplit(".", 1)
    if stem in OUTER:
        return f"{OUTER[stem]}.{end}"
    _, _, number, inner = stem.split(".", 3)
    return f"blk.{number}.{(LLAMA | GPT2)[inner]}.{end}"


def _stored(name: str, value: np.ndarray, config: dict[str, Any]) -> np.ndarray | None:
    """As llama.cpp keeps it: Llama's query and key rows in pairs, GPT-2's matrices transposed, no buffers."""
    if name.endswith((".attn.bias", ".attn.masked_bias")):
        return None
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
    if heads:
        count = config[heads]
        value = value.reshape(count, 2, len(value) // count // 2, -1).swapaxes(1, 2).reshape(value.shape)
    if config["model_type"] == "gpt2" and value.ndim == 2 and ".h." in name:
        value = value.T
    return np.ascontiguousarray(value, dtype=np.float32)
