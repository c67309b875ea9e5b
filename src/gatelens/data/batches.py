"""Batches: a finite data set that can be walked again and again, in the same order every time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from ..errors import DataError


@dataclass(frozen=True)
class Batch:
    """A few examples. `keep` and `document` say which positions count in statistics, and where each comes from."""

    inputs: Shaped[Tensor, "n *shape"]  # [n, d] pixels, or [n, T] token ids: what the model is called on
    targets: Int[Tensor, "n *T"]  # class labels, or next tokens (-100 where there is none)
    keep: Bool[Tensor, "n *T"]
    document: Int[Tensor, "n *T"]


@dataclass(frozen=True)
class Batches:
    """All examples of one part of the data, in memory; iterating gives `Batch`es in a fixed order.

    Attributes:
        inputs: [n, d] float features (images) or [n, T] int64 token ids.
        targets: [n] labels, or [n, T] next tokens with -100 where there is nothing to predict.
        keep: [n] or [n, T]; False at positions (BOS, padding) that no statistic may count.
        document: [n] or [n, T]; which document each row comes from. Parts are split by document, never by row.
        batch_size: examples in one batch.
        metric: "accuracy" or "ce", what the model's output is judged by.
        name: of the data set, for reports.
    """

    inputs: Shaped[Tensor, "n *shape"]
    targets: Int[Tensor, "n *T"]
    keep: Bool[Tensor, "n *T"]
    document: Int[Tensor, "n *T"]
    batch_size: int = 512
    metric: str = "accuracy"
    name: str = "data"

    def __post_init__(self):
        if len(self.inputs) == 0:
            raise DataError(
                f"{self.name} is empty: expected at least one example, got none. Check the path and the split"
            )
        if not (len(self.inputs) == len(self.targets) == len(self.keep) == len(self.document)):
            raise DataError(
                f"{self.name}: inputs, targets, keep and document differ in length "
                f"({len(self.inputs)}, {len(self.targets)}, {len(self.keep)}, {len(self.document)}); give one row of each per example"
            )
        if self.metric not in ("accuracy", "ce"):
            raise DataError(f'metric must be "accuracy" or "ce", got {self.metric!r}')

    def __iter__(self) -> Iterator[Batch]:
        return (self.batch(number) for number in range(len(self)))

    def batch(self, number: int) -> Batch:
        """Batch `number` of 0..len-1."""
        part = slice(number * self.batch_size, (number + 1) * self.batch_size)
        return Batch(self.inputs[part], self.targets[part], self.keep[part], self.document[part])

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
        part = slice(0, examples)
        return replace(
            self,
            inputs=self.inputs[part],
            targets=self.targets[part],
            keep=self.keep[part],
            document=self.document[part],
        )

    def __repr__(self) -> str:
        return (
            f"Batches({self.name}: {self.examples} examples of shape {tuple(self.inputs.shape[1:])}, "
            f"{self.rows} rows, {self.keep.numel() - self.rows} positions left out (BOS, padding), "
            f"{len(torch.unique(self.document))} documents, {self.metric})"
        )
