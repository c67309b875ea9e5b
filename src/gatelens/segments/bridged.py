"""What a bridge computes between the points around its MLP, found out on cached rows.

A TransformerBridge runs the original model, of any family; its config says less than that model does. Among what families
are known to do, what fits the rows is taken: the nonlinearity, a norm before the MLP (its gain as it is, or 1 + gain), a
norm behind it (Gemma 2 and 3, OLMo 2), a constant factor behind it (Granite). What fits nothing is refused as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .norms import Behind, Chain, Normalise, behind_gain
from .segment import ACTIVATIONS, MLPWeights, Segment

#: points around an MLP, where it can begin first
INPUTS = ("mlp.hook_in", "mlp.in.hook_in")
POINTS = (*INPUTS, "hook_resid_mid", "hook_mlp_out")


@dataclass(frozen=True)
class _Candidate:
    """A reading of a stretch: its function, and its closed form where it has one."""

    forward: Callable[[Tensor], Tensor]
    mlp: MLPWeights | None
    prenorm: Normalise | None = None


def bridged_segment(
    model: Any, layer: int, segment: Segment, rows: Mapping[str, Tensor], frozen: bool, tolerance: float
) -> Segment | None:
    """The segment that fits the rows best, within the tolerance; None where nothing known does, or for another kind of model."""
    at, block = f"blocks.{layer}.", model.blocks[layer]
    if not hasattr(block, "original_component") or segment.mlp is None or segment.hook_out not in rows:
        return None
    wide = "hook_resid_mid" in segment.hook_in
    begin = segment.hook_in if wide else next((at + name for name in INPUTS if at + name in rows), "")
    if begin not in rows:
        return None
    x, y = rows[begin], rows[segment.hook_out]
    found = [
        (_off(c.forward(x), y), i, c) for i, c in enumerate(_candidates(model, block, segment.mlp, x, y, wide, frozen))
    ]
    error, _, best = min(found, key=lambda entry: entry[:2])
    if not error <= tolerance:
        return None
    return replace(segment, hook_in=begin, forward=best.forward, mlp=best.mlp, prenorm=best.prenorm)


def _candidates(
    model: Any, block: Any, raw: MLPWeights, x: Tensor, y: Tensor, wide: bool, frozen: bool
) -> Iterator[_Candidate]:
    """Readings of the stretch: every nonlinearity, behind every norm that it may have before or behind it."""
    normal = Normalise("RMS" not in str(model.cfg.normalization_type), float(model.cfg.eps), frozen)
    raw = replace(
        raw, W_in=_own(block.mlp.W_in), b_in=_own_bias(block.mlp, raw), W_gate=_own(getattr(block.mlp, "W_gate", None))
    )
    before: list[tuple[MLPWeights, Normalise | None]] = [(raw, None)]
    if wide:
        gains = _gains(getattr(block, "ln2", None))
        before += [(behind_gain(raw, gain, bias), normal) for gain, bias in gains]
    for weights, prenorm in before:
        for act in dict.fromkeys((raw.act, *ACTIVATIONS)):
            mlp = replace(weights, act=act)
            forward = mlp if prenorm is None else Chain(prenorm, mlp)
            yield _Candidate(forward, mlp, prenorm)
            made = forward(x)
            factor = float((made * y).sum() / made.square().sum().clamp_min(1e-30))
            scaled = replace(
                mlp, W_out=factor * _own(mlp.W_out), b_out=None if mlp.b_out is None else factor * mlp.b_out
            )
            yield _Candidate(scaled if prenorm is None else Chain(prenorm, scaled), scaled, prenorm)
            for name in ("ln2_post", "ln2"):
                for gain, bias in _gains(getattr(block, name, None)):
                    yield _Candidate(Behind(forward, normal, gain, bias), None)


def _gains(norm: Any) -> list[tuple[Float[Tensor, " d"], Float[Tensor, " d"]]]:
    """A norm's gain as it is stored and as 1 + that (Gemma), with its bias; nothing for a norm without."""
    gain, bias = _own(getattr(norm, "weight", None)), _own(getattr(norm, "bias", None))
    if gain is None:
        return []
    bias = torch.zeros_like(gain) if bias is None else bias
    return [(gain, bias), (1 + gain, bias)]


def _own(value: Any) -> Any:
    return value.detach().float() if isinstance(value, Tensor) else None


def _own_bias(mlp: Any, raw: MLPWeights) -> Tensor:
    bias = _own(getattr(mlp, "b_in", None))
    return torch.zeros_like(raw.b_in) if bias is None else bias


def _off(found: Tensor, wanted: Tensor) -> float:
    return ((found - wanted).norm() / wanted.norm().clamp_min(1e-12)).item()
