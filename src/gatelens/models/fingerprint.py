"""What a model is, for every artefact made from it: how it was loaded, every one of its weights, the hooks on it.

Weights are hashed a block at a time, so that an artefact can record those that it depends on: what was collected at
block 1 is the same from the whole model and from its first two blocks.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from .calling import block_of

#: a parameter's place: HookedTransformer's blocks, and those of the architectures that a TransformerBridge wraps
_BLOCK = re.compile(r"(?:^|\.)(?:blocks|layers|layer|h)\.(\d+)\.")
_AFTER = re.compile(r"(?:^|\.)(?:ln_final|unembed|lm_head|ln_f|model\.norm|final_layer_norm)\.")
_BEFORE_BLOCKS = ("hook_embed", "hook_pos_embed", "embed.", "pos_embed.")
#: modules whose hooks and forwards change nothing: they record, place on devices, or stop after some blocks
_OWN = ("transformers.", "accelerate.", "transformer_lens.model_bridge.", "gatelens.models.")
#: settings that change what a model computes without changing any weight
_SETTINGS = ("act_fn", "eps", "rotary_base", "attn_scale")


def blocks_needed(names: Iterable[str]) -> int | None:
    """How many blocks, from the first, the hook points depend on; None when one lies behind the blocks or in none."""
    needed = 0
    for name in names:
        block = block_of(name)
        if block is None and not name.startswith(_BEFORE_BLOCKS):
            return None
        needed = max(needed, 0 if block is None else block + 1)
    return needed


def model_record(model: Any, hooks: Iterable[str] = ()) -> dict[str, Any]:
    """How a model was loaded and what it is, as JSON; what cannot be known is None.

    Args:
        hooks: the hook points that an artefact is about: only the weights that they depend on are recorded. None
            given: all weights.
    """
    config = getattr(model, "cfg", None)
    kind = getattr(config, "normalization_type", None)
    record: dict[str, Any] = {
        "name": getattr(config, "model_name", None) or type(model).__name__,
        "form": type(model).__name__,
        "fold_ln": kind.endswith("Pre") if isinstance(kind, str) else None,
    } | dict(getattr(model, "loaded", {}))
    needed = blocks_needed(hooks := list(hooks)) if hooks else None
    if needed is not None:
        record.pop("first_layers", None)  # the blocks behind do not matter here
    blocks = block_fingerprints(model, needed)
    return record | {
        "weights": _together(blocks),
        "blocks": blocks,
        "settings": {name: getattr(config, name, None) for name in _SETTINGS},
        "tokenizer": tokenizer_fingerprint(getattr(model, "tokenizer", None)),
        "active_hooks": active_hooks(model),
    }


def weights_fingerprint(model: Any, hooks: Iterable[str] = ()) -> str:
    """One hash over every parameter that the hook points depend on; over all of them when none is given."""
    return _together(block_fingerprints(model, blocks_needed(hooks) if (hooks := list(hooks)) else None))


def block_fingerprints(model: Any, needed: int | None = None) -> dict[str, str]:
    """A hash over the names, shapes, types and all values of the parameters, by place.

    Args:
        needed: only the first so many blocks and what comes before them; None for everything.

    Returns:
        "before" the blocks (or without any), "0", "1", ... and "after" them; a place without parameters is left out.
    """
    from xxhash import xxh3_128

    places: dict[str, list[tuple[str, Tensor]]] = {}
    for name, value in model.named_parameters():
        places.setdefault(_place(name), []).append((name, value))
    found = {}
    for place in _ordered(places, needed):
        digest = xxh3_128()
        for name, value in sorted(places[place], key=lambda pair: pair[0]):
            digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        found[place] = digest.hexdigest()[:16]
    return found


def _place(name: str) -> str:
    block = _BLOCK.search(name)
    if block:
        return block[1]
    return "after" if _AFTER.search(name) else "before"


def _ordered(places: Iterable[str], needed: int | None) -> Iterator[str]:
    """Before, the blocks by number, after: as data flows."""
    places = set(places)
    blocks = sorted((p for p in places if p.isdigit()), key=int)
    if "before" in places:
        yield "before"
    yield from (p for p in blocks if needed is None or not blocks or int(p) < needed)
    if "after" in places and needed is None:
        yield "after"


def _together(blocks: dict[str, str]) -> str:
    return hashlib.sha256(repr(list(blocks.items())).encode()).hexdigest()[:16]


def active_hooks(model: Any) -> dict[str, int]:
    """How many hooks stand on each module (an SAE spliced in, an ablation left on, a forward put in the place of its own)."""
    hooks = {name or "the model": sum(map(_is_foreign, _hooks_of(module))) for name, module in model.named_modules()}
    return {name: count for name, count in hooks.items() if count}


def _hooks_of(module: Any) -> list[Any]:
    kinds = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    replaced = [vars(module)["forward"]] if "forward" in vars(module) else []
    return [*(hook for kind in kinds for hook in kind.values()), *replaced]


def _is_foreign(hook: Any) -> bool:
    """Whether somebody else's code put it there; of a `partial`, the function counts."""
    return not str(getattr(getattr(hook, "func", hook), "__module__", "")).startswith(_OWN)


def tokenizer_fingerprint(tokenizer: Any | None) -> str | None:
    """SHA-256 of the vocabulary with its ids; None for a model without a tokenizer."""
    if tokenizer is None:
        return None
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0]))
    return hashlib.sha256(repr(vocabulary).encode()).hexdigest()[:16]
