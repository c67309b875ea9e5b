"""L_{2,d}-spectral radius dimensionality reduction (LSRDR) of a stack of real matrices.

Definitions by J. Van Name ("Empirical observations of L_{2,d} spectral radii", 2023; "Spectral radii dimensionality
reduction computed without gradient calculations", 2025). For A_1..A_r [n, n], find X_1..X_r [d, d] that maximise

    similarity = rho(sum A_j (x) X_j) / sqrt(rho(sum A_j (x) A_j) rho(sum X_j (x) X_j))         in [0, 1]

rho(sum A_j (x) X_j) is the dominant eigenvalue of U -> sum A_j U X_j^T; with its right and left eigenvectors U, Y and the
positive ones V, L of the same map made of X alone, the gradient vanishes where X_j ~ L^-1 (Y^T A_j U) V^-1. With
R = L^-1 Y^T and S = U V^-1 that is X_j ~ R A_j S, so P = S (R S)^-1 R is the (oblique) projection that the reduction
keeps. The ascent moves from X_j towards that point: the gradient, preconditioned by L^-1 and V^-1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import DataError, NonFiniteError


@dataclass(frozen=True)
class Reduction:
    """One LSRDR.

    That starts agree is no evidence of structure: stacks of Gaussian matrices agree as well (to .998 over the seeds of
    `gatelens bench invariants`). `neuron_clusters` measures what a shuffled stack gives.

    Attributes:
        matrices: X, [r, d, d], scaled to rho(sum X_j (x) X_j) = 1.
        projection: P, [n, n], idempotent of rank d; the same for every choice of coordinates of X.
        similarity: of the reduction with the stack, in [0, 1]; the largest over the starts.
        agreement: for every other start that came within 1e-3 of that similarity, the cosine of its P with this one.
        restarts: similarities of all starts, the largest first.
        converged: whether the best start stopped by itself within the given number of steps.
    """

    matrices: Float[Tensor, "r d d"]
    projection: Float[Tensor, "n n"]
    similarity: float
    agreement: tuple[float, ...]
    restarts: tuple[float, ...]
    converged: bool

    def __repr__(self) -> str:
        r, d, _ = self.matrices.shape
        tied = len(self.agreement) + 1
        agree = ""
        if self.agreement:
            agree = f", their projections agree to {min(self.agreement):.4f} (as those of unstructured matrices do)"
        return (
            f"Reduction({r} matrices {self.projection.shape[0]} -> {d}: similarity {self.similarity:.4f}; "
            f"{tied} of {len(self.restarts)} starts reach it{agree}{'' if self.converged else '; not converged'})"
        )


@dataclass(frozen=True)
class LSRDR:
    """Settings of the reduction.

    Attributes:
        d: the width to reduce to.
        starts: random compressions to start from; the best similarity wins, and how the others agree is kept.
        steps: at most so many ascent steps a start.
        tolerance: a start stops when the similarity's relative gain stays below this.
        seed: of the starts.
    """

    d: int
    starts: int = 4
    steps: int = 300
    tolerance: float = 1e-9
    seed: int = 0

    def fit(self, stack: Float[Tensor, "r n n"]) -> Reduction:
        """Reduce a stack of square matrices (a bilinear layer's slices, Jacobians of a square segment).

        Raises:
            DataError: d outside 1..n-1, or a stack whose products vanish (all zero, or jointly nilpotent).
            NonFiniteError: NaN or infinity in the stack.
        """
        a = checked_stack(stack)
        n = a.shape[1]
        if not 1 <= self.d < n:
            raise DataError(f"expected a width d from 1 to {n - 1} for matrices of width {n}, got d = {self.d}")
        scale = _radius_of_squares(a)
        if not scale > 1e-12 * float((a**2).sum()):
            raise DataError(
                "the spectral radius of the stack is zero: the matrices are zero or jointly nilpotent, so no reduction is "
                "defined. For maps between different spaces give J^T J, or a stack with a square form"
            )
        a = a / scale**0.5
        generator = torch.Generator().manual_seed(self.seed)
        runs = sorted((self._ascend(a, generator) for _ in range(self.starts)), key=lambda run: -run.similarity)
        best = runs[0]
        tied = tuple(cosine(best.projection, x.projection) for x in runs[1:] if x.similarity > best.similarity - 1e-3)
        return Reduction(
            best.x, best.projection, best.similarity, tied, tuple(x.similarity for x in runs), best.converged
        )

    def _ascend(self, a: Tensor, generator: torch.Generator) -> _Run:
        """One ascent from a random compression Q A Q^T; the similarity never falls."""
        frame = torch.randn(a.shape[1], self.d, generator=generator, dtype=a.dtype)
        frame = torch.linalg.qr(frame).Q
        state = _State.of(a, frame.T @ a @ frame, frame, torch.eye(self.d, dtype=a.dtype), steps=100)
        still, converged = 0, False
        for _ in range(self.steps):
            following = state.better(a)
            gain = following.value - state.value
            state = following
            still = still + 1 if gain < self.tolerance else 0
            if still >= 3:
                converged = True
                break
        state = _State.of(a, state.x, state.right, state.own_right, state.left, steps=200)
        return _Run(state.x, state.projection(), min(state.value, 1.0), converged)


@dataclass(frozen=True)
class _Run:
    x: Tensor
    projection: Tensor
    similarity: float
    converged: bool


@dataclass(frozen=True)
class _State:
    """X scaled to rho(sum X (x) X) = 1, the eigenvectors at X, and the similarity (the stack is scaled likewise)."""

    x: Tensor
    right: Tensor  # U [n, d]
    left: Tensor  # Y [n, d]
    own_right: Tensor  # V [d, d], positive
    own_left: Tensor  # L [d, d], positive
    value: float

    @classmethod
    def of(cls, a: Tensor, x: Tensor, warm: Tensor, own: Tensor, left: Tensor | None = None, steps: int = 12) -> _State:
        radius, own_right = dominant(x, x, own, steps)
        x = x / max(radius, 1e-300) ** 0.5
        _, own_left = dominant(x.mT, x.mT, own_right, steps)
        value, right = dominant(a, x, warm, steps)
        _, left = dominant(a.mT, x.mT, warm if left is None else left, steps)
        return cls(x, right, left, own_right, own_left, value)

    def maps(self) -> tuple[Tensor, Tensor]:
        """R = L^-1 Y^T [d, n] and S = U V^-1 [n, d]."""
        d = len(self.own_left)
        ridge = 1e-12 * torch.eye(d, dtype=self.x.dtype)
        reduce = torch.linalg.solve(self.own_left + ridge * self.own_left.norm(), self.left.T)
        expand = torch.linalg.solve(self.own_right.T + ridge * self.own_right.norm(), self.right.T).T
        return reduce, expand

    def target(self, a: Tensor) -> Tensor:
        """Where the gradient would vanish, were the eigenvectors to stay as they are."""
        reduce, expand = self.maps()
        x = reduce @ a @ expand
        x = x / max(dominant(x, x, self.own_right, 12)[0], 1e-300) ** 0.5
        return x if float((x * self.x).sum()) >= 0 else -x

    def better(self, a: Tensor) -> _State:
        """The first of a few shortening steps towards the target that raises the similarity; else itself, refined."""
        target = self.target(a)
        for t in (1.0, 0.5, 0.2, 0.05):
            moved = self.x + t * (target - self.x)
            tried = _State.of(a, moved, self.right, self.own_right, self.left)
            if tried.value > self.value:
                return tried
        return self

    def projection(self) -> Tensor:
        reduce, expand = self.maps()
        return expand @ torch.linalg.solve(reduce @ expand, reduce)


def checked_stack(stack: Float[Tensor, "r n n"]) -> Float[Tensor, "r n n"]:
    """The stack in float64, refused when it is empty or not finite."""
    if stack.numel() == 0:
        raise DataError(f"expected a stack of at least one square matrix, got shape {tuple(stack.shape)}")
    if not torch.isfinite(stack).all():
        raise NonFiniteError("the stack holds NaN or infinity; look at the weights or Jacobians that it was made of")
    return stack.double()


def dominant(a: Tensor, x: Tensor, start: Tensor, steps: int) -> tuple[float, Tensor]:
    """Dominant eigenvalue (in size) and unit eigenvector [n, d] of U -> sum_j A_j U X_j^T, by power iteration from `start`.

    Shapes: a [r, n, n], x [r, d, d], start [n, d].
    Each step averages the image with the vector, which damps eigenvalues that only turn.
    """
    u = start / start.norm().clamp_min(1e-300)
    value = 0.0
    for _ in range(steps):
        image = (a @ u @ x.mT).sum(0)
        value = float((u * image).sum())
        u = image + abs(value) * u
        u = u / u.norm().clamp_min(1e-300)
    return abs(value), u


def spectral_similarity(a: Float[Tensor, "r n n"], x: Float[Tensor, "r d d"], steps: int = 500) -> float:
    """L_2-spectral radius similarity of two stacks of as many matrices, in [0, 1]; widths may differ."""
    a, x = checked_stack(a), checked_stack(x)
    start = torch.randn(a.shape[1], x.shape[1], generator=torch.Generator().manual_seed(0), dtype=a.dtype)
    both = dominant(a, x, start, steps)[0]
    return min(both / max((_radius_of_squares(a) * _radius_of_squares(x)) ** 0.5, 1e-300), 1.0)


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of two matrices under the Frobenius product."""
    return float((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-300))


def _radius_of_squares(a: Float[Tensor, "r n n"]) -> float:
    return dominant(a, a, torch.eye(a.shape[1], dtype=a.dtype), 300)[0]
