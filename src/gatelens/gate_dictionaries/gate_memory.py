"""What training gates takes in memory, stated beforehand and refused where it is too much."""

from __future__ import annotations

from ..errors import TooLargeError
from ..solvers.selection import selection_bytes
from ..store.estimate import Estimate, in_all
from .gate_start import SELECTION_ENTRIES


def check_memory(m: int, n: int, gib: float) -> None:
    """Refuse a regrowth table that would not fit, before anything is allocated."""
    wanted = 8 * m * n / 2**30
    if wanted > gib:
        raise TooLargeError(
            f"{m} input features x {n} gates: the table that finds new parents takes {wanted:.3g} GiB, memory_gib is {gib:g}. "
            "Raise memory_gib, choose a smaller width, or set rounds=0 to keep the parents of the start"
        )


def gates_estimate(rows: int, width: int, features: int, active: float, fan_in: int) -> Estimate:
    """Both ends' rows, their features, and tables of features by gates: those of the start, of new parents, or of the closed form.

    Args:
        width: of either end. features: at either end, so many of them `active` in a row.
    """
    square = features * features
    chosen = selection_bytes(features, fan_in) if square <= SELECTION_ENTRIES else 16 * square
    parts = {
        "the activations": 2 * 4 * rows * width,
        "the output in units of the training": 4 * rows * width,
        "the features": int(28 * rows * min(active, features)),
        "tables of features by gates": max(16 * square + chosen, 24 * square),
        "dictionaries and optimiser": 6 * 4 * width * features,
    }
    return in_all("bases", parts, disk=4 * (2 * width + 2) * features)
