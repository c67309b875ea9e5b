"""Linear bases: the neurons themselves, principal components, any rotation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..activations.collecting import hook_names
from ..errors import BasisError, ConfigError
from ..lazy import shows_itself
from ..models import host, place_of
from ..segments import Segment
from .recipe import AtWork, RecipeDefaults, check_there
from .recipe import Basis as Basis
from .recipe import BasisRecipe as BasisRecipe


@shows_itself
@dataclass(frozen=True)
class Rotation:
    """An orthogonal change of coordinates: f = R (x - mean), x = R^T f + mean.

    Attributes:
        matrix: R, [f, d] with orthonormal rows; row i is feature i's direction. f < d projects.
        mean: [d], subtracted before; None for none.
        label: how it was made, for reports.

    Examples:
        >>> import torch
        >>> swap = gl.Rotation(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        >>> swap.encode(torch.tensor([[3.0, 4.0]]))
        tensor([[4., 3.]])
    """

    matrix: Float[Tensor, "f d"]
    mean: Float[Tensor, " d"] | None = None
    label: str = "rotation"
    is_linear = True

    def encode(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows f"]:
        """R (x - mean) for each row."""
        x = x if self.mean is None else x - self.mean
        return x.clone() if self.is_identity else x @ self.matrix.T

    @cached_property
    def is_identity(self) -> bool:
        """The coordinates are the model's own: there is nothing to multiply."""
        f, d = self.matrix.shape
        return f == d and bool(
            torch.equal(self.matrix, torch.eye(f, dtype=self.matrix.dtype, device=self.matrix.device))
        )

    def decode(self, f: Float[Tensor, "rows f"]) -> Float[Tensor, "rows d"]:
        """R^T f + mean for each row."""
        x = f.clone() if self.is_identity else f @ self.matrix
        return x if self.mean is None else x + self.mean

    def __repr__(self) -> str:
        f, d = self.matrix.shape
        return f"Rotation({self.label}: {d} -> {f})"


@dataclass(frozen=True)
class Neurons(RecipeDefaults):
    """The basis that the model itself uses: feature i is neuron i.

    Examples:
        >>> gl.Neurons().fit(segments, acts)["hook_resid"]
        Rotation(neurons: 64 -> 64)
    """

    def fit(self, segments: Sequence[Segment], acts: Mapping[str, Tensor]) -> dict[str, Basis]:
        """hook name -> the identity, at both ends of every segment."""
        check_there(acts, hook_names(segments))
        return {h: neurons(acts[h].shape[1], acts[h]) for h in hook_names(segments)}


def neurons(width: int, like: Tensor) -> Rotation:
    """The identity, on the device and in the precision of some activations."""
    return Rotation(torch.eye(width, dtype=like.dtype, device=like.device), label="neurons")


@dataclass(frozen=True)
class PCA(RecipeDefaults):
    """Principal components of the activations, the largest variance first.

    Attributes:
        components: how many to keep; None for all.

    Raises:
        ConfigError: fewer than one.

    Examples:
        >>> few = gl.PCA(components=8).fit(segments, acts)["hook_resid"]
        >>> few.encode(unseen["hook_resid"]).shape
        torch.Size([2000, 8])
    """

    components: int | None = None

    def __post_init__(self) -> None:
        if self.components is not None and self.components < 1:
            raise ConfigError(f"PCA: components must be at least 1, or None for all; got {self.components}. Raise it")

    def fit(self, segments: Sequence[Segment], acts: Mapping[str, Tensor]) -> dict[str, Basis]:
        """hook name -> principal components, at both ends of every segment."""
        return host({h: self._fit(x) for h, x in AtWork(segments, acts).at(hook_names(segments))})

    def shape_at(self, hook: str, width: int) -> tuple[int, float]:
        features = min(self.components or width, width)
        return features, float(features)

    def _fit(self, x: Float[Tensor, "rows d"]) -> Rotation:
        mean = x.mean(0, dtype=torch.float64)
        centred = x.double() - mean
        _, vectors = torch.linalg.eigh(centred.T @ centred)
        rows = vectors.flip(1).T[: self.components]
        return Rotation(rows.to(x.dtype), mean.to(x.dtype), "pca")


def basis_width(basis: Basis, d_in: int, like: Tensor | None = None) -> int:
    """The number of features of a basis; one that does not say so encodes a row of zeros, in the precision of `like`."""
    config: Any = getattr(basis, "cfg", None)
    if hasattr(config, "d_sae"):
        return int(config.d_sae)
    known = _dictionary(basis)
    if known is not None:
        return len(known)
    with torch.no_grad():
        row = torch.zeros(1, d_in, device=place_of(basis)) if like is None else like.new_zeros(1, d_in)
        return int(basis.encode(row).shape[-1])


def check_width(basis: Basis, hook: str, d: int) -> None:
    """Refuse a basis that was made for another width, before any forward pass."""
    config: Any = getattr(basis, "cfg", None)
    matrix: Any = getattr(basis, "matrix", None)
    d_in = getattr(config, "d_in", None) or (matrix.shape[1] if matrix is not None else d)
    if d_in != d:
        raise BasisError(
            f"the basis for {hook} takes vectors of width {d_in}, the hook point has width {d}. "
            "Choose a basis that was made for this hook point of this model"
        )


def directions(basis: Basis, width: int) -> Float[Tensor, "f d"]:
    """What one unit of each feature adds at the hook point: the rows of W_dec, or of a rotation.

    For a basis that is neither, decode is taken to be affine: decode(e_i) - decode(0).
    """
    known = _dictionary(basis)
    if known is not None:
        return known
    with torch.no_grad():
        eye = torch.eye(width, device=place_of(basis))
        return basis.decode(eye) - basis.decode(torch.zeros_like(eye[:1]))


def _dictionary(basis: Basis) -> Float[Tensor, "f d"] | None:
    """The rows of W_dec or of a rotation; None for a basis that has neither."""
    held = (getattr(basis, name, None) for name in ("W_dec", "matrix"))
    return next((matrix.detach() for matrix in held if isinstance(matrix, Tensor)), None)


def encoder_directions(basis: Basis) -> Float[Tensor, "d f"]:
    """What each feature reads from the activation: the columns of W_enc, or a rotation transposed.

    Raises:
        BasisError: for a basis with neither.
    """
    if (known := encoder_weights(basis)) is not None:
        return known
    raise BasisError(
        f"{type(basis).__name__} has neither W_enc nor matrix: its encoder's directions are not known. Use a solver that needs no weights"
    )


def encoder_weights(basis: Basis | None) -> Float[Tensor, "d f"] | None:
    """W_enc, or a rotation transposed; None for a basis with neither."""
    encoder, matrix = getattr(basis, "W_enc", None), getattr(basis, "matrix", None)
    if isinstance(encoder, Tensor):
        return encoder.detach()
    return matrix.detach().T if isinstance(matrix, Tensor) else None


def affine_encoder(basis: Basis | None) -> Float[Tensor, "f d"] | None:
    """The matrix of an encoder that is affine, as a basis says by `is_linear`; None for any other."""
    weights = encoder_weights(basis) if getattr(basis, "is_linear", False) else None
    return None if weights is None else weights.T


def basis_kind(basis: Any) -> str:
    """What a basis is called in reports."""
    label, config = getattr(basis, "label", None), getattr(basis, "cfg", None)
    if label:
        return str(label)
    architecture = getattr(config, "architecture", None)
    return f"sae:{architecture()}" if callable(architecture) else type(basis).__name__


def published_as(basis: Any) -> str:
    """The name under which Neuronpedia shows a published dictionary, from its settings; "" for any other basis."""
    config = getattr(basis, "cfg", None)
    name = getattr(getattr(config, "metadata", None), "neuronpedia_id", None) or getattr(config, "neuronpedia_id", None)
    return name if isinstance(name, str) else ""
