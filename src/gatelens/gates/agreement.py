"""Agreement: does an output favour what really comes next where it is on? The second half of its reading, and whether it is true.

z of the token that comes next (of the image's class), averaged over the rows where the output is on, less the average over all
rows; and with the current token held fixed, less the average over the rows with the same token where the output is off, which
takes away what a table of pairs of tokens knows. t is over documents: the rows of one text are not independent. Its null is the t
of what other outputs of the layer favour, on the very same rows: how well what comes next is foretold by chance there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float, Int

from ..errors import DataError
from .logit_effects import LogitEffects

#: an output that is on in fewer rows is not judged; a t beyond this is clear
LEAST, CLEAR = 60, 4.0
#: other outputs whose favours make the null, at least and at most; values held at once
_FEWEST, _OTHERS, _HELD = 19, 39, 4_000_000


@dataclass(frozen=True)
class Rows:
    """Where each row of features stands in its text.

    Attributes:
        token: [rows] the current token; before: the one before it (-1 where it is not known); for images both are nothing.
        target: [rows] the token that really comes next (-1 where that is not known); the class of an image.
        document: [rows].
    """

    token: Int[np.ndarray, " rows"]
    before: Int[np.ndarray, " rows"]
    target: Int[np.ndarray, " rows"]
    document: Int[np.ndarray, " rows"]

    @classmethod
    def of(cls, acts: Any) -> Rows:
        """Of activations: what comes next is the next row's token, where that row is the next position of the same text.

        Activations of images have one position a document, and their class as token.
        """
        token, document, position = (v.cpu().numpy() for v in (acts.token, acts.document, acts.position))
        nothing = np.full(len(token), -1)
        if not position.any():
            return cls(np.zeros(len(token), np.int64), nothing, token, document)
        next_one = (document[1:] == document[:-1]) & (position[1:] == position[:-1] + 1)
        target, before = nothing.copy(), nothing.copy()
        target[:-1][next_one] = token[1:][next_one]
        before[1:][next_one] = token[:-1][next_one]
        return cls(token, before, target, document)


@dataclass(frozen=True)
class Agreement:
    """For each output; NaN where it is on in fewer than 60 rows or in fewer than two documents.

    Attributes:
        rows: [n] on which it is on and something is known to come next.
        mean: [n] z of what comes next where it is on, less that over all rows; t: over documents.
        held, held_t: the same with the current token held fixed; NaN for images, and where an output is on at all
            occurrences of its tokens.
        null: [n] the t that one in twenty of other outputs' favours exceeds on the same rows; NaN where there are too few others,
            and for images, where many outputs favour the same of a few classes.
    """

    rows: Int[np.ndarray, " n"]
    mean: Float[np.ndarray, " n"]
    t: Float[np.ndarray, " n"]
    held: Float[np.ndarray, " n"]
    held_t: Float[np.ndarray, " n"]
    null: Float[np.ndarray, " n"]

    def figures(self, among: np.ndarray | None = None) -> dict[str, float | int | None]:
        """How many outputs were judged, and of these the shares that clearly agree and disagree; `agree_over_null`: clearly, and more
        than nineteen in twenty other outputs would on the same rows.

        Args:
            among: [n] outputs that count; all by default.
        """
        judged = np.isfinite(self.t) if among is None else np.isfinite(self.t) & among
        n = int(judged.sum())

        def share(which: np.ndarray) -> float | None:
            return float((which & judged).sum() / n) if n else None

        with np.errstate(invalid="ignore"):
            return {
                "outputs": n,
                "agree": share(self.t > CLEAR),
                "agree_over_null": share((self.t > CLEAR) & (self.t > self.null))
                if np.isfinite(self.null).any()
                else None,
                "disagree": share(self.t < -CLEAR),
                "agree_held": share(self.held_t > CLEAR),
                "disagree_held": share(self.held_t < -CLEAR),
                "median": float(np.median(self.mean[judged])) if n else None,
            }


def agreement(
    effects: LogitEffects, f_out: scipy.sparse.csr_matrix, levels: Float[np.ndarray, " n"], rows: Rows
) -> Agreement:
    """The agreement of every output.

    Args:
        f_out: [rows, n] output features above zero, CSR; levels: above which each is on.

    Raises:
        DataError: features of other rows, or no row of which it is known what comes next.
    """
    if f_out.shape[0] != len(rows.target):
        raise DataError(f"features of {f_out.shape[0]} rows, {len(rows.target)} positions. Give those of the same rows")
    known = rows.target >= 0
    if not known.any():
        raise DataError("agreement needs rows of which it is known what comes next; there is none among these")
    hold = effects.over == "tokens"
    judge = _Judge(rows.token[known], rows.target[known], rows.document[known], effects.readout.shape[1], hold)
    columns = f_out[np.flatnonzero(known)].tocsc()
    n = f_out.shape[1]
    found = Agreement(np.zeros(n, np.int64), *(np.full(n, np.nan) for _ in range(5)))
    for start, z in effects.blocks():
        block = columns[:, start : start + len(z)]
        judge.judge(block, levels[start : start + len(z)], z, start, found)
    return found


class _Judge:
    """What is common to all outputs: how often each token comes next, after each token and anywhere."""

    def __init__(self, token: np.ndarray, target: np.ndarray, document: np.ndarray, outputs: int, hold: bool):
        self.target, self.hold = target, hold
        self.documents, self.document = np.unique(document, return_inverse=True)
        self.anywhere = torch.from_numpy(np.bincount(target, minlength=outputs) / len(target)).float()
        self.tokens, self.token = np.unique(token, return_inverse=True)
        self.count = np.bincount(self.token)
        one = np.ones(len(target), np.float32)
        self.after = scipy.sparse.csr_matrix((one, (self.token, target)), shape=(len(self.tokens), outputs))

    def judge(self, block: Any, levels: np.ndarray, z: torch.Tensor, start: int, found: Agreement) -> None:
        """Fill in the outputs of a block, whose effects are `z`."""
        everywhere = (z @ self.anywhere.to(z)).cpu().numpy()
        z_of = z.cpu().numpy()
        total = self.after @ z_of.T if self.hold else None
        for place in range(len(z_of)):
            span = slice(block.indptr[place], block.indptr[place + 1])
            on = block.indices[span][block.data[span] > levels[place]]
            found.rows[start + place] = len(on)
            if len(on) < LEAST:
                continue
            value = z_of[place, self.target[on]].astype(np.float64)
            found.mean[start + place], found.t[start + place] = self._mean(value - everywhere[place], on)
            if total is not None:
                found.null[start + place] = self._null(z_of, everywhere, place, on)
                excess, kept = self._held(value, on, total[:, place])
                if len(kept) >= LEAST:
                    found.held[start + place], found.held_t[start + place] = self._mean(excess, kept)

    def _null(self, z: np.ndarray, everywhere: np.ndarray, place: int, on: np.ndarray) -> float:
        """The 95 % point of t on these rows over what other outputs of the block favour, evenly spread over it."""
        if len(z) <= _FEWEST:
            return float("nan")
        number = min(_OTHERS, len(z) - 1)
        others = (place + 1 + np.arange(number) * (len(z) - 1) // number) % len(z)
        many = max(1, _HELD // len(on))
        parts = [others[k : k + many] for k in range(0, number, many)]
        t = [self._means(z[part][:, self.target[on]] - everywhere[part, None], on)[1] for part in parts]
        return float(np.quantile(np.concatenate(t), 0.95))

    def _held(self, value: np.ndarray, on: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The values less the mean after the same token where the output is off; rows of tokens at which it is always on go."""
        token = self.token[on]
        sum_on, count_on = (np.bincount(token, weights=w, minlength=len(total)) for w in (value, np.ones(len(on))))
        off = self.count - count_on
        mean_off = (total - sum_on) / np.maximum(off, 1)
        comparable = off[token] > 0
        return (value - mean_off[token])[comparable], on[comparable]

    def _mean(self, value: np.ndarray, on: np.ndarray) -> tuple[float, float]:
        """The mean, and its t; NaN in fewer than two documents."""
        mean, t = self._means(value[None], on)
        return float(mean[0]), float(t[0])

    def _means(self, values: np.ndarray, on: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[k] means of [k, rows] values, and their t with the sums of documents as the independent things."""
        document = self.document[on]
        order = np.argsort(document, kind="stable")
        starts = np.flatnonzero(np.diff(document[order], prepend=-1))
        mean, seen = values.mean(1, dtype=np.float64), len(starts)
        if seen < 2:
            return mean, np.full(len(mean), np.nan)
        left = np.add.reduceat(values[:, order] - mean[:, None], starts, axis=1)
        error = np.sqrt(np.square(left).sum(1) * seen / (seen - 1)) / values.shape[1]
        with np.errstate(divide="ignore", invalid="ignore"):
            return mean, np.where(error > 0, mean / error, np.nan)
