"""Nested subspaces of a hook point, the directions that matter most first: by effect, by effect and spread, by variance.

Active subspace: top eigenvectors of E[J^T J] (Constantine, "Active Subspaces", 2015). The oblique variant weighs effect by
how far the activations really go: with covariance C = L L^T and Q the top eigenvectors of L^T E[J^T J] L, it keeps
P = L Q Q^T L^-1, a projection that is not orthogonal.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import BasisError, DataError
from .rank import covariance_roots


@dataclass(frozen=True)
class Subspace:
    """d nested subspaces of a hook point: the k-dimensional one keeps P_k = write[:, :k] read[:k], and the mean elsewhere.

    Attributes:
        read: [d, d] rows are read off the activation. write: [d, d] columns are put back; read @ write = 1.
        mean: [d] where the rest is kept.
        label: how it was made. note: what had to be regularised; "" for nothing.
    """

    read: Float[Tensor, "d d"]
    write: Float[Tensor, "d d"]
    mean: Float[Tensor, " d"]
    label: str
    note: str = ""

    @property
    def dimensions(self) -> int:
        return len(self.mean)

    def check(self, k: int) -> None:
        """Refuse a k that the hook point does not have."""
        check_kept(k, self.dimensions)

    def coordinates(self, x: Float[Tensor, "*rows d"], k: int) -> Float[Tensor, "*rows k"]:
        """The k numbers that are kept of each row."""
        self.check(k)
        return (x - self.mean) @ self.read[:k].T

    def project(self, x: Float[Tensor, "*rows d"], k: int) -> Float[Tensor, "*rows d"]:
        """mean + P_k (x - mean)."""
        return self.mean + self.coordinates(x, k) @ self.write[:, :k].T

    def __repr__(self) -> str:
        return f"Subspace({self.label}, {self.dimensions} dimensions{'; ' + self.note if self.note else ''})"


def check_kept(k: int, d: int) -> None:
    """Refuse to keep k of d dimensions where there are not so many.

    Raises:
        BasisError: k outside 0..d.
    """
    if not 0 <= k <= d:
        raise BasisError(f"expected k from 0 to {d} dimensions, got {k}: the hook point is no wider")


def active_subspace(sensitivity: Float[Tensor, "d d"], x: Float[Tensor, "rows d"]) -> Subspace:
    """By effect on what follows: eigenvectors of E[J^T J], from `output_sensitivity` or `segment_sensitivity`."""
    _check_sensitivity(sensitivity)
    _, vectors = torch.linalg.eigh(sensitivity.double())
    return _orthogonal(vectors.flip(1), x, "active subspace")


def oblique_subspace(sensitivity: Float[Tensor, "d d"], x: Float[Tensor, "rows d"]) -> Subspace:
    """By effect times spread; the covariance is that of `x`, regularised where it is singular (the note says so)."""
    _check_sensitivity(sensitivity)
    root, inverse, note = covariance_roots(x)
    _, vectors = torch.linalg.eigh(root @ sensitivity.double() @ root)
    vectors = vectors.flip(1)
    read, write = (vectors.T @ inverse).to(x.dtype), (root @ vectors).to(x.dtype)
    return Subspace(read, write, x.mean(0), "active subspace, oblique by covariance", note)


def principal_subspace(x: Float[Tensor, "rows d"]) -> Subspace:
    """By variance alone: principal components."""
    centred = x.double() - x.double().mean(0)
    if not float((centred**2).sum()) > 1e-14 * float((x.double() ** 2).sum()):
        raise DataError(
            f"the activations are constant over {len(x)} rows, so they have no principal components. Give varied inputs"
        )
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    return _orthogonal(vectors.flip(1), x, "principal components")


def random_subspace(x: Float[Tensor, "rows d"], seed: int = 0) -> Subspace:
    """Haar-random directions: the null."""
    d = x.shape[1]
    q, r = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    return _orthogonal(q * r.diagonal().sign(), x, "random directions")


def _orthogonal(vectors: Float[Tensor, "d d"], x: Float[Tensor, "rows d"], label: str) -> Subspace:
    columns = vectors.to(x.dtype)
    return Subspace(columns.T, columns, x.mean(0), label)


def _check_sensitivity(sensitivity: Float[Tensor, "d d"]) -> None:
    if not torch.isfinite(sensitivity).all():
        raise DataError("E[J^T J] holds NaN or infinity; look at the inputs and weights it was measured on")
    if not float(sensitivity.diagonal().sum()) > 0:
        raise DataError(
            "E[J^T J] is zero (rank-0 Jacobians): nothing that follows depends on this hook point on these inputs, "
            "so it has no active subspace. Look for dead units, or take another hook point"
        )
