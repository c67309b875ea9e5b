"""Again: whether the model still computes what a store holds of it, before any of it is used.

Weights are hashed, but a model is more than weights: settings read while it runs, running means, a forward that somebody
replaced, hooks. What it makes of a few batches tells all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from ..data import Batches
from ..errors import StoreError
from ..models import Model
from ..models.compared import TOLERANCES
from ..store.shards import ShardFolder
from .capture import capture


def check_kept(
    model: Model,
    batches: Batches,
    pieces: Sequence[range],
    store: ShardFolder,
    names: Sequence[str],
    heads: Collection[str],
) -> None:
    """Compare the first and the last batch of the first and the last shard that are there with what the model makes of it now.

    Raises:
        StoreError: they differ; names the hook point, with the figure.
    """
    there = [i for i in range(store.count) if store.done(i)]
    for i in dict.fromkeys(there[:1] + there[-1:]):
        kept = store.read(i)
        for number in dict.fromkeys((pieces[i].start, pieces[i].stop - 1)):
            batch = batches.batch(number)
            rows = int(batch.keep.sum())
            part = slice(0, rows) if number == pieces[i].start else slice(-rows, None)
            if rows:
                now = capture(model, [batch], names, rows, torch.float32, rows, heads=heads)
                _compare(model, store, {name: (kept[name][part].float(), now[name]) for name in names})


def _compare(model: Model, store: ShardFolder, pairs: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    for name, (kept, now) in pairs.items():
        off = float((kept - now).norm() / now.norm().clamp_min(1e-30))
        if not off <= TOLERANCES.get(_precision(model), 1e-3):
            raise StoreError(
                f"{store.folder} holds other values at {name} than the model computes now, by a relative {off:.2g}, though its "
                "weights are the same: a setting, a module, a running mean or a hook of it changed since. Give another "
                "folder, delete this one to make it again, or put the model back as it was"
            )


def _precision(model: Model) -> torch.dtype:
    return next((p.dtype for p in model.parameters()), torch.float32)
