"""Random columns of many Jacobians: all that a rotation is fitted to, so that no stack of whole Jacobians is needed."""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..basis.linear import Basis
from ..errors import BasisError, GateLensWarning, NonFiniteError
from ..models import there
from ..segments import Segment
from ..segments.values import rows_for
from .coordinates import encode_pull, encode_push, feature_count, feature_directions
from .products import pull, push

_FLOATS_AT_ONCE = 2**25  # 128 MiB in float32: how much of the hidden layer's products is held at a time


def jacobian_columns(
    segment: Segment,
    x: Float[Tensor, "rows d_in"],
    per_input: int | None = None,
    side: str = "out",
    basis_in: Basis | None = None,
    basis_out: Basis | None = None,
    seed: int = 0,
    normalise: bool = True,
) -> Float[Tensor, "f M"]:
    """Columns of J(x) for every row of x, chosen at random, side by side; the Jacobian is encode'_out J decode'_in.

    Args:
        x: activations at the segment's input.
        per_input: how many of each input's columns; None for all of them.
        side: "out" gives columns of J, vectors at the output; "in" gives rows of J, vectors at the input.
        basis_in, basis_out: coordinates at the two ends; None for the model's own.
        seed: of the choice of columns.
        normalise: scale each input's columns to a root mean square of 1 (a scale that no rotation changes). Exact with
            all columns; with few it is the sample's.

    Returns:
        [f_out, M] or [f_in, M], where the rows of x lie, input by input; M is rows times per_input, less inputs whose Jacobian is zero.

    Raises:
        BasisError: an unknown side, no column asked for, or every Jacobian zero.
        NonFiniteError: when a Jacobian holds NaN or infinity.

    Examples:
        >>> import torch
        >>> W = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
        >>> linear = gl.Segment("in", "out", lambda x: x @ W.T, d_in=2, d_out=2)
        >>> bool((gl.jacobian_columns(linear, torch.ones(1, 2), normalise=False) == W).all())
        True
    """
    if side not in ("out", "in"):
        raise BasisError(f'side must be "out" (columns of the Jacobian) or "in" (its rows), got {side!r}')
    back, x = x.device, rows_for(segment, x)
    basis_in, basis_out = there((basis_in, basis_out), segment.device)
    width, other = (segment.d_in, basis_in) if side == "out" else (segment.d_out, basis_out)
    total = feature_count(other, width, x)
    count = total if per_input is None else min(per_input, total)
    if count < 1:
        raise BasisError(f"per_input must be at least 1, got {per_input}")
    _check_finite(x, f"the input of {segment.name}")
    generator = torch.Generator().manual_seed(seed)
    middle = segment.mlp.W_in.shape[1] if segment.mlp is not None else max(segment.d_in, segment.d_out)
    step = max(1, _FLOATS_AT_ONCE // (max(middle, total) * count))
    take = _out_columns if side == "out" else _in_columns
    parts = []
    for rows in x.split(step):
        chosen = torch.rand(len(rows), total, generator=generator, device="cpu").argsort(1)[:, :count].to(x.device)
        parts.append(take(segment, rows, None if count == total else chosen, basis_in, basis_out))
    stack = torch.cat(parts)
    _check_finite(stack.flatten(1), f"the Jacobian of {segment.name}")
    if normalise:
        stack = scale_to_unit_rms(stack, segment.name)
    return stack.transpose(0, 1).flatten(1).to(back)


def _check_finite(rows: Float[Tensor, "rows k"], what: str) -> None:
    finite = torch.isfinite(rows).all(1)
    if not finite.all():
        row = int((~finite).nonzero()[0])
        raise NonFiniteError(f"{what} holds NaN or infinity at row {row}. Look at that input and at the weights")


def scale_to_unit_rms(stack: Float[Tensor, "rows f k"], name: str = "the segment") -> Float[Tensor, "kept f k"]:
    """Each input's matrix scaled to a root mean square entry of 1; inputs with a zero Jacobian are left out, with a warning."""
    rms = stack.square().mean((1, 2)).sqrt()
    alive = rms > 0
    if not alive.any():
        raise BasisError(
            f"the Jacobian of {name} is zero at every input: nothing there depends on anything. Look at the segment's ends "
            "and at the activations that were given"
        )
    if not alive.all():
        dropped = int((~alive).sum())
        warnings.warn(
            f"{dropped} of {len(rms)} inputs have a zero Jacobian in {name} and are left out",
            GateLensWarning,
            stacklevel=3,
        )
    return stack[alive] / rms[alive, None, None]


def _out_columns(
    segment: Segment, x: Tensor, chosen: Int[Tensor, "rows k"] | None, basis_in: Basis | None, basis_out: Basis | None
) -> Float[Tensor, "rows f k"]:
    step = feature_directions(basis_in, segment.d_in, x)
    tangents = step.T[None] if chosen is None else step[chosen].transpose(1, 2)
    moved = push(segment, x, tangents)
    return moved if basis_out is None else encode_push(basis_out, segment.forward(x).detach(), moved)


def _in_columns(
    segment: Segment, x: Tensor, chosen: Int[Tensor, "rows k"] | None, basis_in: Basis | None, basis_out: Basis | None
) -> Float[Tensor, "rows f k"]:
    width = feature_count(basis_out, segment.d_out, x)
    unit = torch.eye(width, dtype=x.dtype, device=x.device)
    cotangents = unit[None] if chosen is None else unit[chosen].transpose(1, 2)
    if basis_out is not None:
        cotangents = encode_pull(basis_out, segment.forward(x).detach(), cotangents)
    return feature_directions(basis_in, segment.d_in, x) @ pull(segment, x, cotangents)
