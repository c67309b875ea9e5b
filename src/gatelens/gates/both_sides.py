"""Rules of products: an output that is a product of two sums is on where something of both is, (a or b) and (c or d)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float

from .scores import matthews

#: literals of a side that are joined with one another: those that tell most by themselves
_EACH = 6


def both_sides(
    on: Bool[np.ndarray, "p k"],
    count: Float[np.ndarray, " p"],
    fired: Float[np.ndarray, " p"],
    places: Sequence[Sequence[int]],
    feature: Sequence[int],
    size: int,
    support: int,
) -> list[tuple[float, tuple[int, ...], tuple[int, ...]]]:
    """(MCC, literals of the first side, of the second) of every rule "one of these, and one of those" of so many literals, the best
    first; of each side two at least (one is a plain AND), and no feature twice.

    Args:
        on: which literals are on in each pattern; count, fired: rows of a pattern, and those on which the output is on.
        places: the literals of each side; feature: of each literal.
        support: rows that each literal must decide.
    """
    total, hits = count.sum(), fired.sum()
    alone = matthews(fired @ on, count @ on, hits, total)
    sides = []
    for side in places:
        best = {
            feature[j]: j for j in sorted(side, key=lambda j: alone[j])
        }  # each feature at the level that tells most
        sides.append(sorted(best.values(), key=lambda j: -alone[j])[:_EACH])
    found = []
    for few in range(2, size - 1):
        for left in combinations(sides[0], few):
            for right in combinations(sides[1], size - few):
                if len({feature[j] for j in left + right}) < size:
                    continue
                a, b = on[:, left].sum(1), on[:, right].sum(1)
                says = (a > 0) & (b > 0)
                # a literal decides where it is the only one of its side that is on
                alone_left, alone_right = says & (a == 1), says & (b == 1)
                decides = [*(count * alone_left) @ on[:, left], *(count * alone_right) @ on[:, right]]
                if min(decides) >= support:
                    mcc = float(matthews(fired[says].sum(), count[says].sum(), hits, total))
                    found.append((mcc, left, right))
    return sorted((rule for rule in found if rule[0] > 0), key=lambda rule: -rule[0])
