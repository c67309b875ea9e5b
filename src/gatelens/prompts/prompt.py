"""Prompt: what a user gave, made into what the model reads; everything that can be wrong with it is said before any run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from ..data.positions import positions
from ..data.rows import IDS, MASK, token_rows, without_surrogates
from ..data.specials import Specials
from ..data.told import layer_sizes, setting, tokenizer_of
from ..errors import DataError, NonFiniteError


@dataclass(frozen=True)
class Prompt:
    """One text, or images as they stand one under the other.

    Attributes:
        inputs: what the model is called on: [1, T] token ids, or [n, d] pixels.
        texts: a text for each position; an image has one position.
        keep: which positions count; BOS and other special tokens do not.
        images: pixels, not tokens.
    """

    inputs: Shaped[Tensor, "rows width"]
    texts: tuple[str, ...]
    keep: tuple[bool, ...]
    images: bool = False

    def __len__(self) -> int:
        return len(self.texts)

    def position(self, at: int) -> int:
        """A position counted from the front; -1 is the last.

        Raises:
            DataError: out of range.
        """
        if isinstance(at, bool) or not isinstance(at, int) or not -len(self) <= at < len(self):
            what = "image" if self.images else "position"
            raise DataError(
                f"there is no {what} {at!r}: this prompt has {len(self)}, 0..{len(self) - 1}, or from the end "
                f"-{len(self)}..-1"
            )
        return at % len(self)


def prompt_of(model: Any, given: Any) -> Prompt:
    """Text or token ids for a model with a vocabulary, pixels for one without.

    Text is tokenised as `text_batches` does it: a BOS in front where the model puts one. Ids are taken as they are.

    Raises:
        DataError: empty, longer than the model's context, unknown tokens, text for a model of images or the reverse.
    """
    if isinstance(given, Prompt):
        return given
    vocabulary = int(setting(model, "d_vocab") or 0)
    if vocabulary <= 0:
        return _pixels(model, given)
    ids = _ids_of_text(model, given) if isinstance(given, str) else _ids(given)
    _check_ids(model, ids, vocabulary)
    tokenizer = tokenizer_of(model)
    texts = [str(i) if tokenizer is None else tokenizer.decode([i]) for i in ids]
    found = positions(torch.tensor([ids]), Specials.of(model))
    keep = found.keep[0].tolist()
    if not any(keep):
        raise DataError("the prompt is a BOS token and nothing else: expected at least one token that counts")
    if not found.mask[0, : keep.index(True)].all():
        raise DataError("the prompt begins with padding, which the model would read: give its ids without")
    if not found.mask.all() and setting(model, "attention_dir", "causal") != "causal":
        raise DataError("the prompt ends with padding, which the model would read: give its ids without")
    return Prompt(found.inputs, tuple(texts), tuple(keep))


def _ids_of_text(model: Any, text: str) -> list[int]:
    tokenizer = tokenizer_of(model)
    if not text:
        raise DataError("the prompt is empty: expected at least one token. Give a text, or token ids")
    if tokenizer is None:
        raise DataError(f"this model has no tokenizer for the text {text[:40]!r}: give token ids, a list of integers")
    ids = list(tokenizer(without_surrogates(text), add_special_tokens=False, verbose=False)["input_ids"])
    unk, bos = getattr(tokenizer, "unk_token_id", None), getattr(tokenizer, "bos_token_id", None)
    if unk is not None and unk != bos and unk in ids:
        raise DataError(
            f"the model does not know {ids.count(unk)} of the {len(ids)} tokens of {text[:40]!r}: its tokenizer has "
            "only its sign for the unknown there. Write them otherwise"
        )
    return [bos, *ids] if bos is not None and Specials.of(model).begins else ids


def _ids(given: Any) -> list[int]:
    given = _of_tokenizer(given) if isinstance(given, Mapping) else given
    ids = _tensor(given, "a text or token ids")
    if not ids.numel():
        return []
    if ids.is_floating_point() or ids.dtype == torch.bool:
        raise DataError(
            f"this model reads tokens; got {str(ids.dtype).removeprefix('torch.')} numbers of shape {list(ids.shape)}. "
            "Give a text, or integer token ids: pixels are for a model of images"
        )
    if ids.ndim == 2 and len(ids) == 1:
        ids = ids[0]
    if ids.ndim != 1:
        raise DataError(f"a prompt is one row of token ids; got shape {list(ids.shape)}. Read several one by one")
    return [int(i) for i in ids]


def _of_tokenizer(answer: Mapping[Any, Any]) -> Tensor:
    """The ids of a tokenizer's own answer, without what its mask hides."""
    if IDS not in answer:
        raise DataError(
            f"expected a text or token ids as a prompt, got {', '.join(map(str, answer)) or 'nothing'} without {IDS}"
        )
    rows = list(token_rows(answer[IDS], answer.get(MASK), "the prompt").each)
    if len(rows) != 1:
        raise DataError(f"a prompt is one row of token ids; got {len(rows)}. Read several one by one")
    ids, seen = rows[0]
    return ids if seen is None else ids[seen]


def _check_ids(model: Any, ids: list[int], vocabulary: int) -> None:
    if not ids:
        raise DataError("the prompt is empty: expected at least one token. Give a text, or token ids")
    strange = [i for i in ids if not 0 <= i < vocabulary]
    if strange:
        raise DataError(
            f"the model does not know token {strange[0]}: its ids are 0..{vocabulary - 1}. "
            "Was the prompt made with another model's tokenizer?"
        )
    limit = setting(model, "n_ctx")
    if limit is not None and len(ids) > limit:
        raise DataError(f"the prompt has {len(ids)} tokens, the model reads at most {limit}: give a shorter one")


def _pixels(model: Any, given: Any) -> Prompt:
    width = next(iter(layer_sizes(model)), None)
    wanted = f"images of {width} numbers" if width else "numbers, no tokens"
    if isinstance(given, str):
        raise DataError(
            f"this model reads {wanted}; got the text {given[:40]!r}. Give an image, a tensor of pixels in 0..1"
        )
    pixels = _tensor(given, "an image")
    if not pixels.is_floating_point():
        kind = str(pixels.dtype).removeprefix("torch.")
        raise DataError(
            f"this model reads {wanted}, pixels in 0..1; got {kind}. Divide by the largest value, 255 it may be"
        )
    if pixels.numel() == 0:
        raise DataError(f"the prompt is empty: expected {wanted}, got shape {list(pixels.shape)}")
    one = pixels.ndim < 2 or pixels.numel() == width
    rows = pixels.reshape(1, -1) if one else pixels.flatten(1)
    if width is not None and rows.shape[1] != width:
        raise DataError(f"this model reads {wanted}; got shape {list(pixels.shape)}. Give [{width}] or [n, {width}]")
    if not torch.isfinite(rows).all():
        raise NonFiniteError("the image holds NaN or infinity: expected finite pixels")
    names = ("image",) if len(rows) == 1 else tuple(f"image {i}" for i in range(len(rows)))
    return Prompt(rows.detach().float().cpu(), names, (True,) * len(rows), images=True)


def _tensor(given: Any, wanted: str) -> Tensor:
    try:
        return given.detach().cpu() if isinstance(given, Tensor) else torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"expected {wanted} as a prompt, got {type(given).__name__} ({error})") from error
