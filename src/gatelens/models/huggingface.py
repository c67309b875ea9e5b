"""A local Hugging Face folder as a `HookedTransformer`, without the network: GPT-2 and Llama architectures.

transformer-lens 3.9 itself loads only names that it knows, and asks the hub for their configs.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from einops import EinopsError
from torch import Tensor

from ..errors import ModelError
from .settings import refuse_unknown
from .tensor_index import TensorIndex

#: a head without weights of its own uses the embedding's
_TIED = {"lm_head.weight": ("model.embed_tokens.weight", "wte.weight")}
#: what older versions of transformers saved with the weights
_BUFFERS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")


def _gpt2_config(config: Mapping[str, Any]) -> dict[str, Any]:
    width = config["n_embd"]
    return {
        "n_layers": config["n_layer"],
        "d_model": width,
        "n_ctx": config.get("n_positions") or config["n_ctx"],
        "n_heads": config["n_head"],
        "d_head": width // config["n_head"],
        "d_mlp": config.get("n_inner") or 4 * width,
        "d_vocab": config["vocab_size"],
        "act_fn": config.get("activation_function", "gelu_new"),
        "eps": config.get("layer_norm_epsilon", 1e-5),
        "normalization_type": "LN",
        "original_architecture": "GPT2LMHeadModel",
    }


def _whole(number: float) -> float:
    """An integer where it is one, as transformer-lens writes it."""
    return int(number) if number == int(number) else float(number)


def _llama_config(config: Mapping[str, Any]) -> dict[str, Any]:
    rope = config.get("rope_parameters") or {}
    scaling = config.get("rope_scaling") or (rope if rope.get("rope_type", "default") != "default" else None)
    unusual = {"rope_scaling": scaling} | {name: config.get(name) for name in ("attention_bias", "mlp_bias")}
    for what, value in unusual.items():
        if value:
            raise ModelError(
                f"this Llama config sets {what} = {value!r}, which a HookedTransformer would leave out. "
                "Load it as a bridge: load_model(folder, bridge=True)"
            )
    heads = config["num_attention_heads"]
    d_head = config.get("head_dim") or config["hidden_size"] // heads
    grouped = config.get("num_key_value_heads") or heads
    return {
        "n_layers": config["num_hidden_layers"],
        "d_model": config["hidden_size"],
        "n_ctx": config["max_position_embeddings"],
        "n_heads": heads,
        "d_head": d_head,
        "n_key_value_heads": grouped if grouped != heads else None,
        "d_mlp": config["intermediate_size"],
        "d_vocab": config["vocab_size"],
        "act_fn": config.get("hidden_act", "silu"),
        "eps": config.get("rms_norm_eps", 1e-6),
        "normalization_type": "RMS",
        "final_rms": True,
        "gated_mlp": True,
        "positional_embedding_type": "rotary",
        "rotary_dim": d_head,
        "rotary_base": _whole(config.get("rope_theta") or rope.get("rope_theta") or 10000),
        "rotary_adjacent_pairs": False,
        "original_architecture": "LlamaForCausalLM",
    }


#: Hugging Face `model_type` -> its config in transformer-lens' words
CONFIGS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {"gpt2": _gpt2_config, "llama": _llama_config}
#: the settings that these carry over, or refuse themselves
MAPPED = {
    "gpt2": ("n_embd", "n_layer", "n_positions", "n_ctx", "n_head", "n_inner", "vocab_size", "activation_function", "layer_norm_epsilon"),
    "llama": (
        "attention_bias", "head_dim", "hidden_act", "hidden_size", "intermediate_size", "max_position_embeddings", "mlp_bias",
        "num_attention_heads", "num_hidden_layers", "num_key_value_heads", "rms_norm_eps", "rope_parameters", "rope_scaling",
        "rope_theta", "vocab_size",
    ),
}  # fmt: skip


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ModelError: for a file that is not one.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is not readable JSON ({error}). Download or save the model again") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds a {type(value).__name__}, expected an object of settings")
    return value


def hooked_config(folder: Path) -> dict[str, Any]:
    """The settings of `HookedTransformerConfig` for a Hugging Face folder.

    Raises:
        ModelError: for an architecture that has no conversion here, or a config that lacks something.
    """
    config = read_json(folder / "config.json")
    kind = config.get("model_type")
    if kind not in CONFIGS:
        raise ModelError(
            f"{folder}: model_type is {kind!r}; a local folder becomes a HookedTransformer for {', '.join(CONFIGS)}. "
            "Any other architecture loads as a bridge: load_model(folder, bridge=True)"
        )
    refuse_unknown(config, MAPPED[kind], folder / "config.json")
    try:
        settings = CONFIGS[kind](config)
    except KeyError as error:
        raise ModelError(
            f"{folder / 'config.json'} lacks {error}. Save the model again with its whole config"
        ) from error
    return settings | {"model_name": folder.name}


class _Tree:
    """Tensors as the modules that transformer-lens' conversions walk: `tree.model.layers[3].mlp.up_proj.weight`."""

    def __init__(self, read: Callable[[str], Tensor], path: str = ""):
        self._read, self._path = read, path

    def __getattr__(self, name: str) -> Any:
        path = f"{self._path}.{name}" if self._path else name
        return self._read(path) if name in ("weight", "bias") else _Tree(self._read, path)

    def __getitem__(self, index: int) -> _Tree:
        return _Tree(self._read, f"{self._path}.{index}")


class HuggingFaceFolder:
    """The weights of a Hugging Face folder, read a block at a time through transformer-lens' own conversions.

    Args:
        checked: see `TensorIndex`.
    """

    def __init__(self, folder: Path, name: str | None = None, checked: Callable[[Path], object] | None = None):
        self.path = folder
        self.settings: Mapping[str, Any] = hooked_config(folder) | ({"model_name": name} if name else {})
        self._tensors = TensorIndex(sorted(folder.glob("model*.safetensors")), checked)
        self._tied = read_json(folder / "config.json").get(
            "tie_word_embeddings", self.settings["original_architecture"] == "GPT2LMHeadModel"
        )
        self._names = {name.removeprefix("transformer."): name for name in self._tensors}
        self._used: set[str] = set()

    def tokenizer(self) -> Any | None:
        return tokenizer_of(self.path)

    def outer(self, cfg: Any) -> dict[str, Tensor]:
        found = self._converted(cfg, 0, lambda path: self._tensor(_TIED.get(path, ()), path))
        return {"unembed.b_U": torch.zeros(cfg.d_vocab_out, dtype=cfg.dtype)} | found

    def block(self, index: int, cfg: Any) -> dict[str, Tensor]:
        def read(path: str) -> Tensor:
            if not re.search(r"\.0\.", path):
                return torch.zeros(1, 1)  # the embedding and the head, which are not of this block
            return self._tensor((), re.sub(r"\.0\.", f".{index}.", path, count=1))

        found = self._converted(cfg, 1, read)
        here = {name: value for name, value in found.items() if name.startswith("blocks.0.")}
        return {name.replace("blocks.0.", f"blocks.{index}.", 1): value for name, value in here.items()}

    def foreign(self) -> list[str]:
        """Weights inside the blocks that the conversion did not ask for: they would change what the model computes."""
        left = set(self._names) - self._used
        return sorted(name for name in left if re.search(r"\.\d+\.", name) and not name.endswith(_BUFFERS))

    def _converted(self, cfg: Any, blocks: int, read: Callable[[str], Tensor]) -> dict[str, Tensor]:
        from transformer_lens.pretrained.weight_conversions.gpt2 import convert_gpt2_weights
        from transformer_lens.pretrained.weight_conversions.llama import convert_llama_weights

        small = copy.copy(cfg)
        small.n_layers = blocks
        convert = convert_gpt2_weights if cfg.original_architecture == "GPT2LMHeadModel" else convert_llama_weights
        try:
            return {name: value.detach() for name, value in convert(_Tree(read), small).items()}
        except (RuntimeError, EinopsError) as error:
            raise ModelError(
                f"{self.path}: the weights do not fit config.json ({error}). Give the config that they were saved with"
            ) from error

    def _tensor(self, instead: Sequence[str], path: str) -> Tensor:
        """The tensor of that name, or of the one that it is tied to."""
        short = path.removeprefix("transformer.")
        names = (short, *instead) if self._tied else (short,)  # a head that is not tied must be there
        for name in names:
            if name in self._names:
                self._used.add(name)
                return self._tensors[self._names[name]]
        raise ModelError(f"{self.path} lacks the weights {path}, which its config asks for. Download or save it again")


def tokenizer_of(folder: Path) -> Any | None:
    """The tokenizer that the folder holds; None when it holds none."""
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json", "tokenizer.model")):
        return None
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"the tokenizer in {folder} could not be loaded ({error})") from error
