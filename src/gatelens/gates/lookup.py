"""Tables of tokens: what an output's firing can be foretold from by looking up the current token, or it and the one before.

A rule that says no more than such a table is true and yet no news. The tables are made as strong as they can be: rates by key,
shrunk to the rate of the shorter key where a key is rare, and cut where that predicts the fitting rows best, each of these
judged by all others (a key seen once would foretell itself).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from ..errors import DataError
from .scores import matthews
from .search import Target

#: rows that the rate of the shorter key counts for
PRIOR = 1.0
#: more than any vocabulary has
_TOKENS = 1 << 32
#: cuts that are tried
_CUTS = 48


@dataclass(frozen=True)
class Origin:
    """Where rows come from: an `Activations` is one, and so is anything else with these three.

    Attributes:
        document, position, token: [rows]; of an image the position is 0 and the token its class.
    """

    document: Int[np.ndarray, " rows"]
    position: Int[np.ndarray, " rows"]
    token: Int[np.ndarray, " rows"]

    @classmethod
    def of(cls, rows: Any, count: int, which: str) -> Origin:
        """From something with `document`, `position` and `token` as tensors or arrays.

        Raises:
            DataError: they are of another number of rows.
        """
        parts = [np.asarray(getattr(rows, name), np.int64) for name in ("document", "position", "token")]
        for name, part in zip(("document", "position", "token"), parts, strict=True):
            if part.shape != (count,):
                raise DataError(
                    f"the {which}features have {count} rows, their origins {part.shape} of {name}; "
                    "give the activations that the features were made from"
                )
        return cls(*parts)

    @property
    def is_text(self) -> bool:
        return bool((self.position > 0).any())

    def every(self, step: int) -> Origin:
        """Of every so-manieth row; which tokens follow one another is kept."""
        kept = Origin(self.document[::step], self.position[::step], self.token[::step])
        kept.__dict__["pairs"] = self.pairs[::step]
        return kept

    @cached_property
    def pairs(self) -> Int[np.ndarray, " rows"]:
        """One number for the previous and the current token; a token with none before it in its window has -1 there."""
        follows = np.zeros(len(self.token), bool)
        follows[1:] = (self.position[1:] == self.position[:-1] + 1) & (self.document[1:] == self.document[:-1])
        before = np.where(follows, np.roll(self.token, 1), -1)
        return (before + 1) * _TOKENS + self.token  # one number for all rows, whichever tokens they hold


class LookupTable:
    """A table over keys, and over longer keys that back off to them; one for all outputs."""

    def __init__(self, keys: tuple[np.ndarray, np.ndarray], longer: tuple[np.ndarray, np.ndarray] | None = None):
        """Keys of the fitting and of the judging rows, [rows] integers each."""
        self.keys, self.size = _numbered(keys)
        self.count = np.bincount(self.keys[0], minlength=self.size).astype(np.float64)
        self.longer = None
        if longer is not None:
            self.longer, self.longer_size = _numbered(longer)
            self.longer_count = np.bincount(self.longer[0], minlength=self.longer_size).astype(np.float64)
            self.shorter_of = np.zeros(self.longer_size, np.int64)  # what a longer key backs off to
            for long, short in zip(self.longer, self.keys, strict=True):
                self.shorter_of[long] = short

    def says(self, target: Target) -> Bool[np.ndarray, " judged"]:
        """On which judging rows the table that the fitting rows make for an output says on."""
        rows, on = len(self.keys[0]) - len(target.unclear), len(target.on)
        base = on / max(rows, 1)
        short = _Rates(self.keys[0], self.count, target, np.full(self.size, base), np.full(self.size, base))
        rates, key = short, self.keys[1]
        if self.longer is not None:
            without = (short.without_on, short.without_off)
            priors = [rate[self.shorter_of] for rate in (short.rate, *without)]
            rates = _Rates(self.longer[0], self.longer_count, target, *priors)
            key = self.longer[1]
        return (rates.rate > rates.best_cut(rows, on))[key]


class _Rates:
    """Rates of one output by key: of all rows, and as each row that is on or off sees them without itself."""

    def __init__(
        self,
        key: Int[np.ndarray, " rows"],
        count: Float[np.ndarray, " keys"],
        target: Target,
        prior: Float[np.ndarray, " keys"],
        prior_on: Float[np.ndarray, " keys"],
        prior_off: Float[np.ndarray, " keys"] | None = None,
    ):
        prior_off = prior if prior_off is None else prior_off
        self.on = np.bincount(key[target.on], minlength=len(count)).astype(np.float64)
        self.count = count - np.bincount(key[target.unclear], minlength=len(count))
        self.rate = (self.on + PRIOR * prior) / (self.count + PRIOR)
        others = np.maximum(self.count - 1, 0) + PRIOR
        self.without_on = (np.maximum(self.on - 1, 0) + PRIOR * prior_on) / others
        self.without_off = (self.on + PRIOR * prior_off) / others

    def best_cut(self, rows: int, on: int) -> float:
        """The cut on the rate with the best MCC over the fitting rows, each judged by the others."""
        fired = self.on > 0
        if not fired.any():
            return np.inf
        rate_on, weight_on = _descending(self.without_on[fired], self.on[fired])
        cuts = np.unique(rate_on[np.linspace(0, len(rate_on) - 1, min(_CUTS, len(rate_on))).astype(int)]) - 1e-12
        hit = weight_on[np.searchsorted(-rate_on, -cuts, side="left")]
        off = (self.count > self.on) & (self.without_off >= cuts[0])
        below = np.searchsorted(cuts, self.without_off[off], side="right")  # how many of the cuts each rate reaches
        reach = np.bincount(below, (self.count - self.on)[off], minlength=len(cuts) + 1)
        wrong = reach.sum() - np.cumsum(reach)[:-1]
        return float(cuts[np.argmax(matthews(hit, hit + wrong, on, rows))])


def _descending(rate: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rates from the highest, and the weight of all before each place."""
    order = np.argsort(-rate, kind="stable")
    return rate[order], np.concatenate([[0.0], np.cumsum(weight[order])])


def _numbered(keys: tuple[np.ndarray, np.ndarray]) -> tuple[tuple[np.ndarray, np.ndarray], int]:
    """The keys as numbers from zero, and how many there are."""
    known, number = np.unique(np.concatenate(keys), return_inverse=True)
    first = len(keys[0])
    return (number[:first], number[first:]), len(known)


class Documents:
    """Resamples of the judging documents: whether one reading is better than another beyond the luck of the draw."""

    #: fewer documents than this cannot be resampled to any purpose
    LEAST = 8

    def __init__(self, document: Int[np.ndarray, " rows"], seed: int, resamples: int = 200):
        self.number, self.count = (lambda u: (u[1], len(u[0])))(np.unique(document, return_inverse=True))
        draws = np.random.default_rng((seed, 17)).integers(self.count, size=(resamples, self.count))
        self.weight = np.stack([np.bincount(draw, minlength=self.count) for draw in draws]).astype(np.float64)

    def better(
        self, said: Int[np.ndarray, " said"], rival: Int[np.ndarray, " rival"], target: Target, rows: int
    ) -> bool | None:
        """Whether what is said has a higher MCC than its rival in 97.5 % of resamples; None of too few documents.

        Args:
            said, rival: ascending rows on which each says on.
        """
        if self.count < self.LEAST:
            return None
        clear, on = np.ones(rows, bool), np.zeros(rows, bool)
        clear[target.unclear], on[target.on] = False, True
        totals = [np.flatnonzero(clear), target.on]
        for these in (said, rival):
            these = these[clear[these]]
            totals += [these, these[on[these]]]
        by_document = np.stack([np.bincount(self.number[t], minlength=self.count) for t in totals], 1)
        n, fired, said_n, hit, rival_n, rival_hit = (self.weight @ by_document).T
        gain = matthews(hit, said_n, fired, n) - matthews(rival_hit, rival_n, fired, n)
        return bool(np.quantile(gain, 0.025) > 0)
