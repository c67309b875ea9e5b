"""Products of two input features: which pairs are worth one, and what they are over rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..codes.rows import Codes, scipy_csr, weighted_rows
from ..errors import BasisError
from .rows import Sample

_SHUFFLES = 50


@dataclass(frozen=True)
class Products:
    """p = f_first f_second / (typical_first typical_second): 1 where both are on as strongly as they usually are.

    Attributes:
        first, second: [p] the features of each pair, first < second. typical: [m] each feature's mean where it is on.
    """

    first: Int[Tensor, " p"]
    second: Int[Tensor, " p"]
    typical: Float[Tensor, " m"]

    def __len__(self) -> int:
        return len(self.first)

    def of(self, codes: Codes) -> Codes:
        """The products over rows of features."""
        from scipy.sparse import csr_matrix

        f = scipy_csr(codes).tocsc()
        size = (self.typical[self.first] * self.typical[self.second]).double().numpy()
        p: Any = csr_matrix(f[:, self.first.numpy()].multiply(f[:, self.second.numpy()]))
        p.data /= size[p.indices]
        parts = (torch.from_numpy(part) for part in (p.indptr.astype(np.int64), p.indices.astype(np.int64), p.data))
        crow, col, value = parts
        return Codes(crow, col, value.to(codes.value.dtype), len(self))


@dataclass(frozen=True)
class Candidates:
    """Every pair that is on together often enough, and how much of the residuals it would explain by itself.

    Attributes:
        score: [p] |sum p r|^2 / sum p^2, over natural rows, edits and differences with the weights of the loss: by how much the
            loss falls where this product alone is added.
    """

    products: Products
    score: Float[Tensor, " p"]

    @classmethod
    def of(cls, left: Sample, typical: Float[Tensor, " m"], together: int, lam: float) -> Candidates:
        """All pairs that are on together in at least so many natural rows; `lam` weighs the differences of what is left."""
        scorer = _Scorer(left, typical, together, lam)
        found = [scorer.with_later(i) for i in range(left.natural[0].width)]
        second, score = (torch.cat([part[k] for part in found]) for k in (0, 1))
        first = torch.repeat_interleave(torch.tensor([len(part[0]) for part in found]))
        return cls(Products(first, second, typical), score)

    def best(self, count: int, together: int) -> Products:
        """The pairs of the highest scores.

        Raises:
            BasisError: there are not so many.
        """
        if count > len(self.score):
            raise BasisError(
                f"pairs = {count} products were asked for, {len(self.score)} pairs of input features are on together in at least "
                f"{together} of the rows. Ask for fewer pairs, lower min_together, or give more rows"
            )
        chosen = self.score.topk(count).indices.sort().values
        return Products(self.products.first[chosen], self.products.second[chosen], self.products.typical)

    def shuffled(self, chosen: Products, seed: int) -> Products:
        """As many pairs of the same features with the partners permuted: the null. Only pairs that are on together count, of which
        the chosen ones are left out; where no permutation gives one, any such pair does.

        Raises:
            BasisError: there are not so many others.
        """
        if 2 * len(chosen) > len(self.score):
            raise BasisError(
                f"the null of {len(chosen)} products needs as many other pairs that are on together; {len(self.score) - len(chosen)} "
                "are left. Ask for fewer pairs, lower min_together, or give more rows"
            )
        draw = np.random.default_rng(seed)
        m = len(chosen.typical)
        every, taken = ((p.first * m + p.second).numpy() for p in (self.products, chosen))
        free = np.setdiff1d(every, taken)
        a, b = chosen.first.numpy(), chosen.second.numpy().copy()
        open_, found = np.arange(len(a)), np.zeros(0, np.int64)
        for _ in range(_SHUFFLES):
            draw.shuffle(open_)
            b[np.sort(open_)] = b[open_]
            pair = np.minimum(a, b)[open_] * m + np.maximum(a, b)[open_]
            good = np.isin(pair, free) & ~np.isin(pair, found)
            good &= np.isin(np.arange(len(pair)), np.unique(pair, return_index=True)[1])
            found, open_ = np.concatenate([found, pair[good]]), open_[~good]
        rest = draw.permutation(np.setdiff1d(free, found))
        found = np.sort(np.concatenate([found, rest[: len(open_)]]))
        return Products(torch.from_numpy(found // m), torch.from_numpy(found % m), chosen.typical)


class _Scorer:
    """Scores of one feature's pairs with all later ones at a time: a table of all pairs is never made."""

    def __init__(self, sample: Sample, typical: Float[Tensor, " m"], together: int, lam: float):
        self.together, self.lam = together, lam
        codes, left = sample.natural
        self.natural = len(codes)
        scale = 1 / typical.clamp_min(1e-12).double().numpy()
        f = _scaled(codes, scale)
        self.left, self.both = left, None
        if sample.edited is not None:
            from scipy.sparse import vstack

            edited, change = _scaled(sample.edited[0], scale), lam * (sample.edited[1] - left)
            self.left = torch.cat([left - change, sample.edited[1] + change])
            self.both = f.multiply(edited).tocsr()
            self.both_columns = self.both.tocsc()
            f = vstack([f, edited], format="csr")
        self.f, self.columns = f, f.tocsc()

    def with_later(self, i: int) -> tuple[Int[Tensor, " found"], Float[Tensor, " found"]]:
        """The features after i that are on with it often enough, and the scores of these pairs."""
        span = slice(self.columns.indptr[i], self.columns.indptr[i + 1])
        rows, value = self.columns.indices[span], self.columns.data[span]
        part = self.f[rows]
        local = np.repeat(np.arange(len(rows)), np.diff(part.indptr))
        natural = rows[local] < self.natural
        count = np.bincount(part.indices[natural], minlength=part.shape[1])
        count[: i + 1] = 0
        partners = np.flatnonzero(count >= self.together)
        kept = np.flatnonzero(np.isin(part.indices, partners))
        kept = kept[np.argsort(part.indices[kept], kind="stable")]
        product = part.data[kept] * value[local[kept]]
        sizes = np.bincount(np.searchsorted(partners, part.indices[kept]), minlength=len(partners))
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]) if len(partners) else np.zeros(0, np.int64)
        explained = weighted_rows(
            self.left[torch.from_numpy(rows.astype(np.int64))],
            torch.from_numpy(local[kept]),
            torch.from_numpy(product).to(self.left),
            torch.from_numpy(starts.astype(np.int64)),
        )
        power = np.add.reduceat(np.square(product), starts) if len(partners) else np.zeros(0)
        power = self._with_differences(power, i, partners)
        score = explained.double().square().sum(1) / torch.from_numpy(power).clamp_min(1e-12)
        return torch.from_numpy(partners), score

    def _with_differences(self, power: np.ndarray, i: int, partners: np.ndarray) -> np.ndarray:
        """sum p^2 + sum p'^2 + lam sum (p' - p)^2, from the first two."""
        if self.both is None:
            return power
        span = slice(self.both_columns.indptr[i], self.both_columns.indptr[i + 1])
        shared = self.both[self.both_columns.indices[span]].T @ self.both_columns.data[span]
        return (1 + self.lam) * power - 2 * self.lam * shared[partners]


def _scaled(codes: Codes, scale: np.ndarray) -> Any:
    """The features over their typical values, as scipy's CSR."""
    f = scipy_csr(codes)
    f.data = f.data * scale[f.indices]
    f.sort_indices()
    return f
