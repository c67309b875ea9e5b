"""Reading: one output after the other, its best rule, how good that is, and what stands beside it, from natural rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
from jaxtyping import Int

from ..connectors import Connector
from .contradictions import Against, against
from .gate import AMOUNTS, NOT_SAMPLED, Controls, Evidence, Gate
from .grade import judged
from .graded import GradedSum, Sums
from .harsanyi import magnitude
from .levels import Levels, feature_thresholds
from .literals import Literals, rows_of
from .lookup import Documents, LookupTable, Origin
from .nulls import Nulls
from .obeyed import Suggested
from .parents import Parents, Wires
from .patterns import Patterns, Ranked, Terms, spare
from .predictor import explained
from .rule import GateKind, Literal, Op, Rule
from .scores import Score, counts
from .search import Finding, Search, Target
from .tables import Cells, Columns, Counter, every, some_rows

#: by how much a cut on the weighted sum must beat the rule before amounts decide
GRADED = 0.15
#: least MCC on the rows that chose it of anything that is called a rule
LEAST_MCC = 0.1
#: values times levels that are held as literals; above it rows are left out
MOST_ENTRIES = 30_000_000
#: wires that are candidates whatever the rows say, and left-out candidates that a card names
WIRES, NAMED = 8, 4


@dataclass(frozen=True)
class Part:
    """Rows of both ends of a segment, and where they come from (None where that is not known)."""

    f_in: Columns
    f_out: Columns
    origin: Origin | None = None

    @property
    def rows(self) -> int:
        return self.f_in.rows

    def thinned(self, levels: Levels) -> Part:
        """Every so-manieth row, where a code of all of them would not be sparse: of neurons or of a rotation's coordinates."""
        entries = len(self.f_in.value) * len(levels.inputs)
        step = -(-entries // MOST_ENTRIES)
        if step <= 1:
            return self
        origin = None if self.origin is None else self.origin.every(step)
        return Part(every(self.f_in, step), every(self.f_out, step), origin)


@dataclass(frozen=True)
class Settings:
    """What it takes to read a gate; see `type_gates`."""

    levels: Levels
    terms: Terms
    mcc_bar: float
    min_count: int
    seed: int


class Reader:
    """Holds what the outputs share: literals of the fitting rows, nulls, tables of tokens, resamples of documents."""

    def __init__(
        self,
        connector: Connector,
        fit: Part,
        judge: Part,
        settings: Settings,
        exact: Columns | None = None,
        about: str = "",
    ):
        """`exact`: the output features that the exact segment gives on the decoded input code of the judging rows; `about`: what
        every gate's note begins with."""
        fit = fit.thinned(settings.levels)
        self.connector, self.fit, self.judge, self.settings, self.exact = connector, fit, judge, settings, exact
        self.search = Search(Literals(fit.f_in, settings.levels.inputs), settings.terms)
        self.parents = Parents(connector, fit.f_in)
        self.nulls = Nulls(fit.f_in, judge.f_in, settings.levels.inputs, settings.terms, settings.seed)
        self.counters = tuple(Counter(part.f_in, part.f_out) for part in (fit, judge))
        self.tables, self.documents, self.missing = _lookups(fit.origin, judge.origin, settings.seed)
        self.firings = judge.f_out.firings()
        self.about = [about] if about else []
        if fit.f_in.signed or fit.f_out.signed:
            self.about.append("values of both signs: on means positive")

    @cached_property
    def r2(self) -> list[float | None]:
        """How much of each output the connector explains on the judging rows."""
        return explained(self.connector, self.judge.f_in, self.judge.f_out)

    def read(self, out: int) -> Gate:
        """The gate of one output; its grade is what natural rows alone allow."""
        wires = self.parents.of(out)
        gate = self._begun(out, wires)
        levels = self.levels(out)
        if not levels:
            return replace(gate, why="it is never on in the fitting rows")
        row, value = self.fit.f_out.on(out)
        targets = [Target.at(row, value, level) for level in levels]
        finding = self.search.rule(targets, wires.strongest(WIRES), wires.sides)
        if finding is None or finding.best is None or finding.best.mcc < LEAST_MCC:
            return replace(gate, why="no input is on with it more than by chance")
        return self._judged(gate, finding, finding.best)

    def levels(self, out: int) -> list[float]:
        """The levels above which an output may count as on, ascending; none for one that is never on."""
        found = feature_thresholds(self.fit.f_out.on(out)[1], self.settings.levels.outputs)
        return [float(level) for level in found if np.isfinite(level)]

    def suggested(self, out: int, level: float) -> Suggested | None:
        """What the rows suggest for an output above a level; None where that is no rule."""
        wires = self.parents.of(out)
        finding = self.search.rule([self._target(out, level)], wires.strongest(WIRES), wires.sides)
        if finding is None or finding.best is None or finding.table is None:
            return None
        return Suggested(finding.best, finding.table, finding.by_size)

    def judged(self, out: int, level: float, rule: Ranked, suggested: Suggested) -> Gate:
        """The gate with another rule over the candidates that were suggested above a level, judged like any."""
        finding = Finding(self._target(out, level), dict(suggested.by_size), rule, suggested.table)
        return self._judged(self._begun(out, self.parents.of(out)), finding, rule)

    def _target(self, out: int, level: float) -> Target:
        return Target.at(*self.fit.f_out.on(out), level)

    def unread(self, out: int) -> Gate:
        """The gate of an output that no rule is looked for."""
        return replace(self._begun(out, self.parents.of(out)), why=NOT_SAMPLED)

    def _begun(self, out: int, wires: Wires) -> Gate:
        notes = [*wires.notes, *self.about]
        threshold = self.connector.threshold
        return Gate(
            out=out,
            kind=GateKind.NOT_READ,
            inputs=wires.inputs,
            weights=wires.weights,
            bias=float(self.connector.bias[out]),
            threshold=None if threshold is None else float(threshold[out]),
            activation=self.connector.activation,
            sums=_sums(self.connector, out),
            firings=int(self.firings[out]),
            base_rate=float(self.firings[out] / self.judge.rows),
            r2=self.r2[out],
            note="; ".join(notes),
        )

    def _judged(self, gate: Gate, finding: Finding, best: Ranked) -> Gate:
        """The gate with its rule, and all figures of it on the judging rows."""
        said = cache(self._said)  # rules of several sizes stand beside the one that is taken, which is one of them
        here = Target.at(*self.judge.f_out.on(gate.out), finding.target.level)
        case = _Case(finding, best, here, said(best.rule), said)
        found = counts(case.said, case.here.on, case.here.unclear, self.judge.rows)
        sums, at = self._graded(gate, finding.target, best.rule, case.here)
        cut = sums.cut_mcc(at)
        score = Score.of(found, sums.average_precision())
        controls = self._controls(gate.out, case)
        fit, judge = (c.cells(gate.out, best.rule.literals, finding.target.level) for c in self.counters)
        wrong = against(best.rule, fit + judge, self.settings.min_count)
        nulls = {"random parents": controls.random_parents, "shuffled rows": controls.shuffled}
        grade, why = judged(score, nulls, self.settings.mcc_bar, _spoils(wrong, score, cut))
        return replace(
            _with_rule(gate, best.rule),
            level=finding.target.level,
            grade=grade,
            why=why,
            table=judge.table(),
            precision=score.precision,
            recall=score.recall,
            mcc=score.mcc,
            control_mcc=controls.random_parents,
            magnitude=_magnitude(best.rule, fit + judge, self.settings.min_count),
            missed=some_rows(np.setdiff1d(case.here.on, case.said)),
            false_alarms=some_rows(np.setdiff1d(case.said, case.fired)),
            evidence=self._evidence(case, score, cut),
            controls=controls,
            note="; ".join(part for part in (gate.note, *_notes(wrong, why, score, cut)) if part),
        )

    def _said(self, rule: Rule) -> Int[np.ndarray, " said"]:
        return rule.open_rows([rows_of(self.judge.f_in, literal) for literal in rule.literals])

    def _graded(self, gate: Gate, target: Target, rule: Rule, here: Target) -> tuple[Sums, float]:
        """The weighted sum of the rule's features, or that of the wires where this does better on the fitting rows, over the
        judging rows; and the best cut on it."""
        own, own_fitted = GradedSum.fitted(self.fit.f_in, rule.features, target)
        sums, fitted = [own], [own_fitted]
        if gate.inputs:
            sums.append(GradedSum(gate.inputs, np.array(gate.weights)))
            fitted.append(sums[-1].on(self.fit.f_in, target))
        cuts = [s.best_cut() for s in fitted]
        best = int(np.argmax([s.cut_mcc(cut) for s, cut in zip(fitted, cuts, strict=True)]))
        return sums[best].on(self.judge.f_in, here), cuts[best]

    def _evidence(self, case: _Case, score: Score, cut: float) -> Evidence:
        fired = len(case.fired)
        by_size = [case.finding.by_size.get(size) for size in range(1, self.settings.terms.most + 1)]
        return Evidence(
            fit_mcc=case.best.mcc,
            f1=score.f1,
            iou=score.iou,
            auprc=score.auprc,
            cut_mcc=cut,
            level_quantile=1.0 - (case.finding.target.kept or 0.0),
            kept=case.here.kept,
            between=len(case.here.unclear) / self.judge.rows,
            covered=len(np.intersect1d(case.said, case.fired)) / fired if fired else None,
            f1_by_literals=tuple(None if r is None else self._score(case.rows_of(r.rule), case).f1 for r in by_size),
            left_out=tuple(_left_out(case.finding.table, case.best.rule, self.settings.terms)),
        )

    def _controls(self, out: int, case: _Case) -> Controls:
        """The rule's nulls, rivals and ceiling."""
        target, here = case.finding.target, case.here
        single = case.finding.by_size.get(1)
        tables = {name: np.flatnonzero(table.says(target)) for name, table in self.tables.items()}
        lookups = {name: self._score(rows, case).mcc for name, rows in tables.items()}
        beats = None
        if lookups and self.documents is not None:
            rival = max(lookups, key=lambda name: lookups[name] or 0.0)
            beats = self.documents.better(case.said, tables[rival], here, self.judge.rows)
        exact = None if self.exact is None else rows_of(self.exact, Literal(out, target.level))
        return Controls(
            random_parents=self.nulls.random_parents(case.best.rule, target, here),
            shuffled=self.nulls.shuffled(case.finding.table, target, here),  # pyright: ignore[reportArgumentType]
            single=None if single is None else self._score(case.rows_of(single.rule), case).mcc,
            **lookups,
            ceiling=None if exact is None else self._score(exact, case).mcc,
            beats_lookup=beats,
            missing=self.missing,
        )

    def _score(self, said: Int[np.ndarray, " said"], case: _Case) -> Score:
        return Score.of(counts(said, case.here.on, case.here.unclear, self.judge.rows))


@dataclass(frozen=True)
class _Case:
    """One output's rule before the judging rows: what was found, the output there, where the rule says on, and where others do."""

    finding: Finding
    best: Ranked
    here: Target
    said: Int[np.ndarray, " said"]
    rows_of: Callable[[Rule], Int[np.ndarray, " said"]]

    @property
    def fired(self) -> Int[np.ndarray, " fired"]:
        """The rows on which the output is above zero."""
        return np.union1d(self.here.on, self.here.unclear)


def _with_rule(gate: Gate, rule: Rule) -> Gate:
    """The rule's features at the head of the inputs; those without a wire weigh nothing."""
    weight = dict(zip(gate.inputs, gate.weights, strict=True))
    inputs = (*rule.features, *(i for i in gate.inputs if i not in rule.features))
    joins = {op for op, _ in rule.steps if op != Op.AND_NOT}
    every = len(rule.positive) if joins == {Op.AND} and len(rule.head) == 1 else 1
    return replace(
        gate,
        kind=rule.kind(),
        rule=rule,
        inputs=inputs,
        weights=tuple(weight.get(i, 0.0) for i in inputs),
        excite=tuple(literal.feature for literal in rule.positive),
        inhibit=tuple(literal.feature for literal in rule.negative),
        at_least=max(rule.at_least, every),
    )


def _lookups(
    fit: Origin | None, judge: Origin | None, seed: int
) -> tuple[dict[str, LookupTable], Documents | None, dict[str, str]]:
    """Tables of tokens or classes, resamples of documents, and what there is not, with the reason."""
    missing = {"neurons": "no neurons were given"}
    if fit is None or judge is None:
        reason = "where the rows come from was not given"
        return {}, None, missing | {"token": reason, "token_pair": reason, "beats_lookup": reason}
    documents = Documents(judge.document, seed)
    if documents.count < Documents.LEAST:
        missing["beats_lookup"] = f"{documents.count} held-out documents, {Documents.LEAST} are needed"
    tokens = (fit.token, judge.token)
    if not judge.is_text:
        return {"label": LookupTable(tokens)}, documents, missing
    return (
        {"token": LookupTable(tokens), "token_pair": LookupTable(tokens, (fit.pairs, judge.pairs))},
        documents,
        missing,
    )


def _magnitude(rule: Rule, cells: Cells, min_count: int) -> str:
    """How the value goes with two or three literals, where none under a NOT is on."""
    exciters = len(rule.positive)
    if rule.negative or not 2 <= exciters <= 3:
        return ""
    return magnitude(cells, min_count)


def _left_out(table: Patterns | None, rule: Rule, terms: Terms) -> Iterator[str]:
    """The best candidates that the rule leaves out, and why."""
    spares = [] if table is None else sorted(spare(table, rule), key=lambda s: -s.gain)[:NAMED]
    full = len(rule.literals) >= terms.most
    for s in spares:
        if s.decides < terms.support:
            yield f"{s.literal.words}: would decide {s.decides} rows of {terms.support}"
        elif s.gain >= terms.price and full:
            yield f"{s.literal.words}: would add {s.gain:.3f} of MCC as literal {len(rule.literals) + 1}"
        else:
            yield f"{s.literal.words}: would add {max(s.gain, 0):.3f} of MCC, its price is {terms.price:g}"


def _spoils(wrong: Against | None, score: Score, cut: float) -> str:
    """What keeps a rule from holding, however often it is right: a pattern that does the opposite, or amounts that decide."""
    if wrong is not None and wrong.clear:
        return wrong.words
    if score.mcc is not None and cut > score.mcc + GRADED:
        return f"amounts decide: a cut on the weighted sum of its inputs has an MCC of {cut:.2f}"
    return ""


def _sums(connector: Connector, out: int) -> tuple[tuple[tuple[int, ...], tuple[float, ...], float], ...]:
    """Both sums of a product; nothing for an output that is one sum."""
    if len(connector.sides) < 2 or not int(connector.sides[1].fan_in()[out]):
        return ()
    wires = ((*(tuple(part.tolist()) for part in side.parents(out)), float(side.bias[out])) for side in connector.sides)
    return tuple(wires)  # pyright: ignore[reportReturnType]


def _notes(wrong: Against | None, why: str, score: Score, cut: float) -> Iterator[str]:
    """What must be said beside the rule."""
    if wrong is not None and wrong.words != why:
        yield wrong.words
    if score.mcc is not None and score.mcc + AMOUNTS < cut <= score.mcc + GRADED:
        yield f"amounts matter: a cut on the weighted sum of its inputs has an MCC of {cut:.2f}"
