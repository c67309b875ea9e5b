"""Adam for features that are off in most batches: what a row of weights remembers stands still while the row has no gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class RowAdam(torch.optim.Adam):
    """Adam in which a feature's mean square of gradients neither fades while the feature is off nor begins at zero.

    Plain Adam lets it fade: after a few hundred batches without a feature little is left of it, and the first row that the feature
    is on in moves each coordinate by ten learning rates or so, which is as far as the feature is long. Rare features are thrown away
    by the rows that they explain, the more so the fewer these are, and so are those that were just restarted: this is what most dead
    features die of.

    Args:
        features: parameters with a row (or an entry) a feature. others: those that have a gradient in every batch.
    """

    def __init__(self, features: Sequence[Tensor], others: Sequence[Tensor], lr: float, betas: tuple[float, float]):
        super().__init__([*features, *others], lr=lr, betas=betas, fused=True)
        self.features, self.fades, self.count = list(features), betas[1], 0
        self.new = [torch.ones(len(p), dtype=torch.bool, device=p.device) for p in features]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Adam's step; rows without a gradient keep their mean square, and rows with their first one begin with its size."""
        self.count += 1
        sizes = [_mean_square(p.grad) for p in self.features if p.grad is not None]
        for place, size in enumerate(sizes):
            self._begin(place, size)
        super().step()
        for p, size in zip(self.features, sizes, strict=True):
            self._keep(p, size > 0)

    def _begin(self, place: int, size: Float[Tensor, " f"]) -> None:
        """The mean square of a row's first gradient stands for that of earlier ones, in each coordinate."""
        first = (self.new[place] & (size > 0)).nonzero().squeeze(1)
        self.new[place][first] = False
        if self.count > 1 and len(first):
            square = self._square(self.features[place])
            square[first] = (size[first] * self._weight(self.count - 1))[:, None]

    def _keep(self, p: Tensor, on: Bool[Tensor, " f"]) -> None:
        """Undo what the step took from rows that were off: the mean square, with its correction for the start, is as before."""
        if self.count > 1:
            kept = self._weight(self.count) / self._weight(self.count - 1) / self.fades
            self._square(p).mul_(torch.where(on, 1.0, kept)[:, None])

    def _weight(self, steps: int) -> float:
        """What of a running mean of so many steps is not still its start at zero."""
        return 1 - self.fades**steps

    def _square(self, p: Tensor) -> Float[Tensor, "f d"]:
        return self.state[p]["exp_avg_sq"].view(len(p), -1)

    @torch.no_grad()
    def restart(self, rows: Int[Tensor, " some"]) -> None:
        """Forget everything about some features, whose weights were set anew."""
        for p, new in zip(self.features, self.new, strict=True):
            new[rows] = True
            for moment in ("exp_avg", "exp_avg_sq"):
                self.state[p][moment][rows] = 0


def _mean_square(grad: Tensor) -> Float[Tensor, " f"]:
    flat = grad.view(len(grad), -1)
    return torch.linalg.vector_norm(flat, dim=1).square() / flat.shape[1]
