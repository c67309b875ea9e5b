"""Rows that gates are fitted to: natural ones, and where their edited partners come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..codes.rows import Codes, stacked

#: features and outputs of the same rows
Both = tuple[Codes, Float[Tensor, "rows d"]]


@dataclass(frozen=True)
class Rows:
    """Natural rows, and where their counterfactual partners come from.

    Attributes:
        partner: (row numbers, codes) -> (edited codes, edited output), or None to fit on natural rows alone.
    """

    codes: Codes
    y: Float[Tensor, "rows d"]
    partner: Callable[[Int[Tensor, " some"], Codes], Both] | None = None

    def at(self, index: Int[Tensor, " some"]) -> tuple[Both, Both | None]:
        """Some of the rows, and their partners where there are any."""
        codes, y = self.codes.rows(index), self.y[index]
        return (codes, y), None if self.partner is None else self.partner(index, codes)

    def together(self, index: Int[Tensor, " some"]) -> Both:
        """Some of the rows and, after them, their partners."""
        natural, edited = self.at(index)
        if edited is None:
            return natural
        return stacked([natural[0], edited[0]]), torch.cat([natural[1], edited[1]])

    def blocks(self, index: Int[Tensor, " some"], size: int) -> Iterator[tuple[Both, Both | None]]:
        """The same, so many rows at a time."""
        return map(self.at, index.split(size))
