"""Interactions among parents: what each set adds beyond its subsets (Harsanyi dividends, the Moebius transform).

v(T) is the mean output with the parents in T on and the others off. The dividend of a set is what is left of v(T)
once the dividends of all its subsets are taken away: zero above single parents for an adder, positive at the top for
an AND, minus the smaller single value for a pair that saturates (OR).
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from .tables import Cells

#: dividends of sets of two or more, as a share of the single ones, up to which a sum counts as additive
ADDITIVE = 0.25
#: share of the smaller single value that a saturating pair takes back at least
SATURATING = 0.5


def dividends(values: np.ndarray) -> np.ndarray:
    """[2^k] dividend of each set of parents, from v of each set (bit j of the place: parent j is in it)."""
    found = np.array(values, np.float64)
    codes = np.arange(len(found))
    step = 1
    while step < len(found):
        upper = codes & step != 0
        found[upper] -= found[codes[upper] ^ step]
        step *= 2
    return found


def magnitude(cells: Cells, min_count: int) -> Literal["", "adder", "saturating"]:
    """How the value goes with the number of exciters, from a table over two or three of them.

    "" where a cell has fewer than `min_count` rows, or where neither word fits.
    """
    if cells.parents < 2 or cells.count.min() < min_count:
        return ""
    terms = dividends(cells.total / cells.count)
    sizes = np.array([code.bit_count() for code in range(len(terms))])
    single = np.abs(terms[sizes == 1])
    if not single.min() > 0:
        return ""
    if np.abs(terms[sizes >= 2]).sum() <= ADDITIVE * single.sum():
        return "adder"
    pairs = [
        terms[1 << i | 1 << j] <= -SATURATING * min(terms[1 << i], terms[1 << j])
        for i in range(cells.parents)
        for j in range(i)
    ]
    return "saturating" if all(pairs) else ""
