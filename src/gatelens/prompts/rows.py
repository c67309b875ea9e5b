"""One row taken apart: what stands without its features, and the step that each of them adds, the longest first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Row:
    """A row at a segment's input as base + the steps of its active features.

    Attributes:
        forward: the segment, [rows, d_in] -> [rows, d_out].
        base: [d_in] what is left without any feature: the dictionary's bias, and with `keep_error` what it misses.
        features, values: [a] the active features, the longest step first, and how strong they are.
        steps: [a, d_in] value times direction.
        keep_error: the part of the row that no feature explains stays in every subset; then all features give the row itself.
    """

    forward: Callable[[Tensor], Tensor]
    base: Float[Tensor, " d_in"]
    features: Int[Tensor, " a"]
    values: Float[Tensor, " a"]
    steps: Float[Tensor, "a d_in"]
    keep_error: bool = True

    @classmethod
    def of(
        cls,
        forward: Callable[[Tensor], Tensor],
        x: Float[Tensor, " d_in"],
        f: Float[Tensor, " m"],
        directions: Float[Tensor, "m d_in"],
        bias: Float[Tensor, " d_in"],
        keep_error: bool = True,
    ) -> Row:
        """From a row, its features and what one unit of each adds; `bias`: what the dictionary makes of no feature at all."""
        active = f.nonzero()[:, 0]
        steps = f[active, None].to(directions) * directions[active]
        order = torch.argsort(steps.norm(dim=1), descending=True, stable=True)
        base = x - steps.sum(0) if keep_error else bias
        return cls(forward, base, active[order], f[active][order], steps[order], keep_error)

    def __len__(self) -> int:
        return len(self.features)

    def strongest(self, q: int) -> Float[Tensor, " d_in"]:
        """The row made of its q strongest features alone."""
        return self.base + self.steps[:q].sum(0)

    @cached_property
    def reached(self) -> Float[Tensor, " a_and_1"]:
        """[q] the share of what all features together make of the output that the q strongest alone reach.

        1 - |y_q - y|^2 / |y_0 - y|^2: 0 without any, 1 with all; below 0 where the few lead away from it.
        """
        rows = torch.cat([self.base[None], self.base + self.steps.cumsum(0)])
        with torch.no_grad():
            y = self.forward(rows).double().cpu()
        left = (y - y[-1]).square().sum(1)
        # features that undo one another altogether: what counts is how far a part of them leads away
        size = left[0] if float(left[0]) > 0 else left.max().clamp_min(1e-30)
        return 1 - left / size

    def few(self, share: float) -> int:
        """How many of the strongest features reach a share, and do not lose it with more."""
        below = (self.reached < share).nonzero()[:, 0]
        return 0 if not len(below) else min(int(below[-1]) + 1, len(self))
