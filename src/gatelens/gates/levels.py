"""Levels: from where on a feature counts as on. Low activations of a dictionary are mostly noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ..errors import SolverError
from .tables import Columns

#: quantiles of a feature's positive values that a literal may begin above; 0 is zero itself
QUANTILES = (0.0, 0.3, 0.55, 0.75)
#: the one near the middle, for `levels="median"`
MEDIAN = 0.55
#: fitting MCC that a higher level of the output must bring
LEVEL_GAIN = 0.03
#: fitting MCC from which no higher level is tried: what it would leave out are weaker causes, and not noise
GOOD = 0.8
#: a feature with fewer positive values has the level zero alone: its quantiles would be chance
FEW = 20


@dataclass(frozen=True)
class Levels:
    """Which levels literals and outputs may have.

    Attributes:
        inputs: quantiles of an input feature's positive values, ascending; 0 stands for the level zero.
        outputs: the same for outputs; of several the best is chosen an output, a higher one only for `LEVEL_GAIN`
            and where a lower one has no `GOOD` rule.
    """

    inputs: tuple[float, ...]
    outputs: tuple[float, ...]

    @classmethod
    def of(cls, choice: str | Sequence[float]) -> Levels:
        """`chosen`: the best of `QUANTILES` for each literal and each output. `median`: the same for literals, outputs
        on above their 55 % quantile. `zero`: on means above zero. A list of quantiles takes the place of `QUANTILES`.

        Raises:
            SolverError: another word, or quantiles outside [0, 1).
        """
        if isinstance(choice, str):
            named = {
                "chosen": cls(QUANTILES, QUANTILES),
                "median": cls(QUANTILES, (MEDIAN,)),
                "zero": cls((0.0,), (0.0,)),
            }
            if choice not in named:
                raise SolverError(f"levels must be one of {', '.join(named)}, or quantiles in [0, 1); got {choice!r}")
            return named[choice]
        quantiles = tuple(sorted({float(q) for q in choice}))
        if not quantiles or not all(0 <= q < 1 for q in quantiles):
            raise SolverError(
                f"levels are quantiles of a feature's positive values, at least one, each in [0, 1); got {list(choice)}. "
                "0 stands for the level zero"
            )
        return cls(quantiles, quantiles)


def thresholds(f: Columns, quantiles: Sequence[float]) -> Float[np.ndarray, "features levels"]:
    """Each feature's value at each quantile of its positive values, ascending; inf where a feature has no such level."""
    found = np.full((f.features, len(quantiles)), np.inf, np.float64)
    for feature in np.flatnonzero(f.firings()):
        found[feature] = feature_thresholds(f.on(int(feature))[1], quantiles)
    return found


def feature_thresholds(positive: Float[np.ndarray, " on"], quantiles: Sequence[float]) -> Float[np.ndarray, " levels"]:
    """One feature's value at each quantile of its positive values; inf where there is no such level.

    A level that no value exceeds, or that lets through what the one below it does, is none: values that repeat make such.
    """
    if not len(positive):
        return np.full(len(quantiles), np.inf)
    levels = np.quantile(positive.astype(np.float64), quantiles)
    levels[np.asarray(quantiles) == 0] = 0.0
    if len(positive) < FEW:
        levels[1:] = np.inf
    above = np.searchsorted(np.sort(positive), levels, side="right")
    levels[above == len(positive)] = np.inf
    levels[1:][above[1:] == above[:-1]] = np.inf
    return levels
