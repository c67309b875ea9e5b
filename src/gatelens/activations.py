"""Activations: what the model computes at chosen hook points, row by row, with where each row came from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from .data import Batches
from .errors import DataError, NonFiniteError
from .models import Model, check_hook_names, device_of
from .segments import Segment


@dataclass(frozen=True, eq=False)
class Activations(Mapping[str, Tensor]):
    """hook name -> [rows, width], all hook points over the same rows.

    Attributes:
        tensors: the activations by hook name.
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

    def __repr__(self) -> str:
        hooks = ", ".join(f"{h} [{v.shape[1]}]" for h, v in self.tensors.items())
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
) -> Activations:
    """Run the model over the batches once and keep what it computes at the hook points.

    Args:
        points: segments (both their ends) or hook names.
        store: a folder to keep them in, in checksummed shards; None keeps them in memory.
        progress: show a bar on standard error.

    Raises:
        HookNameError: before any forward pass, with the nearest names.
        NonFiniteError: at the first NaN or infinity, naming hook, batch and row.
    """
    names = hook_names(points)
    check_hook_names(model, names)
    kept: dict[str, list[Tensor]] = {name: [] for name in names}
    where: list[tuple[Tensor, Tensor, Tensor]] = []
    device = device_of(model)
    for index, batch in enumerate(tqdm(batches, disable=not progress, desc="collect", delay=2)):
        with torch.no_grad():
            _, cache = model.run_with_cache(batch.inputs.to(device), names_filter=names)
        keep = batch.keep
        for name in names:
            value = cache[name].detach().cpu()[keep]
            _check_finite(value, name, index)
            kept[name].append(value)
        shape = keep.shape
        position = torch.arange(shape[1]).expand(shape) if len(shape) == 2 else torch.zeros(shape, dtype=torch.long)
        token = batch.inputs if len(shape) == 2 else batch.targets
        where.append((batch.document[keep], position[keep], token[keep]))
    document, position, token = (torch.cat(part) for part in zip(*where, strict=True))
    return Activations({n: torch.cat(v) for n, v in kept.items()}, document, position, token, batches.name)


def _check_finite(value: Tensor, hook: str, batch: int) -> None:
    finite = torch.isfinite(value).all(dim=-1)
    if not finite.all():
        row = int((~finite).nonzero()[0])
        raise NonFiniteError(
            f"{hook} holds NaN or infinity in batch {batch}, row {row}: expected finite activations. "
            "Look at the model's weights and at the input of that row"
        )
