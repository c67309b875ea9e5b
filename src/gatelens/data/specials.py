"""Special tokens: the ids that a model's tokenizer sets apart from words, and whether its sentences begin with BOS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_NAMED = ("bos", "eos", "pad", "cls", "sep")


@dataclass(frozen=True)
class Specials:
    """What has to be known of a model to say which positions count.

    Attributes:
        bos, pad: their ids; None where there is none.
        left_out: all ids that are no words: BOS, EOS, PAD, CLS, SEP and added special tokens, but neither "unknown" nor
            "mask", which stand for a word.
        begins: whether sentences begin with BOS (`default_prepend_bos`).
        d_vocab: ids are below it; None where it is not known.
    """

    bos: int | None = None
    pad: int | None = None
    left_out: tuple[int, ...] = ()
    begins: bool = True
    d_vocab: int | None = None

    @classmethod
    def of(cls, model: Any, prepend_bos: bool | None = None) -> Specials:
        """Of a model with a tokenizer, of a tokenizer, or of neither (then nothing is special).

        Args:
            prepend_bos: overrides the model's own `default_prepend_bos`.
        """
        tokenizer, cfg = getattr(model, "tokenizer", model), getattr(model, "cfg", None)
        named = dict(_named(tokenizer))
        words = {_id(tokenizer, "unk"), _id(tokenizer, "mask")}
        added = {i for i in (*_added(tokenizer), *_list(tokenizer, "all_special_ids")) if i not in words}
        default = getattr(cfg, "default_prepend_bos", True)
        return cls(
            named.get("bos"),
            named.get("pad"),
            tuple(sorted({*named.values(), *added})),
            bool((True if default is None else default) if prepend_bos is None else prepend_bos),
            d_vocab if isinstance(d_vocab := getattr(cfg, "d_vocab", None), int) and d_vocab > 0 else None,
        )


def _named(tokenizer: Any) -> Iterator[tuple[str, int]]:
    unknown = _id(tokenizer, "unk")
    for name in _NAMED:
        value = _id(tokenizer, name)
        # a name that the vocabulary lacks is answered with the id of "unknown", which stands for words
        lacking = value == unknown and _token(tokenizer, name) != _token(tokenizer, "unk")
        if value is not None and not lacking:
            yield name, value


def _added(tokenizer: Any) -> Iterator[int]:
    decoder = getattr(tokenizer, "added_tokens_decoder", None)
    for i, token in decoder.items() if isinstance(decoder, dict) else ():
        if getattr(token, "special", False):
            yield int(i)


def _id(tokenizer: Any, name: str) -> int | None:
    value = getattr(tokenizer, f"{name}_token_id", None)
    return int(value) if isinstance(value, int) else None


def _token(tokenizer: Any, name: str) -> Any:
    return getattr(tokenizer, f"{name}_token", None)


def _list(tokenizer: Any, name: str) -> list[int]:
    value = getattr(tokenizer, name, None)
    return [int(i) for i in value if isinstance(i, int)] if isinstance(value, list | tuple) else []
