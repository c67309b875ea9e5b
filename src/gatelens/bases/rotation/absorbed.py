"""Rotations grouped into the weights: the same function, its hidden coordinates rotated; nothing is cut away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from ...basis.linear import Basis, Rotation
from ...errors import BasisError, ModelError
from ...models.mlp import HookedMLP
from ...segments import MLPWeights, Segment
from .result import Invertible

#: x @ E + c encodes, f @ D + m decodes; all in float64
_Affine = tuple[Tensor, Tensor, Tensor, Tensor]


def affine(basis: Basis, width: int, device: torch.device) -> _Affine:
    """(E, c, D, m) of a linear change of coordinates, on a device.

    Raises:
        BasisError: a basis that is not linear, has another width, or drops directions.
    """
    if isinstance(basis, Rotation):
        r = basis.matrix.double().to(device)
        mean = r.new_zeros(r.shape[1]) if basis.mean is None else basis.mean.double().to(device)
        found = r.T, -mean @ r.T, r, mean
    elif isinstance(basis, Invertible):
        encode = basis.W_enc.double().to(device)
        zero = encode.new_zeros(len(encode))
        found = encode, zero, basis.W_dec.double().to(device), zero
    else:
        raise BasisError(
            f"only a rotation or an invertible map can be grouped into weights; got {type(basis).__name__}"
        )
    encode, _, decode, _ = found
    if len(encode) != width:
        raise BasisError(f"the basis takes vectors of width {len(encode)}, the weights there have width {width}")
    if (encode @ decode - torch.eye(width, dtype=torch.float64, device=device)).abs().max() > 1e-4:
        raise BasisError(
            f"{basis!r} does not keep every direction: the network would compute another function. Give a whole rotation"
        )
    return found


def absorb(model: Any, rotations: Mapping[str, Basis]) -> RotatedMLP:
    """The network with R behind each nonlinearity and R^-1 grouped into the weights that follow.

    Args:
        rotations: hook name -> basis, at `hook_in` and `hook_post.i`; bases elsewhere are refused.

    Raises:
        ModelError: not a HookedMLP. (The residual stream of a transformer is read by all later layers: use `rotated_segment`.)
        BasisError: a hook point whose coordinates cannot be changed, or a basis that is not invertible.
    """
    if not isinstance(model, HookedMLP):
        raise ModelError(
            f"absorb rewrites a HookedMLP; got {type(model).__name__}. For one MLP of a transformer, use rotated_segment"
        )
    return RotatedMLP(model, rotations)


class RotatedMLP(HookedRootModule):
    """A HookedMLP in rotated coordinates: `hook_in` and `hook_post.i` carry features, `hook_pre.i` what it carried before."""

    def __init__(self, model: HookedMLP, rotations: Mapping[str, Basis]):
        super().__init__()
        places = ["hook_in", *(f"hook_post.{i}" for i in range(model.n_hidden))]
        for hook in rotations:
            if hook not in places:
                raise BasisError(f"coordinates can be changed at {', '.join(places)}; got {hook!r}")
        like = model.layers[0].weight
        maps = [
            affine(rotations[h], w, like.device) if h in rotations else None  # pyright: ignore
            for h, w in zip(places, model.sizes, strict=False)
        ]
        self.layers = nn.ModuleList(_linear(layer, a) for layer, a in zip(model.layers, maps, strict=True))
        self.encoders = nn.ModuleList(nn.Identity() if a is None else _affine_layer(a[0].T, a[1], like) for a in maps)  # pyright: ignore
        self.hook_in, self.hook_logits = HookPoint(), HookPoint()
        self.hook_pre = nn.ModuleList(HookPoint() for _ in range(model.n_hidden))
        self.hook_post = nn.ModuleList(HookPoint() for _ in range(model.n_hidden))
        self.setup()
        self.eval().requires_grad_(False)

    def forward(self, x: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows d_out"]:
        f = self.hook_in(self.encoders[0](x))
        for layer, encoder, pre, post in zip(
            self.layers, self.encoders[1:], self.hook_pre, self.hook_post, strict=False
        ):  # pyright: ignore
            f = post(encoder(torch.relu(pre(layer(f)))))
        return self.hook_logits(self.layers[-1](f))


def _linear(layer: nn.Module, coordinates: _Affine | None) -> nn.Linear:
    """A layer that reads features: W D^T f + (b + W m)."""
    weight, bias = layer.weight.detach().double(), layer.bias.detach().double()  # pyright: ignore
    if coordinates is not None:
        _, _, decode, mean = coordinates
        bias = bias + weight @ mean
        weight = weight @ decode.T
    return _affine_layer(weight, bias, layer.weight)  # pyright: ignore


def _affine_layer(weight: Tensor, bias: Tensor, like: Tensor) -> nn.Linear:
    out = nn.Linear(weight.shape[1], weight.shape[0], dtype=like.dtype, device=like.device)
    with torch.no_grad():
        out.weight.copy_(weight)
        out.bias.copy_(bias)
    return out


def rotated_segment(segment: Segment, basis_in: Basis | None = None, basis_out: Basis | None = None) -> Segment:
    """The segment from features to features: encode_out(segment(decode_in(f))), its weights rewritten where it has any.

    A normalisation before the MLP keeps `basis_in` outside the weights.

    Examples:
        >>> turned = rotated_segment(net.segment, gl.PCA().fit(segments, acts)["hook_resid"])
        >>> turned
        Segment(hook_resid -> hook_mlp_out: 64 -> 24, relu MLP of 32)
    """
    mlp, prenorm, ends = segment.mlp, segment.prenorm, (segment.hook_in, segment.hook_out)
    device = torch.device("cpu") if mlp is None else mlp.W_in.device
    into = None if basis_in is None else affine(basis_in, segment.d_in, device)
    out = None if basis_out is None else affine(basis_out, segment.d_out, device)
    if mlp is None:
        return Segment(*ends, _between(segment.forward, basis_in, basis_out), segment.d_in, segment.d_out)
    if prenorm is not None and basis_in is not None:
        prenorm = _between(prenorm, basis_in, None)
    elif into is not None:
        mlp = _reads(mlp, into)
    if out is not None:
        mlp = _writes(mlp, out)
    forward = mlp if prenorm is None else lambda f: mlp(prenorm(f))
    return Segment(*ends, forward, segment.d_in, segment.d_out, mlp, prenorm)


def _reads(mlp: MLPWeights, coordinates: _Affine) -> MLPWeights:
    _, _, decode, mean = coordinates
    if mlp.W_gate is not None and bool(mean.any()):
        raise BasisError("a gated MLP has no bias before its gate, so a basis with a mean cannot be grouped into it")
    bias = mlp.b_in.double() + mean @ mlp.W_in.double()
    gate = None if mlp.W_gate is None else (decode @ mlp.W_gate.double()).to(mlp.W_gate)
    return replace(mlp, W_in=(decode @ mlp.W_in.double()).to(mlp.W_in), b_in=bias.to(mlp.b_in), W_gate=gate)


def _writes(mlp: MLPWeights, coordinates: _Affine) -> MLPWeights:
    encode, shift, _, _ = coordinates
    weight = encode if mlp.W_out is None else mlp.W_out.double() @ encode
    bias = shift if mlp.b_out is None else mlp.b_out.double() @ encode + shift
    return replace(mlp, W_out=weight.to(mlp.W_in), b_out=bias.to(mlp.b_in))


def _between(
    forward: Callable[[Tensor], Tensor], basis_in: Basis | None, basis_out: Basis | None
) -> Callable[[Tensor], Tensor]:
    def run(f: Tensor) -> Tensor:
        y = forward(f if basis_in is None else basis_in.decode(f))
        return y if basis_out is None else basis_out.encode(y)

    return run
