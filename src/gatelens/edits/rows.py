"""Rows that gates are fitted to: natural ones, and where their edited partners come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..codes.rows import Codes, stacked

#: features and outputs of the same rows
Both = tuple[Codes, Float[Tensor, "rows d"]]


@dataclass(frozen=True)
class Sample:
    """Features and outputs (or what a fit has left of them) of natural rows and, where there are any, of edits of them."""

    natural: Both
    edited: Both | None = None

    def each(self, change: Callable[[Codes, Tensor], Both]) -> Sample:
        """The same of the natural rows and of their edits."""
        return Sample(change(*self.natural), None if self.edited is None else change(*self.edited))

    def part(self, index: Int[Tensor, " some"]) -> Sample:
        """Some of the rows."""
        return self.each(lambda codes, y: (codes.rows(index), y[index]))


@dataclass(frozen=True)
class Rows:
    """Natural rows, and where their counterfactual partners come from.

    Attributes:
        partner: (row numbers, codes) -> (edited codes, edited output), or None to fit on natural rows alone.
    """

    codes: Codes
    y: Float[Tensor, "rows d"]
    partner: Callable[[Int[Tensor, " some"], Codes], Both] | None = None

    def at(self, index: Int[Tensor, " some"]) -> Sample:
        """Some of the rows, and their partners where there are any."""
        codes, y = self.codes.rows(index), self.y[index]
        return Sample((codes, y), None if self.partner is None else self.partner(index, codes))

    def together(self, index: Int[Tensor, " some"]) -> Both:
        """Some of the rows and, after them, their partners."""
        found = self.at(index)
        if found.edited is None:
            return found.natural
        return stacked([found.natural[0], found.edited[0]]), torch.cat([found.natural[1], found.edited[1]])
