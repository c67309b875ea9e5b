"""Text as windows of tokens: from files, from a hub data set, or from tokens that are there already.

The fitting part and the held-out part never share a document; exact duplicates of a document are left out, so that none
can stand on both sides.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from torch.nn import Module

from ..errors import DataError
from .arrays import is_numbers
from .batches import Batches
from .documents import documents_of
from .rows import TokenRows, stacked, token_rows
from .sizes import HELD_OUT_SHARE, Sizes, check_count, check_seed, part_sizes
from .specials import Specials
from .token_parts import TokenParts
from .told import setting
from .windows import Windows


def text_batches(
    model: Any,
    source: Any,
    rows: Any = (None, None),
    length: Any = 64,
    seed: Any = 0,
    *,
    packed: bool = True,
    prepend_bos: bool | None = None,
    keep_bos: bool = False,
    attention_mask: Any = None,
    column: str = "text",
    split: str = "train",
    subset: str | None = None,
    separator: str | None = "<|endoftext|>",
    held_out: Any = None,
    batch_size: int = 16,
) -> tuple[Batches, Batches]:
    """Windows of `length` tokens: a fitting part and a held-out part.

    Args:
        model: a model with a `tokenizer`, or a tokenizer. For token tensors it may be None.
        source: a .txt, .json, .jsonl or .parquet file, a folder of such files, the name of a hub data set (streamed), a
            `datasets.Dataset`, a list of documents or records, or "gpt2-mini-sample", text that the model in this package
            wrote. Or token ids whose rows are documents, taken as they are: a tensor or array [n, T], nested lists, the
            tokenizer's own answer, records with `input_ids`, a DataLoader of token batches.
        rows: windows in the two parts; None for all there are (then a fifth of the documents is held out). One number is
            the fitting part, beside which a quarter as many are held out.
        length: tokens in a window, with the BOS that begins it.
        packed: documents follow one another in a window, a BOS between them; else each window holds one document,
            padded on the right.
        prepend_bos: begin every window with BOS; None for what the model does by itself (`default_prepend_bos`). Without
            a BOS token it begins with the text.
        keep_bos: count BOS and other special tokens in statistics. By default they are left out, as padding always is.
        attention_mask: for token ids, [n, T], 0 at padding on whichever side; without one it is known from the PAD token.
        column, split, subset: of json, parquet and hub data sets.
        separator: what parts the documents in a .txt file; None takes each file for one document.
        held_out: another source for the held-out part, of the same kinds as `source`.
        seed: of the order of documents and of the split.
        batch_size: windows in one forward pass.

    Returns:
        (fitting part, held-out part), each `Batches` with inputs of [windows, length] token ids.

    Raises:
        DataError: nothing there, empty, a single document, a length that the model cannot read.
        HubError: a hub data set that is neither cached nor in reach.

    Examples:
        >>> lm = gl.load_model("gpt2-mini")
        >>> text, others = gl.text_batches(lm, "gpt2-mini-sample", rows=(8, 2), length=32)
        >>> text.inputs.shape  # [windows, tokens]
        torch.Size([8, 32])
    """
    specials, tokenizer = Specials.of(model, prepend_bos), getattr(model, "tokenizer", model)
    counts = part_sizes(rows)
    check_count(batch_size, "batch_size", 1)
    check_seed(seed)
    seed = int(seed)  # of numpy too
    names = _name(source), f"{_name(held_out if held_out is not None else source)}, held out"

    def read(where: Any, from_seed: int) -> Iterator[str] | TokenRows:
        return _read(where, attention_mask, lambda: documents_of(where, column, split, subset, separator, from_seed))

    first, second = read(source, seed), None if held_out is None else read(held_out, seed + 1)
    if isinstance(first, TokenRows) or isinstance(second, TokenRows):
        part = TokenParts(specials, keep_bos, batch_size, model)
        return part.split(first, counts, seed) if second is None else part.both(first, second, counts, names)
    _check_length(model, length)
    _check_tokenizer(tokenizer)

    def windows() -> Windows:
        return Windows(tokenizer, length, packed, specials, keep_bos)

    if second is None:
        parts = _split(distinct(first), counts, windows(), windows(), seed)
    else:
        parts = _fill(distinct(first), counts[0], windows()), _fill(distinct(second), counts[1], windows())
    return tuple(  # pyright: ignore[reportReturnType]
        part.batches(label, count, batch_size) for part, count, label in zip(parts, counts, names, strict=True)
    )


def _read(source: Any, mask: Any, documents: Callable[[], Iterator[Any]]) -> Iterator[str] | TokenRows:
    """Texts one after another, or all token ids at once: what the first row is, all are."""
    if is_numbers(source):
        return token_rows(source, mask, "the token ids")
    found = documents()
    head = next(found, None)
    if not isinstance(head, TokenRows):
        if mask is not None:
            raise DataError("attention_mask belongs to token ids [n, T]; text is padded here. Leave it out")
        return _texts(chain([] if head is None else [head], found))
    rows = stacked([head, *_tokens(found)])
    return rows if mask is None else token_rows(rows.ids, mask, "the token ids")


def _texts(rows: Iterable[Any]) -> Iterator[str]:
    for row in rows:
        if not isinstance(row, str):
            raise DataError("a list of documents must hold strings; one row holds token ids. Give texts, or ids, alone")
        yield row


def _tokens(rows: Iterable[Any]) -> Iterator[TokenRows]:
    for row in rows:
        if not isinstance(row, TokenRows):
            raise DataError("the first row holds token ids, another one text. Give texts, or ids, alone")
        yield row


def distinct(documents: Iterable[str]) -> Iterator[str]:
    """The documents that are not blank, each once."""
    seen: set[int] = set()
    for text in documents:
        mark = hash(text)
        if text.strip() and mark not in seen:
            seen.add(mark)
            yield text


def _split(documents: Iterable[str], rows: Sizes, fit: Windows, held: Windows, seed: int) -> tuple[Windows, Windows]:
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


def _check_length(model: Any, length: int) -> None:
    limit = setting(model, "n_ctx")
    check_count(length, "length", 2)
    if limit is not None and length > limit:
        raise DataError(f"length must be at least 2 tokens and at most {limit}, what the model can read; got {length}")


def _check_tokenizer(tokenizer: Any) -> None:
    if tokenizer is None or not callable(tokenizer) or isinstance(tokenizer, Module):
        raise DataError(
            "the model has no tokenizer: expected one for text. Give a tokenizer in its place, "
            "or a tensor of token ids as source"
        )


def _name(source: Any) -> str:
    return Path(source).name or str(source) if isinstance(source, str | Path) else "documents"
