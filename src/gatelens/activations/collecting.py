"""Activations: what the model computes at chosen hook points, row by row, with where each row came from."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..data import Batches
from ..data.given import as_batches
from ..distributed import meet, team, this_worker, wait_for
from ..errors import DataError, GateLensWarning, StoreError
from ..errors.door import at_the_door
from ..errors.interrupt import keeping
from ..errors.progress import bar
from ..models import Model, check_hook_names, check_model
from ..models.fingerprint import model_record
from ..models.placing import HOST, device_named
from ..segments import Segment
from ..segments.segment import no_model
from ..segments.transformer import TOLERANCES
from ..segments.values import check_rowwise, rows_for
from ..store.shards import ShardFolder, read_shards, spans
from .again import Seen, check_kept
from .capture import (
    DTYPES,
    KIND,
    WHERE,
    Stored,
    capture,
    data_fingerprint,
    forward_kwargs,
    split_where,
    where_of,
)

#: rows on which a segment's forward is held against the model's
_PROOF = 64


@at_the_door
@dataclass(frozen=True, eq=False)
class Activations(Mapping[str, Tensor]):
    """hook name -> [rows, width], all hook points over the same rows.

    Attributes:
        tensors: the activations by hook name; from a store they are read anew on each access.
        document, position, token: [rows] each; where a row came from. An image is a document of one position; its
            token is its label.
        source: what the rows were read from, for pages.
        seen: the first inputs with what became of them, to tell whether a model is the one that they come from; None for
            activations that were opened or put together by themselves.

    Raises:
        DataError: a hook point that was not collected. StoreError: from `open`, a store that is unfinished or damaged.

    Examples:
        >>> unseen
        Activations(2000 rows at hook_resid [64], hook_mlp_out [24])
        >>> unseen["hook_resid"].shape, unseen.document[:3]
        (torch.Size([2000, 64]), tensor([0, 1, 2]))
    """

    tensors: Mapping[str, Float[Tensor, "rows width"]]
    document: Int[Tensor, " rows"]
    position: Int[Tensor, " rows"]
    token: Int[Tensor, " rows"]
    source: str = ""
    seen: Seen | None = field(default=None, repr=False)

    def __getitem__(self, hook: str) -> Float[Tensor, "rows width"]:
        if not isinstance(hook, str) or hook not in self.tensors:
            raise DataError(
                f"no activations were collected at {hook!r}; there are {', '.join(self.tensors)}. "
                "Give `collect` the segments or hook names that you need"
            )
        return self.tensors[hook]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    @property
    def rows(self) -> int:
        return len(self.document)

    @classmethod
    def open(cls, folder: str | Path) -> Activations:
        """What `collect(..., store=folder)` kept there.

        Raises:
            StoreError: unfinished, damaged, or something else.
        """
        return _opened(read_shards(folder, KIND))

    def shards(self) -> Iterator[Activations]:
        """The rows in pieces that fit in memory: the shards of a store, or everything at once."""
        if isinstance(self.tensors, Stored):
            for tensors in self.tensors.shards():
                yield Activations(*split_where(tensors), self.source)
        else:
            yield self

    def __repr__(self) -> str:
        stored = self.tensors.widths if isinstance(self.tensors, Stored) else None
        widths = stored or {hook: value.shape[1] for hook, value in self.tensors.items()}
        hooks = ", ".join(f"{hook} [{width}]" for hook, width in widths.items())
        return f"Activations({self.rows} rows at {hooks})"


def check_made_by(model: Model, acts: Any, what: str = "acts", batches: Batches | None = None) -> None:
    """Refuse activations that another model gave, or this one before it was changed, or of other rows; plain tensors pass.

    Raises:
        ModelError: with the hook point and the figure. DataError: not the rows of `batches`.
    """
    if not isinstance(acts, Activations):
        return
    if batches is not None and not _rows_of(acts, batches):
        raise DataError(
            f"`{what}` are {acts.rows} rows of {acts.source or 'other data'}, expected the {batches.rows} rows of {batches.name}: "
            "give collect(model, held_out, segments) of the data that you evaluate on, or leave them out"
        )
    if acts.seen is not None:
        acts.seen.check(
            model, f"`{what}` holds", ". Collect them again with this model, or give the one that they come from"
        )


def check_forwards(segments: Sequence[Segment], acts: Any) -> None:
    """See on a few collected rows that each segment computes what the model does between its ends; plain tensors pass.

    Raises:
        SegmentError: with the figure.
    """
    if not isinstance(acts, Activations):
        return
    for segment in segments:
        if segment.forward is not no_model and segment.hook_in in acts and segment.hook_out in acts:
            x, y = (acts[hook][:_PROOF] for hook in (segment.hook_in, segment.hook_out))
            # a model of half precision will do, and activations kept in it
            segment.check(rows_for(segment, x), y.to(segment.device), max(TOLERANCES.values()))


def _rows_of(acts: Activations, batches: Batches) -> bool:
    """Whether they are of these rows, in this order, as far as tokens and the first inputs tell."""
    first = None if acts.seen is None else acts.seen.batch.inputs
    same = first is None or torch.equal(first, batches.inputs[: len(first)])
    return same and acts.rows == batches.rows and torch.equal(acts.token, where_of(batches)[2])


def with_origins(acts: Any) -> Activations | None:
    """The activations, where they know which token of which document each row is; None for a plain mapping."""
    return acts if isinstance(acts, Activations) else None


def hook_names(points: Any) -> list[str]:
    """The hook names of segments (both ends) and plain names, each once, in order of appearance; one of either will do.

    Raises:
        DataError: something that is neither.
    """
    return list(dict.fromkeys(name for point in each_point(points) for name in _ends(point)))


def each_point(points: Any) -> list[Segment | str]:
    """Segments and hook names as a list, also of one that comes alone."""
    if isinstance(points, Segment | str):
        return [points]
    try:
        found = list(points)
    except TypeError:
        found = [points]
    for point in found:
        if not isinstance(point, Segment | str):
            raise DataError(
                f"expected segments or hook names, got {type(point).__name__}. "
                "Give mlp_segments(model), a Segment, or a name that `gatelens hooks CONFIG` lists"
            )
    return found


def _ends(point: Segment | str) -> list[str]:
    return [point] if isinstance(point, str) else [point.hook_in, point.hook_out]


def collect(
    model: Any,
    batches: Any,
    points: Any,
    store: str | Path | None = None,
    progress: bool | None = None,
    *,
    dtype: str = "float32",
    shard_rows: int = 32_768,
    device: str | torch.device | None = None,
) -> Activations:
    """Run the model over the batches once, only as deep as needed, and keep what it computes at the hook points.

    Args:
        batches: what `text_batches` and `image_batches` give; or, as it is, a prompt or a list of them, token ids (tensor,
            array, nested lists, the tokenizer's own answer), images, or a DataLoader of these.
        points: segments (both their ends) or hook names; a single one will do.
        store: a folder to keep them in, in checksummed shards; None keeps them in memory. A run that was stopped goes
            on where it was; shards of another model, other data or other hook points are refused. Of several workers
            (see `gatelens.distributed`) each does its share of the shards.
        progress: bars on standard error; None: where somebody watches.
        dtype: "float32" or "float16", how they are kept; what is read back is float32 again.
        shard_rows: positions in a shard, which bounds the memory that a store takes.
        device: where rows in memory are kept; None for the host's memory, from which they are brought to the model's device batch
            by batch when they are worked on.

    Returns:
        `Activations`: hook name -> [rows, width] in float32, a row for each position that counts, in the order of the data.

    Raises:
        HookNameError: before any forward pass, with the nearest names.
        ModelError: no hook points (told how to wrap it), or a model that reads its padding.
        SegmentError: a hook point that does not hold a row for each position.
        NonFiniteError: at the first NaN or infinity, naming hook, batch and row.
        TooLargeError: at the first batch, when memory or disk could not hold the whole.
        StoreError: a store of something else, or of what the model computed before something on it was changed.

    Examples:
        >>> lm = gl.load_model("gpt2-mini")
        >>> gl.collect(lm, ["It was late.", "He left."], "blocks.3.hook_mlp_out")
        Activations(... rows at blocks.3.hook_mlp_out [256])
    """
    check_model(model)
    chosen = each_point(points)
    names = hook_names(chosen)
    check_hook_names(model, names)
    if not names:
        raise DataError("nothing to collect: give at least one segment or hook name")
    if dtype not in DTYPES:
        raise DataError(f"activations are kept as {' or '.join(DTYPES)}, got {dtype!r}")
    if isinstance(shard_rows, bool) or not isinstance(shard_rows, int) or shard_rows < 1:
        raise DataError(f"shard_rows must be a whole number of at least 1, got {shard_rows!r}")
    check_rowwise(model, chosen)
    batches = as_batches(model, batches)
    heads = [name for point in chosen if isinstance(point, Segment) and point.reshape for name in _ends(point)]
    if store is None:
        pieces = bar(batches, "collect", progress)
        place = HOST if device is None else device_named(device)
        with keeping(
            lambda: "collect keeps nothing of these activations; with store=FOLDER it keeps each finished shard"
        ):
            kept = capture(model, pieces, names, batches.rows, DTYPES[dtype], batches.rows, heads=heads, device=place)
        tensors, document, position, token = split_where({k: v.float() if k in names else v for k, v in kept.items()})
        return Activations(tensors, document, position, token, batches.name, Seen.first(batches, tensors, heads))
    return _collect_to(Path(store), model, batches, names, dtype, shard_rows, progress, heads)


def _collect_to(
    folder: Path,
    model: Model,
    batches: Batches,
    names: list[str],
    dtype: str,
    shard_rows: int,
    progress: bool | None,
    heads: list[str],
) -> Activations:
    positions = batches.keep[: batches.batch_size].numel()
    pieces = spans(len(batches), max(1, shard_rows // positions))
    config = {
        "model": model_record(model, names),
        "data": data_fingerprint(batches),
        "source": batches.name,
        "hooks": names,
        "dtype": dtype,
        "deep": forward_kwargs(model, names),
    }
    worker = team() if not team().alone else this_worker()
    with ShardFolder(folder, KIND, config, len(pieces), worker.name) as out, keeping(lambda: _kept(out)):
        check_kept(model, batches, pieces, out, names, heads)
        todo = list(out.missing(worker.owned(len(pieces))))
        for i, problem in out.damaged(todo):
            warnings.warn(f"shard {i} of {folder} is made again: {problem}", GateLensWarning, stacklevel=3)
        for i in bar(todo, f"collect to {folder.name}", progress):
            part = [batches.batch(b) for b in pieces[i]]
            rows = sum(int(batch.keep.sum()) for batch in part)
            made = (model, part, names, rows, DTYPES[dtype], batches.rows, folder, pieces[i].start, heads)
            out.write(i, capture(*made), {"rows": rows})  # under no name: it is gone before the next one is made
        wait_for(out)
        if team().first:  # the others would write the same
            out.finish()
        meet()
        stored = read_shards(folder, KIND, out.config)
        _check_where(stored, batches)
        first = {name: value for name, value in stored.read(0).items() if name in names}
        return _opened(stored, Seen.first(batches, first, heads))


def _kept(out: ShardFolder) -> str:
    done = out.count - len(list(out.missing()))
    return f"{done} of {out.count} shards of activations are kept in {out.folder}; the same call goes on there"


def _check_where(stored: ShardFolder, batches: Batches) -> None:
    """The rows' labels and documents are no part of what the model reads, but of what is told of them."""
    for name, kept, given in zip(WHERE, Stored(stored).where(), where_of(batches), strict=True):
        if not torch.equal(kept, given):
            row = int((kept != given).nonzero()[0]) if kept.shape == given.shape else 0
            what = {"token": "tokens or labels"}.get(name, f"{name}s")
            raise StoreError(
                f"{stored.folder} was made of the same inputs with other {what} (row {row}: {kept[row]}, now {given[row]}). "
                "Give another folder, or delete this one to make it again"
            )


def _opened(folder: ShardFolder, seen: Seen | None = None) -> Activations:
    stored = Stored(folder)
    return Activations(stored, *stored.where(), str(folder.config.get("source", "")), seen)
