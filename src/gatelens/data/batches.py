"""Batches: a finite data set that can be walked again and again, in the same order every time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from ..errors import DataError
from .arrays import flags, pixels_or_ids, whole_numbers
from .positions import NOTHING
from .sizes import check_count


@dataclass(frozen=True)
class Batch:
    """A few examples. `keep` and `document` say which positions count in statistics, and where each comes from."""

    inputs: Shaped[Tensor, "n *shape"]  # [n, d] pixels, or [n, T] token ids: what the model is called on
    targets: Int[Tensor, "n *T"]  # class labels, or next tokens (-100 where there is none)
    keep: Bool[Tensor, "n *T"]
    document: Int[Tensor, "n *T"]
    mask: Bool[Tensor, "n T"] | None = None  # False at padding


@dataclass(frozen=True, init=False)
class Batches:
    """All examples of one part of the data, in memory; iterating gives `Batch`es in a fixed order.

    `Batches(images, labels)` is enough: every example counts, and each is a document of its own. Tensors, arrays and nested
    lists are taken; float inputs become float32, uint8 images are divided by 255, labels become int64. Padding and special
    tokens of token ids are known by `text_batches(model, tokens)`, not here.

    Attributes:
        inputs: [n, ...] float features (images) or [n, T] int64 token ids.
        targets: [n] labels, or [n, T] next tokens with -100 where there is nothing to predict.
        keep: [n] or [n, T]; False at positions (BOS, padding) that no statistic may count. By default all count.
        document: [n] or [n, T]; which document each row comes from. Parts are split by document, never by row. By default
            every example is one.
        batch_size: examples in one batch.
        metric: "accuracy" or "ce", what the model's output is judged by.
        name: of the data set, for reports.
        mask: [n, T], False at padding, which the model must not see; None where nothing is known (then positions that do not
            count and hold PAD at the ends of a row are padding).

    Raises:
        DataError: empty, of several lengths, or labels that are no integers.
    """

    inputs: Shaped[Tensor, "n *shape"]
    targets: Int[Tensor, "n *T"]
    keep: Bool[Tensor, "n *T"]
    document: Int[Tensor, "n *T"]
    batch_size: int
    metric: str
    name: str
    mask: Bool[Tensor, "n T"] | None

    def __init__(
        self,
        inputs: Any,
        targets: Any,
        keep: Any = None,
        document: Any = None,
        batch_size: Any = 512,
        metric: Any = "accuracy",
        name: Any = "data",
        mask: Any = None,
    ):
        if not isinstance(metric, str) or metric not in ("accuracy", "ce"):
            raise DataError(f'metric must be "accuracy" or "ce", got {metric!r:.80}')
        if not isinstance(name, str):
            raise DataError(f"the name of a data set is a text, got {name!r:.80}")
        check_count(batch_size, "batch_size", 1)
        values = _filled(inputs, targets, keep, document, mask, name)
        for field, value in (values | {"batch_size": int(batch_size), "metric": metric, "name": name}).items():
            object.__setattr__(self, field, value)
        if len(self.inputs) == 0:
            raise DataError(
                f"{self.name} is empty: expected at least one example, got none. Check the path and the split"
            )
        lengths = [len(v) for v in (self.inputs, self.targets, self.keep, self.document)]
        if len(set(lengths)) > 1:
            raise DataError(
                f"{self.name}: inputs, targets, keep and document differ in length "
                f"({', '.join(map(str, lengths))}); give one row of each per example"
            )
        self._check_shapes()

    def _check_shapes(self) -> None:
        shape = self.targets.shape
        parts = {"targets": self.targets, "keep": self.keep, "document": self.document}
        if self.mask is not None:
            parts["mask"] = self.mask
        # pixels and channels are no positions, though there may be as many of them as there are classes
        each = self.inputs.shape[1:2] if not self.inputs.is_floating_point() or self.inputs.ndim == 3 else ()
        fits = shape[1:] in ((), each) and all(v.shape == shape for v in parts.values())
        if not fits:
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in parts.items())
            raise DataError(
                f"{self.name}: expected one label an example, [n], or one a token, [n, T], and keep, document and mask of "
                f"the same shape; got inputs {list(self.inputs.shape)}, {shapes}. Of one-hot labels give one_hot.argmax(1)"
            )
        if bool(((self.targets < 0) & (self.targets != NOTHING)).any()):
            raise DataError(
                f"{self.name}: a target is {int(self.targets.min())}; expected class numbers from 0 on, and -100 where there is none"
            )

    def __iter__(self) -> Iterator[Batch]:
        return (self.batch(number) for number in range(len(self)))

    def batch(self, number: int) -> Batch:
        """Batch `number` of 0..len-1."""
        return Batch(**self._rows(slice(number * self.batch_size, (number + 1) * self.batch_size)))

    def __len__(self) -> int:
        """The number of batches."""
        return -(-len(self.inputs) // self.batch_size)

    @property
    def examples(self) -> int:
        return len(self.inputs)

    @property
    def rows(self) -> int:
        """Positions that count: one an image, one a kept token."""
        return int(self.keep.sum())

    def take(self, examples: int) -> Batches:
        """The first `examples` examples."""
        return self.part(slice(0, examples), self.name)

    def part(self, rows: slice | Tensor, name: str) -> Batches:
        """Some of the examples, under a name of their own."""
        return replace(self, **self._rows(rows), name=name)

    def _rows(self, rows: slice | Tensor) -> dict[str, Any]:
        values = {name: getattr(self, name)[rows] for name in ("inputs", "targets", "keep", "document")}
        return values | {"mask": None if self.mask is None else self.mask[rows]}

    def __repr__(self) -> str:
        return (
            f"Batches({self.name}: {self.examples} examples of shape {tuple(self.inputs.shape[1:])}, "
            f"{self.rows} rows, {self.keep.numel() - self.rows} positions left out (BOS, padding), "
            f"{len(torch.unique(self.document))} documents, {self.metric})"
        )


def _filled(inputs: Any, targets: Any, keep: Any, document: Any, mask: Any, name: str) -> dict[str, Any]:
    """Every field as the tensor that the rest relies on."""
    targets = whole_numbers(targets, f"{name}: targets")
    inputs = pixels_or_ids(inputs, name, tuple(targets.shape))
    if targets.ndim == 2 and targets.shape[1] == 1 and not (inputs.ndim == 2 and inputs.shape == targets.shape):
        targets = targets[:, 0]
    mask = None if mask is None else flags(mask, f"{name}: mask")
    if mask is not None and mask.shape != targets.shape and bool(mask.all()):
        mask = None  # without padding it says nothing, not even of rows that were framed since
    return {
        "inputs": inputs,
        "targets": targets,
        "keep": torch.ones(targets.shape, dtype=torch.bool) if keep is None else flags(keep, f"{name}: keep"),
        "document": _own_documents(targets) if document is None else whole_numbers(document, f"{name}: document"),
        "mask": mask,
    }


def _own_documents(targets: Tensor) -> Tensor:
    """Every example is a document."""
    numbers = torch.arange(len(targets))
    return numbers.reshape(-1, *[1] * (targets.ndim - 1)).expand(targets.shape)
