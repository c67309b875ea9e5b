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
    """Uniform over the orthogonal group: QR of a Gaussian matrix, signs of the diagonal put into Q.

    Source: "How to Generate Random Matrices from the Classical Compact Groups".
    """
    gaussian = torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, device="cpu")
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

    Directions are told apart by four random projections: neighbours in the order of the first are the same where all four
    agree within 1e-5, which is above rounding in float32.
    """
    norms = columns.norm(dim=0)
    live = (norms > 0).nonzero()[:, 0]
    probe = torch.randn(4, len(columns), generator=torch.Generator().manual_seed(1), device="cpu").to(columns)
    code = (probe @ columns[:, live]) / norms[live]
    code = code * code[0].sign()
    order = code[0].argsort()
    differs = code[:, order].diff(dim=1).abs().amax(0) > 1e-5
    group = torch.cat([differs.new_zeros(1), differs]).cumsum(0)
    first = order.new_full((int(group[-1]) + 1,), len(live)).scatter_reduce(0, group, order, "amin")
    return live[first.sort().values]
