"""What stands before an MLP inside a segment: LayerNorm or RMSNorm, its gain and bias taken into the weights that follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ..errors import SegmentError
from .segment import MLPWeights


@dataclass(frozen=True)
class Normalise:
    """LayerNorm or RMSNorm without gain and bias (those are in the weights that follow).

    Attributes:
        centre: subtract the mean over the width (LayerNorm), or not (RMSNorm).
        eps: added to the mean square before the root.
        frozen: the scale counts as a constant in derivatives; the values are the same.
    """

    centre: bool
    eps: float
    frozen: bool = False

    def __call__(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        if self.centre:
            x = x - x.mean(-1, keepdim=True)
        scale = (x.square().mean(-1, keepdim=True) + self.eps).sqrt()
        return x / (scale.detach() if self.frozen else scale)


@dataclass(frozen=True)
class Chain:
    """`mlp` behind `prenorm`: the forward of a segment that begins in the residual stream."""

    prenorm: Normalise
    mlp: MLPWeights

    def __call__(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        return self.mlp(self.prenorm(x))


@dataclass(frozen=True)
class Behind:
    """A segment's stretch with a norm behind the MLP: y = gain * norm(mlp(x)) + bias. No closed form is given for it."""

    before: Callable[[Tensor], Tensor]
    norm: Normalise
    gain: Float[Tensor, " d"]
    bias: Float[Tensor, " d"]

    def __call__(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        return self.norm(self.before(x)) * self.gain + self.bias


def behind_gain(weights: MLPWeights, gain: Tensor | None, bias: Tensor | None) -> MLPWeights:
    """The same MLP as a function of the normalised input, before the norm's gain and bias."""
    W_in, W_gate, b_in = weights.W_in, weights.W_gate, weights.b_in
    if bias is not None and bias.any():
        if W_gate is not None:
            raise SegmentError(
                "a gated MLP behind a LayerNorm with a bias: load the model with fold_ln=True, "
                "or begin at mlp_in of a bridge"
            )
        b_in = b_in + bias @ W_in
    if gain is not None:
        W_in = gain[:, None] * W_in
        W_gate = None if W_gate is None else gain[:, None] * W_gate
    return MLPWeights(W_in, b_in, weights.W_out, weights.b_out, weights.act, W_gate)
