"""Given: whatever a user has at hand, a prompt, token ids, images, a loader, as batches that a model can be run on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..errors import DataError
from .arrays import is_numbers, tensor_of
from .batches import Batches
from .positions import NOTHING, padding, positions
from .readable import check_readable
from .rows import TokenRows, rows_in, stacked, token_rows
from .specials import Specials
from .told import setting, tokenizer_of

#: rows that go through the model at once where the user named no batch size
BATCH = 16


def as_batches(model: Any, given: Any) -> Batches:
    """Batches as they are; prompts, token ids, images and loaders as batches, all rows of them.

    Prompts are tokenised as the model does it, with BOS in front where it puts one, and padded on the right.

    Raises:
        DataError: none of these, both parts of the data at once, or what the model cannot read.
    """
    batches = _masked(model, given) if isinstance(given, Batches) else _batches(model, given)
    check_readable(model, batches.inputs, batches.targets, batches.name)
    return batches


def _masked(model: Any, batches: Batches) -> Batches:
    """Batches that somebody put together, with their padding: PAD at the ends of a row where nothing counts."""
    ids = batches.inputs
    if batches.mask is not None or ids.ndim != 2 or ids.is_floating_point() or ids.shape != batches.keep.shape:
        return batches
    hidden = padding(ids, Specials.of(model)) & ~batches.keep
    return replace(batches, mask=~hidden) if hidden.any() else batches


def _batches(model: Any, given: Any) -> Batches:
    if isinstance(given, tuple | list) and given and all(isinstance(part, Batches) for part in given):
        raise DataError(
            f"got {len(given)} parts of the data, expected one: give batches[0] to fit, batches[1] held out"
        )
    if isinstance(given, Path):
        raise DataError(f"expected data, got the path {given}: read it with text_batches(model, path) first")
    if given is None or isinstance(given, bytes | bool | int | float):
        raise DataError(f"expected batches, a prompt, token ids or images; got {given!r:.80}")
    if is_numbers(given):
        return _of_numbers(model, tensor_of(given, "the data"))
    if isinstance(given, Mapping) and not hasattr(given, "column_names"):
        return _of_tokens(model, next(_rows([given])))
    if _reads_numbers(model) and not isinstance(given, str):
        return _of_features(given) if hasattr(given, "dataset") else _of_numbers(model, _images(given))
    return _of_rows(model, [given] if isinstance(given, str) else given)


def _rows(given: Any) -> Any:
    return rows_in(given, "text", "the data")


def _of_rows(model: Any, given: Any) -> Batches:
    """Prompts, or rows of token ids."""
    found = list(_rows(_nested(given)))
    prompts = [row for row in found if isinstance(row, str)]
    if not found or (prompts and len(prompts) < len(found)):
        raise DataError(
            "the data holds texts and token ids, mixed: give one or the other"
            if found
            else "the data is empty: give at least one prompt or row of token ids"
        )
    return _of_tokens(model, _tokenised(model, prompts) if prompts else stacked(found))


def _nested(given: Any) -> Any:
    """A single row of ids is one row."""
    flat = (
        isinstance(given, list | tuple) and given and all(isinstance(v, int) and not isinstance(v, bool) for v in given)
    )
    return [given] if flat else given


def _tokenised(model: Any, prompts: list[str]) -> TokenRows:
    tokenizer, specials = tokenizer_of(model), Specials.of(model)
    if tokenizer is None or not callable(tokenizer):
        raise DataError("the model has no tokenizer: expected one for text. Give token ids [n, T] instead")
    own = specials.bos is None  # CLS and SEP are the tokenizer's own affair
    head = [specials.bos] if specials.begins and specials.bos is not None else []
    ids = [tokenizer(text, add_special_tokens=own, verbose=False)["input_ids"] for text in prompts]
    return stacked([TokenRows(torch.tensor(head + list(row), dtype=torch.long)) for row in ids])


def _of_tokens(model: Any, rows: Any) -> Batches:
    if not isinstance(rows, TokenRows):
        raise DataError(
            "expected token ids under input_ids, with attention_mask beside them; got text. Give a list of prompts"
        )
    ids = rows.ids if rows.ids.ndim == 2 else rows.ids[None]
    found = positions(ids, Specials.of(model), None if rows.mask is None else rows.mask.reshape(ids.shape))
    document = torch.arange(len(ids))[:, None].expand(ids.shape)
    return Batches(found.inputs, found.targets, found.keep, document, BATCH, "ce", "the data given", found.mask)


def _of_numbers(model: Any, values: torch.Tensor) -> Batches:
    """Token ids where the model reads them, else images or features."""
    reads_ids = isinstance(setting(model, "d_vocab"), int)
    if reads_ids and not values.is_floating_point():
        return _of_tokens(model, token_rows(values, None, "the token ids"))
    nothing = torch.full((len(values) if values.ndim else 1,), NOTHING)
    return Batches(values, nothing, name="the data given")


def _reads_numbers(model: Any) -> bool:
    """Whether the model reads no token ids."""
    return setting(model, "d_vocab") is None and tokenizer_of(model) is None


def _images(given: Any) -> torch.Tensor:
    """Images one by one, in a list or from a generator; not with their labels beside them."""
    try:
        each = list(given)
    except TypeError as error:
        raise DataError(f"expected images or features, got {type(given).__name__}") from error
    if (
        isinstance(given, list | tuple)
        and len(each) == 2
        and all(is_numbers(v) for v in each)
        and len({v.ndim for v in each}) == 2
    ):
        raise DataError(
            "got a pair of tensors, inputs and labels it may be: give Batches(inputs, labels), or the inputs alone"
        )
    return tensor_of(each, "the data")


def _of_features(loader: Any) -> Batches:
    inputs, labels = [], []
    for batch in loader:
        if isinstance(batch, Mapping):
            raise DataError(
                f"the loader gives records ({', '.join(map(str, batch))}), and which is the input is not known: expected (inputs, labels). "
                "Give Batches(images, labels), or a loader of a TensorDataset(images, labels)"
            )
        x, *y = batch if isinstance(batch, list | tuple) else [batch]
        inputs.append(tensor_of(x, "the loader's inputs"))
        labels.append(tensor_of(y[0], "the loader's labels") if y else torch.full((len(inputs[-1]),), NOTHING))
    if not inputs:
        raise DataError("the loader is empty: expected at least one batch")
    return Batches(torch.cat(inputs), torch.cat(labels), name="the loader's data")
