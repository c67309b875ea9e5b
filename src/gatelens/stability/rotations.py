"""Whether a rotation keeps its worth when the network changes: the old one and a refitted one, on the new Jacobians."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ..bases.rotation import FittedRotation, Invertible, fit_rotation
from ..errors import BasisError
from .matching import Matching, match_directions


@dataclass(frozen=True)
class GainKept:
    """Mean |entry| of Jacobian columns (each input's at root mean square 1), lower is sparser, on held-out columns.

    Attributes:
        neurons: in the neurons' coordinates. old, refitted: in the old rotation's, and in one refitted to the new network.
        random: in a random rotation's: the null.
        matching: rows of the old against the refitted rotation, weighted by the energy along them.
    """

    neurons: float
    old: float
    refitted: float
    random: float
    matching: Matching

    @property
    def share(self) -> float:
        """The old rotation's gain over the neurons as a share of the refitted one's; 1 keeps all, 0 is as good as neurons."""
        return (self.neurons - self.old) / (self.neurons - self.refitted)

    @property
    def random_share(self) -> float:
        return (self.neurons - self.random) / (self.neurons - self.refitted)

    def __repr__(self) -> str:
        return (
            f"GainKept({self.share:.3f} of the gain (random rotation {self.random_share:.2f}); mean |entry|: neurons "
            f"{self.neurons:.4f}, old {self.old:.4f}, refitted {self.refitted:.4f}, random {self.random:.4f}; {self.matching})"
        )


def gain_kept(
    old: Float[Tensor, "f e"],
    columns: Float[Tensor, "d m"],
    held_out: Float[Tensor, "h n"],
    fit: Callable[[Tensor], FittedRotation | Invertible] = fit_rotation,
    seed: int = 0,
) -> GainKept:
    """Judge an old rotation on a changed network's Jacobian columns, against one refitted to `columns`.

    All widths must be the same.

    Args:
        old: rows are directions. held_out: columns at inputs that `columns` has not; all four figures are taken there.

    Raises:
        BasisError: a rotation of another width, or a refit that gains nothing, so that no share is defined.
    """
    if old.shape[1] != len(columns) or len(columns) != len(held_out):
        raise BasisError(
            f"a rotation of width {old.shape[1]} cannot be judged on Jacobians of width {len(columns)} and {len(held_out)}: "
            "they are of different models or hook points"
        )
    refitted = fit(columns).matrix
    random = fit_rotation(columns, "random", seed=seed).matrix
    energy = (old @ held_out).square().sum(1)
    found = GainKept(
        float(held_out.abs().mean()),
        float((old @ held_out).abs().mean()),
        float((refitted @ held_out).abs().mean()),
        float((random @ held_out).abs().mean()),
        match_directions(old, refitted, energy, seed),
    )
    if not found.refitted < found.neurons - 1e-6:
        raise BasisError(
            f"the refitted rotation gains nothing over the neurons here ({found.refitted:.4f} against {found.neurons:.4f}), "
            "so no share of the gain is defined"
        )
    return found
