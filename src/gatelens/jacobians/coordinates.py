"""Derivatives of a basis: how features move with activations (encode'), and activations with features (decode')."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..basis.linear import Basis, affine_encoder, basis_width, directions
from .products import pull_through, push_through


def feature_count(basis: Basis | None, width: int, like: Tensor) -> int:
    """The number of features; the width itself without a basis."""
    return width if basis is None else basis_width(basis, width, like)


def feature_directions(basis: Basis | None, width: int, like: Tensor) -> Float[Tensor, "f d"]:
    """What a unit of each feature adds to the activations; the identity without a basis."""
    if basis is None:
        return torch.eye(width, dtype=like.dtype, device=like.device)
    return directions(basis, feature_count(basis, width, like)).to(like)


def encode_push(
    basis: Basis | None, y: Float[Tensor, "rows d"], tangents: Float[Tensor, "rows d k"]
) -> Float[Tensor, "rows f k"]:
    """encode'(y) v: how the features move when the activations do."""
    if basis is None:
        return tangents
    matrix = affine_encoder(basis)
    return push_through(basis.encode, y, tangents) if matrix is None else matrix.to(tangents) @ tangents


def encode_pull(
    basis: Basis | None, y: Float[Tensor, "rows d"], cotangents: Float[Tensor, "#rows f k"]
) -> Float[Tensor, "#rows d k"]:
    """encode'(y)^T u: which activations feed given features."""
    if basis is None:
        return cotangents
    matrix = affine_encoder(basis)
    return pull_through(basis.encode, y, cotangents) if matrix is None else matrix.T.to(cotangents) @ cotangents
