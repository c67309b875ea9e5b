"""Subsets: the model's own MLP on every subset of a few features of one row, and the terms of such a table.

Bit j of a subset's place says whether feature j is in it, as everywhere in tables of gates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..gates.harsanyi import dividends

#: subsets that the fit of pairs may look at
CALLS = 2**8


def every_subset(k: int) -> Int[np.ndarray, "subsets k"]:
    """[2^k, k] which features are in each subset."""
    return (np.arange(1 << k)[:, None] >> np.arange(k)) & 1


def on_subsets(
    read: Callable[[Tensor], Tensor], base: Float[Tensor, " d"], steps: Float[Tensor, "k d"], subsets: np.ndarray
) -> Float[np.ndarray, " subsets"]:
    """A value of base + the sum of a subset's steps, for each subset; one batch.

    Args:
        read: rows [n, d] -> the value of each.
    """
    chosen = torch.from_numpy(subsets).to(base)
    with torch.no_grad():
        return read(base + chosen @ steps).double().cpu().numpy()


@dataclass(frozen=True)
class Terms:
    """What a table over all subsets is made of.

    Attributes:
        harsanyi: [2^k] what each set adds beyond all its subsets; exact, the Moebius transform of the table.
        shapley: [k] each feature's share of full less empty: every term divided evenly among its features.
    """

    harsanyi: Float[np.ndarray, " subsets"]
    shapley: Float[np.ndarray, " k"]

    @classmethod
    def of(cls, values: Float[np.ndarray, " subsets"]) -> Terms:
        terms = dividends(values)
        members = every_subset(len(values).bit_length() - 1)
        size = members.sum(1).clip(min=1)
        return cls(terms, (terms / size) @ members)

    def strongest(self, count: int) -> list[tuple[tuple[int, ...], float]]:
        """(features, term) of the largest terms, the empty set's left out."""
        order = np.argsort(-np.abs(self.harsanyi[1:]), kind="stable")[:count] + 1
        return [
            (tuple(j for j in range(len(self.shapley)) if code >> j & 1), float(self.harsanyi[code]))
            for code in order.tolist()
            if self.harsanyi[code] != 0
        ]


@dataclass(frozen=True)
class PairsFit:
    """How far single features and pairs of them go.

    Attributes:
        calls: masked subsets that the fit looked at.
        r2: of its values over all subsets; singles_r2: of single features alone; exact_r2: of the exact terms cut at pairs.
        terms_r2: of its single and pair terms against the exact ones.
    """

    calls: int
    r2: float | None
    singles_r2: float | None
    exact_r2: float | None
    terms_r2: float | None


def fit_pairs(values: Float[np.ndarray, " subsets"], seed: int = 0) -> PairsFit:
    """Single features and pairs by least squares on at most `CALLS` subsets, against the whole table and its exact terms."""
    k = len(values).bit_length() - 1
    members = every_subset(k).astype(np.float64)
    random = np.random.default_rng(seed)
    seen = np.arange(len(values)) if len(values) <= CALLS else random.choice(len(values), CALLS, replace=False)
    singles = np.concatenate([np.ones((len(values), 1)), members], 1)
    first, second = np.triu_indices(k, 1)
    pairs = np.concatenate([singles, members[:, first] * members[:, second]], 1)
    codes = np.concatenate([[0], 1 << np.arange(k), (1 << first) | (1 << second)])
    found = {name: _least_squares(table[seen], values[seen]) for name, table in (("one", singles), ("two", pairs))}
    exact = dividends(values)[codes]
    return PairsFit(
        len(seen),
        _r2(values, pairs @ found["two"]),
        _r2(values, singles @ found["one"]),
        _r2(values, pairs @ exact),
        _r2(exact[1:], found["two"][1:]),
    )


def _least_squares(table: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.linalg.lstsq(table, values, rcond=None)[0]


def _r2(true: np.ndarray, guess: np.ndarray) -> float | None:
    """None where nothing varies."""
    total = float(((true - true.mean()) ** 2).sum()) if len(true) else 0.0
    return 1 - float(((true - guess) ** 2).sum()) / total if total > 1e-24 else None
