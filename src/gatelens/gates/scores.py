"""Scores of a rule against the firing of its output, from counts and from sums; each written once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True)
class Counts:
    """What a rule says beside what its output does, over rows whose state is clear.

    Attributes:
        hit: rows on which both are on; said: those on which the rule is; on: those on which the output is; rows: all.
    """

    hit: int
    said: int
    on: int
    rows: int


@dataclass(frozen=True)
class Score:
    """Figures of a rule over rows; None where undefined (nothing said, or nothing fired).

    Attributes:
        mcc: Matthews correlation, which is Pearson's of two on-off series.
        precision, recall, f1, iou: of the rows on which the rule says on.
        auprc: area under the precision-recall curve of the rule's graded sum, as average precision.
    """

    mcc: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    iou: float | None = None
    auprc: float | None = None

    @classmethod
    def of(cls, c: Counts, auprc: float | None = None) -> Score:
        both = c.said + c.on
        defined = 0 < c.said < c.rows and 0 < c.on < c.rows
        return cls(
            mcc=float(matthews(c.hit, c.said, c.on, c.rows)) if defined else None,
            precision=c.hit / c.said if c.said else None,
            recall=c.hit / c.on if c.on else None,
            f1=2 * c.hit / both if both else None,
            iou=c.hit / (both - c.hit) if both else None,
            auprc=auprc,
        )


def counts(
    said: Int[np.ndarray, " said"], on: Int[np.ndarray, " on"], unclear: Int[np.ndarray, " between"], rows: int
) -> Counts:
    """Counts from rows, each given once: where the rule says on, where the output is, and where that is not clear."""
    clear = len(said) - int(among(said, unclear, rows).sum())
    return Counts(int(among(said, on, rows).sum()), clear, len(on), rows - len(unclear))


def among(these: Int[np.ndarray, " these"], some: Int[np.ndarray, " some"], rows: int) -> Bool[np.ndarray, " these"]:
    """Which of some rows are among others; both are numbers below `rows`."""
    mark = np.zeros(rows, bool)
    mark[some] = True
    return mark[these]


def matthews(hit: Any, said: Any, on: Any, rows: Any) -> Float[np.ndarray, ...]:
    """Matthews correlation of `said` predictions and `on` firings among `rows` with `hit` in common; 0 where undefined."""
    hit, said, on, rows = (np.asarray(x, np.float64) for x in (hit, said, on, rows))
    spread = said * (rows - said) * on * (rows - on)
    return np.where(spread > 0, (hit * rows - said * on) / np.sqrt(np.maximum(spread, 1.0)), 0.0)


def average_precision(
    z: Float[np.ndarray, " touched"], is_on: Bool[np.ndarray, " touched"], rest: float, on: int, rows: int
) -> float | None:
    """Average precision of ranking rows by z: the mean over the rows that are on of the precision at their rank.

    Rows of equal z share a rank, and all rows that are not among the touched have the value `rest`.

    Args:
        z, is_on: of the touched rows; on, rows: of all rows, and of those that are on.
    """
    if on == 0:
        return None
    z, said, hit = np.append(z, rest), np.append(np.ones(len(z)), rows - len(z)), np.append(is_on, on - is_on.sum())
    order = np.argsort(-z, kind="stable")
    z, said, hit = z[order], np.cumsum(said[order]), np.cumsum(hit[order])
    last = np.append(z[1:] < z[:-1], True)
    said, hit = said[last], hit[last]
    return float(np.sum(np.diff(hit, prepend=0.0) * hit / np.maximum(said, 1)) / on)
