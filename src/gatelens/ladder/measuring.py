"""The ladder: one table in which a result stands beside its ceilings, its gate-free rivals and its nulls, all held out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..basis.features import encode_rows
from ..basis.linear import PCA, Rotation
from ..basis.output import at_output, decoded_output, output_features
from ..codes.csr import spread, stack_csr, take_rows, to_csr
from ..codes.rows import Codes
from ..connectors import Connector
from ..edits.kinds import KINDS
from ..errors import DataError
from ..evaluation.causal import edit_figures, restoring_figures
from ..evaluation.figures import firings, fvu, per_output_r2
from ..evaluation.passes import Passes
from ..evaluation.readings import TABLE_ROWS, read_share
from ..evaluation.rivals import dense_ridge, linear_wires, ridge_to_output
from ..evaluation.splicing import blended
from ..evaluation.static_wires import static_wires
from ..models import host, there
from ..segments import Segment
from ..solvers.protocol import as_solver
from .rungs import Ladder as Ladder

_BLOCK = 2_048
_DENSE_ROWS = 20_000  # of the rivals that read dense inputs
CEILING = "exact MLP on decoded inputs"
STATIC = "at most, with as many wires an input"


@dataclass(frozen=True)
class Entry:
    """One thing to measure: an output dictionary, and a connector to it or a solver that makes one.

    `target` replaces the features that the solver is fitted to and judged on (the self-consistent target); None: the dictionary's.
    """

    basis_out: Any
    solver: Any
    target: Callable[[Tensor, Tensor], Tensor] | None = None

    def connector(self, segment: Segment, basis_in: Any, f_in: Tensor, f_out: Tensor | None) -> Connector:
        """The solver's, fitted; `f_out` is not needed where the connector is there already."""
        if f_out is None:
            return self.solver
        return as_solver(self.solver).at(segment, basis_in, self.basis_out).fit(f_in, f_out)

    def features(self, x: Tensor, y: Tensor) -> Tensor:
        return self.target(x, y) if self.target else output_features(self.basis_out, x, y)


@dataclass
class Rows:
    """Both ends of a segment over the same rows."""

    x: Tensor  # [rows, d_in]
    y: Tensor  # [rows, d_out]

    def __post_init__(self):
        if len(self.x) != len(self.y) or len(self.x) < 2:
            raise DataError(
                f"the ladder needs at least two rows of both ends of the segment; got {len(self.x)} and {len(self.y)}"
            )

    def spread(self, rows: int) -> Rows:
        """At most so many rows, evenly spaced: the first ones would be of the first few documents alone."""
        kept = spread(len(self.x), rows)
        return self if len(kept) == len(self.x) else Rows(self.x[kept], self.y[kept])


@dataclass(frozen=True)
class Measure:
    """What is measured, and on how many rows.

    Attributes:
        causal_rows: held-out rows that are edited; 0 leaves the causal figures out.
        min_firings: outputs that are on in fewer held-out rows are left out of the shares and medians.
        ridges: measure the gate-free ridge, with the loss of the gates where there are `pairs`.
        rivals: that of squared error alone, the dense ridge, neurons and principal components at equal wires, and the null.
        wires: the solver that gives neurons and principal components their wires; None for forward selection, least squares and
            thresholds set on firing. Its fan-in is to be that of the first entry.
        pairs: a `Counterfactual`: a second gate-free ridge is fitted with the loss of `GateDictionary` (weight `lam`).
        replaced: the model's metric with the segment's output replaced by a function of its input (`replaced_metric`).
    """

    causal_rows: int = 1_000
    min_firings: int = 20
    ridges: bool = True
    rivals: bool = True
    wires: Any = None
    pairs: Any = None
    lam: float = 3.0
    replaced: Callable[[Callable[[Tensor], Tensor]], float] | None = None
    seed: int = 0
    solver_rows: int = field(default=60_000)


def measure_ladder(
    segment: Segment,
    basis_in: Any,
    entries: Mapping[str, Entry],
    fit: Rows,
    held_out: Rows,
    measure: Measure | None = None,
    codes: Codes | None = None,
) -> Ladder:
    """Every entry, and beside it: the model's own MLP on decoded inputs, gate-free and dense ridges, neurons and principal
    components at equal wires, and the null of inputs that belong to other rows.

    Args:
        entries: name -> what to measure. The first one is what the rivals at equal wires are measured against.
        codes: the input features of all fitting rows, where they are at hand (the ridges read them).
    """
    measure = measure or Measure()
    placed = (basis_in, dict(entries), fit, held_out, codes)
    basis_in, entries, fit, held_out, codes = there(placed, segment.device)
    walk = _Walk(segment, basis_in, fit, held_out, measure, codes)
    rungs: dict[str, dict[str, float | None]] = {CEILING: walk.exact(next(iter(entries.values()), None))}
    connectors: dict[str, Connector] = {}
    for name, entry in entries.items():
        connectors[name], rungs[name] = walk.entry(entry)
    if measure.ridges and entries:
        rungs |= walk.ridges(plain=measure.rivals or measure.pairs is None)
    if measure.rivals and entries:
        first = next(iter(entries))
        rungs |= walk.rivals(entries[first], connectors[first])
    if measure.causal_rows and entries:
        rungs |= walk.static(next(iter(connectors.values())))
    return Ladder(segment.name, rungs, len(held_out.x))


class _Walk:
    """Features of the input on both parts of the rows, computed once, and one method for each kind of rung."""

    def __init__(
        self, segment: Segment, basis_in: Any, fit: Rows, held_out: Rows, measure: Measure, codes: Codes | None
    ):
        self.segment, self.basis_in, self.measure, self.codes = segment, basis_in, measure, codes
        self.all_rows, self.fit, self.held = fit, fit.spread(measure.solver_rows), held_out
        self.f_fit = encode_rows(basis_in, self.fit.x, sparse=True)
        self.f_held = encode_rows(basis_in, held_out.x, sparse=False)

    def _there(self, value: Any) -> Any:
        return there(value, self.segment.device)

    def exact(self, entry: Entry | None) -> dict[str, float | None]:
        """The ceiling: the model's own MLP, given what the input dictionary keeps; and as read by the first entry's dictionary."""
        with torch.no_grad():
            x = self.basis_in.decode(self.f_held)
            y = self.segment.forward(x)
        found = {
            "fvu": fvu(self.held.y, y),
            **self._metric(lambda x: self.segment.forward(self.basis_in.decode(self.basis_in.encode(x)))),
        }
        if entry is not None and entry.target is None:
            found |= self._features(output_features(entry.basis_out, x, y), entry.features(self.held.x, self.held.y))
        return found

    def entry(self, entry: Entry) -> tuple[Connector, dict[str, float | None]]:
        began = time.perf_counter()
        f_out = None if isinstance(entry.solver, Connector) else self._targets(entry)
        connector = self._there(entry.connector(self.segment, self.basis_in, self.f_fit, f_out))
        seconds = time.perf_counter() - began
        predicted = _apply(connector, self.f_held)
        true = predicted if self._own(entry) else entry.features(self.held.x, self.held.y)
        found = {
            "fvu": fvu(self.held.y, decoded_output(entry.basis_out, predicted, self.held.x)),
            **self._features(predicted, true),
            "read": self._read(entry, connector, f_out, self.f_held, true),
            "edges": connector.wires,
            "fan_in": int(connector.fan_in().max()),
            "seconds": seconds if (known := at_output(entry.basis_out).seconds) is None else known,
            **self._metric(lambda x: decoded_output(entry.basis_out, connector(self.basis_in.encode(x)), x)),
            **self.causal(entry.basis_out, connector),
        }
        return connector, found

    def ridges(self, plain: bool) -> dict[str, dict[str, float | None]]:
        """Without gates: the output itself from all input features, by squared error alone and with the loss of the gates."""
        if self.codes is None:
            self.codes = Codes.encode(self.basis_in, self.all_rows.x)
        found = {"gate-free ridge": self._ridge(None)} if plain else {}
        if self.measure.pairs is not None:
            found["gate-free ridge, same loss"] = self._ridge(self.measure.pairs)
        return found

    def rivals(self, entry: Entry, connector: Connector) -> dict[str, dict[str, float | None]]:
        """With all wires, with as many wires from neurons or principal components, and with other rows' inputs."""
        found = {}
        f_out, true = self._targets(entry), entry.features(self.held.x, self.held.y)
        dense = self._there(dense_ridge(*host((self.f_fit, f_out))))
        found["dense ridge"] = self._predicted(entry, dense, self.f_held, true)
        some = spread(len(self.fit.x), _DENSE_ROWS)
        fan_in = max(1, round(connector.wires / max(len(connector.bias), 1)))
        for name, basis in (
            ("neurons, equal wires", Tensor.float),
            ("principal components, equal wires", self._principal()),
        ):
            inputs, outputs, solver = basis(self.fit.x[some]), take_rows(f_out, some), self.measure.wires
            inputs, outputs = host((inputs, outputs))
            wires = solver.fit(inputs, outputs) if solver else linear_wires(inputs, outputs, fan_in)
            found[name] = self._predicted(entry, self._there(wires), basis(self.held.x), true)
        order = torch.randperm(len(self.f_held), generator=torch.Generator().manual_seed(self.measure.seed))
        found["null: other rows' inputs"] = self._predicted(entry, connector, self.f_held[order], true)
        found["null: other rows' inputs"]["read"] = self._read(entry, connector, f_out, self.f_held[order], true)
        return found

    def _own(self, entry: Entry) -> bool:
        """Whether the entry's features are by definition what its connector says: a gate dictionary on its own inputs."""
        wires = at_output(entry.basis_out).connector
        return wires is not None and wires is entry.solver and entry.basis_out.basis_in is self.basis_in

    def _targets(self, entry: Entry) -> Tensor:
        """CSR: what the entry's connector is to predict on the fitting rows."""
        parts = zip(self.fit.x.split(_BLOCK), self.fit.y.split(_BLOCK), strict=True)
        return stack_csr([to_csr(entry.features(x, y)) for x, y in parts])

    def _read(self, entry: Entry, connector: Connector, f_out: Tensor | None, f_held: Tensor, true: Tensor) -> Any:
        some = spread(len(self.fit.x), TABLE_ROWS)
        f = take_rows(self.f_fit, some)
        if self._own(entry):
            out = connector(f)
        else:
            out = entry.features(self.fit.x[some], self.fit.y[some]) if f_out is None else take_rows(f_out, some)
        return read_share(*host((connector, f, out, f_held, true)), self.measure.min_firings)

    def causal(self, basis_out: Any, connector: Connector) -> dict[str, float | None]:
        """Predicted against real changes under edits of the input's features; the local Jacobian's R2 beside."""
        if not self.measure.causal_rows:
            return {}
        generator = torch.Generator().manual_seed(self.measure.seed)
        order = torch.randperm(len(self.held.x), generator=generator)[: self.measure.causal_rows]
        found: dict[str, float | None] = {}
        for name, edit in KINDS.items():
            figures = edit_figures(
                self.segment, self.basis_in, basis_out, connector, self.held.x[order], edit, generator
            )
            found |= {
                name: figures["r2"],
                f"{name}_jacobian": figures["local_jacobian_r2"],
                f"{name}_size": figures["size"],
            }
            if name == "subsets":
                found["on_off"] = figures["on_off"]["happened"]
            if name == "additions":
                found["off_on"] = figures["off_on"]["happened"]
        if (
            restored := restoring_figures(
                self.segment, self.basis_in, basis_out, connector, self.held.x[order], generator
            )
        ) is not None:
            found |= {"restoring": restored["r2"], "opened": restored["off_on"]["happened"]}
        return found

    def static(self, connector: Connector) -> dict[str, dict[str, float | None]]:
        """Not to be hoped for: what as many wires as each input has can carry of edits, whatever they lead to."""
        found = static_wires(self.segment, self.basis_in, self.held.x, seed=self.measure.seed)
        if found is None:
            return {}
        children = torch.bincount(connector.weight.col_indices(), minlength=connector.weight.shape[1]).cpu()
        kinds = {"removals": found.removals, "additions": found.additions}
        return {STATIC: {name: effects.at_most(children) for name, effects in kinds.items() if effects is not None}}

    def _ridge(self, pairs: Any) -> dict[str, float | None]:
        began = time.perf_counter()
        connector = self._there(
            ridge_to_output(
                self.segment, self.basis_in, self.all_rows.x, self.all_rows.y, pairs, self.measure.lam, self.codes
            )
        )
        basis = self._there(Rotation(torch.eye(self.segment.d_out), label="neurons"))
        causal = self.causal(basis, connector)
        causal = {k: v for k, v in causal.items() if k not in ("on_off", "off_on")}
        predicted = _apply(connector, self.f_held)
        return {
            "fvu": fvu(self.held.y, predicted),
            "edges": connector.wires,
            "seconds": time.perf_counter() - began,
            **self._metric(lambda x: connector(self.basis_in.encode(x))),
            **causal,
        }

    def _predicted(self, entry: Entry, connector: Connector, f: Tensor, true: Tensor) -> dict[str, float | None]:
        predicted = _apply(connector, f)
        return {
            "fvu": fvu(self.held.y, decoded_output(entry.basis_out, predicted, self.held.x)),
            **self._features(predicted, true),
            "edges": connector.wires,
            "fan_in": int(connector.fan_in().max()),
        }

    def _features(self, predicted: Tensor, true: Tensor) -> dict[str, float | None]:
        r2, said, fired = per_output_r2(predicted, true), firings(predicted), firings(true)
        r2 = r2[(fired >= self.measure.min_firings) & torch.isfinite(r2)]
        return {
            "median_r2": float(r2.median()) if len(r2) else None,
            "over_half": float((r2 > 0.5).float().mean()) if len(r2) else None,
            "over_07": float((r2 > 0.7).float().mean()) if len(r2) else None,
            "l0": float(said.sum()) / len(predicted),
            "true_l0": float(fired.sum()) / len(true),
        }

    def _metric(self, predict: Callable[[Tensor], Tensor]) -> dict[str, float | None]:
        return {} if self.measure.replaced is None else {"metric": self.measure.replaced(predict)}

    def _principal(self) -> Callable[[Tensor], Tensor]:
        rows = {self.segment.hook_in: self.fit.x, self.segment.hook_out: self.fit.y}
        return self._there(PCA().fit([self.segment], rows)[self.segment.hook_in]).encode


def replaced_metric(model: Any, batches: Any, segment: Segment) -> Callable[[Callable[[Tensor], Tensor]], float]:
    """For `Measure.replaced`: the model's accuracy or CE with the segment's output replaced, where positions count."""
    passes = Passes(model, batches, [segment.hook_in, segment.hook_out])

    def hooks(predict: Callable[[Tensor], Tensor], keep: Tensor) -> Sequence[Any]:
        seen: list[Tensor] = []

        def read(value: Tensor, hook: Any = None) -> None:
            seen[:] = [value]

        def write(value: Tensor, hook: Any = None) -> Tensor:
            return blended(predict(seen[0].reshape(-1, segment.d_in)), value, keep)

        return [(segment.hook_in, read), (segment.hook_out, write)]

    return lambda predict: passes.metric(lambda keep: hooks(predict, keep))


def _apply(connector: Connector, f: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([connector(part) for part in f.split(_BLOCK)])
