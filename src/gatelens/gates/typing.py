"""Typing: every output of a connector read as a gate, or not read, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from ..basis import Basis
from ..connectors import Connector
from ..errors import DataError, SolverError
from ..segments import Segment
from .evidence import MatchedParents, Predictor, best_cut, cut_mcc, score, without_unseen
from .gate import Gate, GateKind
from .harsanyi import magnitude
from .hypotheses import Rule, decide
from .interventions import Job, Workbench, patterns_to_set
from .objections import AMOUNTS, Objections
from .parents import Parents
from .tables import Cells, Columns, Counter, halves
from .verdict import verdict

#: least held-out R2 of the connector's value at which an output without a rule is called an adder
ADDER_R2 = 0.5


@dataclass(frozen=True)
class TypingSettings:
    """What it takes to read a gate; see `type_gates`."""

    mcc_bar: float = 0.5
    min_count: int = 10
    max_inputs: int = 8
    require_verified: bool = True
    intervention_rows: int = 64
    seed: int = 0

    def __post_init__(self):
        if not 1 <= self.max_inputs <= 12:
            raise SolverError(
                f"max_inputs must be between 1 and 12: tables have 2^max_inputs patterns; got {self.max_inputs}"
            )
        if not -1 <= self.mcc_bar <= 1 or self.min_count < 1 or self.intervention_rows < 4:
            raise SolverError(
                "typing needs mcc_bar in [-1, 1], min_count of 1 or more and intervention_rows of 4 or more; got "
                f"{self.mcc_bar}, {self.min_count} and {self.intervention_rows}"
            )


def type_gates(
    connector: Connector,
    f_in: Tensor,
    f_out: Tensor,
    *,
    held_out: tuple[Tensor, Tensor] | None = None,
    segment: Segment | None = None,
    basis_in: Basis | None = None,
    basis_out: Basis | None = None,
    x: Tensor | None = None,
    mcc_bar: float = 0.5,
    min_count: int = 10,
    max_inputs: int = 8,
    require_verified: bool = True,
    intervention_rows: int = 64,
    seed: int = 0,
) -> list[Gate]:
    """Read each output's wires as logic, decided on one part of the rows and judged on the other.

    Args:
        connector: the wires, [n, m].
        f_in, f_out: features over the same rows, [rows, m] and [rows, n], dense or sparse CSR: these decide the rule.
        held_out: the same for rows that nothing was fitted on: they give every figure. Without them the first half of
            the given rows decides and the second half judges.
        segment, basis_in, basis_out, x: the real model between the two hook points, and rows [rows, d_in] at its input
            (those of `held_out` where their number is the same); with all four, each rule is also tested by setting
            its parents in the model (`Gate.intervention`, `Gate.verified`).
        mcc_bar: a rule whose held-out Matthews correlation is lower is `not_read`.
        min_count: a rule that hangs on a pattern with fewer rows is `not_read`.
        max_inputs: tables run over this many parents, the strongest; over the rest is summed, and a note says so.
        require_verified: a rule that the model contradicts under intervention is `not_read`; else it keeps its kind
            with `verified` False.
        intervention_rows: rows on which each pattern is set, half of them rows on which the output fires.
        seed: of the random parents that serve as the null, and of the choice of rows.

    Returns:
        One gate an output, in the order of the outputs.

    Raises:
        DataError: rows or widths that do not fit together.
        SolverError: a setting out of range.
        NonFiniteError: NaN or infinity among the features.
    """
    settings = TypingSettings(mcc_bar, min_count, max_inputs, require_verified, intervention_rows, seed)
    fit = _columns(connector, f_in, f_out, "")
    if held_out is None:
        (a, c), (b, d) = halves(fit[0]), halves(fit[1])
        fit, judge = (a, b), (c, d)
    else:
        judge = _columns(connector, *held_out, "held-out ")
    reader = _Reader(connector, fit, judge, settings)
    readings = [reader.read(out) for out in range(connector.weight.shape[0])]
    if segment is not None and basis_in is not None and basis_out is not None and x is not None:
        known = judge if held_out is not None and len(x) == judge[0].rows else None
        _intervene(readings, Workbench(segment, basis_in, basis_out, x, known), settings)
    return [reading.gate for reading in readings]


def _columns(connector: Connector, f_in: Tensor, f_out: Tensor, which: str) -> tuple[Columns, Columns]:
    n, m = connector.weight.shape
    if f_in.ndim != 2 or f_out.ndim != 2:
        raise DataError(
            f"{which}f_in and f_out must be features of rows, [rows, {m}] and [rows, {n}]; got shapes {list(f_in.shape)} and "
            f"{list(f_out.shape)}"
        )
    if f_in.shape[1] != m or f_out.shape[1] != n:
        raise DataError(
            f"the connector maps {m} features to {n}; the {which}rows have {f_in.shape[1]} and {f_out.shape[1]}. "
            "Give the features of the hook points that it was fitted between"
        )
    if f_in.shape[0] != f_out.shape[0]:
        raise DataError(
            f"{which}f_in has {f_in.shape[0]} rows and f_out {f_out.shape[0]}; give the features of the same rows"
        )
    return Columns.of(f_in, f"{which}f_in"), Columns.of(f_out, f"{which}f_out")


@dataclass
class _Reading:
    """A gate on its way: the rule over the table's parents (None where there is none), and the natural table."""

    gate: Gate
    rule: Rule | None = None
    judge: Cells | None = None

    @property
    def parents(self) -> tuple[int, ...]:
        """The table's parents."""
        return self.gate.inputs[: self.judge.parents] if self.judge is not None else ()


class _Reader:
    """Reads one output after the other from natural rows; holds what they share."""

    def __init__(
        self,
        connector: Connector,
        fit: tuple[Columns, Columns],
        judge: tuple[Columns, Columns],
        settings: TypingSettings,
    ):
        self.connector, self.settings = connector, settings
        self.fit_rows, self.judge_rows = Counter(*fit), Counter(*judge)
        self.fit_sums, self.judge_sums = Predictor(connector, *fit), Predictor(connector, *judge)
        self.parents = Parents(connector, fit[0], settings.max_inputs)
        self.objections = Objections(settings.mcc_bar, settings.min_count)
        self.out_firings = judge[1].firings()
        self.null = MatchedParents(self.parents.firings, settings.seed)
        self.signed = fit[0].signed or fit[1].signed

    def read(self, out: int) -> _Reading:
        wires = self.parents.of(out)
        notes = [*wires.notes, *(["values of both signs: on means positive"] if self.signed else [])]
        threshold = self.connector.threshold
        gate = Gate(
            out=out,
            kind=GateKind.NOT_READ,
            inputs=wires.inputs,
            weights=wires.weights,
            bias=float(self.connector.bias[out]),
            threshold=None if threshold is None else float(threshold[out]),
            activation=self.connector.activation,
            firings=int(self.out_firings[out]),
            base_rate=float(self.out_firings[out] / self.judge_rows.rows),
            note="; ".join(notes),
        )
        if not wires.inputs:
            return _Reading(replace(gate, why="no wire from a feature that fires"))
        sums = self.judge_sums.sums(out, wires.inputs, wires.weights)
        fit, judge = self.fit_rows.cells(out, wires.table), self.judge_rows.cells(out, wires.table)
        gate = replace(gate, r2=self.judge_sums.r2(out, sums), table=judge.table())
        rule = self._rule(gate, fit, judge, wires.table)
        if rule is None:
            why = "no pattern of its inputs fires it more than another"
            return _Reading(replace(gate, why=why, control_mcc=self._control(gate, wires.table)), None, judge)
        gate = self._judged(gate, rule, fit, judge, self._cut(gate, wires.table))
        return _Reading(gate, rule, judge)

    def _rule(self, gate: Gate, fit: Cells, judge: Cells, parents: Sequence[int]) -> Rule | None:
        """The rule that the fitting rows speak for, over these parents with the gate's weights, as far as it can be seen."""
        weights = np.array(gate.weights[: len(parents)])
        rule = decide(fit, weights, self.parents.mean_on[list(parents)], gate.bias - (gate.threshold or 0.0))
        return None if rule is None else without_unseen(rule, fit + judge, self.settings.min_count)

    def _judged(self, gate: Gate, rule: Rule, fit: Cells, judge: Cells, cut: float) -> Gate:
        """The gate with its figures, and with its rule's kind when nothing stands against it.

        Args:
            cut: held-out MCC of a cut on the weighted sum of the table's parents, chosen on the fitting rows.
        """
        parents = gate.inputs[: judge.parents]
        figures = score(rule, judge)
        missed, false_alarms = self.judge_rows.counterexamples(gate.out, parents, rule.open)
        gate = replace(
            gate,
            excite=tuple(parents[j] for j in rule.exciters),
            inhibit=tuple(parents[j] for j in rule.inhibitors),
            at_least=rule.at_least,
            precision=figures.precision,
            recall=figures.recall,
            mcc=figures.mcc,
            control_mcc=self._control(gate, parents),
            missed=missed,
            false_alarms=false_alarms,
            magnitude=_magnitude(rule, fit + judge, self.settings.min_count),
        )
        notes = self.objections.notes(rule, fit + judge, gate, cut)
        gate = replace(gate, note="; ".join(part for part in (gate.note, *notes) if part))
        if gate.firings < self.settings.min_count:
            few = f"the output fired {gate.firings} times on the held-out rows, under {self.settings.min_count}"
            return replace(gate, why=few)
        why = self.objections.first(rule, fit, judge, gate, cut)
        if not why:
            return replace(gate, kind=rule.kind)
        sums = cut >= self.settings.mcc_bar and cut > (gate.mcc or 0.0) + AMOUNTS and (gate.r2 or 0.0) >= ADDER_R2
        return replace(gate, kind=GateKind.ADDER if sums else GateKind.NOT_READ, why=why)

    def _cut(self, gate: Gate, parents: Sequence[int]) -> float:
        """Held-out MCC of a cut on the weighted sum of the table's parents, the cut chosen on the fitting rows."""
        weights = gate.weights[: len(parents)]
        cut = best_cut(self.fit_sums.sums(gate.out, parents, weights))
        return cut_mcc(self.judge_sums.sums(gate.out, parents, weights), cut)

    def _control(self, gate: Gate, parents: Sequence[int]) -> float | None:
        """Held-out MCC of the best rule over as many random features of like firing counts: the null."""
        drawn = self.null.draw(parents)
        if drawn is None:
            return None
        fit, judge = self.fit_rows.cells(gate.out, drawn), self.judge_rows.cells(gate.out, drawn)
        rule = self._rule(gate, fit, judge, drawn)
        return 0.0 if rule is None else score(rule, judge).mcc


def _magnitude(rule: Rule, cells: Cells, min_count: int) -> str:
    """How the value goes with the rule's exciters (two or three), where no inhibitor of the rule is on."""
    exciters = rule.exciters
    if not 2 <= len(exciters) <= 3:
        return ""
    table = cells.marginal([*exciters, *rule.inhibitors])
    quiet = slice(0, 1 << len(exciters))
    return magnitude(Cells(table.count[quiet], table.fired[quiet], table.total[quiet]), min_count)


def _intervene(readings: list[_Reading], bench: Workbench, settings: TypingSettings) -> None:
    """Test each rule that was read by setting its parents in the real model, and write down what came out."""
    read = [(r, r.rule) for r in readings if r.rule is not None and r.gate.kind == r.rule.kind]
    jobs = [Job(r.gate.out, r.parents, patterns_to_set(rule, len(r.parents))) for r, rule in read]
    tables = bench.tables(jobs, settings.intervention_rows, settings.seed)
    for (reading, rule), table in zip(read, tables, strict=True):
        gate = replace(
            reading.gate,
            intervention=table.cells.table(source="interventional"),
            magnitude=_magnitude(rule, table.cells, 1) or reading.gate.magnitude,
        )
        verified, why = verdict(rule, gate, table, settings.min_count)
        denied = verified is False and settings.require_verified
        reading.gate = replace(gate, verified=verified, why=why, kind=GateKind.NOT_READ if denied else gate.kind)
