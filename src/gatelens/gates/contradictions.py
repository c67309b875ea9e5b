"""Patterns that go against a rule on natural rows: what it gets wrong as a matter of course, and not by chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from .rule import Rule
from .tables import Cells

#: score of a 90 % interval: a pattern goes against a rule when its whole interval does
Z = 1.645
#: rates beyond which a pattern clearly does the opposite of what the rule says
CLEARLY = 0.25
#: share of the busy rows (a literal on, and the rule open or the output firing) that such patterns may make up
TOLERATED = 0.05


@dataclass(frozen=True)
class Against:
    """The pattern that goes against a rule in most rows.

    Attributes:
        words: what happened there, in words; count, fired: its rows, and those on which the output fired.
        clear: patterns that clearly do the opposite are more than the odd row: the rule is wrong about them.
    """

    words: str
    count: int
    fired: int
    clear: bool


def against(rule: Rule, cells: Cells, least: int) -> Against | None:
    """The pattern that goes against a rule most; None where none does with its whole Wilson interval beyond a half.

    Args:
        cells: a table over the rule's literals; least: rows that a pattern must have.
    """
    is_open = rule.evaluate(cells.patterns)
    lower, upper = wilson(cells.fired, cells.count)
    # a row with no literal on is no evidence against: what fires it is not among the rule's literals
    seen = (cells.count >= least) & (np.arange(len(cells.count)) > 0)
    wrong = seen & np.where(is_open, upper < 0.5, lower > 0.5)
    if not wrong.any():
        return None
    rate = cells.fired / np.maximum(cells.count, 1)
    clearly = wrong & np.where(is_open, rate < CLEARLY, rate > 1 - CLEARLY)
    busy = np.where(is_open, cells.count, cells.fired) * (np.arange(len(cells.count)) > 0)
    rows = np.where(is_open, cells.count - cells.fired, cells.fired) * wrong
    worst = int(np.argmax(rows * np.where(clearly.any(), clearly, True)))
    count, fired = int(cells.count[worst]), int(cells.fired[worst])
    said = "on, but fired in only" if is_open[worst] else "off, but fired in"
    words = f"predicted {said} {fired} of {count} rows with {spell(rule, cells.patterns[worst])}"
    return Against(words, count, fired, bool(rows[clearly].sum() > TOLERATED * busy.sum()))


def spell(rule: Rule, on: np.ndarray) -> str:
    """A pattern by the names of the literals."""
    named = [
        [literal.words for literal, is_on in zip(rule.literals, on, strict=True) if is_on == state]
        for state in (True, False)
    ]
    parts = [f"{' and '.join(named[0])} on"] if named[0] else []
    parts += [f"{', '.join(named[1])} off"] if named[1] else []
    return ", ".join(parts)


def wilson(
    fired: Float[np.ndarray, " cells"], count: Float[np.ndarray, " cells"], z: float = Z
) -> tuple[Float[np.ndarray, " cells"], Float[np.ndarray, " cells"]]:
    """Lower and upper end of the Wilson score interval; 0 and 1 where nothing was seen.

    Source: "Probable Inference, the Law of Succession, and Statistical Inference".
    """
    n = np.maximum(count, 1e-9)
    p = fired / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    return np.where(count > 0, centre - half, 0.0), np.where(count > 0, centre + half, 1.0)
