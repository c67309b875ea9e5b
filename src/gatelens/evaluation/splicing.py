"""Splice: hooks that put dictionaries, connectors or a mean in the place of what the model computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ..activations.collecting import hook_names
from ..basis.output import at_output, decoded_output
from ..data.arrays import flags
from ..errors import ConfigError, DataError, SegmentError, unknown
from ..models import there
from ..segments import Segment, each_segment
from ..segments.outside import Outside
from ..segments.segment import no_model
from ..segments.transformer import TOLERANCES

Hook = tuple[str, Callable[[Tensor, Any], Tensor | None]]
How = Literal["connectors", "dictionaries", "mean"]
#: rows on which a splice sees that it is in the model that it was made for
_PROOF = 8


def splice(
    circuit: Any,
    segments: Segment | Sequence[Segment] | None = None,
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
        keep: bool over positions; where False (BOS, padding) the model's own value stays. None: it is read off each pass where
            special tokens stand, as `evaluate` knows it from the data; a model without a tokenizer has all replaced.

    Returns:
        (hook name, function) pairs, as `run_with_hooks` takes them.

    Raises:
        ConfigError: what is no circuit, another `how`, or means that are lacking. DataError: means of another width.
        SegmentError: while it runs, in a model that computes something else between a segment's ends than the circuit's did.

    Examples:
        >>> hooks = gl.splice(circuit)
        >>> model.run_with_hooks(held_out.inputs[:5], fwd_hooks=hooks).shape
        torch.Size([5, 24])
    """
    lacking = [name for name in ("segments", "bases", "connectors") if not hasattr(circuit, name)]
    if lacking:
        raise ConfigError(f"splice: expected a Circuit, got {type(circuit).__name__}, which lacks {', '.join(lacking)}")
    segments = each_segment(circuit.segments if segments is None else segments)
    asked = [(s.name, circuit.connectors) for s in segments] if how == "connectors" else []
    for name, known in asked + [(h, circuit.bases) for h in hooks or ()]:
        if name not in known:
            raise ConfigError(f"splice: {unknown('part of the circuit', name, known)}")
    keep = None if keep is None else flags(keep, "splice: keep")
    where = _Where(keep, next((s.outside for s in segments if s.outside is not None), None))
    if how == "connectors":
        return where.around(_Chain(circuit, segments, where).hooks())
    if how == "dictionaries":
        at = hook_names(segments) if hooks is None else hooks
        widths = {name: d for s in circuit.segments for name, d in ((s.hook_in, s.d_in), (s.hook_out, s.d_out))}
        spliced = [h for h in at if at_output(circuit.bases[h]).reads_output]
        parts = _Parts(circuit)
        return where.around([(h, where.through(parts.reconstruct(h), widths.get(h))) for h in spliced])
    if how == "mean":
        if means is None:
            raise ConfigError('splice(how="mean") needs `means`: hook name -> mean activation')
        constants = [(s, _constant(_mean_at(means, s))) for s in segments]
        return where.around([(s.hook_out, where.through(constant, s.d_out)) for s, constant in constants])
    raise ConfigError(f'splice: how must be "connectors", "dictionaries" or "mean", got {how!r}')


def blended(rows: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
    """Rows in the place of a hook point's value, at the positions that count."""
    rows = rows.reshape(value.shape).to(value.dtype)
    if keep is None:
        return rows
    if keep.shape != value.shape[: keep.ndim]:
        raise DataError(
            f"splice: keep has shape {list(keep.shape)}, what passes has {list(value.shape)}: expected a flag for each position "
            "of the inputs, batch.keep of the batch that is run"
        )
    return torch.where(keep.reshape(*keep.shape, *[1] * (value.ndim - keep.ndim)).to(value.device), rows, value)


def _mean_at(means: Mapping[str, Tensor], segment: Segment) -> Tensor:
    mean = means.get(segment.hook_out)
    if not isinstance(mean, Tensor) or mean.shape != (segment.d_out,):
        found = list(mean.shape) if isinstance(mean, Tensor) else type(mean).__name__
        raise DataError(
            f"means[{segment.hook_out!r}]: expected the mean activation, [{segment.d_out}]; got {found}. "
            "Give acts[hook].mean(0) of the fitting part"
        )
    return mean


def _constant(mean: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: mean.to(x).expand_as(x)


class _Where:
    """Which positions a splice replaces: those of the data, those that the pass itself shows, or all."""

    def __init__(self, keep: Tensor | None, outside: Outside | None):
        self.keep, self.outside = keep, outside if keep is None else None

    def around(self, hooks: list[Hook]) -> list[Hook]:
        """The hooks, with one before them that sees the special tokens and one behind that forgets them again."""
        if self.outside is None or not hooks:
            return hooks
        return [(self.outside.hook, self._see), *hooks, (hooks[-1][0], self._forget)]

    def through(
        self, function: Callable[[Tensor], Tensor], width: int | None = None
    ) -> Callable[[Tensor, Any], Tensor]:
        """A hook that applies a function of rows at the positions that count."""

        def hook(value: Tensor, hook: Any = None) -> Tensor:
            # bases and wires compute in float32, whatever the model does; `blended` gives its own precision back
            return blended(function(value.reshape(-1, width or value.shape[-1]).float()), value, self.keep)

        return hook

    def _see(self, value: Tensor, hook: Any = None) -> None:
        if self.outside is not None:
            self.keep = self.outside.inside(value)

    def _forget(self, value: Tensor, hook: Any = None) -> None:
        self.keep = None  # a pass that begins behind the embedding must not take those of another


class _Parts:
    """A circuit's bases and wires, brought once to where the model computes: a value that passes through it says where."""

    def __init__(self, circuit: Any):
        self.bases, self.wires = dict(circuit.bases), dict(circuit.connectors)
        self.device: torch.device | None = None

    def at(self, value: Tensor) -> _Parts:
        if self.device != value.device:
            self.device = value.device
            self.bases, self.wires = there((self.bases, self.wires), value.device)
        return self

    def reconstruct(self, hook: str) -> Callable[[Tensor], Tensor]:
        """decode(encode(x)) at a hook point."""

        def through(x: Tensor) -> Tensor:
            basis = self.at(x).bases[hook]
            return basis.decode(basis.encode(x))

        return through


class _Chain:
    """The features on their way through the connectors, within one forward pass."""

    def __init__(self, circuit: Any, segments: Sequence[Segment], where: _Where):
        self.parts, self.segments, self.where = _Parts(circuit), segments, where
        self.features: dict[str, Tensor] = {}
        self.rows: dict[str, Tensor] = {}
        self.unproved = {s.name: s for s in segments if s.forward is not no_model}

    def hooks(self) -> list[Hook]:
        hooks: list[Hook] = []
        ends: set[str] = set()
        for segment in self.segments:
            if segment.hook_in not in ends:
                hooks.append((segment.hook_in, self._read(segment.hook_in, segment.d_in)))
            hooks.append((segment.hook_out, self._write(segment)))
            ends.add(segment.hook_out)
        return hooks

    def _read(self, hook_in: str, width: int) -> Callable[[Tensor, Any], None]:
        def hook(value: Tensor, hook: Any = None) -> None:
            self.rows[hook_in] = value.reshape(-1, width).float()
            self.features[hook_in] = self.parts.at(value).bases[hook_in].encode(self.rows[hook_in])

        return hook

    def _write(self, segment: Segment) -> Callable[[Tensor, Any], Tensor]:
        def replaced(value: Tensor) -> Tensor:
            parts = self.parts.at(value)
            predicted = parts.wires[segment.name](self.features[segment.hook_in])
            y = decoded_output(parts.bases[segment.hook_out], predicted, self.rows[segment.hook_in])
            self.features[segment.hook_out], self.rows[segment.hook_out] = predicted, y
            return y

        put = self.where.through(replaced, segment.d_out)

        def hook(value: Tensor, hook: Any = None) -> Tensor:
            if segment.hook_in not in self.features:
                raise SegmentError(
                    f"segment {segment.name}: nothing passed through its start before its end; a segment goes the way data flows. "
                    "Exchange the ends, or begin the pass before it"
                )
            self._prove(segment.name, value)
            return put(value, hook)

        return hook

    def _prove(self, name: str, value: Tensor) -> None:
        """See on the first rows that pass that this model computes what the segment does, before its value is replaced."""
        segment = self.unproved.pop(name, None)
        if segment is not None:
            x, y = self.rows[segment.hook_in], value.detach().reshape(-1, segment.d_out).float()
            keep = self.where.keep
            count = torch.ones(len(y), dtype=torch.bool) if keep is None or keep.numel() != len(y) else keep.flatten()
            some = count.nonzero()[:_PROOF, 0].to(y.device)
            # the same model in another precision will do
            segment.check(x.detach()[some], y[some], max(TOLERANCES.values()))
