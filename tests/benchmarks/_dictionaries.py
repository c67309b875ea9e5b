"""What the benchmark of dictionaries made for gates trains and measures, the same for every model: one seed, one segment."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from _copies import CopyGroups, copy_groups
from _relations import Relations, relations
from torch import Tensor

from gatelens.bases.sae import SegmentSAE
from gatelens.bases.sae.trained import TrainedSAE
from gatelens.codes.csr import spread
from gatelens.codes.rows import Codes
from gatelens.edits.counterfactual import Counterfactual
from gatelens.evaluation.readings import read_share
from gatelens.gate_dictionaries.gate_first import GateDictionary
from gatelens.ladder.measuring import Entry, Ladder, Measure, Rows, measure_ladder
from gatelens.segments import Segment
from gatelens.solvers.gram_lasso import GramLasso

GATES, FEW, NATURAL = "gate-first k=8, pairs", "gate-first k=4, pairs", "gate-first k=8, natural"
BEFORE, PLAIN = "input SAE before tuning", "input SAE of x alone"
SHUFFLED = "null: gates fitted to other rows' outputs"
RIDGE, EXACT = "gate-free ridge, same loss", "exact MLP on decoded inputs"
WIRES, CONSISTENT = "SAE + wires k=16", "SAE + wires k=16, self-consistent"
SOLVER_ROWS = 60_000
_GROUP_ROWS = 50_000
_READ_ROWS = 20_000


def wires(fan_in: int) -> GramLasso:
    """What two separate dictionaries can do at a fan-in: forward selection, a one-sided fit, thresholds set on firing."""
    return GramLasso(mean_wires=fan_in, cap=fan_in, newton_rows=SOLVER_ROWS, calibrate=True)


@dataclass(frozen=True)
class Plan:
    """How much is trained: the same recipe for every model, smaller for smaller ones.

    Attributes:
        aimed: of the input, before it is tuned with the gates. outputs: of y: gates start from it, wires lead to it.
        sae: of the rung whose input dictionary knows x alone; the transcoder has its size.
        gates: fan-in 8 with pairs, the input dictionary tuned with them. Every rival is given the tuned dictionary. min_firings: outputs that are on in fewer held-out rows are not counted.
        causal_rows: held-out rows that are edited.
        replaced: for the model's metric with the MLP replaced.
    """

    aimed: SegmentSAE
    outputs: TrainedSAE
    sae: TrainedSAE
    gates: GateDictionary
    min_firings: int = 20
    causal_rows: int = 1_000
    replaced: Callable[[Callable[[Tensor], Tensor]], float] | None = None

    def with_seed(self, seed: int) -> Plan:
        return replace(
            self,
            aimed=replace(self.aimed, seed=seed),
            outputs=replace(self.outputs, seed=seed),
            sae=replace(self.sae, seed=seed),
            gates=replace(self.gates, seed=seed),
        )


@dataclass
class Found:
    """A seed's ladder, and the figures that are on no ladder."""

    ladder: Ladder
    relations: Relations
    groups: CopyGroups
    rules_over_07: float | None = None


class Study:
    """Dictionaries of one segment and gates learned between them, the input's tuned with the gates; then everything else on that code."""

    def __init__(self, segment: Segment, fit: Rows, held: Rows, plan: Plan):
        self.segment, self.fit, self.held, self.plan = segment, fit, held, plan
        self.before, self.outer = plan.aimed.train(fit.x, segment, fit.y), plan.outputs.train(fit.y)
        self.gates = plan.gates.train(segment, self.before, self.outer, fit.x, fit.y)
        self.inner = self.gates.basis_in
        self.codes = Codes.encode(self.inner, fit.x)

    def learn(self, **change: Any) -> Any:
        """Other gates on the code as it is."""
        gates = replace(self.plan.gates, tune_inputs=None, **change)
        return gates.train(self.segment, self.inner, self.outer, self.fit.x, self.fit.y, self.codes)

    def natural(self) -> Any:
        """Fitted on natural rows alone, as many as the pairs' natural halves."""
        return self.learn(counterfactual=None, samples=self.pairs.pairs)

    def on_other_codes(self) -> dict[str, Ladder]:
        """The same from the input dictionary before it was tuned, and from one that was trained on x alone: ladders of their own."""
        found = {}
        for name, inner in ((BEFORE, self.before), (PLAIN, self.plan.sae.train(self.fit.x))):
            gates = replace(self.plan.gates, tune_inputs=None)
            learned = gates.train(self.segment, inner, self.outer, self.fit.x, self.fit.y)
            found[name] = self.ladder({GATES: entry(learned), WIRES: Entry(self.outer, wires(16))}, inner, rivals=False)
        return found

    def shuffled(self) -> Any:
        """Fitted to the outputs of other rows."""
        order = torch.randperm(len(self.fit.x), generator=torch.Generator().manual_seed(self.plan.gates.seed))
        samples = max(1, self.pairs.pairs // 4)
        few = replace(self.plan.gates, counterfactual=None, tune_inputs=None, samples=samples)
        return few.train(self.segment, self.inner, self.outer, self.fit.x[order], self.fit.y)

    def wires(self, fan_in: int = 16) -> dict[str, Entry]:
        """Two separate dictionaries and wires between them, judged on SAE(y) and on what the model makes of decoded inputs."""
        inner, outer, forward = self.inner, self.outer, self.segment.forward
        target = lambda x, y: outer.encode(forward(inner.decode(inner.encode(x))))  # noqa: E731
        return {WIRES: Entry(outer, wires(fan_in)), CONSISTENT: Entry(outer, wires(fan_in), target)}

    def transcoder(self, fan_ins: Sequence[int]) -> dict[str, Entry]:
        from gatelens.gate_dictionaries.transcoder import Transcoder

        s = self.plan.sae
        recipe = Transcoder(d_sae=s.d_sae, expansion=s.expansion, k=s.k, samples=s.samples, lr=s.lr, seed=s.seed)
        pair = recipe.train(self.fit.x, self.fit.y)
        return {f"transcoder k={k}": Entry(pair, wires(k)) for k in fan_ins}

    @property
    def pairs(self) -> Counterfactual:
        return self.plan.gates.counterfactual  # pyright: ignore[reportReturnType]

    def ladder(self, entries: Mapping[str, Entry], basis_in: Any = None, rivals: bool = True) -> Ladder:
        p = self.plan
        measure = Measure(
            causal_rows=p.causal_rows,
            min_firings=p.min_firings,
            rivals=rivals,
            pairs=self.pairs,
            lam=p.gates.lam,
            replaced=p.replaced,
            seed=p.gates.seed,
            solver_rows=SOLVER_ROWS,
        )
        codes = self.codes if basis_in is None else None
        return measure_ladder(self.segment, basis_in or self.inner, entries, self.fit, self.held, measure, codes)

    def copies(self) -> CopyGroups:
        head = self.codes.rows(spread(len(self.codes), _GROUP_ROWS))
        return copy_groups(self.inner, head, segment=self.segment, x=self.fit.x)

    def relations(self, gates: Any, groups: CopyGroups) -> Relations:
        return relations(
            gates.connector, groups, self.inner.encode(self.held.spread(_READ_ROWS).x), seed=self.plan.gates.seed
        )

    def rules_over(self, gates: Any, mcc: float) -> float | None:
        """Share of the gates whose truth table has a held-out MCC over `mcc`."""
        f = [self.inner.encode(part.spread(_READ_ROWS).x) for part in (self.fit, self.held)]
        out = [gates.connector(part) for part in f]
        return read_share(gates.connector, f[0], out[0], f[1], out[1], self.plan.min_firings, over=mcc)


def entry(gates: Any) -> Entry:
    return Entry(gates, gates.connector)


def median(found: Sequence[Found], rung: str, name: str) -> float | None:
    """Over the seeds; None where no seed has the figure."""
    values = [f.ladder.rungs[rung].get(name) for f in found if rung in f.ladder.rungs]
    known = [v for v in values if v is not None]
    return statistics.median(known) if known else None


def column(found: Sequence[Found], name: str, without: str = "") -> dict[str, float | None]:
    """One figure over all rungs that have it."""
    values = {rung: median(found, rung, name) for rung in found[0].ladder.rungs if rung != without}
    return {rung: value for rung, value in values.items() if value is not None}
