"""What a basis is, and what a recipe is; what more is asked of them has defaults (`recipe`, `output`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from ..segments import Segment


@runtime_checkable
class Basis(Protocol):
    """Coordinates at a hook point. sae-lens SAEs satisfy it as they are."""

    def encode(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows f"]: ...

    def decode(self, f: Float[Tensor, "rows f"]) -> Float[Tensor, "rows d"]: ...


@runtime_checkable
class BasisRecipe(Protocol):
    """Settings from which bases are fitted, all segments at once: rotations of neighbours are coupled."""

    def fit(self, segments: Sequence[Segment], acts: Mapping[str, Tensor]) -> dict[str, Basis]: ...
