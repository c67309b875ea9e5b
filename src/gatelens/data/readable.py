"""Readable: whether a model can be called on some inputs at all, asked before any forward pass."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..errors import DataError
from .positions import NOTHING
from .told import layer_sizes, setting


def check_readable(model: Any, inputs: Tensor, targets: Tensor, name: str) -> None:
    """Ids within the vocabulary, rows no longer than the model reads, images of the network's width, labels that it has.

    Raises:
        DataError: with what was expected and what came.
    """
    d_vocab, sizes = setting(model, "d_vocab"), layer_sizes(model)
    if isinstance(d_vocab, int) and d_vocab > 0:
        _check_tokens(inputs, d_vocab, setting(model, "n_ctx"), name)
        _check_classes(targets, int(setting(model, "d_vocab_out", d_vocab) or d_vocab), name)
    elif sizes:
        _check_features(inputs, sizes[0], name)
        _check_classes(targets, sizes[-1], name)


def _check_features(inputs: Tensor, width: int, name: str) -> None:
    if inputs.flatten(1).shape[1] != width:
        raise DataError(
            f"{name}: inputs of shape {list(inputs.shape)} hold {inputs.flatten(1).shape[1]} values an example, the network "
            f"reads {width}. Give images of that size, or a network of `sizes` that begin with theirs"
        )
    if not inputs.is_floating_point():
        raise DataError(
            f"{name}: inputs are {inputs.dtype} from {int(inputs.min())} to {int(inputs.max())}, the network reads floats, and which "
            "is not known: pixels are x.float() / 255, or uint8, which is divided; features are x.float()"
        )


def _check_tokens(inputs: Tensor, d_vocab: int, n_ctx: int | None, name: str) -> None:
    if inputs.is_floating_point() or inputs.ndim != 2:
        raise DataError(
            f"{name}: the model reads token ids, [n, T] whole numbers; got {inputs.dtype} of shape {list(inputs.shape)}. "
            "Give text_batches(model, texts), or ids as int64"
        )
    if n_ctx and inputs.shape[1] > n_ctx:
        raise DataError(
            f"{name}: rows of {inputs.shape[1]} tokens, the model reads at most {n_ctx}. Cut them: text_batches(length={n_ctx})"
        )
    low, high = int(inputs.min()), int(inputs.max())
    if low < 0 or high >= d_vocab:
        foreign = low if low < 0 else high
        why = ": -100 marks labels that are left out, not tokens" if foreign == NOTHING else ""
        row, place = (inputs == foreign).nonzero()[0].tolist()
        raise DataError(
            f"{name}: token id {foreign} in row {row}, position {place}; the model has 0..{d_vocab - 1}{why}. "
            "Give the ids of the model's own tokenizer; text_batches(model, ids, attention_mask=...) knows padding"
        )


def check_targets(logits: Tensor, targets: Tensor, all_targets: Tensor, name: str) -> None:
    """Whether a batch's output has a row for each of its targets, and a class for every target of the data.

    Raises:
        DataError: outputs of another shape, or a label that the model does not have.
    """
    if logits.shape[:-1] != targets.shape:
        raise DataError(
            f"{name}: the model answers with shape {list(logits.shape)}, the targets are {list(targets.shape)}; expected "
            f"{[*targets.shape, 'classes']}. Give a model whose output is a row of logits for each target"
        )
    if not bool((all_targets >= 0).any()):
        raise DataError(
            f"{name}: no example has a label, or no token one that follows it: expected at least one, to judge the model's output by. "
            "Give Batches(images, labels), or texts of several tokens"
        )
    _check_classes(all_targets, logits.shape[-1], name)


def _check_classes(targets: Tensor, classes: int, name: str) -> None:
    most = int(targets.max()) if targets.numel() else -1
    if most >= classes:
        raise DataError(
            f"{name}: a target is {most}, the model has the classes 0..{classes - 1}. "
            "Number labels from 0 on, and give the data that the model is for"
        )
