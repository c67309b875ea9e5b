"""Again: whether a model still computes what is held of it, in a store, in activations or in a circuit.

Weights are hashed, but a model is more than weights: settings read while it runs, running means, a forward that somebody
replaced, hooks. What it makes of a few inputs tells all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..data import Batch, Batches
from ..data.positions import NOTHING
from ..errors import GateLensError, ModelError, StoreError
from ..models import Model
from ..models.compared import TOLERANCES
from ..models.fingerprint import active_hooks
from ..store.shards import ShardFolder
from .capture import capture

#: what to look for where nothing else differs
UNSEEN = ", though its weights are the same: a setting, a module, a running mean or a hook of it changed since"
_PARTS, _AT = ("inputs", "targets", "keep", "document", "mask"), "at "
#: rows that are held: enough to tell, few enough to keep in every circuit
_ROWS = 16


@dataclass(frozen=True, eq=False)
class Seen:
    """A few inputs, and what a model made of them at some hook points.

    Attributes:
        batch: the inputs, and which positions count.
        rows: hook name -> the rows of these positions.
        heads: hook points whose heads are taken side by side.
    """

    batch: Batch
    rows: Mapping[str, Float[Tensor, "rows width"]]
    heads: Collection[str] = ()

    @classmethod
    def first(cls, batches: Batches, rows: Mapping[str, Tensor], heads: Collection[str] = ()) -> Seen | None:
        """The first examples of what was collected; None where none of their positions counts."""
        per_example = max(1, batches.keep[0].numel())
        batch = batches.take(max(1, _ROWS // per_example)).batch(0)
        count = int(batch.keep.sum())
        return cls(batch, {name: value[:count] for name, value in rows.items()}, heads) if count else None

    @classmethod
    def of(cls, model: Model, names: Sequence[str], heads: Collection[str], like: Seen | None) -> Seen | None:
        """What a model makes of tokens drawn at random, so that no text of anybody's is kept; of other inputs the first ones seen.

        None where neither is to be had.
        """
        d_vocab = getattr(getattr(model, "cfg", None), "d_vocab", None)
        if isinstance(d_vocab, int) and d_vocab > 0:
            batch = _drawn(d_vocab, min(_ROWS // 2, int(getattr(model.cfg, "n_ctx", _ROWS))))
        elif like is not None:
            batch = like.batch
        else:
            return None
        return cls(batch, _rows(model, batch, names, heads), heads)

    def to_tensors(self) -> dict[str, Tensor]:
        """Everything, by name."""
        parts = {name: getattr(self.batch, name) for name in _PARTS if getattr(self.batch, name) is not None}
        return parts | {_AT + name: value for name, value in self.rows.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], heads: Collection[str] = ()) -> Seen:
        """What `to_tensors` gave."""
        rows = {name.removeprefix(_AT): value for name, value in tensors.items() if name.startswith(_AT)}
        return cls(Batch(**{name: value for name, value in tensors.items() if not name.startswith(_AT)}), rows, heads)

    def check(self, model: Model, what: str, advice: str, error: type[GateLensError] = ModelError) -> None:
        """Compare with what the model makes of the inputs now.

        Raises:
            error: they differ; names the hook point, with the figure.
        """
        now = _rows(model, self.batch, list(self.rows), self.heads)
        for name, kept in self.rows.items():
            found = now[name]
            off = (
                float((kept.float() - found).norm() / found.norm().clamp_min(1e-30))
                if kept.shape == found.shape
                else float("inf")
            )
            if not off <= TOLERANCES.get(_precision(model), 1e-3):
                raise error(
                    f"{what} other values at {name} than the model computes now, by a relative {off:.2g}{advice}"
                )


def check_kept(
    model: Model,
    batches: Batches,
    pieces: Sequence[range],
    store: ShardFolder,
    names: Sequence[str],
    heads: Collection[str],
) -> None:
    """Compare the first and the last batch of the first and the last shard that are there with what the model makes of it now.

    Under hooks every batch is compared: what they do may depend on what passes.

    Raises:
        StoreError: they differ; names the hook point, with the figure.
    """
    there, every = [i for i in range(store.count) if store.done(i)], bool(active_hooks(model))
    for i in there if every else dict.fromkeys(there[:1] + there[-1:]):
        kept, at = store.read(i), 0
        for number in pieces[i]:
            batch = batches.batch(number)
            part = slice(at, at := at + int(batch.keep.sum()))
            if part.start < part.stop and (every or number in (pieces[i].start, pieces[i].stop - 1)):
                seen = Seen(batch, {name: kept[name][part] for name in names}, heads)
                advice = ". Give another folder, delete this one to make it again, or put the model back as it was"
                seen.check(model, f"{store.folder} holds", UNSEEN + advice, StoreError)


def _rows(model: Model, batch: Batch, names: Sequence[str], heads: Collection[str]) -> dict[str, Tensor]:
    count = int(batch.keep.sum())
    found = capture(model, [batch], names, count, torch.float32, count, heads=heads)
    return {name: found[name] for name in names}


def _drawn(d_vocab: int, length: int) -> Batch:
    ids = torch.randint(d_vocab, (2, length), generator=torch.Generator().manual_seed(0))
    return Batch(ids, torch.full_like(ids, NOTHING), torch.ones_like(ids, dtype=torch.bool), torch.zeros_like(ids))


def _precision(model: Model) -> torch.dtype:
    return next((p.dtype for p in model.parameters()), torch.float32)
