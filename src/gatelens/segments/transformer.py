"""The MLPs of a transformer as segments: HookedTransformer (LayerNorm folded or not) and TransformerBridge.

No hook point holds "what W_in multiplies" under one name in all of them, so this file is the only one that knows where
it is; every segment proves itself on cached rows before it is handed out.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import SegmentError
from ..models import check_hook_names, device_of
from ..models.fingerprint import active_hooks
from .bridged import POINTS, bridged_segment
from .hidden import chosen_layers
from .norms import Chain as Chain
from .norms import Normalise as Normalise
from .norms import behind_gain
from .segment import ACTIVATIONS, MLPWeights, Segment

ENDS = ("mlp_in", "resid_mid")
#: how far a segment in float32 may be from a model that computes in another type, relative: a few of its roundings
TOLERANCES = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 4e-2}


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
    segments = {layer: _segment(model, layer, mlp_in, frozen_norm) for layer in chosen}
    check_hook_names(model, [hook for s in segments.values() for hook in (s.hook_in, s.hook_out)])
    return _proved(model, segments, frozen_norm) if check and segments else [segments[layer] for layer in chosen]


def _segment(model: Any, layer: int, mlp_in: str, frozen: bool) -> Segment:
    block, at = model.blocks[layer], f"blocks.{layer}."
    # where the norms stand behind (BERT's blocks), the MLP reads what the first of them writes
    before = "ln1" if at + "hook_normalized_resid_post" in model.hook_dict else "ln2"
    norm, mlp = getattr(block, before, None), getattr(block, "mlp", None)
    _refuse_other_than_plain(model, layer, mlp)
    parallel = bool(getattr(model.cfg, "parallel_attn_mlp", False))
    if mlp_in == "resid_mid" and parallel:
        raise SegmentError(
            f"block {layer} runs attention and MLP side by side, there is no resid_mid between them: "
            'use mlp_in="mlp_in", which is there as the output is'
        )
    if norm is None and not parallel and at + "mlp.hook_in" not in model.hook_dict:
        raise SegmentError(f"block {layer} has no norm before its MLP that is known: write a Segment of your own")
    weights, gain, bias = _weights(model.cfg, mlp), _parameter(norm, "w", "weight"), _parameter(norm, "b", "bias")
    d, d_out = weights.W_in.shape[0], int(model.cfg.d_model)
    hook_out = at + "hook_mlp_out"
    if model.cfg.normalization_type is None:  # nothing stands between the residual stream and W_in
        return Segment(at + "hook_resid_mid", hook_out, weights, d, d_out, weights)
    if mlp_in == "mlp_in" and at + "mlp.hook_in" in model.hook_dict:
        return Segment(at + "mlp.hook_in", hook_out, weights, d, d_out, weights)
    weights = behind_gain(weights, gain, bias)
    if mlp_in == "mlp_in":
        return Segment(f"{at}{before}.hook_normalized", hook_out, weights, d, d_out, weights)
    prenorm = Normalise("RMS" not in str(model.cfg.normalization_type), float(model.cfg.eps), frozen)
    return Segment(at + "hook_resid_mid", hook_out, Chain(prenorm, weights), d, d_out, weights, prenorm)


def _weights(cfg: Any, mlp: Any) -> MLPWeights:
    act = str(cfg.act_fn)
    if act not in ACTIVATIONS and not hasattr(mlp, "original_component"):
        raise SegmentError(
            f"the MLP's nonlinearity is {act!r}; known are {', '.join(ACTIVATIONS)}. Write a Segment of your own"
        )
    W_in, W_out, W_gate = mlp.W_in.detach().float(), mlp.W_out.detach().float(), getattr(mlp, "W_gate", None)
    b_in, b_out = _bias(mlp.b_in, W_in), _bias(mlp.b_out, W_out)
    if W_gate is not None and not hasattr(mlp, "gate") and b_in.any():
        # a HookedTransformer adds b_in behind the product, where it is a constant of the output
        b_out, b_in = b_out + b_in @ W_out, torch.zeros_like(b_in)
    act = act if act in ACTIVATIONS else next(iter(ACTIVATIONS))  # a bridge is tried with every one
    return MLPWeights(W_in, b_in, W_out, b_out, act, None if W_gate is None else W_gate.detach().float())


def _bias(value: Tensor | None, matrix: Tensor) -> Tensor:
    return matrix.new_zeros(matrix.shape[1]) if value is None else value.detach().float()


def _parameter(norm: Any, *names: str) -> Tensor | None:
    for name in names:
        value = getattr(norm, name, None)
        if isinstance(value, Tensor):
            return value.detach().float()
    return None


def _refuse_other_than_plain(model: Any, layer: int, mlp: Any) -> None:
    """Say by its name what the block has instead of one MLP."""
    advice = "choose other layers, or write a Segment of your own (examples/04_your_own_hook_point.py)"
    if mlp is None and not hasattr(model.blocks[layer], "attn"):
        raise SegmentError(f"block {layer} has neither attention nor an MLP, but a mixer of another kind: {advice}")
    if mlp is None or getattr(model.cfg, "attn_only", False):
        raise SegmentError(f"block {layer} has attention only, no plain MLP: {advice}")
    experts = getattr(model.cfg, "num_experts", None)
    if experts or f"blocks.{layer}.mlp.hook_router_scores" in model.hook_dict:
        raise SegmentError(
            f"block {layer} is a mixture of {experts or 'several'} experts, no plain MLP: which weights act depends on the token; {advice}"
        )
    for name in ("W_in", "W_out"):
        if not isinstance(getattr(mlp, name, None), Tensor):
            raise SegmentError(f"block {layer}: its {type(mlp).__name__} shows no {name}, it is no plain MLP; {advice}")


def _proved(model: Any, segments: Mapping[int, Segment], frozen: bool) -> list[Segment]:
    """Each segment, compared with what the model computes on random tokens: one forward pass for all, no deeper than needed.

    What a bridge wraps may do more between the points than its config says; it is looked for among what is known.
    """
    length = min(16, int(model.cfg.n_ctx))
    tokens = torch.randint(int(model.cfg.d_vocab), (2, length), generator=torch.Generator().manual_seed(0))
    names = {hook for s in segments.values() for hook in (s.hook_in, s.hook_out)}
    names |= {f"blocks.{layer}.{name}" for layer in segments for name in POINTS} & set(model.hook_dict)
    deep = (
        {"stop_at_layer": max(segments) + 1} if "stop_at_layer" in inspect.signature(model.forward).parameters else {}
    )
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens.to(device_of(model)), names_filter=sorted(names), **deep)
    return [_proof(model, layer, segment, cache, frozen) for layer, segment in segments.items()]


def _proof(model: Any, layer: int, segment: Segment, cache: Any, frozen: bool) -> Segment:
    rows = {hook: cache[hook].flatten(0, 1).float() for hook in cache if hook.startswith(f"blocks.{layer}.")}
    missing = [hook for hook in (segment.hook_in, segment.hook_out) if hook not in rows]
    tolerance = TOLERANCES.get(next(iter(cache.values())).dtype, 1e-3)
    if not missing and segment.misses(rows[segment.hook_in], rows[segment.hook_out]) <= tolerance:
        return segment
    other = bridged_segment(model, layer, segment, rows, frozen, tolerance)
    if other is not None:
        return other
    if missing:
        raise SegmentError(f"{missing[0]} exists but nothing passes through it in this model: choose other ends")
    if hooked := active_hooks(model):
        raise SegmentError(
            f"segment {segment.name}: the model has hooks on it ({', '.join(list(hooked)[:5])}), and the MLP's weights do not say what it "
            "computes. Take them off: model.reset_hooks(including_permanent=True)"
        )
    segment.check(rows[segment.hook_in], rows[segment.hook_out], tolerance)
    return segment
