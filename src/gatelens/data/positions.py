"""Positions: which count in statistics, what is predicted there, and which are padding; for every route alike.

Text, token tensors, data sets, prompts and splices all ask here.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ..errors import DataError, GateLensWarning
from .specials import Specials

NOTHING = -100  # what cross-entropy ignores


@dataclass(frozen=True)
class Positions:
    """Token ids with what is to be known about each.

    Attributes:
        inputs: ids that the model can read; an id beyond its vocabulary is replaced where it is padding.
        targets: the next token, or -100 where nothing is to be predicted: before padding, and before BOS, EOS and other
            special tokens (that a document ends is no word to predict).
        keep: False at padding and at special tokens, which no statistic may count.
        mask: False at padding, which the model must not see.
    """

    inputs: Int[Tensor, "n T"]
    targets: Int[Tensor, "n T"]
    keep: Bool[Tensor, "n T"]
    mask: Bool[Tensor, "n T"]


def positions(
    tokens: Int[Tensor, "n T"], specials: Specials, mask: Tensor | None = None, keep_special: bool = False
) -> Positions:
    """What counts, what follows, and what is padding.

    Args:
        tokens: token ids, padded on either side or not at all.
        mask: an attention mask, 0 at padding. Without one the runs of PAD at either end of a row are padding; where PAD is
            BOS, too, and every row begins with it, the last of a run in front is BOS (if sentences begin with one).
        keep_special: count BOS, EOS and other special tokens too.

    Raises:
        DataError: ids that the model does not have, a mask of another shape, rows without a token.
    """
    ids = token_ids(tokens)
    real = ~padding(ids, specials) if mask is None else _given(mask, ids)
    _check_ids(ids, real, specials.d_vocab)
    ids = torch.where(real | ((ids >= 0) & (ids < (specials.d_vocab or 2**62))), ids, _neutral(specials))
    special = torch.isin(ids, torch.tensor(specials.left_out, dtype=torch.long))
    targets = torch.full_like(ids, NOTHING)
    follows = real[:, :-1] & real[:, 1:] & ~special[:, 1:]
    targets[:, :-1][follows] = ids[:, 1:][follows]
    keep = real if keep_special else real & ~special
    return Positions(ids, targets, keep, real)


def token_ids(tokens: Tensor) -> Int[Tensor, "n T"]:
    """Token ids as int64 on the host.

    Raises:
        DataError: another shape than [n, T], or numbers that are no integers.
    """
    kind = tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool
    if tokens.ndim != 2 or kind or 0 in tokens.shape:
        raise DataError(
            f"expected integer token ids, [n, T], at least one row of one; got {tokens.dtype} of shape "
            f"{list(tokens.shape)}. A single row is tokens[None]; a long stream is cut by tokens.reshape(-1, length)"
        )
    if tokens.device.type == "meta":
        raise DataError("token ids on the device meta have no values: give ids that are on the CPU or a GPU")
    return tokens.detach().long().cpu()


def padding(ids: Tensor, specials: Specials) -> Bool[Tensor, "n T"]:
    """The runs of PAD at both ends: inside a row PAD is a token of its own, often EOS."""
    if specials.pad is None:
        return torch.zeros_like(ids, dtype=torch.bool)
    pad = ids == specials.pad
    front = pad.cumprod(1).bool()
    if specials.pad == specials.bos and specials.begins and bool(pad[:, 0].all()):
        # every row begins with it: it is the BOS of each, the last one of a run
        front[:, :-1] &= front[:, 1:].clone()
        front[:, -1] = False
        if front.any():
            message = (
                "rows begin with several PAD tokens, and PAD is BOS too: the last of each run is taken for the BOS of a sentence. "
                "Give the attention_mask to say which are padding"
            )
            warnings.warn(message, GateLensWarning, stacklevel=2)
    return front | pad.flip(1).cumprod(1).flip(1).bool() & ~_begins(ids, front)


def _begins(ids: Tensor, front: Tensor) -> Bool[Tensor, "n T"]:
    """The first position that is no padding in front: a row of nothing but BOS keeps it."""
    first = torch.zeros_like(front)
    first.scatter_(1, front.long().sum(1, keepdim=True).clamp(max=ids.shape[1] - 1), True)
    return first


def _given(mask: Tensor, ids: Tensor) -> Bool[Tensor, "n T"]:
    if mask.shape != ids.shape or mask.is_complex() or not bool(((mask == 0) | (mask == 1)).all()):
        raise DataError(
            f"expected an attention mask of 0 and 1, of the shape of the token ids, {list(ids.shape)}; "
            f"got {mask.dtype} of shape {list(mask.shape)}. Give the `attention_mask` of the tokenizer"
        )
    return mask.detach().cpu().bool()


def _check_ids(ids: Tensor, real: Tensor, d_vocab: int | None) -> None:
    foreign = real & ((ids < 0) | (ids >= (d_vocab or 2**62)))
    if not foreign.any():
        return
    row, place = foreign.nonzero()[0].tolist()
    known = f"0..{d_vocab - 1}" if d_vocab else "0 and above"
    what = (
        "-100 marks labels that are left out" if ids[row, place] == NOTHING else "it is not in the model's vocabulary"
    )
    raise DataError(
        f"token id {int(ids[row, place])} in row {row}, position {place}: expected {known}; {what}. "
        "Give the ids that the model's own tokenizer makes, and an attention mask that is 0 at padding"
    )


def _neutral(specials: Specials) -> int:
    """An id for positions that nobody looks at."""
    known = [i for i in (specials.pad, specials.bos) if i is not None and i < (specials.d_vocab or 2**62)]
    return known[0] if known else 0
