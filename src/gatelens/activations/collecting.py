"""Activations: what the model computes at chosen hook points, row by row, with where each row came from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from ..data import Batches
from ..distributed import this_worker, wait_for
from ..errors import DataError
from ..models import Model, check_hook_names
from ..models.fingerprint import model_record
from ..segments import Segment
from ..store.shards import ShardFolder, read_shards, spans
from .capture import DTYPES, KIND, Stored, capture, data_fingerprint, forward_kwargs, split_where


@dataclass(frozen=True, eq=False)
class Activations(Mapping[str, Tensor]):
    """hook name -> [rows, width], all hook points over the same rows.

    Attributes:
        tensors: the activations by hook name; from a store they are read anew on each access.
        document, position, token: [rows] each; where a row came from. An image is a document of one position; its
            token is its label.
    """

    tensors: Mapping[str, Float[Tensor, "rows width"]]
    document: Int[Tensor, " rows"]
    position: Int[Tensor, " rows"]
    token: Int[Tensor, " rows"]
    source: str = ""

    def __getitem__(self, hook: str) -> Float[Tensor, "rows width"]:
        if hook not in self.tensors:
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


def hook_names(points: Iterable[Segment | str]) -> list[str]:
    """The hook names of segments (both ends) and plain names, each once, in order of appearance."""
    names: list[str] = []
    for point in points:
        names += [point] if isinstance(point, str) else [point.hook_in, point.hook_out]
    return list(dict.fromkeys(names))


def collect(
    model: Model,
    batches: Batches,
    points: Iterable[Segment | str],
    store: str | Path | None = None,
    progress: bool = False,
    *,
    dtype: str = "float32",
    shard_rows: int = 32_768,
) -> Activations:
    """Run the model over the batches once, only as deep as needed, and keep what it computes at the hook points.

    Args:
        points: segments (both their ends) or hook names.
        store: a folder to keep them in, in checksummed shards; None keeps them in memory. A run that was stopped goes
            on where it was; shards of another model, other data or other hook points are refused. Of several workers
            (see `gatelens.distributed`) each does its share of the shards.
        progress: show a bar on standard error.
        dtype: "float32" or "float16", how they are kept; what is read back is float32 again.
        shard_rows: positions in a shard, which bounds the memory that a store takes.

    Raises:
        HookNameError: before any forward pass, with the nearest names.
        NonFiniteError: at the first NaN or infinity, naming hook, batch and row.
        TooLargeError: at the first batch, when memory or disk could not hold the whole.
        StoreError: a store of something else.
    """
    names = hook_names(points)
    check_hook_names(model, names)
    if not names:
        raise DataError("nothing to collect: give at least one segment or hook name")
    if dtype not in DTYPES:
        raise DataError(f"activations are kept as {' or '.join(DTYPES)}, got {dtype!r}")
    if store is None:
        pieces = tqdm(batches, disable=not progress, desc="collect", delay=2)
        kept = capture(model, pieces, names, batches.rows, DTYPES[dtype], whole=batches.rows)
        return Activations(*split_where({k: v.float() if k in names else v for k, v in kept.items()}), batches.name)
    return _collect_to(Path(store), model, batches, names, dtype, shard_rows, progress)


def _collect_to(
    folder: Path, model: Model, batches: Batches, names: list[str], dtype: str, shard_rows: int, progress: bool
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
    worker = this_worker()
    with ShardFolder(folder, KIND, config, len(pieces), worker.name) as out:
        todo = list(out.missing(worker.owned(len(pieces))))
        for i in tqdm(todo, disable=not progress, desc=f"collect to {folder.name}", delay=2):
            part = [batches.batch(b) for b in pieces[i]]
            rows = sum(int(batch.keep.sum()) for batch in part)
            made = (model, part, names, rows, DTYPES[dtype], batches.rows, folder, pieces[i].start)
            out.write(i, capture(*made), {"rows": rows})  # under no name: it is gone before the next one is made
        wait_for(out)
        return _opened(out.finish())


def _opened(folder: ShardFolder) -> Activations:
    stored = Stored(folder)
    return Activations(stored, *stored.where(), source=str(folder.config.get("source", "")))
