"""Settings of a Hugging Face config that a conversion would leave out: refused by name, before any weight is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import ModelError

#: settings that do not change what the model computes when it is run as it was trained, without dropout
_NO_MATTER = {
    "_name_or_path", "name_or_path", "architectures", "auto_map", "attn_implementation", "_attn_implementation", "bos_token_id",
    "chunk_size_feed_forward", "cross_attention_hidden_size", "dtype", "torch_dtype", "eos_token_id", "decoder_start_token_id",
    "finetuning_task", "forced_bos_token_id", "forced_eos_token_id", "gradient_checkpointing", "id2label", "initializer_range",
    "initializer_factor", "is_llama_config", "keys_to_ignore_at_inference", "label2id", "license", "language", "model_type", "n_ctx",
    "num_labels", "output_attentions", "output_hidden_states", "pad_token_id", "pretraining_tp", "prefix", "problem_type",
    "reorder_and_upcast_attn", "return_dict", "sep_token_id", "task_specific_params", "tie_word_embeddings", "tokenizer_class",
    "torchscript", "transformers_version", "transformers.js_config", "use_bfloat16", "use_cache", "use_return_dict", "vocab_size",
    "max_length", "min_length", "do_sample", "temperature", "top_k", "top_p", "num_beams", "repetition_penalty",
}  # fmt: skip
_NO_MATTER_ENDS = ("_pdrop", "_dropout", "dropout", "dropout_rate")
_NO_MATTER_BEGINS = ("summary_", "_")


def refuse_unknown(config: Mapping[str, Any], mapped: Iterable[str], path: Path) -> None:
    """Refuse a config with a setting that is neither mapped, nor its family's default, nor of no matter here.

    Args:
        config: as config.json holds it.
        mapped: settings that the conversion carries over.

    Raises:
        ModelError: naming each such setting with its value.
    """
    from transformers import AutoConfig

    try:
        standard = AutoConfig.for_model(str(config["model_type"])).to_dict()
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"{path}: model_type {config.get('model_type')!r} is not known to transformers ({error})"
        ) from error
    passes = {*mapped, *_NO_MATTER}
    left_out = {
        name: value
        for name, value in config.items()
        if name not in passes
        and not name.endswith(_NO_MATTER_ENDS)
        and not name.startswith(_NO_MATTER_BEGINS)
        and value != standard.get(name)
        and not (name not in standard and not value)  # a setting of somebody's own that is switched off
    }
    if left_out:
        named = ", ".join(f"{name} = {str(value)[:60]!r}" for name, value in sorted(left_out.items()))
        raise ModelError(
            f"{path} sets {named}, which a HookedTransformer would leave out: it would compute something else. "
            "Load it as a bridge, which runs the original: load_model(folder, bridge=True)"
        )
