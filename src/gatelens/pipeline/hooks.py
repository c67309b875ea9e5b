"""The hook points of a config's model, with shapes, and which of them are ends of an MLP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import ConfigError
from ..models import run_cached
from .building import build

if TYPE_CHECKING:
    from .walk import Walk


def hook_table(walk: Walk) -> str:
    """One line a hook point that fires: name, shape on two examples, and what it is the end of.

    Two examples of the config's data; without `data`, two random ones, and a network that the run would train is not trained.
    """
    model = _model(walk)
    section = {"use": "mlp_segments"} | walk.config.segments
    segments = list(build(section, "segments", given={"model": model}))
    with torch.no_grad():
        _, cache = run_cached(model, _examples(walk, model), None, list(model.hook_dict))
    ends: dict[str, list[str]] = {}
    for segment in segments:
        ends.setdefault(segment.hook_in, []).append("into an MLP")
        ends.setdefault(segment.hook_out, []).append("out of an MLP")
    wide = max(map(len, cache))
    return "\n".join(
        f"{name:<{wide}}  {list(cache[name].shape)!s:<20}{', '.join(ends.get(name, []))}".rstrip() for name in cache
    )


def _model(walk: Walk) -> Any:
    section = dict(walk.config.model)
    if walk.config.data or section.get("use") != "HookedMLP":
        return walk.model
    return build({k: v for k, v in section.items() if k not in ("train", "weights")}, "model", seed=walk.config.seed)


def _examples(walk: Walk, model: Any) -> Tensor:
    if walk.config.data:
        return next(iter(walk.batches[0])).inputs[:2]
    generator = torch.Generator().manual_seed(walk.config.seed)
    cfg, sizes = getattr(model, "cfg", None), getattr(model, "sizes", None)
    if sizes is not None:
        return torch.rand(2, sizes[0], generator=generator)
    if cfg is None or not hasattr(cfg, "d_vocab"):
        raise ConfigError("this model's hook points are seen on data: the config needs a `data` section")
    return torch.randint(cfg.d_vocab, (2, min(16, cfg.n_ctx)), generator=generator)
