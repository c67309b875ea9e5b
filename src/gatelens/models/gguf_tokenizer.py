"""The tokenizer that a GGUF file describes, as one of transformers: byte-level BPE, with the splitting it names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ModelError

#: how text is cut before BPE; llama.cpp's names. "default" of old files is GPT-2's
_LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SPECIAL, _USERS = 3, 4  # llama.cpp's kinds of token: control tokens, and such as users have added


def tokenizer_of_gguf(fields: Mapping[str, Any], source: object) -> Any | None:
    """A `PreTrainedTokenizerFast`; None for a file that holds no vocabulary.

    Raises:
        ModelError: a kind of tokenizer that is not built here, by name.
    """
    kind, tokens = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.tokens")
    if tokens is None:
        return None
    if kind != "gpt2":
        raise ModelError(
            f"{source}: its tokenizer is of the kind {kind!r}; byte-level BPE (gpt2) is built here. "
            "Load the model's Hugging Face folder instead"
        )
    from tokenizers import AddedToken, Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    merges = [tuple(pair.split(" ")) for pair in fields.get("tokenizer.ggml.merges", [])]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    cut, whole_words = _cutting(fields.get("tokenizer.ggml.pre", "default"), source)
    try:
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=whole_words))
    except Exception as error:  # the Rust side raises bare Exception
        raise ModelError(f"{source}: its merges do not fit its vocabulary ({error}). Download it again") from error
    tokenizer.pre_tokenizer, tokenizer.decoder = cut, decoders.ByteLevel()
    kinds = fields.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    for number, special in ((_SPECIAL, True), (_USERS, False)):
        added = [
            AddedToken(t, normalized=False, special=special) for t, k in zip(tokens, kinds, strict=True) if k == number
        ]
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(added)
    named = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    numbers = {short: fields.get(f"tokenizer.ggml.{name}_token_id") for short, name in named.items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=int(fields.get(f"{fields.get('general.architecture')}.context_length", 1024)),
        chat_template=fields.get("tokenizer.chat_template"),
        **{f"{short}_token": tokens[n] for short, n in numbers.items() if n is not None and n < len(tokens)},
    )


def _cutting(name: str, source: object) -> tuple[Any, bool]:
    """How text is cut into words, and whether a whole word of the vocabulary is taken without merging."""
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence, Split

    if name in ("default", "gpt-2", "gpt2"):
        return ByteLevel(add_prefix_space=False), False
    if name == "smollm":
        return Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]), False
    if name in ("llama-bpe", "llama3"):
        split = Split(Regex(_LLAMA3), "isolated", invert=False)
        return Sequence([split, ByteLevel(add_prefix_space=False, use_regex=False)]), True
    raise ModelError(
        f"{source}: its text is cut as {name!r} does it; known here are default, gpt-2, smollm and llama-bpe. "
        "Load the model's Hugging Face folder instead"
    )
