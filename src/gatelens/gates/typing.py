"""Typing: every output of a connector read as a gate, or not read, with the reason."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor

from ..bases import Basis
from ..connectors import Connector
from ..errors import DataError, SolverError
from ..segments import Segment
from .evidence import Cell, MatchedParents, Predictor, contradiction, decisive, score
from .gate import Gate, GateKind
from .hypotheses import Rule, decide, explained
from .tables import Cells, Columns, Counter, halves

#: an input feature that is on in more than this share of the rows says little when it is on
DENSE = 0.2
#: least share of the table's deviance that a rule's two rates must explain
MIN_EXPLAINED = 0.8
#: by how much a cut on the weighted sum may beat the rule in held-out MCC before the amounts, not the pattern, decide
GRADED = 0.05


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
    seed: int = 0,
) -> list[Gate]:
    """Read each output's wires as logic, decided on one part of the rows and judged on the other.

    Args:
        connector: the wires, [n, m].
        f_in, f_out: features over the same rows, [rows, m] and [rows, n], dense or sparse CSR: these decide the rule.
        held_out: the same for rows that nothing was fitted on: they give every figure. Without them the first half of
            the given rows decides and the second half judges.
        segment, basis_in, basis_out, x: the real model between the two hook points, and rows [rows, d_in] at its input;
            with all four, each rule is also tested by setting its parents there (`Gate.intervention`, `Gate.verified`).
        mcc_bar: a rule whose held-out Matthews correlation is lower is `not_read`.
        min_count: a rule that hangs on a pattern with fewer rows is `not_read`.
        max_inputs: tables run over this many parents, the strongest; over the rest is summed, and a note says so.
        seed: of the random parents that serve as the null.

    Returns:
        One gate an output, in the order of the outputs.

    Raises:
        DataError: rows or widths that do not fit together.
        SolverError: a setting out of range.
        NonFiniteError: NaN or infinity among the features.
    """
    if not 1 <= max_inputs <= 12:
        raise SolverError(f"max_inputs must be between 1 and 12: tables have 2^max_inputs patterns; got {max_inputs}")
    fit = _columns(connector, f_in, f_out, "")
    if held_out is None:
        (a, c), (b, d) = halves(fit[0]), halves(fit[1])
        fit, judge = (a, b), (c, d)
    else:
        judge = _columns(connector, *held_out, "held-out ")
    reader = _Reader(connector, fit, judge, mcc_bar, min_count, max_inputs, seed)
    return [reader.read(out) for out in range(connector.weight.shape[0])]


def _columns(connector: Connector, f_in: Tensor, f_out: Tensor, which: str) -> tuple[Columns, Columns]:
    n, m = connector.weight.shape
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


class _Reader:
    """Reads one output after the other; holds what they share."""

    def __init__(self, connector, fit, judge, mcc_bar, min_count, max_inputs, seed):
        self.connector: Connector = connector
        self.mcc_bar, self.min_count, self.max_inputs = mcc_bar, min_count, max_inputs
        self.fit_rows, self.judge_rows = Counter(*fit), Counter(*judge)
        self.fit_sums, self.judge_sums = Predictor(connector, *fit), Predictor(connector, *judge)
        self.firings, self.mean_on = fit[0].firings(), fit[0].mean_on()
        self.out_firings, self.rows = judge[1].firings(), judge[0].rows
        self.dense = self.firings > DENSE * fit[0].rows
        self.signed = fit[0].signed or fit[1].signed
        self.null = MatchedParents(self.firings, seed)
        self.wires = [w.numpy() for w in (connector.weight.crow_indices(), connector.weight.col_indices())]
        self.values = connector.weight.values().detach().double().numpy()

    def read(self, out: int) -> Gate:
        parents, weights, notes = self._parents(out)
        gate = Gate(
            out=out,
            kind=GateKind.NOT_READ,
            inputs=tuple(parents),
            weights=tuple(weights),
            bias=float(self.connector.bias[out]),
            threshold=None if self.connector.threshold is None else float(self.connector.threshold[out]),
            firings=int(self.out_firings[out]),
            base_rate=float(self.out_firings[out] / self.rows),
            note="; ".join(notes),
        )
        if not parents:
            return replace(gate, why="no wire from a feature that fires")
        gate = replace(gate, r2=self.judge_sums.r2(out, self.judge_sums.sums(out, parents, weights)))
        groups = [(p,) for p in parents[: self.max_inputs]]
        magnitudes = self.mean_on[parents[: len(groups)]]
        fit, judge = self.fit_rows.cells(out, groups), self.judge_rows.cells(out, groups)
        gate = replace(gate, table=judge.table(len(groups)))
        rule = decide(fit, np.array(weights[: len(groups)]), magnitudes, gate.bias - (gate.threshold or 0.0))
        if rule is None or rule.kind == GateKind.NOT_READ:
            return replace(gate, why="no pattern of its inputs fires it more than another")
        return self._judged(gate, rule, groups, fit, judge)

    def _parents(self, out: int) -> tuple[list[int], list[float], list[str]]:
        """Parents and weights, the strongest (weight times typical value) first; dead ones left out; notes on them."""
        start, stop = self.wires[0][out : out + 2]
        parents, weights = self.wires[1][start:stop], self.values[start:stop]
        alive = (self.firings[parents] > 0) & (weights != 0)
        notes = [f"IF_{p} never fires and was left out" for p in parents[(self.firings[parents] == 0) & (weights != 0)]]
        parents, weights = parents[alive], weights[alive]
        order = np.argsort(-np.abs(weights) * self.mean_on[parents], kind="stable")
        parents, weights = parents[order], weights[order]
        if len(parents) > self.max_inputs:
            notes.append(
                f"{len(parents)} inputs: the table runs over the {self.max_inputs} strongest, pooled over the rest"
            )
        if self.signed:
            notes.append("values of both signs: on means positive")
        if self.dense[parents].any():
            notes.append(
                f"on in over {DENSE:.0%} of rows: {', '.join(f'IF_{p}' for p in parents[self.dense[parents]])}"
            )
        return parents.tolist(), weights.tolist(), notes

    def _judged(self, gate: Gate, rule: Rule, groups: list[tuple[int, ...]], fit: Cells, judge: Cells) -> Gate:
        """The gate with its figures, and with its rule's kind when nothing stands against it."""
        figures = score(rule, judge)
        gate = replace(
            gate,
            excite=tuple(gate.inputs[j] for j in rule.exciters),
            inhibit=tuple(gate.inputs[j] for j in rule.inhibitors),
            at_least=rule.at_least,
            precision=figures.precision,
            recall=figures.recall,
            mcc=figures.mcc,
            control_mcc=self._control(gate, groups),
        )
        why = self._objection(rule, fit, judge, gate)
        return replace(gate, why=why) if why else replace(gate, kind=rule.kind)

    def _objection(self, rule: Rule, fit: Cells, judge: Cells, gate: Gate) -> str:
        """The first thing that stands against the rule, in words; "" when nothing does."""
        name = rule.kind.value.replace("_", "-")
        if gate.mcc is None:
            never = "the rule" if gate.firings else "the output"
            return f"{name} could not be judged: on held-out rows {never} never fires"
        if gate.mcc < self.mcc_bar:
            return f"{name} has a held-out MCC of {gate.mcc:.2f}, under {self.mcc_bar:g}"
        both = fit + judge
        for cell in decisive(rule, both):
            if cell.count < self.min_count:
                return f"{name} hangs on {_spell(cell, gate)}, seen {cell.count} times (at least {self.min_count})"
        for cells in (fit, judge):
            if cell := contradiction(rule, cells, self.min_count):
                side = "open" if cell.is_open else "closed"
                return (
                    f"{name} says {side} for {_spell(cell, gate)}, which fires in {cell.rate:.0%} of {cell.count} rows"
                )
        if (share := explained(rule, both, both.parents)) < MIN_EXPLAINED:
            return f"{name} explains {share:.0%} of what the table says, under {MIN_EXPLAINED:.0%}: rates go by degrees"
        if (graded := self._graded(gate)) > gate.mcc + GRADED:
            return f"amounts decide: a cut on the weighted sum has an MCC of {graded:.2f}, {name} {gate.mcc:.2f}"
        return ""

    def _graded(self, gate: Gate) -> float:
        """Held-out MCC of a cut on the connector's sum, the cut chosen on the fitting rows."""
        cut, _ = self.fit_sums.best_cut(gate.out, self.fit_sums.sums(gate.out, gate.inputs, gate.weights))
        return self.judge_sums.mcc_at(gate.out, self.judge_sums.sums(gate.out, gate.inputs, gate.weights), cut)

    def _control(self, gate: Gate, groups: list[tuple[int, ...]]) -> float | None:
        """Held-out MCC of the best rule over as many random features of like firing counts."""
        drawn = self.null.draw(groups)
        if drawn is None:
            return None
        chosen = np.array([g[0] for g in drawn])
        weights = np.array(gate.weights[: len(groups)])
        rule = decide(self.fit_rows.cells(gate.out, drawn), weights, self.mean_on[chosen], gate.bias)
        return 0.0 if rule is None else score(rule, self.judge_rows.cells(gate.out, drawn)).mcc


def _spell(cell: Cell, gate: Gate) -> str:
    """A pattern by the names of its features."""
    on = " and ".join(f"IF_{gate.inputs[j]}" for j in cell.on) or "none"
    off = ", ".join(f"IF_{gate.inputs[j]}" for j in cell.off)
    return f"{on} on{f' with {off} off' if off else ''}"
