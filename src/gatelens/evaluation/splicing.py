"""Splice: hooks that put dictionaries, connectors or a mean in the place of what the model computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ..activations.collecting import hook_names
from ..basis.features import decoded_output
from ..errors import ConfigError
from ..segments import Segment

Hook = tuple[str, Callable[[Tensor, Any], Tensor | None]]
How = Literal["connectors", "dictionaries", "mean"]


def splice(
    circuit: Any,
    segments: Sequence[Segment] | None = None,
    how: How = "connectors",
    means: Mapping[str, Tensor] | None = None,
    keep: Tensor | None = None,
    hooks: Sequence[str] | None = None,
) -> list[Hook]:
    """Hooks for `model.run_with_hooks(x, fwd_hooks=splice(circuit))`; nothing stays on the model.

    Args:
        segments: which of the circuit's; None for all.
        how: "connectors" replaces each segment's output by decode(connector(encode(its input))); where a segment begins
            at the point at which the one before ends, the predicted features are passed on as they are.
            "dictionaries" replaces each hook point by decode(encode(x)): what the dictionaries alone cost.
            "mean" replaces each segment's output by its mean (`means`): what removing it costs.
        hooks: for "dictionaries", the hook points; None for both ends of every segment.
        keep: bool over positions; where False (BOS, padding) the model's own value stays. None: all are replaced.
    """
    segments = list(circuit.segments if segments is None else segments)
    if how == "connectors":
        return _Chain(circuit, segments, keep).hooks()
    if how == "dictionaries":
        at = hook_names(segments) if hooks is None else hooks
        spliced = [h for h in at if not hasattr(circuit.bases[h], "features_from")]
        return [(h, _through(_reconstruct(circuit.bases[h]), keep)) for h in spliced]
    if how == "mean":
        if means is None:
            raise ConfigError('splice(how="mean") needs `means`: hook name -> mean activation')
        return [(s.hook_out, _through(_constant(means[s.hook_out]), keep)) for s in segments]
    raise ConfigError(f'splice: how must be "connectors", "dictionaries" or "mean", got {how!r}')


def _reconstruct(basis: Any) -> Callable[[Tensor], Tensor]:
    return lambda x: basis.decode(basis.encode(x))


def _constant(mean: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: mean.to(x).expand_as(x)


def _through(function: Callable[[Tensor], Tensor], keep: Tensor | None) -> Callable[[Tensor, Any], Tensor]:
    """A hook that applies a function of rows at the positions that count."""

    def hook(value: Tensor, hook: Any = None) -> Tensor:
        rows = function(value.reshape(-1, value.shape[-1])).reshape(value.shape).to(value.dtype)
        return rows if keep is None else torch.where(keep[..., None].to(value.device), rows, value)

    return hook


class _Chain:
    """The features on their way through the connectors, within one forward pass."""

    def __init__(self, circuit: Any, segments: Sequence[Segment], keep: Tensor | None):
        self.circuit, self.segments, self.keep = circuit, segments, keep
        self.features: dict[str, Tensor] = {}
        self.rows: dict[str, Tensor] = {}

    def hooks(self) -> list[Hook]:
        hooks: list[Hook] = []
        ends: set[str] = set()
        for segment in self.segments:
            if segment.hook_in not in ends:
                hooks.append((segment.hook_in, self._read(segment.hook_in)))
            hooks.append((segment.hook_out, self._write(segment)))
            ends.add(segment.hook_out)
        return hooks

    def _read(self, hook_in: str) -> Callable[[Tensor, Any], None]:
        def hook(value: Tensor, hook: Any = None) -> None:
            self.rows[hook_in] = value.reshape(-1, value.shape[-1])
            self.features[hook_in] = self.circuit.bases[hook_in].encode(self.rows[hook_in])

        return hook

    def _write(self, segment: Segment) -> Callable[[Tensor, Any], Tensor]:
        def replaced(value: Tensor) -> Tensor:
            predicted = self.circuit.connectors[segment.name](self.features[segment.hook_in])
            y = decoded_output(self.circuit.bases[segment.hook_out], predicted, self.rows[segment.hook_in])
            self.features[segment.hook_out], self.rows[segment.hook_out] = predicted, y
            return y

        return _through(replaced, self.keep)
