"""Rows: what the rows of lists, files, data sets and loaders hold: texts, or token ids with their attention mask."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import DataError, GateLensWarning, unknown
from .arrays import flags, tensor_of

IDS, MASK = "input_ids", "attention_mask"


@dataclass(frozen=True)
class TokenRows:
    """Token ids of one row, [T], or of several of one length, [n, T], and where they are not padding."""

    ids: Tensor
    mask: Tensor | None = None

    def __hash__(self) -> int:
        return hash((tuple(self.ids.shape), self.ids.numpy().tobytes()))

    @property
    def each(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Row for row."""
        ids = self.ids if self.ids.ndim == 2 else self.ids[None]
        masks = [None] * len(ids) if self.mask is None else self.mask.reshape(ids.shape)
        return zip(ids, masks, strict=True)


def rows_in(rows: Any, column: str, name: str) -> Iterator[str | TokenRows]:
    """Texts or token ids, row for row; rows that are null are left out, and their number is said at the end.

    Raises:
        DataError: a row that is neither, or that lacks the column.
    """
    try:
        each = iter(rows)
    except TypeError as error:
        raise DataError(f"expected documents or token ids, got {type(rows).__name__}") from error
    null = broken = count = 0
    batched = hasattr(rows, "dataset")  # a loader's row is a batch of them
    try:
        for count, row in enumerate(each, 1):
            for value in _values(row, column, f"{name}, row {count - 1}", batched):
                if value is None:
                    null += 1
                elif isinstance(value, str):
                    text = without_surrogates(value)
                    broken += text != value
                    yield text
                else:
                    yield value
    finally:
        for number, what in (
            (null, "are null and were left out"),
            (broken, "hold half a character, which was replaced"),
        ):
            if number:
                message = f"{number} of {count} rows of {name} {what}"
                warnings.warn(message, GateLensWarning, stacklevel=2)


def _values(row: Any, column: str, where: str, batched: bool) -> Iterator[Any]:
    """The text, the token ids, or the texts of a loader's batch, that a row holds."""
    row = _column(row, column, where) if isinstance(row, Mapping) else row
    if batched and isinstance(row, list | tuple) and row and all(v is None or isinstance(v, str) for v in row):
        yield from row
    elif row is None or isinstance(row, str | TokenRows):
        yield row
    elif isinstance(row, float) and row != row:
        yield None  # what a data frame holds for null
    elif isinstance(row, bytes | bool | int | float):
        raise DataError(f"{where} holds {row!r:.80}; documents must hold strings, or rows of token ids [n, T]")
    elif isinstance(row, list | tuple) and row and isinstance(row[0], Tensor) and row[0].ndim == 2:
        yield _of_a_loader(row, where)
    elif isinstance(row, list | tuple) and any(isinstance(v, str) for v in row):
        raise DataError(
            f"{where} holds a list of texts ({row[:3]!r:.60}); documents must hold strings, one a row. "
            'Join words by " ".join(row), or give each text a row of its own'
        )
    else:
        yield token_rows(row, None, where)


def _of_a_loader(row: Sequence[Any], where: str) -> TokenRows:
    """What the loader of a TensorDataset gives: ids, and beside them what is not asked for; a mask has no name there."""
    for other in row[1:]:
        if isinstance(other, Tensor) and other.shape == row[0].shape and bool(((other == 0) | (other == 1)).all()):
            raise DataError(
                f"{where} is a tuple of ids and {other.dtype} of 0 and 1, which may be an attention mask or labels. "
                f'Give records: {{"{IDS}": ids, "{MASK}": mask}}, or the ids alone'
            )
    return token_rows(row[0], None, where)


def _column(row: Mapping[Any, Any], column: str, where: str) -> Any:
    if column in row and column != IDS:
        return row[column]
    if IDS not in row:
        raise DataError(f"{where}: {unknown('text column', column, map(str, row))}. Set `column`")
    return None if row[IDS] is None else token_rows(row[IDS], row.get(MASK), where)


def token_rows(ids: Any, mask: Any, where: str) -> TokenRows:
    """Token ids [T] or [n, T], with the mask that came with them.

    Raises:
        DataError: no whole numbers, or a mask of another shape.
    """
    if _of_several_lengths(ids):
        masks = [None] * len(ids) if mask is None else list(mask)
        if len(masks) != len(ids):
            raise DataError(f"{where}: {len(ids)} rows of {IDS}, {len(masks)} of {MASK}; expected as many")
        return stacked([token_rows(row, seen, where) for row, seen in zip(ids, masks, strict=True)])
    found = tensor_of(ids, where)
    if found.ndim not in (1, 2) or found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise DataError(
            f"{where}: expected text or integer token ids, [T] or [n, T]; got {found.dtype} of shape {list(found.shape)}"
        )
    seen = None if mask is None else flags(mask, f"{where}, {MASK}")
    if seen is not None and seen.shape != found.shape:
        raise DataError(f"{where}: {IDS} has shape {list(found.shape)}, {MASK} {list(seen.shape)}; expected the same")
    return TokenRows(found.long(), seen)


def _of_several_lengths(ids: Any) -> bool:
    """What a tokenizer answers for several texts that it was not asked to pad."""
    rows = isinstance(ids, list | tuple) and all(isinstance(row, list | tuple) for row in ids)
    return rows and len({len(row) for row in ids}) > 1


def stacked(rows: Sequence[TokenRows]) -> TokenRows:
    """Rows of any lengths as one [n, T], padded on the right, with a mask where there is padding or was one.

    Raises:
        DataError: no token at all.
    """
    each = [row for some in rows for row in some.each]
    length = max((len(ids) for ids, _ in each), default=0)
    if length == 0:
        raise DataError("no token ids: expected at least one row of one token")
    ids = torch.zeros(len(each), length, dtype=torch.long)
    mask = torch.zeros(len(each), length, dtype=torch.bool)
    for i, (row, seen) in enumerate(each):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = True if seen is None else seen
    ragged = any(len(row) < length or seen is not None for row, seen in each)
    return TokenRows(ids, mask if ragged else None)


def without_surrogates(text: str) -> str:
    """Two halves of a character put together, a lone one replaced: no tokenizer can read it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
