"""Token parts: rows of token ids that are there already, as a fitting and a held-out part; each row is a document."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import DataError
from .batches import Batches
from .positions import Positions, positions
from .readable import check_readable
from .rows import TokenRows
from .sizes import HELD_OUT_SHARE, Sizes
from .specials import Specials


@dataclass(frozen=True)
class TokenParts:
    """How rows of token ids become batches."""

    specials: Specials
    keep_special: bool
    batch_size: int
    model: Any

    def split(self, rows: TokenRows | Iterator[str], counts: Sizes, seed: int) -> tuple[Batches, Batches]:
        """Both parts out of the same rows, none in both."""
        found = self._positions(rows, 2)
        total = len(found.inputs)
        order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
        held = counts[1] if counts[1] is not None else max(1, int(total * HELD_OUT_SHARE))
        fit = counts[0] if counts[0] is not None else total - held
        if fit + held > total:
            raise DataError(f"{fit} and {held} rows were asked for, the tensor has {total}: give fewer")
        names = ("tokens", "tokens, held out")
        parts = order[:fit], order[fit : fit + held]
        return tuple(self._batches(found, part, name) for part, name in zip(parts, names, strict=True))  # pyright: ignore

    def both(
        self, fit: TokenRows | Iterator[str], held: TokenRows | Iterator[str], counts: Sizes, names: tuple[str, str]
    ) -> tuple[Batches, Batches]:
        """Each part out of rows of its own."""
        made = []
        for rows, count, name in zip((fit, held), counts, names, strict=True):
            found = self._positions(rows, 1)
            if count is not None and count > len(found.inputs):
                raise DataError(f"{name} has {len(found.inputs)} rows, {count} were asked for: give fewer")
            made.append(self._batches(found, torch.arange(len(found.inputs))[:count], name))
        return made[0], made[1]

    def _positions(self, rows: TokenRows | Iterator[str], least: int) -> Positions:
        if not isinstance(rows, TokenRows):
            raise DataError("one part is text, the other token ids: give both as text, or both as ids")
        if rows.ids.ndim != 2 or len(rows.ids) < least:
            raise DataError(
                f"expected at least {least} rows of integer token ids, [n, T]; got {rows.ids.dtype} of shape "
                f"{list(rows.ids.shape)}. A long stream of ids is cut by ids.reshape(-1, length)"
            )
        found = positions(rows.ids, self.specials, rows.mask, self.keep_special)
        check_readable(self.model, found.inputs, found.targets, "the token ids")
        return found

    def _batches(self, found: Positions, part: Tensor, name: str) -> Batches:
        places = part[:, None].expand(len(part), found.inputs.shape[1])
        inputs, targets, keep, mask = (v[part] for v in (found.inputs, found.targets, found.keep, found.mask))
        return Batches(inputs, targets, keep, places, self.batch_size, "ce", name, mask)
