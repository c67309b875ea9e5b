"""Text as windows of tokens: from files, from a hub data set, or from tokens that are there already.

The fitting part and the held-out part never share a document; exact duplicates of a document are left out, so that none
can stand on both sides.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import DataError
from .batches import Batches
from .documents import documents_of
from .windows import Windows

HELD_OUT_SHARE = 0.2


def text_batches(
    model: Any,
    source: str | Path | Sequence[Any] | Tensor,
    rows: tuple[int | None, int | None] = (None, None),
    length: int = 64,
    seed: int = 0,
    *,
    packed: bool = True,
    prepend_bos: bool = True,
    keep_bos: bool = False,
    column: str = "text",
    split: str = "train",
    subset: str | None = None,
    separator: str | None = "<|endoftext|>",
    held_out: str | Path | Sequence[str] | None = None,
    batch_size: int = 16,
) -> tuple[Batches, Batches]:
    """Windows of `length` tokens: a fitting part and a held-out part.

    Args:
        model: a model with a `tokenizer`, or a tokenizer. For token tensors it may be None.
        source: a .txt, .json, .jsonl or .parquet file, a folder of such files, the name of a hub data set (streamed),
            a list of documents, a tensor of token ids whose rows are documents, or "gpt2-mini-sample", text that the
            model in this package wrote.
        rows: windows in the two parts; None for all there are (then a fifth of the documents is held out).
        length: tokens in a window, with the BOS that begins it.
        packed: documents follow one another in a window, a BOS between them; else each window holds one document,
            padded on the right.
        prepend_bos: begin every window with BOS, as transformer-lens does; without a BOS token it begins with the text.
        keep_bos: count BOS positions in statistics. By default BOS and padding are left out.
        column, split, subset: of json, parquet and hub data sets.
        separator: what parts the documents in a .txt file; None takes each file for one document.
        held_out: another source for the held-out part, of the same kinds as `source`.
        seed: of the order of documents and of the split.

    Raises:
        DataError: nothing there, empty, a single document, a length that the model cannot read.
        HubError: a hub data set that is neither cached nor in reach.
    """
    tokenizer = getattr(model, "tokenizer", model)
    _check_length(model, source.shape[-1] if isinstance(source, Tensor) else length)
    if isinstance(source, Tensor):
        return _token_batches(tokenizer, source, rows, seed, prepend_bos, keep_bos, batch_size)
    if tokenizer is None or not callable(tokenizer):
        raise DataError(
            "the model has no tokenizer: expected one for text. Give a tokenizer in its place, "
            "or a tensor of token ids as source"
        )
    bos = getattr(tokenizer, "bos_token_id", None) if prepend_bos else None

    def read(where: str | Path | Sequence[Any], from_seed: int) -> Iterator[str]:
        return distinct(documents_of(where, column, split, subset, separator, from_seed))

    def windows() -> Windows:
        return Windows(tokenizer, length, packed, bos, keep_bos)

    if held_out is None:
        parts = _split(read(source, seed), rows, windows(), windows(), seed)
    else:
        parts = _fill(read(source, seed), rows[0], windows()), _fill(read(held_out, seed + 1), rows[1], windows())
    name = _name(source)
    return tuple(  # pyright: ignore[reportReturnType]
        part.batches(label, count, batch_size)
        for part, count, label in zip(parts, rows, (name, f"{_name(held_out or source)}, held out"), strict=True)
    )


def distinct(documents: Iterable[str]) -> Iterator[str]:
    """The documents that are not blank, each once."""
    seen: set[int] = set()
    for text in documents:
        mark = hash(text)
        if text.strip() and mark not in seen:
            seen.add(mark)
            yield text


def _split(
    documents: Iterable[str], rows: tuple[int | None, int | None], fit: Windows, held: Windows, seed: int
) -> tuple[Windows, Windows]:
    """Deal the documents out until both parts are full; the first goes to the fitting part, the second is held out."""
    share = rows[1] / (rows[0] + rows[1]) if rows[0] and rows[1] else HELD_OUT_SHARE
    dealer = random.Random(seed)
    count = 0
    for count, text in enumerate(documents, 1):
        fit_full, held_full = fit.full(rows[0]), held.full(rows[1])
        if fit_full and held_full:
            break
        hold = count == 2 or (count > 2 and dealer.random() < share)
        target = held if (hold and not held_full) or fit_full else fit
        target.add(text, count - 1)
    if count < 2:
        raise DataError(
            f"expected at least two documents, one to fit and one to hold out; found {count}. Give more files, the "
            '`separator` that parts the documents ("\\n\\n\\n" for instance), '
            "or `held_out`, another source for the held-out part"
        )
    return fit, held


def _fill(documents: Iterable[str], rows: int | None, part: Windows) -> Windows:
    for number, text in enumerate(documents):
        if part.full(rows):
            break
        part.add(text, number)
    return part


def _token_batches(
    tokenizer: Any,
    tokens: Tensor,
    rows: tuple[int | None, int | None],
    seed: int,
    prepend_bos: bool,
    keep_bos: bool,
    batch_size: int,
) -> tuple[Batches, Batches]:
    """Rows of a token tensor are documents. BOS (first position) and padding are known only with a tokenizer."""
    if tokens.ndim != 2 or tokens.is_floating_point() or len(tokens) < 2:
        raise DataError(
            f"expected at least two rows of integer token ids, [n, T]; got {tokens.dtype} of shape {list(tokens.shape)}"
        )
    tokens = tokens.long().cpu()
    keep = torch.ones_like(tokens, dtype=torch.bool)
    targets = torch.full_like(tokens, -100)
    targets[:, :-1] = tokens[:, 1:]
    bos, pad = getattr(tokenizer, "bos_token_id", None), getattr(tokenizer, "pad_token_id", None)
    if pad is not None:
        padding = tokens.eq(pad).flip(1).cumprod(1).flip(1).bool()  # trailing ones only: pad is often a real token too
        padding[:, 0] &= keep_bos
        keep &= ~padding
        targets[:, :-1][padding[:, 1:]] = -100
        targets[padding] = -100
    if bos is not None and prepend_bos and not keep_bos:
        keep[:, 0] &= tokens[:, 0].ne(bos)
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(seed))
    held = rows[1] if rows[1] is not None else max(1, int(len(tokens) * HELD_OUT_SHARE))
    fit = rows[0] if rows[0] is not None else len(tokens) - held
    if fit + held > len(tokens):
        raise DataError(f"{fit} and {held} rows were asked for, the tensor has {len(tokens)}: give fewer")
    places = torch.arange(len(tokens))[:, None].expand_as(tokens)
    parts = order[:fit], order[fit : fit + held]
    return tuple(  # pyright: ignore[reportReturnType]
        Batches(tokens[p], targets[p], keep[p], places[p], batch_size, "ce", name)
        for p, name in zip(parts, ("tokens", "tokens, held out"), strict=True)
    )


def _check_length(model: Any, length: int) -> None:
    limit = getattr(getattr(model, "cfg", None), "n_ctx", None)
    if length < 2 or (limit is not None and length > limit):
        most = f" and at most {limit}, what the model can read" if limit else ""
        raise DataError(f"length must be at least 2 tokens{most}; got {length}")


def _name(source: Any) -> str:
    return Path(source).name or str(source) if isinstance(source, str | Path) else "documents"
