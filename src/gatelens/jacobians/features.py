"""The Jacobian between two bases: whole, or only the block between features that are active."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..basis.linear import Basis, encoder_weights
from ..errors import BasisError, TooLargeError
from ..models import there
from ..segments import Segment
from ..segments.values import rows_for
from .columns import _in_columns, _out_columns
from .coordinates import encode_push, feature_count, feature_directions
from .products import push

_MAX_BYTES = 2 * 2**30


def feature_jacobian(
    segment: Segment, x: Float[Tensor, "rows d_in"], basis_in: Basis | None = None, basis_out: Basis | None = None
) -> Float[Tensor, "rows f_out f_in"]:
    """encode'_out J(x) decode'_in for every row: how each output feature moves with each input feature; where the rows lie.

    Args:
        x: [rows, d_in] activations at the segment's input; the Jacobian is taken there (pass a basis' reconstruction to take it there).
        basis_in, basis_out: coordinates at the two ends; None for the model's own.

    Returns:
        [rows, f_out, f_in], in units of output per unit of input, in x's precision.

    Source: "Jacobian Sparse Autoencoders: Sparsify Computations, Not Just Activations".

    Raises:
        TooLargeError: when it would take over 2 GiB; use `active_block` or `jacobian_columns`.

    Examples:
        >>> x = unseen["hook_resid"][:10]
        >>> gl.feature_jacobian(net.segment, x).shape  # [rows, f_out, f_in]
        torch.Size([10, 24, 64])
        >>> gl.feature_jacobian(net.segment, x, *bases.values()).shape
        torch.Size([10, 32, 96])
    """
    back, x = x.device, rows_for(segment, x)
    basis_in, basis_out = there((basis_in, basis_out), segment.device)
    f_in, f_out = feature_count(basis_in, segment.d_in, x), feature_count(basis_out, segment.d_out, x)
    size = len(x) * f_in * f_out * x.element_size()
    if size > _MAX_BYTES:
        raise TooLargeError(
            f"whole Jacobians of {segment.name} are {len(x)} x {f_out} x {f_in} numbers, {size / 2**30:.1f} GiB (2 GiB at most). "
            "Take fewer inputs, `active_block` for sparse features, or `jacobian_columns` for a rotation"
        )
    if f_in <= f_out:
        return _out_columns(segment, x, None, basis_in, basis_out).to(back)
    return _in_columns(segment, x, None, basis_in, basis_out).transpose(1, 2).to(back)


@dataclass(frozen=True)
class ActiveBlock:
    """The Jacobian between the active features of two dictionaries, padded with zeros to the largest count of any row.

    Attributes:
        values: derivative of output feature `out[r, i]` by input feature `into[r, j]` at row r; [out, in].
        out, into: feature indices; -1 where padded.
    """

    values: Float[Tensor, "rows k_out k_in"]
    out: Int[Tensor, "rows k_out"]
    into: Int[Tensor, "rows k_in"]

    def dense(self, f_out: int, f_in: int) -> Float[Tensor, "rows f_out f_in"]:
        """The block within a matrix of all features; for small dictionaries."""
        whole = self.values.new_zeros(len(self.values), f_out + 1, f_in + 1)
        rows = torch.arange(len(self.values), device=self.values.device)[:, None, None]
        whole[rows, self.out[:, :, None], self.into[:, None, :]] = self.values
        return whole[:, :f_out, :f_in]

    def __repr__(self) -> str:
        rows, k_out, k_in = self.values.shape
        return f"ActiveBlock({rows} rows, at most {k_out} outputs x {k_in} inputs)"


def active_block(segment: Segment, x: Float[Tensor, "rows d_in"], basis_in: Basis, basis_out: Basis) -> ActiveBlock:
    """encode'_out J(x) decode'_in between the features that are active at each row (nonzero; encode'_out is 0 elsewhere).

    The cost grows with the active features alone when `basis_out` has encoder weights `W_enc` ([d, f], as sae-lens
    dictionaries have); that these give its derivative is checked along one random direction, and where they do not
    (a rescaled encoder, a soft threshold) the encoder is differentiated instead.
    """
    back, x = x.device, x.to(segment.device)
    basis_in, basis_out = there((basis_in, basis_out), segment.device)
    with torch.no_grad():
        f_in, y = basis_in.encode(x), segment.forward(x)
        f_out = basis_out.encode(y)
        into, out = _active(f_in != 0), _active(f_out != 0)
        step = feature_directions(basis_in, segment.d_in, x)
        moved = push(segment, x, _pick(step, into).transpose(1, 2))
        if (weights := _weights_where_active(basis_out, y, f_out)) is not None:
            values = _pick(weights.T.to(x), out) @ moved
        else:
            whole = encode_push(basis_out, y, moved)
            values = (
                whole.gather(1, out.clamp_min(0)[:, :, None].expand(-1, -1, whole.shape[2])) * (out >= 0)[:, :, None]
            )
    return ActiveBlock(values.to(back), out.to(back), into.to(back))


def _active(on: Bool[Tensor, "rows f"]) -> Int[Tensor, "rows k"]:
    """The indices of each row's true entries in rising order, padded with -1."""
    most = int(on.sum(1).max())
    if most == 0:
        raise BasisError(
            "no feature is active at any of the rows: the block would be empty. Give other rows, or look at the basis"
        )
    order = torch.argsort(on.to(torch.int8), dim=1, descending=True, stable=True)[:, :most]
    return torch.where(on.gather(1, order), order, -1)


def _pick(matrix: Float[Tensor, "f d"], index: Int[Tensor, "rows k"]) -> Float[Tensor, "rows k d"]:
    """Rows of a matrix by index; zero rows where the index is -1."""
    return matrix[index.clamp_min(0)] * (index >= 0)[..., None]


def _weights_where_active(basis: Basis, y: Tensor, f: Float[Tensor, "rows f"]) -> Float[Tensor, "d f"] | None:
    """The encoder's weights, if encode' is their transpose on active features and zero elsewhere, tried along one direction."""
    weights = encoder_weights(basis)
    if weights is None:
        return None
    v = torch.randn(y.shape[1], generator=torch.Generator().manual_seed(0), device="cpu").to(y)
    true = encode_push(basis, y, v.expand_as(y)[..., None])[..., 0]
    ours = (v @ weights.to(y)) * (f != 0)
    return weights if (true - ours).norm() <= 1e-4 * ours.norm().clamp_min(1e-12) else None
