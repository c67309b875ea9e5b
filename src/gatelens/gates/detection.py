"""Detection: a rule as a label of its output, scored without any language model.

A hundred rows on which the output is on, ten from each tenth of its values, and a hundred on which it is silent: which are which,
by the label alone? Beside the rule stand the output's top tokens, the label that most pages of features give.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

#: rows of either kind; parts of equal number that the firings are taken from
ROWS, PARTS = 100, 10
#: tokens that make up the other label
TOKENS = 10


@dataclass(frozen=True)
class Detection:
    """Balanced accuracies: half of them is right by saying anything.

    Attributes:
        rule: of the rule; tokens: of the output's top tokens, None without tokens.
        on, off: rows of either kind.
    """

    rule: float
    tokens: float | None
    on: int
    off: int


def detection(
    said: Int[np.ndarray, " said"],
    fired: tuple[Int[np.ndarray, " fired"], Any],
    level: float,
    rows: int,
    tokens: tuple[Int[np.ndarray, " rows"], Int[np.ndarray, " top"]] | None = None,
    seed: int = 0,
) -> Detection | None:
    """The score on held-out rows; None for an output that is never on there, or never off.

    Args:
        said: the rows on which the rule says on. fired: rows on which the output is positive, and its values; level: above which it
            is on. rows: how many there are.
        tokens: the token of every row, and the output's top tokens (`top_tokens`).
    """
    random = np.random.default_rng(seed)
    row, value = fired
    above = value > level
    on = row[above][np.argsort(value[above], kind="stable")]
    silent = np.setdiff1d(np.arange(rows), row)
    if not len(on) or not len(silent):
        return None
    chosen = np.concatenate([_some(part, ROWS // PARTS, random) for part in np.array_split(on, PARTS)])
    others = _some(silent, ROWS, random)

    def balanced(label: Bool[np.ndarray, " rows"]) -> float:
        return float((label[chosen].mean() + 1 - label[others].mean()) / 2)

    label = np.zeros(rows, bool)
    label[said] = True
    by_token = None if tokens is None else balanced(np.isin(tokens[0], tokens[1]))
    return Detection(balanced(label), by_token, len(chosen), len(others))


def top_tokens(token: Int[np.ndarray, " rows"], on: Int[np.ndarray, " on"]) -> Int[np.ndarray, " top"]:
    """The tokens that tell the rows where an output is on from all rows best: the largest differences of their shares."""
    found, count = np.unique(token[on], return_counts=True)
    everywhere = np.bincount(token, minlength=int(token.max()) + 1)[found] / len(token)
    gain = count / max(len(on), 1) - everywhere
    best = np.argsort(-gain, kind="stable")[:TOKENS]
    return found[best[gain[best] > 0]]


def _some(rows: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= count else random.choice(rows, count, replace=False)
