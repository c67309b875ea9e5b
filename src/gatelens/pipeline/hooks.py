"""The hook points of a config's model, with shapes, and which of them are ends of an MLP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..models import device_of

if TYPE_CHECKING:
    from .walk import Walk


def hook_table(walk: Walk) -> str:
    """One line a hook point that fires: name, shape on one batch, and what it is the end of."""
    model, segments = walk.model, walk.segments
    batch = next(iter(walk.batches[0])).inputs[:2]
    with torch.no_grad():
        _, cache = model.run_with_cache(batch.to(device_of(model)))
    ends: dict[str, list[str]] = {}
    for segment in segments:
        ends.setdefault(segment.hook_in, []).append("into an MLP")
        ends.setdefault(segment.hook_out, []).append("out of an MLP")
    wide = max(map(len, cache))
    return "\n".join(
        f"{name:<{wide}}  {list(cache[name].shape)!s:<20}{', '.join(ends.get(name, []))}".rstrip() for name in cache
    )
