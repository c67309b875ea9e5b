"""Calling: how a model is run on a batch so that it does not see the padding; the same for every room that runs one.

A causal model reads nothing to its right, so padding there does no harm; on the left it shifts positions and is read. Models
that take an attention mask are given one, bidirectional `HookedTransformer`s (which ignore it) have their attention to padding
closed by hooks, and whether it worked is proved: a padded row must be what the sentence alone gives.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from ..data.told import pads_left, setting
from ..errors import ModelError
from .protocol import device_of

#: how forward calls its attention mask: HookedTransformer and TransformerBridge, HookedEncoder
_MASKS = ("attention_mask", "one_zero_attention_mask")
#: the largest difference, relative to the largest value, that counts as the same
_SAME = {torch.float32: 1e-4, torch.float64: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
#: the same between a run that begins at a block and a whole one
_STARTED = 1e-4


def block_of(hook: str) -> int | None:
    """The block that a hook point lies in; None before and behind the blocks, and where there are none."""
    block = re.match(r"blocks\.(\d+)\.", hook)
    return int(block[1]) if block else None


def entering_hook(block: int) -> str:
    """The hook point of what enters a block: where a run that begins there is given its input."""
    return f"blocks.{block}.hook_resid_pre"


def run_cached(model: Any, inputs: Tensor, mask: Tensor | None, names: Sequence[str], **how: Any) -> Any:
    """What the model answers, and what passes through the hook points: (output, mapping name -> value)."""
    inputs, mask_hooks, arguments = _prepared(model, inputs, mask)
    if not mask_hooks:
        with evaluating(model):
            return model.run_with_cache(inputs, names_filter=list(names), **arguments, **how)
    with evaluating(model), model.hooks(fwd_hooks=mask_hooks):
        return model.run_with_cache(inputs, names_filter=list(names), **arguments, **how)


def run_hooked(model: Any, inputs: Tensor, mask: Tensor | None, hooks: Sequence[Any] = (), **how: Any) -> Any:
    """What the model answers under hooks."""
    inputs, mask_hooks, arguments = _prepared(model, inputs, mask)
    with evaluating(model):
        return model.run_with_hooks(inputs, fwd_hooks=[*mask_hooks, *hooks], **arguments, **how)


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Within the block a model that is being trained computes what it will compute: without dropout, its statistics at rest."""
    trained = [module for module in model.modules() if module.training] if isinstance(model, torch.nn.Module) else []
    for module in trained:
        module.training = False
    try:
        yield
    finally:
        for module in trained:
            module.training = True


def starts_at(model: Any, block: int, entering: Tensor, whole: Tensor, mask: Tensor | None = None) -> bool:
    """Whether the model can begin at a block with what enters it, and then gives what the whole of it gives: proved on some inputs.

    Args:
        entering: the residual stream before the block; whole: what the model answers on the same inputs.
    """
    if "start_at_layer" not in inspect.signature(model.forward).parameters:
        return False
    try:
        with torch.no_grad():
            found = run_hooked(model, entering, mask, start_at_layer=block).float().cpu()
    except NotImplementedError:  # a bridge has the argument, not the means
        return False
    whole = whole.float().cpu().reshape(found.shape)
    return bool((found - whole).abs().max() <= _STARTED * whole.abs().max())


def _prepared(model: Any, inputs: Tensor, mask: Tensor | None) -> tuple[Tensor, list[Any], dict[str, Tensor]]:
    """The inputs on the model's device, and what keeps it from seeing the padding."""
    inputs = inputs.to(device_of(model))
    mask = None if mask is None or bool(mask.all()) else mask
    if mask is None and not pads_left(model):
        return inputs, [], {}
    seen = torch.ones(inputs.shape[:2], dtype=torch.bool) if mask is None else mask
    seen = seen.to(inputs.device)
    parameters = inspect.signature(model.forward).parameters
    arguments = {name: seen.long() for name in _MASKS if name in parameters}
    return inputs, [] if mask is None else _closing(model, seen), arguments


def _closing(model: Any, seen: Bool[Tensor, "n T"]) -> list[tuple[str, Callable[..., Tensor]]]:
    """Hooks that close attention to padding, for bidirectional models: transformer-lens masks causal ones only."""
    if setting(model, "attention_dir", "causal") == "causal":
        return []

    def close(scores: Tensor, hook: Any = None) -> Tensor:
        return scores.masked_fill(~seen[:, None, None, :], torch.finfo(scores.dtype).min)

    return [(name, close) for name in model.hook_dict if name.endswith("attn.hook_attn_scores")]


def prove_padding(model: Any, inputs: Tensor, mask: Tensor, names: Sequence[str] = (), **how: Any) -> bool:
    """Compare a padded row with the same sentence alone, at the hook points, or (without names) in the output.

    Returns:
        whether there was a row to compare.

    Raises:
        ModelError: when they differ, with the figure: the model reads its padding, or counts positions from it.
    """
    some = ~mask.all(1) & mask.any(1)
    if not some.any():
        return False
    row = int(torch.where(some, mask.sum(1), mask.shape[1] + 1).argmin())
    chosen = slice(row, row + 1)
    with torch.no_grad():
        padded = _values(model, inputs[chosen], mask[chosen], names, how)
        alone = _values(model, inputs[chosen][:, mask[row]], None, names, how)
    for name, value in padded.items():
        if value.shape[:2] != mask[chosen].shape:
            continue  # no row a position: refused by its shape, or pooled
        there, expected = value[:, mask[row].to(value.device)].float(), alone[name].float()
        difference = float((there - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
        if not difference <= _SAME.get(value.dtype, 1e-4):
            raise ModelError(
                f"{name}: a padded sentence differs from the sentence alone by {difference:.2g} of its largest value; this "
                f"model ({type(model).__name__}) reads its padding, or counts positions from it. Give rows of one length "
                "without padding, pad on the other side, or give a model whose forward takes attention_mask"
            )
    return True


def _values(model: Any, inputs: Tensor, mask: Tensor | None, names: Sequence[str], how: Any) -> dict[str, Tensor]:
    if not names:
        return {"the output": run_hooked(model, inputs, mask, **how)}
    _, cache = run_cached(model, inputs, mask, names, **how)
    return {name: cache[name] for name in names if name in cache}
