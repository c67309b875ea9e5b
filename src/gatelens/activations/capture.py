"""Capturing: one forward pass, many hook points, only as deep as the deepest of them."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data import Batch, Batches
from ..errors import DataError, NonFiniteError, StoreError, TooLargeError
from ..models import Model, prove_padding, run_cached
from ..models.fingerprint import blocks_needed
from ..models.placing import HOST
from ..segments.values import check_order, rows_of, switched_by
from ..store import free_bytes, readable
from ..store.estimate import available_memory
from ..store.shards import ShardFolder

KIND = "activations"
DTYPES = {"float32": torch.float32, "float16": torch.float16}
WHERE = ("document", "position", "token")


def forward_kwargs(model: Any, names: Sequence[str]) -> dict[str, int]:
    """`stop_at_layer` where the model knows it and no hook point lies behind the blocks; else nothing."""
    if "stop_at_layer" not in inspect.signature(model.forward).parameters:
        return {}
    needed = blocks_needed(names)
    return {} if needed is None else {"stop_at_layer": needed}


def capture(
    model: Model,
    batches: Iterable[Batch],
    names: Sequence[str],
    rows: int,
    dtype: torch.dtype,
    whole: int,
    folder: Path | None = None,
    first: int = 0,
    heads: Collection[str] = (),
    device: torch.device = HOST,
) -> dict[str, Tensor]:
    """The kept rows of some batches: hook name -> [rows, width], and "document", "position", "token" -> [rows].

    Args:
        rows: kept positions in these batches.
        whole: kept positions in all batches, to say before the work whether they will fit (on the disk of `folder`, or
            in memory).
        first: number of the first batch, for errors.
        heads: hook points whose heads are taken side by side.
        device: where the rows are kept.
    """
    if rows == 0 and whole == 0:
        raise DataError("no position is kept: every one is BOS or padding. Give longer documents, or keep_bos=True")
    deep = forward_kwargs(model, names)
    # whole from the start: small tensors that outlive a batch would lie between its freed large ones, which the allocator
    # can then not use again, and the process would grow to twice what it keeps
    out: dict[str, Tensor] = {}
    where = {name: torch.empty(rows, dtype=torch.long) for name in WHERE}
    at, proved = 0, False
    for index, batch in enumerate(batches, first):
        with torch.no_grad():
            _, cache = run_cached(model, batch.inputs, batch.mask, names, **deep)
        found = _rows(cache, names, tuple(batch.keep.shape), heads)
        if not out:
            check_order(lambda x: run_cached(model, x, None, names, **deep)[1], names, batch.inputs, batch.keep.shape)
            widths = {name: value.shape[1] for name, value in found.items()}
            _check_room(sum(widths.values()) * dtype.itemsize * whole, folder)
            out = {name: torch.empty(rows, width, dtype=dtype, device=device) for name, width in widths.items()}
        kept = batch.keep.flatten().nonzero()[:, 0]
        for name in names:
            value = found[name].detach().index_select(0, kept.to(found[name].device))
            _check_finite(value, name, index, dtype)
            out[name][at : at + len(kept)] = value.to(device)
        if not proved and batch.mask is not None:
            proved = prove_padding(model, batch.inputs, batch.mask, names, **deep)
        for name, value in zip(WHERE, where_of(batch), strict=True):
            where[name][at : at + len(kept)] = value
        # hooks and cache hold one another in a circle: emptied, the tensors go now and not when Python next looks for circles
        getattr(cache, "cache_dict", cache).clear()
        at += len(kept)
    return out | where


def split_where(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
    """Activations apart from where their rows come from."""
    hooks = {name: value for name, value in tensors.items() if name not in WHERE}
    return hooks, tensors["document"], tensors["position"], tensors["token"]


def data_fingerprint(batches: Batches) -> str:
    """SHA-256 of the inputs and of which positions count."""
    digest = hashlib.sha256()
    for value in (
        batches.inputs,
        batches.keep,
        *(() if batches.mask is None or batches.mask.all() else (batches.mask,)),
    ):
        digest.update(repr((value.dtype, tuple(value.shape))).encode())
        digest.update(value.contiguous().numpy().reshape(-1).view("u1"))
    return digest.hexdigest()[:16]


class Stored(Mapping[str, Tensor]):
    """The tensors of a finished store by hook name, read and checked on each access, float32."""

    def __init__(self, folder: ShardFolder):
        self.folder = folder
        self.hooks: list[str] = list(folder.config["hooks"])

    def __getitem__(self, hook: str) -> Tensor:
        if hook not in self.hooks:
            raise KeyError(hook)
        return torch.cat([self.folder.read(i)[hook].float() for i in range(self.folder.count)])

    def __iter__(self) -> Iterator[str]:
        return iter(self.hooks)

    def __len__(self) -> int:
        return len(self.hooks)

    @property
    def widths(self) -> dict[str, int]:
        first = self.folder.read(0)
        return {hook: first[hook].shape[1] for hook in self.hooks}

    def where(self) -> tuple[Tensor, Tensor, Tensor]:
        """document, position, token of every row; every shard is seen to hold all hook points."""
        shards = [self.folder.read(i) for i in range(self.folder.count)]
        for i, shard in enumerate(shards):
            missing = [name for name in (*WHERE, *self.hooks) if name not in shard]
            if missing:
                raise StoreError(
                    f"shard {i} of {self.folder.folder} holds no {missing[0]!r}; it has {', '.join(shard)}. Collect again"
                )
        document, position, token = (torch.cat([shard[name] for shard in shards]) for name in WHERE)
        return document, position, token

    def shards(self) -> Iterator[dict[str, Tensor]]:
        for i in range(self.folder.count):
            tensors = self.folder.read(i)
            yield {name: value if name in WHERE else value.float() for name, value in tensors.items()}


def _rows(cache: Any, names: Sequence[str], shape: tuple[int, ...], heads: Collection[str]) -> dict[str, Tensor]:
    """The hook points' values as rows; each must have fired."""
    for name in names:
        if name not in cache:
            raise DataError(
                f"nothing passes through {name} in this model{switched_by(name)}: choose another hook point"
            )
    return {name: rows_of(cache[name], shape, name, name in heads) for name in names}


def where_of(batch: Batch | Batches) -> tuple[Tensor, Tensor, Tensor]:
    """document, position, token of every row that counts."""
    keep = batch.keep
    if keep.ndim == 2:
        position, token = torch.arange(keep.shape[1]).expand(keep.shape), batch.inputs
    else:
        position, token = torch.zeros(keep.shape, dtype=torch.long), batch.targets
    return batch.document[keep], position[keep], token[keep]


def _check_finite(value: Tensor, hook: str, batch: int, dtype: torch.dtype) -> None:
    # a sum is finite only when all its terms are; the rows are looked at only when it is not
    if value.sum(dtype=torch.float64).isfinite() and not (dtype == torch.float16 and value.abs().max() > 65504):
        return
    bad = ~torch.isfinite(value.to(dtype)).all(dim=-1)
    if not bad.any():
        return
    row = int(bad.nonzero()[0])
    if torch.isfinite(value[row]).all():
        raise NonFiniteError(
            f"{hook} reaches {value[row].abs().max():.3g} in batch {batch}, row {row}, "
            "more than float16 can hold (65504). "
            'Collect with dtype="float32"'
        )
    raise NonFiniteError(
        f"{hook} holds NaN or infinity in batch {batch}, row {row}: expected finite activations. "
        "Look at the model's weights and at the input of that row"
    )


def _check_room(needed: int, folder: Path | None) -> None:
    """Refuse what would not fit, at the first batch."""
    if folder is not None:
        if needed > (free := free_bytes(folder)):
            raise TooLargeError(
                f"the activations would take {readable(needed)} in {folder}, where {readable(free)} are free. "
                'Choose another folder, fewer rows or hook points, or dtype="float16"'
            )
    elif (available := available_memory()) is not None and needed > available:
        raise TooLargeError(
            f"the activations would take {readable(needed)}, {readable(available)} of memory are available. "
            "Give `store=`, a folder to keep them in, or collect fewer rows or hook points"
        )
