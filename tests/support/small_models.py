"""Small random models and SAEs in the formats of the hub, so that every loader is tested without a network."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

WORDS = [
    "the",
    "old",
    "young",
    "man",
    "woman",
    "said",
    "former",
    "king",
    "queen",
    "went",
    "house",
    "river",
    "and",
    "not",
    ";",
    ",",
    ".",
    "red",
    "green",
    "cat",
    "dog",
]
_DRAW = random.Random(0)
TEXT = [" ".join(_DRAW.choices(WORDS, k=40 + i % 7)) for i in range(60)]


def gpt2_folder(
    folder: Path, n_layer: int = 2, n_embd: int = 32, n_ctx: int = 32, vocab: int = 200, n_head: int = 2, **more: Any
) -> Path:
    """A random GPT-2 as Hugging Face saves it, with a byte-level BPE tokenizer of its own."""
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer_files(folder, vocab)
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=n_layer,
        n_embd=n_embd,
        n_head=n_head,
        n_positions=n_ctx,
        vocab_size=vocab,
        bos_token_id=0,
        eos_token_id=0,
        **more,
    )
    model = GPT2LMHeadModel(config)
    _perturb(model)
    model.save_pretrained(folder)
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(written | {"n_ctx": n_ctx}))  # as in the published one
    return folder


def llama_folder(folder: Path, vocab: int = 200, **more: Any) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer_files(folder, vocab)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32, bos_token_id=0, eos_token_id=0, tie_word_embeddings=False, **more,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    _perturb(model)
    model.save_pretrained(folder)
    return folder


def _perturb(model: Any) -> None:
    """Random gains and biases: a loader that forgets one must be found out."""
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.1 * torch.randn_like(value))


def tokenizer_files(folder: Path, vocab: int) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted({c for word in WORDS for c in word} | {"Ġ"})
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    end = "<|endoftext|>"
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=end, eos_token=end, unk_token=end, model_max_length=32
    ).save_pretrained(folder)


def in_hub_cache(hub: Path, repository: str, files: dict[str, Path | bytes]) -> None:
    """Put files into a Hugging Face hub cache as a download would have: refs/main and a snapshot."""
    commit = "0" * 40
    root = hub / f"models--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True, exist_ok=True)
    (root / "refs" / "main").write_text(commit)
    for name, content in files.items():
        path = root / "snapshots" / commit / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else Path(content).read_bytes())


def sae_tensors(d_in: int, d_sae: int, seed: int = 0) -> dict[str, Tensor]:
    """A tied random dictionary: unit decoder rows, the encoder their transpose."""
    generator = torch.Generator().manual_seed(seed)
    decoder = torch.nn.functional.normalize(torch.randn(d_sae, d_in, generator=generator), dim=1)
    return {
        "W_dec": decoder,
        "W_enc": decoder.T.contiguous(),
        "b_enc": torch.zeros(d_sae),
        "b_dec": 0.1 * torch.randn(d_in, generator=generator),
    }


def signed_axes(d_in: int) -> dict[str, Tensor]:
    """A dictionary that loses nothing at k = d_in: every axis, once in either direction."""
    decoder = torch.cat([torch.eye(d_in), -torch.eye(d_in)])
    return {
        "W_dec": decoder,
        "W_enc": decoder.T.contiguous(),
        "b_enc": torch.zeros(2 * d_in),
        "b_dec": torch.zeros(d_in),
    }


def flat_topk_config(hook: str, d_in: int, d_sae: int, k: int, normalise: str = "layer_norm") -> dict[str, Any]:
    """cfg.json as it was before sae-lens 6, in the form of the published top-k SAEs of GPT-2 small."""
    return {
        "architecture": "standard", "d_in": d_in, "d_sae": d_sae, "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": k}, "apply_b_dec_to_input": True, "normalize_activations": normalise,
        "dtype": "float32", "device": "cpu", "hook_name": hook, "hook_layer": 1, "hook_head_index": None,
        "model_name": "gpt2-small", "context_size": 64, "prepend_bos": False, "dataset_path": "",
        "finetuning_scaling_factor": False, "sae_lens_training_version": None,
    }  # fmt: skip


def sae_folder(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file(tensors, folder / "sae_weights.safetensors")
    return folder
