"""Passes: one model over the same batches again and again, under changing hooks; what lies below the hooks runs once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ..data import Batch, Batches
from ..data.given import as_batches
from ..data.readable import check_targets
from ..data.told import pads_left, setting
from ..distributed import from_first, shared
from ..models import block_of, entering_hook, prove_padding, run_hooked, starts_at
from .splicing import Hook

HooksFor = Callable[[Tensor], Sequence[Hook]]
#: residual streams are kept up to this many bytes; beyond, every pass is a whole one
KEPT_BYTES = 2 * 2**30
#: examples on which a start at a block is proved
_PROOF = 2
#: fewer batches than this are cut into so many, of so many positions at least: each of several processes is to have some
_FEW, _PARTS, _POSITIONS = 4, 8, 512


class Passes:
    """The metric of a model on some batches, under hooks that are made for each batch from its `keep`.

    Where the model can start at a block (`start_at_layer`), the residual stream that enters the first block with one of
    `points` in it is kept from the clean pass, and passes whose hooks all lie there or later start from it. That this gives
    the logits of a whole pass is proved on the first examples; where it does not, every pass is a whole one.

    Args:
        points: hook names at which passes will differ from the model's own.
    """

    def __init__(self, model: Any, batches: Batches, points: Iterable[str] = ()):
        self.model, self.batches = model, _in_parts(as_batches(model, batches))
        self.first = _first_block(points)
        self._proved = False
        self._kept: dict[int, Tensor] = {}

    @property
    def clean(self) -> float:
        """The metric of the model as it is."""
        return self.clean_tally.mean

    @cached_property
    def clean_tally(self) -> Tally:
        """The same, by document."""
        keeps, first = self._can_start(), {}

        def logits(i: int, batch: Batch) -> Tensor:
            hooks = [(entering_hook(self.first or 0), partial(self._keep, i))] if keeps else []
            found = self._whole(batch, hooks)
            if i == 0:
                first["logits"] = found[:_PROOF].clone()
            return found

        clean = self._metric(logits)
        if keeps and not from_first(lambda: self._starts_right(first["logits"])):
            self._kept.clear()
        return clean

    def metric(self, hooks: HooksFor) -> float:
        """The metric with hooks on."""
        return self.tally(hooks).mean

    def tally(self, hooks: HooksFor) -> Tally:
        """The same, by document."""
        if self._can_start():
            _ = self.clean_tally  # which keeps what the others start from
        return self._metric(lambda i, batch: self._logits(i, batch, hooks(batch.keep)))

    def _metric(self, logits: Callable[[int, Batch], Tensor]) -> Tally:
        """Put together in the order of the batches, each process running its share of them."""

        def part(i: int) -> tuple[Tensor, Tensor]:
            batch = self.batches.batch(i)
            found = logits(i, batch)
            check_targets(found, batch.targets, self.batches.targets, self.batches.name)
            known = batch.targets >= 0
            return _scores(found, batch.targets, known, self.batches.metric), batch.document[known]

        scores, documents = zip(*shared(len(self.batches), part), strict=True)
        return Tally.of(torch.cat(scores), torch.cat(documents))

    def _logits(self, i: int, batch: Batch, hooks: Sequence[Hook]) -> Tensor:
        block = _first_block(name for name, _ in hooks)
        if not self._kept or block is None or block < (self.first or 0):
            return self._whole(batch, hooks)
        return self._run(self._kept[i], batch.mask, hooks, start_at_layer=self.first)

    def _whole(self, batch: Batch, hooks: Sequence[Hook]) -> Tensor:
        if batch.mask is not None and not self._proved:
            self._proved = prove_padding(self.model, batch.inputs, batch.mask)
        return self._run(batch.inputs, batch.mask, hooks)

    def _run(self, inputs: Tensor, mask: Tensor | None, hooks: Sequence[Hook], **how: Any) -> Tensor:
        with torch.no_grad():
            return run_hooked(self.model, inputs, mask, hooks, **how)

    def _keep(self, i: int, value: Tensor, hook: Any = None) -> None:
        self._kept[i] = value.detach()

    def _can_start(self) -> bool:
        """Whether there are blocks to spare, the model can start behind them, and there is room for what enters them."""
        return bool(
            self.first
            and entering_hook(self.first) in self.model.hook_dict
            # padding on the left is masked by the embedding too, which a later start leaves out
            and not pads_left(self.model)
            and self.batches.keep.numel() * setting(self.model, "d_model", 2**31) * 4 <= KEPT_BYTES
        )

    def _starts_right(self, logits: Tensor) -> bool:
        """Whether the first examples come to the logits of the clean pass from what entered the block."""
        if 0 not in self._kept:
            return False
        few = self.batches.take(_PROOF).batch(0)
        return starts_at(self.model, self.first or 0, self._kept[0][: len(few.inputs)], logits, few.mask)


def metric(model: Any, batches: Batches, hooks: HooksFor | None = None) -> float:
    """The model's accuracy, or its cross-entropy in nats a token, with hooks made for each batch from its `keep`.

    For many passes over the same batches see `Passes`.
    """
    passes = Passes(model, batches)
    return passes.clean if hooks is None else passes.metric(hooks)


def _in_parts(batches: Batches) -> Batches:
    """The same examples in smaller batches where there are few; whatever the number of processes, so that figures are the same."""
    positions = max(1, batches.keep.numel() // batches.examples)
    size = max(-(-batches.examples // _PARTS), -(-_POSITIONS // positions))
    return replace(batches, batch_size=size) if len(batches) < _FEW and size < batches.batch_size else batches


def _scores(logits: Tensor, targets: Tensor, known: Tensor, metric: str) -> Float[Tensor, " known"]:
    """Right answers, or cross-entropy, of each position with a target; found where the logits are."""
    targets, known = targets.to(logits.device), known.to(logits.device)
    if metric == "accuracy":
        return (logits.argmax(-1) == targets)[known].cpu().double()
    return F.cross_entropy(logits[known].float(), targets[known], reduction="none").cpu().double()


@dataclass(frozen=True)
class Tally:
    """A metric summed by document.

    Attributes:
        total, count: [documents] the sum over its positions, and how many these are.
    """

    total: Float[Tensor, " documents"]
    count: Int[Tensor, " documents"]

    @classmethod
    def of(cls, scores: Float[Tensor, " rows"], document: Int[Tensor, " rows"]) -> Tally:
        known, number = document.unique(return_inverse=True)
        total = torch.zeros(len(known), dtype=torch.float64).index_add_(0, number, scores)
        return cls(total, number.bincount(minlength=len(known)))

    @property
    def mean(self) -> float:
        return float(self.total.sum() / self.count.sum().clamp_min(1))

    def interval(self, clean: Tally) -> tuple[float, float] | None:
        """The metric, give or take two standard errors over documents of its difference from the clean model's (both on the same
        documents, of which single ones differ far more than the two do); None of fewer than two documents."""
        documents, count = len(self.count), float(self.count.sum())
        if documents < 2:
            return None
        difference = self.total - clean.total
        spread = difference - difference.sum() / count * self.count
        error = float(spread.square().sum().sqrt()) / count * (documents / (documents - 1)) ** 0.5
        return self.mean - 2 * error, self.mean + 2 * error


def _first_block(names: Iterable[str]) -> int | None:
    """The first block that holds one of the hook points; None when one lies in no block, or there is none."""
    blocks = [block_of(name) for name in names]
    return None if None in blocks else min((b for b in blocks if b is not None), default=None)
