"""A claimed k-dimensional summary is checked by using it: keep k dimensions of a hook point, the mean elsewhere, and run on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..data import Batches
from ..evaluation.passes import Passes
from ..models import Model, check_hook_names
from .subspaces import Subspace


@dataclass(frozen=True)
class SummaryCurve:
    """The model's metric when only k dimensions of one hook point are passed on.

    Attributes:
        hook: where. metric: "accuracy" (higher is better) or "ce" (nats, lower is better). clean: of the model untouched.
        ks: numbers of dimensions. values: label of the subspace -> metric at each k. Random directions are the null.
        notes: what had to be regularised.
    """

    hook: str
    metric: str
    clean: float
    ks: tuple[int, ...]
    values: Mapping[str, tuple[float, ...]]
    notes: tuple[str, ...] = field(default=())

    def lost(self, label: str, k: int) -> float:
        """How much worse than clean: points of accuracy (0..1), or nats."""
        value = self.values[label][self.ks.index(k)]
        return self.clean - value if self.metric == "accuracy" else value - self.clean

    def smallest(self, label: str, allowed: float = 0.01) -> int | None:
        """The smallest measured k from which on no more than `allowed` is lost; None when none is."""
        good = None
        for k in sorted(self.ks, reverse=True):
            if self.lost(label, k) > allowed:
                break
            good = k
        return good

    def to_dict(self) -> dict[str, Any]:
        return {
            "hook": self.hook,
            "metric": self.metric,
            "clean": self.clean,
            "k": list(self.ks),
            "values": {label: list(v) for label, v in self.values.items()},
            "notes": list(self.notes),
        }

    def __repr__(self) -> str:
        head = f"SummaryCurve({self.hook}, {self.metric} clean {self.clean:.4g})"
        width = max(map(len, self.values))
        lines = [f"  {'k':<{width}} " + " ".join(f"{k:>7}" for k in self.ks)]
        lines += [
            f"  {label:<{width}} " + " ".join(f"{v:7.4f}" for v in values) for label, values in self.values.items()
        ]
        return "\n".join([head, *lines, *(f"  {note}" for note in self.notes)])


def summary_curve(
    model: Model, held_out: Batches, hook: str, subspaces: Sequence[Subspace], ks: Sequence[int]
) -> SummaryCurve:
    """Run the model on held-out data with the hook point projected to k dimensions, for each subspace and k.

    Raises:
        HookNameError: an unknown hook point.
        BasisError: a k that the hook point does not have.
    """
    check_hook_names(model, [hook])
    for subspace in subspaces:
        subspace.check(max(ks))
        subspace.check(min(ks))
    passes = Passes(model, held_out, [hook])
    values = {s.label: tuple(passes.metric(_projected(hook, s, k)) for k in ks) for s in subspaces}
    notes = tuple(s.note for s in subspaces if s.note)
    return SummaryCurve(hook, held_out.metric, passes.clean, tuple(ks), values, notes)


def _projected(hook_name: str, subspace: Subspace, k: int) -> Callable[[Tensor], list[Any]]:
    """Hooks that project the positions that count, and leave the others (BOS, padding) as they are."""

    def hooks(keep: Tensor) -> list[Any]:
        def replace(value: Tensor, hook: Any = None) -> Tensor:
            return torch.where(keep[..., None].to(value.device), subspace.project(value, k), value)

        return [(hook_name, replace)]

    return hooks
