"""Columns that a rotation may be fitted to: what is refused, what is warned of, and what is set aside."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import BasisError, GateLensWarning, NonFiniteError
from ...jacobians import sparsity
from .starts import distinct_columns, gram, polar, qr_rotation

_RANK_TOLERANCE = 1e-12  # of the largest eigenvalue of A A^T; float32 rounding of the columns leaves some 1e-14
FEWEST_COLUMNS = 4  # columns per dimension, under which a fit is fitted to its sample


@dataclass(frozen=True)
class Reduced:
    """Columns without the directions in which nothing varies, and the way back.

    Attributes:
        columns: [r, M], coordinates in the span.
        span: [r, d], orthonormal rows. rest: [d - r, d], orthonormal rows of what is left.
        dead: how many of the rest are coordinates that were zero in every column.
        principal: [r, r], the left singular vectors of `columns` as rows, the largest singular value first.
    """

    columns: Float[Tensor, "r m"]
    span: Float[Tensor, "r d"]
    rest: Float[Tensor, "e d"]
    dead: int
    principal: Float[Tensor, "r r"]

    def embed(self, rotation: Float[Tensor, "r r"]) -> Float[Tensor, "d d"]:
        """A rotation of the span as one of the whole space, the rest as its last rows."""
        return torch.cat([(rotation.double() @ self.span).to(rotation), self.rest.to(rotation)])

    def restrict(self, rotation: Float[Tensor, "d d"]) -> Float[Tensor, "r r"]:
        """The rotation of the span nearest to the rows of a whole one that lie in it most."""
        d, r = self.span.shape[1], len(self.span)
        if rotation.shape != (d, d):
            raise BasisError(
                f"the start must be a rotation of all {d} dimensions, [{d}, {d}]; got {tuple(rotation.shape)}"
            )
        if not torch.isfinite(rotation).all():
            raise NonFiniteError("the start holds NaN or infinity; expected a rotation, or the name of one")
        within = rotation.double().to(self.span.device) @ self.span.T
        most = within.norm(dim=1).argsort(descending=True, stable=True)[:r].sort().values
        return polar(within[most]).to(self.columns)


def check_columns(columns: Float[Tensor, "..."]) -> Float[Tensor, "d m"]:
    """The columns in float32 or float64, at a root mean square of 1.

    Raises:
        BasisError: not a matrix, empty, or all zero.
        NonFiniteError: NaN or infinity, with the first column that holds one.
    """
    if columns.ndim != 2 or 0 in columns.shape:
        raise BasisError(
            f"a rotation is fitted to a matrix of columns [d, M]; got shape {tuple(columns.shape)}. "
            "Stack the columns of all Jacobians side by side (`jacobian_columns` does)"
        )
    if not torch.isfinite(columns).all():
        column = int((~torch.isfinite(columns).all(0)).nonzero()[0])
        raise NonFiniteError(
            f"column {column} of {columns.shape[1]} holds NaN or infinity; expected finite Jacobian columns"
        )
    if columns.dtype not in (torch.float32, torch.float64):
        columns = columns.float()
    rms = columns.square().mean(dtype=torch.float64).sqrt()
    if not rms > 0:
        raise BasisError(
            "every column is zero: a zero Jacobian has no directions to rotate. Look at the segment and its inputs"
        )
    return columns / rms.to(columns)


def reduce(columns: Float[Tensor, "d m"]) -> Reduced:
    """Set dead coordinates aside, then directions without energy (warned of: the stack is rank-deficient)."""
    d = len(columns)
    eye = torch.eye(d, dtype=torch.float64, device=columns.device)
    alive = columns.ne(0).any(1)
    dead = int((~alive).sum())
    live = columns[alive]
    values, vectors = torch.linalg.eigh(gram(live))
    null = int((values <= _RANK_TOLERANCE * values[-1]).sum())
    if null == 0:
        return Reduced(live, eye[alive], eye[~alive], dead, vectors.flip(1).T.to(live).contiguous())
    warnings.warn(
        f"the columns span {len(live) - null} of {len(live)} live dimensions (from {columns.shape[1]} columns): the other "
        f"{null} rows of the rotation are arbitrary and are left out of the fit. Give more inputs",
        GateLensWarning,
        stacklevel=4,
    )
    lost, span = vectors.T[:null], vectors.T[null:]
    rest = torch.cat([lost @ eye[alive], eye[~alive]])
    by_energy = torch.eye(len(span), dtype=live.dtype, device=live.device).flip(0)
    return Reduced(span.to(live) @ live, span @ eye[alive], rest, dead, by_energy)


def warn_of_few(columns: Float[Tensor, "n m"]) -> None:
    """Warn when there are too few columns, or too few directions among them, for the fit to mean anything."""
    n, m = columns.shape
    if m < FEWEST_COLUMNS * n:
        warnings.warn(
            f"{m} columns for {n} dimensions: under {FEWEST_COLUMNS * n} a rotation fits its sample and does not carry over to "
            f"other inputs. Give at least {16 * n} (64 inputs or more)",
            GateLensWarning,
            stacklevel=4,
        )
        return
    distinct = len(distinct_columns(columns[:, : 64 * n]))
    if distinct <= 2 * n:
        l1 = sparsity(qr_rotation(columns) @ columns, eps=()).l1
        warnings.warn(
            f"the {m} columns point in only {distinct} directions in {n} dimensions, as for the input side of a gated linear "
            f"map: zeros come for nothing there (a plain QR gives mean |y| {l1:.3f}) and the rotation is not unique. "
            "Compare with that figure",
            GateLensWarning,
            stacklevel=4,
        )


@contextmanager
def quiet():
    """Without our own warnings: for what is meant to be poor, or was said already."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GateLensWarning)
        yield
