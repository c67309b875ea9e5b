"""The data of the picture: normalised |Jacobian| before and after the rotations, for fitted and for held-out inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ...basis.linear import Basis
from ...errors import BasisError
from ...jacobians import feature_jacobian, sparsity
from ...lazy import shows_itself
from ...segments import Segment
from .recipe import JacobianRotation, chosen_rows
from .result import FittedRotation, Invertible, Trace

SHARES = (0.03, 0.1, 0.3, 1.0)
_MOST_ENTRIES = 2**25  # 128 MiB in float32: of wider segments fewer inputs are looked at


@shows_itself
@dataclass(frozen=True, eq=False)
class JacobianPicture:
    """|J| of one fitted and one held-out input, in the model's basis and in the rotated one.

    Attributes:
        matrices: panel -> |J| [out, in] at a root mean square of 1; rows and columns in the order of their energy over
            the inputs, the largest first, the same for the fitted and the held-out input.
        scale: the largest value of the common colour scale: the 99.5 % quantile over all panels.
        shares: panel -> eps -> share of entries above eps, over all inputs of that part (not only the one shown).
        l1: panel -> mean |y| over all inputs of that part.
        inputs: how many inputs (fitted, held out).
        trace: of the output's fit, or the input's where the output was not fitted.
    """

    segment: str
    matrices: dict[str, Float[Tensor, "out in"]]
    scale: float
    shares: dict[str, dict[float, float]]
    l1: dict[str, float]
    inputs: tuple[int, int]
    trace: Trace


def jacobian_picture(
    segment: Segment,
    fitted_rows: Float[Tensor, "rows d_in"],
    held_out: Float[Tensor, "others d_in"],
    basis_in: Basis | None,
    basis_out: Basis | None,
    eps: Sequence[float] = SHARES,
) -> JacobianPicture:
    """Jacobians before and after; the first row of each part is the one shown.

    Args:
        fitted_rows: the inputs that the rotations were fitted to. held_out: others.
        basis_in, basis_out: rotations at the two ends; None for the model's own coordinates.
    """
    if len(fitted_rows) == 0 or len(held_out) == 0:
        raise BasisError(f"a picture needs a fitted and a held-out input, got {len(fitted_rows)} and {len(held_out)}")
    parts = {"fitted": fitted_rows, "held out": held_out}
    matrices: dict[str, Tensor] = {}
    shares: dict[str, dict[float, float]] = {}
    l1: dict[str, float] = {}
    for when, bases in (("before", (None, None)), ("after", (basis_in, basis_out))):
        stacks = {part: feature_jacobian(segment, x, *bases).abs() for part, x in parts.items()}
        energy = stacks["fitted"].square().mean(0)
        rows, columns = (energy.sum(axis).argsort(descending=True) for axis in (1, 0))
        for part, stack in stacks.items():
            name = f"{when}, {part}"
            measured = sparsity(stack, eps)
            shares[name], l1[name] = measured.above, measured.l1
            shown = stack[0] / stack[0].square().mean().sqrt().clamp_min(1e-30)
            matrices[name] = shown[rows][:, columns]
    scale = float(torch.cat([m.flatten() for m in matrices.values()]).quantile(0.995))
    trace = next((b.trace for b in (basis_out, basis_in) if isinstance(b, FittedRotation | Invertible)), Trace())
    return JacobianPicture(segment.name, matrices, scale, shares, l1, (len(fitted_rows), len(held_out)), trace)


def rotation_pictures(
    segments: Sequence[Segment],
    bases: Mapping[str, Basis],
    acts: Mapping[str, Tensor],
    held_out: Mapping[str, Tensor],
    recipe: JacobianRotation | None = None,
) -> dict[str, JacobianPicture]:
    """Segment name -> its picture, for every segment with a fitted rotation at one of its ends.

    Args:
        acts, held_out: activations at each segment's input; the rows that `recipe` would fit are shown, and as many others.
    """
    recipe = recipe or JacobianRotation()
    pictures: dict[str, JacobianPicture] = {}
    for segment in segments:
        ends = bases.get(segment.hook_in), bases.get(segment.hook_out)
        if any(isinstance(basis, FittedRotation | Invertible) for basis in ends):
            most = min(recipe.inputs, max(1, _MOST_ENTRIES // (segment.d_in * segment.d_out)))
            seen, unseen = (chosen_rows(a[segment.hook_in], most, recipe.seed) for a in (acts, held_out))
            pictures[segment.name] = jacobian_picture(segment, seen, unseen, *ends)
    return pictures
