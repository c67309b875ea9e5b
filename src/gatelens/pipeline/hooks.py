"""The hook points of a config's model, with shapes, and which of them are ends of an MLP."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..data.told import layer_sizes, setting
from ..errors import ConfigError
from ..models import run_cached
from .state import State


def hook_table(state: State) -> str:
    """One line a hook point that fires: name, shape on two examples, and what it is the end of.

    Two examples of the config's data; without `data`, two random ones, and a network that the run would train is not trained.
    """
    source = state.source
    model = source.model if source.config.data else source.shapes_of_model()
    segments = source.segments_of(model)
    with torch.no_grad():
        _, cache = run_cached(model, _examples(source, model), None, list(model.hook_dict))
    ends: dict[str, list[str]] = {}
    for segment in segments:
        ends.setdefault(segment.hook_in, []).append("into an MLP")
        ends.setdefault(segment.hook_out, []).append("out of an MLP")
    wide = max(map(len, cache))
    return "\n".join(
        f"{name:<{wide}}  {list(cache[name].shape)!s:<20}{', '.join(ends.get(name, []))}".rstrip() for name in cache
    )


def _examples(source: Any, model: Any) -> Tensor:
    if source.config.data:
        return next(iter(source.batches[0])).inputs[:2]
    generator = torch.Generator().manual_seed(source.seed)
    sizes, d_vocab = layer_sizes(model), setting(model, "d_vocab")
    if sizes:
        return torch.rand(2, sizes[0], generator=generator)
    if d_vocab is None:
        raise ConfigError("this model's hook points are seen on data: the config needs a `data` section")
    return torch.randint(d_vocab, (2, min(16, setting(model, "n_ctx"))), generator=generator)
