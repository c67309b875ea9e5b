"""Which solver for which size: all pairs of features at once while that is small, one output at a time beyond."""

from __future__ import annotations

from ..connectors import Solver
from .gram_lasso import GramLasso
from .relu_omp import ReluOMP

#: widest end for which statistics of all pairs of features are formed
GRAM_WIDTH = 4096


def solver_for(width_in: int, width_out: int, max_fan_in: int = 8, signed: bool = False, seed: int = 0) -> Solver:
    """`GramLasso` up to `GRAM_WIDTH` features, and for signed coordinates of any width; `ReluOMP` beyond.

    GramLasso's statistics take (width_in + width_out) * width_in numbers and pay for dense features; ReluOMP needs
    features that are mostly off, and never forms a matrix of pairs.
    """
    if signed or max(width_in, width_out) <= GRAM_WIDTH:
        return GramLasso(mean_wires=max_fan_in, signed=signed)
    return ReluOMP(max_fan_in=max_fan_in, seed=seed)
