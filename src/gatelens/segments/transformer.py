"""The MLPs of a transformer as segments: HookedTransformer (LayerNorm folded or not) and TransformerBridge.

No hook point holds "what W_in multiplies" under one name in all of them, so this file is the only one that knows where
it is; every segment proves itself on cached rows before it is handed out.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import SegmentError
from ..models import check_hook_names, device_of
from .hidden import chosen_layers
from .segment import ACTIVATIONS, MLPWeights, Segment

ENDS = ("mlp_in", "resid_mid")


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


def transformer_segments(
    model: Any,
    layers: Any = None,
    mlp_in: str = "mlp_in",
    frozen_norm: bool = False,
    check: bool = True,
) -> list[Segment]:
    """One segment a block, from what feeds its MLP to `blocks.L.hook_mlp_out`.

    Args:
        layers: which blocks; None for all.
        mlp_in: "mlp_in" begins at what W_in multiplies: `ln2.hook_normalized` of a HookedTransformer (a gain and bias
            that were not folded are taken into the weights of the segment), `mlp.hook_in` of a bridge. "resid_mid"
            begins in the residual stream, with LayerNorm or RMSNorm inside.
        frozen_norm: with "resid_mid", the norm's scale counts as a constant in derivatives.
        check: prove each segment on a few random tokens.

    Raises:
        SegmentError: another `mlp_in`, a layer out of range, a block without a plain MLP, or a forward that misses
            the model's.
    """
    if mlp_in not in ENDS:
        raise SegmentError(
            f'mlp_in must be "mlp_in" (what W_in multiplies) or "resid_mid" (LayerNorm inside), got {mlp_in!r}'
        )
    if not hasattr(model, "blocks") or not hasattr(model, "cfg"):
        raise SegmentError(
            f"{type(model).__name__} has no transformer blocks: write a Segment of your own "
            "(examples/04_your_own_hook_point.py)"
        )
    chosen = chosen_layers(layers, len(model.blocks))
    segments = [_segment(model, layer, mlp_in, frozen_norm) for layer in chosen]
    check_hook_names(model, [hook for s in segments for hook in (s.hook_in, s.hook_out)])
    if check and segments:
        _prove(model, segments, max(chosen) + 1)
    return segments


def _segment(model: Any, layer: int, mlp_in: str, frozen: bool) -> Segment:
    block, at = model.blocks[layer], f"blocks.{layer}."
    norm, mlp = getattr(block, "ln2", None), getattr(block, "mlp", None)
    if mlp is None or norm is None or getattr(mlp, "W_in", None) is None or getattr(mlp, "W_out", None) is None:
        raise SegmentError(
            f"block {layer} has no plain MLP (attention only, or a mixture of experts): "
            "choose other layers, or write a Segment of your own"
        )
    if mlp_in == "resid_mid" and getattr(model.cfg, "parallel_attn_mlp", False):
        raise SegmentError(
            f'block {layer} runs attention and MLP side by side, there is no resid_mid: use mlp_in="mlp_in"'
        )
    weights, gain, bias = _weights(model.cfg, mlp), _parameter(norm, "w", "weight"), _parameter(norm, "b", "bias")
    d, d_out = weights.W_in.shape[0], int(model.cfg.d_model)
    hook_out = at + "hook_mlp_out"
    if model.cfg.normalization_type is None:  # nothing stands between the residual stream and W_in
        return Segment(at + "hook_resid_mid", hook_out, weights, d, d_out, weights)
    if mlp_in == "mlp_in" and at + "mlp.hook_in" in model.hook_dict:
        return Segment(at + "mlp.hook_in", hook_out, weights, d, d_out, weights)
    weights = _behind_gain(weights, gain, bias)
    if mlp_in == "mlp_in":
        return Segment(at + "ln2.hook_normalized", hook_out, weights, d, d_out, weights)
    prenorm = Normalise("RMS" not in str(model.cfg.normalization_type), float(model.cfg.eps), frozen)
    return Segment(at + "hook_resid_mid", hook_out, Chain(prenorm, weights), d, d_out, weights, prenorm)


def _weights(cfg: Any, mlp: Any) -> MLPWeights:
    act = str(cfg.act_fn)
    if act not in ACTIVATIONS:
        raise SegmentError(
            f"the MLP's nonlinearity is {act!r}; known are {', '.join(ACTIVATIONS)}. Write a Segment of your own"
        )
    W_in, W_out, W_gate = mlp.W_in.detach(), mlp.W_out.detach(), getattr(mlp, "W_gate", None)
    b_in, b_out = _bias(mlp.b_in, W_in), _bias(mlp.b_out, W_out)
    if W_gate is not None and not hasattr(mlp, "gate") and b_in.any():
        # a HookedTransformer adds b_in behind the product, where it is a constant of the output
        b_out, b_in = b_out + b_in @ W_out, torch.zeros_like(b_in)
    return MLPWeights(W_in, b_in, W_out, b_out, act, None if W_gate is None else W_gate.detach())


def _bias(value: Tensor | None, matrix: Tensor) -> Tensor:
    return matrix.new_zeros(matrix.shape[1]) if value is None else value.detach()


def _parameter(norm: Any, *names: str) -> Tensor | None:
    for name in names:
        value = getattr(norm, name, None)
        if isinstance(value, Tensor):
            return value.detach()
    return None


def _behind_gain(weights: MLPWeights, gain: Tensor | None, bias: Tensor | None) -> MLPWeights:
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


def _prove(model: Any, segments: Sequence[Segment], blocks: int) -> None:
    """Compare every segment with what the model computes on random tokens, one forward pass for all, no deeper than needed."""
    length = min(16, int(model.cfg.n_ctx))
    tokens = torch.randint(int(model.cfg.d_vocab), (2, length), generator=torch.Generator().manual_seed(0))
    names = [hook for s in segments for hook in (s.hook_in, s.hook_out)]
    deep = {"stop_at_layer": blocks} if "stop_at_layer" in inspect.signature(model.forward).parameters else {}
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens.to(device_of(model)), names_filter=names, **deep)
    for segment in segments:
        for hook in (segment.hook_in, segment.hook_out):
            if hook not in cache:
                raise SegmentError(f"{hook} exists but nothing passes through it in this model: choose other ends")
        segment.check(cache[segment.hook_in].flatten(0, 1), cache[segment.hook_out].flatten(0, 1))
