"""Removal: what the model's own predictions make of an output, beside another direction of the same size.

Where the output is on it is taken out of the hook point, and the predictions over the rest of the window are held against the
model's own by Kullback-Leibler divergence. A step of that length along another output's direction does something too: only what
is above that is the output's own doing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..data import Batches
from ..distributed import shared, team
from ..errors import DataError
from ..errors.progress import bar
from ..models import block_of, entering_hook, run_cached, run_hooked, starts_at

#: windows in which an output is removed
WINDOWS = 4


@dataclass(frozen=True)
class Removal:
    """The divergence of the predictions, in nats a position, over the rest of the windows.

    Attributes:
        own: with the output removed. other: with as long a step along another output's direction.
        windows: how many; own_in, other_in: of each window.
    """

    own: float
    other: float
    windows: int
    own_in: tuple[float, ...]
    other_in: tuple[float, ...]


def removals(
    model: Any,
    hook: str,
    directions: Float[Tensor, "n d"],
    f_out: Any,
    levels: Float[np.ndarray, " n"],
    outs: Sequence[int],
    batches: Batches,
    seed: int = 0,
    progress: bool | None = None,
) -> dict[int, Removal]:
    """The removal of each of some outputs, by each of several processes its share; one that is on in no row is left out.

    Args:
        hook: where the output features stand; directions: what one unit of each adds there.
        f_out: [rows, n] output features above zero over the rows of `batches`, scipy CSR; levels: above which each is on.

    Raises:
        DataError: features of other batches.
    """
    place = batches.keep.reshape(len(batches.inputs), -1).nonzero()
    if f_out.shape[0] != len(place):
        raise DataError(
            f"features of {f_out.shape[0]} rows, {len(place)} positions of {batches.name} that count. "
            "Give the batches that the activations were collected on"
        )
    random, columns = np.random.default_rng(seed), f_out.tocsc()
    passes = _From(model, hook)
    alive = np.flatnonzero(np.diff(columns.indptr))
    jobs: list[tuple[int, Tensor, Tensor, Tensor, Tensor]] = []  # what is drawn is drawn in order, whoever then does it
    for out in outs:
        span = slice(columns.indptr[out], columns.indptr[out + 1])
        above = columns.data[span] > levels[out]
        where, value = place[columns.indices[span][above]], torch.from_numpy(columns.data[span][above])
        others = alive[alive != out]
        if len(where) and len(others):
            windows = _windows(where, random)
            jobs.append((out, windows, where, value, directions[int(random.choice(others))]))
    with bar(room="removal", total=len(team().owned(len(jobs))), progress=progress, unit="output") as shown:

        def removed(i: int) -> Removal:
            out, windows, where, value, other = jobs[i]
            part = batches.part(windows, batches.name)
            shown.update()
            return _removal(passes, part, windows, where, value, directions[out], other)

        return dict(zip((out for out, *_ in jobs), shared(len(jobs), removed), strict=True))


def _windows(where: Int[Tensor, "on 2"], random: np.random.Generator) -> Int[Tensor, " windows"]:
    """Some of the windows in which an output is on."""
    windows = where[:, 0].unique().numpy()
    return torch.from_numpy(np.sort(random.choice(windows, min(WINDOWS, len(windows)), replace=False)))


def _removal(
    passes: _From, part: Batches, windows: Tensor, where: Tensor, value: Tensor, own: Tensor, other: Tensor
) -> Removal:
    length = 1 if part.inputs.is_floating_point() else part.inputs.shape[1]
    amount = torch.zeros(len(windows), length)
    chosen = torch.isin(where[:, 0], windows)
    amount[torch.searchsorted(windows, where[chosen, 0]), where[chosen, 1]] = value[chosen].float()
    rest = amount.cumsum(1) > 0
    if part.mask is not None:
        rest &= part.mask.reshape(rest.shape)  # nothing is predicted at padding
    same_size = other * (own.norm() / other.norm().clamp_min(1e-12))
    clean = passes.log_probabilities(part, None)
    divergence = []
    for direction in (own, same_size):
        changed = passes.log_probabilities(part, -amount[..., None] * direction.to(amount))
        kl = (clean.exp() * (clean - changed)).sum(-1).clamp_min(0)
        divergence.append(((kl * rest).sum(1) / rest.sum(1)).tolist())
    own_kl, other_kl = divergence
    means = float(np.mean(own_kl)), float(np.mean(other_kl))
    return Removal(*means, len(windows), tuple(own_kl), tuple(other_kl))


class _From:
    """Predictions of a model with something added at a hook point; what lies below the block is run once a set of inputs."""

    def __init__(self, model: Any, hook: str):
        self.model, self.hook = model, hook
        self.first = block_of(hook) or 0
        self._starts: bool | None = None
        self._last: tuple[Batches, Tensor] | None = None

    def log_probabilities(self, part: Batches, change: Tensor | None) -> Float[Tensor, "windows positions outputs"]:
        hooks = [] if change is None else [(self.hook, self._adding(change))]
        with torch.no_grad():
            if self._can_start(part):
                logits = run_hooked(self.model, self._entering(part), None, hooks, start_at_layer=self.first)
            else:
                logits = run_hooked(self.model, part.inputs, part.mask, hooks)
        logits = logits if logits.ndim == 3 else logits[:, None]
        return logits.float().cpu().log_softmax(-1)

    def _can_start(self, part: Batches) -> bool:
        """Whether there are blocks to spare; proved on the first windows that come."""
        name = entering_hook(self.first)
        if not self.first or name not in self.model.hook_dict or (part.mask is not None and not part.mask.all()):
            return False
        if self._starts is None:
            whole, cache = run_cached(self.model, part.inputs, None, [name])
            self._starts = starts_at(self.model, self.first, cache[name], whole)
        return self._starts

    def _entering(self, part: Batches) -> Tensor:
        if self._last is None or self._last[0] is not part:
            name = entering_hook(self.first)
            _, cache = run_cached(self.model, part.inputs, None, [name], stop_at_layer=self.first + 1)
            self._last = part, cache[name]
        return self._last[1]

    def _adding(self, change: Tensor) -> Any:
        def add(value: Tensor, hook: Any = None) -> Tensor:
            return value + change.to(value).reshape(value.shape)

        return add
