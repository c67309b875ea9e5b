"""Sizes: how many rows the fitting and the held-out part are to have."""

from __future__ import annotations

from operator import index
from typing import Any

from ..errors import DataError

Sizes = tuple[int | None, int | None]
HELD_OUT_SHARE = 0.2


def part_sizes(rows: Any) -> Sizes:
    """(fitting, held out); one number is the fitting part, with a fifth of the whole held out beside it.

    Raises:
        DataError: no whole numbers of at least 1.
    """
    if rows is None:
        return None, None
    if isinstance(rows, str | bytes | dict):
        raise DataError(f"rows: expected (fitting, held out), 8 or (8, 2) for instance; got {rows!r}")
    try:
        pair = list(rows)
    except TypeError:
        fit = check_count(rows, "rows", 1)
        return fit, max(1, round(fit * HELD_OUT_SHARE / (1 - HELD_OUT_SHARE)))
    if len(pair) != 2:
        raise DataError(f"rows: expected two numbers, (fitting, held out), or one; got {rows!r}")
    first, second = (None if count is None else check_count(count, "rows", 1) for count in pair)
    return first, second


def check_count(value: Any, what: str, least: int) -> int:
    """A whole number of at least `least`.

    Raises:
        DataError: anything else.
    """
    try:
        found = index(value)
    except TypeError as error:
        raise DataError(f"{what} must be a whole number of at least {least}, got {value!r:.80}") from error
    if isinstance(value, bool) or found < least:
        raise DataError(f"{what} must be a whole number of at least {least}, got {value!r}")
    return found


def check_seed(seed: Any) -> None:
    """A whole number that a generator takes.

    Raises:
        DataError: anything else.
    """
    try:
        fits = not isinstance(seed, bool) and -(2**63) <= index(seed) < 2**63
    except TypeError:
        fits = False
    if not fits:
        raise DataError(f"a seed is a whole number of 64 bits, got {seed!r:.80}")
