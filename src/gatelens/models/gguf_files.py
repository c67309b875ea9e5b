"""A GGUF file in Hugging Face's form: its numbers dequantised, its names and its config translated.

Two architectures: Llama, whose query and key rows llama.cpp stores in another order, and GPT-2, whose matrices it stores
transposed. The file is mapped and read tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ModelError

ARCHITECTURES = ("llama", "gpt2")
_LLAMA = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
_GPT2 = {
    "attn_norm": "ln_1", "ffn_norm": "ln_2", "attn_qkv": "attn.c_attn", "attn_output": "attn.c_proj",
    "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj",
}  # fmt: skip
_OUTER = {
    "llama": {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"},
    "gpt2": {
        "token_embd": "transformer.wte", "position_embd": "transformer.wpe", "output_norm": "transformer.ln_f", "output": "lm_head",
    },
}  # fmt: skip
_BLOCKS = {"llama": ("model.layers", _LLAMA), "gpt2": ("transformer.h", _GPT2)}
#: settings under which a file of these architectures is another model than transformers' Llama or GPT-2
_OTHER_MODELS = ("expert_count", "rope.scaling.type", "attention.sliding_window")


class GgufFile:
    """A GGUF file, opened: `config`, `fields` and the tensors part by part.

    Raises:
        ModelError: no GGUF file, an architecture or a quantisation that is not read here, or gguf is not installed.
    """

    def __init__(self, path: Path):
        self.path = path
        reader = _reader(path)
        try:
            self.fields: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items()}
        except Exception as error:
            raise ModelError(f"{path}: its settings cannot be read ({error!r}). Download it again") from error
        self.architecture = str(self.fields.get("general.architecture"))
        if self.architecture not in ARCHITECTURES:
            raise ModelError(
                f"{path} holds the architecture {self.architecture!r}; GGUF files are read for {' and '.join(ARCHITECTURES)}. "
                "Load the Hugging Face folder of the model instead"
            )
        self._stored = {tensor.name: tensor for tensor in reader.tensors}
        self.config = self._config()
        self.blocks = int(self._setting("block_count"))

    def parts(self) -> Iterator[dict[str, Tensor]]:
        """The tensors under Hugging Face's names: what lies outside the blocks, then block after block."""
        outer = _OUTER[self.architecture]
        names = {name: outer[stem] for name, stem in self._stems() if stem in outer}
        foreign = [name for name, stem in self._stems() if stem not in outer and not name.startswith("blk.")]
        if foreign:
            raise ModelError(f"{self.path} holds {foreign[0]}, which a {self.architecture} model has no place for")
        yield {self._translated(name, hf): self._tensor(name) for name, hf in names.items()}
        above, inner = _BLOCKS[self.architecture]
        for i in range(self.blocks):
            part = {}
            for name in (n for n in self._stored if n.startswith(f"blk.{i}.")):
                stem = name.removeprefix(f"blk.{i}.").rsplit(".", 1)[0]
                if stem not in inner:
                    raise ModelError(
                        f"{self.path} holds {name}, which a {self.architecture} model has no place for. "
                        "Load the Hugging Face folder of the model instead"
                    )
                part[self._translated(name, f"{above}.{i}.{inner[stem]}")] = self._tensor(name, stem)
            if not part:
                raise ModelError(
                    f"{self.path} should have {self.blocks} blocks, and block {i} is missing. Download it again"
                )
            yield part

    def _stems(self) -> list[tuple[str, str]]:
        return [(name, name.rsplit(".", 1)[0]) for name in self._stored]

    @staticmethod
    def _translated(name: str, hugging_face: str) -> str:
        return f"{hugging_face}.{name.rsplit('.', 1)[1]}"

    def _tensor(self, name: str, stem: str = "") -> Tensor:
        from gguf import dequantize

        stored = self._stored[name]
        try:
            value = dequantize(stored.data, stored.tensor_type)
        except (NotImplementedError, ValueError) as error:
            raise ModelError(
                f"{self.path}: {name} is stored as {stored.tensor_type.name}, which gguf does not dequantise ({error}). "
                "Take a file with another quantisation, such as Q8_0"
            ) from error
        value = np.asarray(value, dtype=np.float32)
        if self.architecture == "llama" and stem in ("attn_q", "attn_k"):
            value = _rows_in_halves(
                value, self.config["num_attention_heads" if stem == "attn_q" else "num_key_value_heads"]
            )
        if self.architecture == "gpt2" and value.ndim == 2 and stem:
            value = value.T
        return torch.from_numpy(np.require(value, requirements=["C", "W"]))

    def _setting(self, name: str, default: Any = None) -> Any:
        value = self.fields.get(f"{self.architecture}.{name}", default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 2**31:
            raise ModelError(
                f"{self.path}: its setting {self.architecture}.{name} is {'missing' if value is None else repr(value)[:60]}; "
                "expected one positive number. Convert the model again with a newer llama.cpp, or load its Hugging Face folder"
            )
        return value

    def _config(self) -> dict[str, Any]:
        other = {name: self.fields.get(f"{self.architecture}.{name}") for name in _OTHER_MODELS}
        if any(other.values()):
            what = ", ".join(f"{name} = {value}" for name, value in other.items() if value)
            raise ModelError(
                f"{self.path} sets {what}, which is not read here. Load its Hugging Face folder as a bridge"
            )
        config = self._llama_config() if self.architecture == "llama" else self._gpt2_config()
        special = {f"{name}_token_id": self.fields.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos")}
        return config | {"torch_dtype": "float32"} | special

    def _vocabulary(self) -> int:
        return int(self._stored["token_embd.weight"].shape[-1])

    def _llama_config(self) -> dict[str, Any]:
        heads, width = self._setting("attention.head_count"), self._setting("embedding_length")
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "num_hidden_layers": self._setting("block_count"),
            "hidden_size": width,
            "intermediate_size": self._setting("feed_forward_length"),
            "num_attention_heads": heads,
            "num_key_value_heads": self._setting("attention.head_count_kv", heads),
            "head_dim": self._setting("attention.key_length", width // heads),
            "max_position_embeddings": self._setting("context_length"),
            "rms_norm_eps": self._setting("attention.layer_norm_rms_epsilon"),
            "rope_theta": self._setting("rope.freq_base", 10000.0),
            "hidden_act": "silu",
            "vocab_size": self._vocabulary(),
            "tie_word_embeddings": "output.weight" not in self._stored,
        }

    def _gpt2_config(self) -> dict[str, Any]:
        return {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "n_layer": self._setting("block_count"),
            "n_embd": self._setting("embedding_length"),
            "n_inner": self._setting("feed_forward_length"),
            "n_head": self._setting("attention.head_count"),
            "n_positions": self._setting("context_length"),
            "n_ctx": self._setting("context_length"),
            "layer_norm_epsilon": self._setting("attention.layer_norm_epsilon"),
            "vocab_size": self._vocabulary(),
            "tie_word_embeddings": "output.weight" not in self._stored,
        }


def _rows_in_halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """Query or key rows as transformers rotates them, first half with second; llama.cpp stores neighbours as pairs."""
    pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def _reader(path: Path) -> Any:
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise ModelError("GGUF files are read by gguf, which is not installed: pip install gguf") from error
    try:
        return GGUFReader(path)
    except Exception as error:  # gguf raises nearly everything on a damaged file
        raise ModelError(f"{path} is not a whole GGUF file ({error!r}). Download it again") from error
