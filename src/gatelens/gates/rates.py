"""Rates: how often something came out as said, with the interval that so many rows allow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

#: score of a 95 % interval
Z = 1.96


@dataclass(frozen=True)
class Rate:
    """How often something was as said.

    >>> Rate(9, 12, 12).share
    0.75
    >>> [round(end, 3) for end in Rate(9, 12, 12).interval]
    [0.468, 0.911]

    Attributes:
        made, tried: counts over rows and whatever was done to each.
        rows: how many rows these came from: the trials of one row are not independent.
    """

    made: int = 0
    tried: int = 0
    rows: int = 0

    @classmethod
    def of(cls, made: Bool[np.ndarray, "trials rows"], tried: Bool[np.ndarray, "trials rows"]) -> Rate:
        return cls(int((made & tried).sum()), int(tried.sum()), int(tried.any(0).sum()))

    @property
    def share(self) -> float | None:
        """None where nothing was tried."""
        return self.made / self.tried if self.tried else None

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson score interval of the share, at as many trials as there were rows; (0, 1) without any."""
        if not self.tried:
            return 0.0, 1.0
        p, n = self.made / self.tried, self.rows
        centre = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
        half = Z / (1 + Z * Z / n) * float(np.sqrt(p * (1 - p) / n + (Z / (2 * n)) ** 2))
        return centre - half, centre + half
