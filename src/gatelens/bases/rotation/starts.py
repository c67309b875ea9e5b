"""Where a fit may start, and the rotations that need no fit: identity, random, SVD, QR."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import BasisError, unknown

STARTS = ("svd", "random", "identity", "qr")


def start_rotation(name: str, columns: Float[Tensor, "n m"], seed: int = 0) -> Float[Tensor, "n n"]:
    """A rotation to start from, by name."""
    n = len(columns)
    if name == "svd":
        return svd_rotation(columns)
    if name == "random":
        return random_rotation(n, seed).to(columns)
    if name == "identity":
        return torch.eye(n, dtype=columns.dtype, device=columns.device)
    if name == "qr":
        return qr_rotation(columns)
    raise BasisError(unknown("start", name, STARTS))


def svd_rotation(columns: Float[Tensor, "n m"]) -> Float[Tensor, "n n"]:
    """The left singular vectors as rows, the largest singular value first."""
    _, vectors = torch.linalg.eigh(gram(columns))
    return vectors.flip(1).T.to(columns.dtype).contiguous()


def qr_rotation(columns: Float[Tensor, "n m"]) -> Float[Tensor, "n n"]:
    """Q^T of the first n columns that differ in direction: it makes those triangular, half of their entries zero.

    What a handful of distinct columns gives without any search; a rotation has to beat it to have found something.
    """
    n = len(columns)
    chosen = columns[:, distinct_columns(columns)][:, :n]
    q, _ = torch.linalg.qr(chosen.double(), mode="complete")
    return q.T.to(columns.dtype).contiguous()


def random_rotation(n: int, seed: int = 0) -> Float[Tensor, "n n"]:
    """Uniform over the orthogonal group: QR of a Gaussian matrix, signs of the diagonal put into Q (Mezzadri 2007)."""
    gaussian = torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    q, r = torch.linalg.qr(gaussian)
    return (q * r.diagonal().sign()).float()


def gram(columns: Float[Tensor, "n m"]) -> Float[Tensor, "n n"]:
    """A A^T, in float64."""
    total = torch.zeros(len(columns), len(columns), dtype=torch.float64, device=columns.device)
    for block in columns.split(4096, dim=1):
        total.addmm_(block.double(), block.double().T)
    return total


def polar(matrix: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """The orthogonal matrix nearest to a square one, in float64."""
    u, _, vt = torch.linalg.svd(matrix.double())
    return u @ vt


def distinct_columns(columns: Float[Tensor, "n m"]) -> Tensor:
    """Indices of columns that differ in direction (up to sign and scale), in order of appearance.

    Directions are told apart by four random projections at a precision of 1e-4: enough to count repeated columns.
    """
    norms = columns.norm(dim=0)
    live = (norms > 0).nonzero()[:, 0]
    probe = torch.randn(4, len(columns), generator=torch.Generator().manual_seed(1)).to(columns)
    code = (probe @ columns[:, live]) / norms[live]
    code = (code * code[:1].sign() * 1e4).round().long()
    key = ((code[0] * 1_000_003 + code[1]) * 1_000_003 + code[2]) * 1_000_003 + code[3]
    order = key.argsort(stable=True)
    first = torch.ones_like(order, dtype=torch.bool)
    first[1:] = key[order[1:]] != key[order[:-1]]
    return live[order[first].sort().values]
