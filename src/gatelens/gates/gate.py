"""Gate: one output feature's reading, with its evidence; a plain value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..lazy import shows_itself
from .effects import Effect
from .grade import Grade
from .rule import GateKind, Rule
from .tried import Tried

#: why an output outside the sample has no rule
NOT_SAMPLED = "a sample of the outputs was read, and it is not in it"
#: a table of tokens that comes so close to a rule does as well
AS_WELL = 0.05
#: by how much a cut on the weighted sum must beat the rule before amounts are said to matter
AMOUNTS = 0.05


@dataclass(frozen=True)
class TruthTable:
    """How often the output fired under each pattern of its parents, with the counts behind each cell.

    Attributes:
        patterns: [p, k] which parents are on, columns in the order of the gate's inputs.
        count: [p] rows seen with that pattern.
        fired: [p] of those, rows on which the output fired.
        magnitude: [p] mean output over the rows (0 where none was seen).
        source: "observed" on natural rows, or "interventional": parents set by adding and removing their directions.

    Examples:
        >>> table = circuit.gate(2).table
        >>> table.patterns[:, :2].shape == (len(table.count), 2)
        True
        >>> bool((table.fired <= table.count).all())
        True
    """

    patterns: Bool[Tensor, "p k"]
    count: Int[Tensor, " p"]
    fired: Int[Tensor, " p"]
    magnitude: Float[Tensor, " p"]
    source: Literal["observed", "interventional"] = "observed"

    @property
    def rate(self) -> Float[Tensor, " p"]:
        """Firing rate a pattern; NaN where the pattern was never seen."""
        return torch.where(self.count > 0, self.fired / self.count.clamp_min(1), torch.nan)

    def wilson(self, z: float = 1.96) -> tuple[Float[Tensor, " p"], Float[Tensor, " p"]]:
        """Lower and upper end of the Wilson score interval of each rate; 0 and 1 where unseen."""
        seen = self.count.numpy().astype(np.float64)
        n = np.maximum(seen, 1.0)
        p = self.fired.numpy() / n
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
        ends = np.where(seen > 0, centre - half, 0.0), np.where(seen > 0, centre + half, 1.0)
        return torch.from_numpy(ends[0].astype(np.float32)), torch.from_numpy(ends[1].astype(np.float32))


@dataclass(frozen=True)
class Evidence:
    """How a rule does on held-out rows, beside its precision, recall and MCC; None where undefined or not measured.

    Attributes:
        fit_mcc: on the rows that chose it.
        f1, iou, auprc: of the rule; the last of the weighted sum of its features (weights by least squares), or of its wires where
            that does better.
        cut_mcc: of the best cut on that sum: where it is well above the rule's, amounts matter.
        level_quantile: of the output's positive values that its level is; 0 for the level zero.
        kept: share of the output's firings that are above its level. Rows between zero and the level do not count; between:
            their share of all rows.
        covered: share of all firings, those below the level too, on which the rule says on.
        f1_by_literals: of the best rule of 1, 2, 3, 4 literals.
        left_out: candidates that the rule leaves out, and why, in words.
    """

    fit_mcc: float | None = None
    f1: float | None = None
    iou: float | None = None
    auprc: float | None = None
    cut_mcc: float | None = None
    level_quantile: float = 0.0
    kept: float | None = None
    between: float = 0.0
    covered: float | None = None
    f1_by_literals: tuple[float | None, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Controls:
    """Held-out MCC of what a rule must be told from, and of what it could be at best; None where not measured.

    Attributes:
        random_parents: the best rule over as many random features of like firing counts.
        shuffled: the best rule over the same candidates, fitted to and judged on shuffled rows.
        single: the best single literal.
        neurons: the best rule over neurons.
        token, token_pair: a table of the current token; of the current and the previous one. label: of an image's class.
        ceiling: the exact MLP on the decoded input code.
        beats_lookup: whether the rule is better than the best of the tables in 95 % of resamples of documents.
        missing: control -> why it was not measured.
    """

    random_parents: float | None = None
    shuffled: float | None = None
    single: float | None = None
    neurons: float | None = None
    token: float | None = None
    token_pair: float | None = None
    label: float | None = None
    ceiling: float | None = None
    beats_lookup: bool | None = None
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def lookup(self) -> float | None:
        """The best table of tokens or classes."""
        known = [x for x in (self.token, self.token_pair, self.label) if x is not None]
        return max(known) if known else None


@shows_itself
@dataclass(frozen=True)
class Gate:
    """One output feature: its equation, the rule that it obeys best, of what kind, how good, and the evidence on held-out rows.

    Attributes:
        out: index of the output feature.
        kind: of the rule, however good; `not_read` where there is no rule.
        inputs, weights: parents, the rule's features first, in its order; then further wires, the strongest (weight times
            typical value) at the head. A weight of zero is no wire: that input is known by its rows alone.
        bias, threshold, activation: of the connector's row; rotated coordinates are linear, so "identity".
        sums: of a product of two sums, the inputs, weights and bias of each; empty for one sum.
        excite, inhibit: the inputs that help to open the rule, and those under a NOT; at_least: how many exciters it needs (1
            where its operations are mixed: `rule` alone says how they are joined).
        table: observed on held-out rows; intervention: with parents set in the real model, None when not run. Their
            columns are the first of `inputs`.
        firings: held-out rows on which the output fired; base_rate: their share.
        precision, recall, mcc: of the rule on held-out rows (None where undefined).
        control_mcc: the same for matched random parents: the null.
        r2: of the connector's value for this output, on held-out rows.
        verified: weights, observed and interventional tables agree; None when no intervention was run, or when it was
            undecided (`why` says so).
        rule: the rule itself, with its levels; None where there is none.
        grade: how much speaks for it; `why` says what keeps it from a better one.
        level: of the output, above which it counts as on.
        evidence, controls: more figures, and what stands beside them.
        tried: what the model made of the rule, None where it was not tried.
        effect: what the output favours where it is on, and whether that comes; None where no linear way leads to the model's outputs.
        magnitude: how the value behaves beside the firing, "adder" or "saturating"; "" when not determined.
        missed: a few held-out rows on which the output fired and the rule says it does not; false_alarms: the reverse.
        note: such as "A minus B" where one cell of the table cannot be seen.

    Examples:
        >>> gate = circuit.gate(2)
        >>> str(gate.rule), str(gate.kind), str(gate.grade)
        ('IF_58 or IF_53', 'or', 'verified')
        >>> net.gates[2].kind, net.gates[2].inputs  # what was planted
        ('or', (58, 53))
    """

    out: int
    kind: GateKind
    inputs: tuple[int, ...]
    weights: tuple[float, ...]
    bias: float
    threshold: float | None = None
    activation: str = "relu"
    excite: tuple[int, ...] = ()
    inhibit: tuple[int, ...] = ()
    at_least: int = 1
    table: TruthTable | None = None
    intervention: TruthTable | None = None
    firings: int = 0
    base_rate: float = 0.0
    precision: float | None = None
    recall: float | None = None
    mcc: float | None = None
    control_mcc: float | None = None
    r2: float | None = None
    verified: bool | None = None
    magnitude: str = ""
    missed: tuple[int, ...] = ()
    false_alarms: tuple[int, ...] = ()
    why: str = ""
    note: str = ""
    rule: Rule | None = None
    grade: Grade = Grade.NONE
    level: float = 0.0
    evidence: Evidence | None = None
    controls: Controls | None = None
    tried: Tried | None = None
    effect: Effect | None = None
    sums: tuple[tuple[tuple[int, ...], tuple[float, ...], float], ...] = ()

    @property
    def looked_for(self) -> bool:
        """Whether a rule was looked for at all: of a baseline a sample of the outputs is read."""
        return self.why != NOT_SAMPLED

    @property
    def read(self) -> bool:
        """Whether its rule at least holds."""
        return self.grade in (Grade.HOLDS, Grade.VERIFIED)

    @property
    def amounts_matter(self) -> bool:
        """Whether a cut on the weighted sum of its inputs does clearly better than its rule."""
        cut = self.evidence.cut_mcc if self.evidence is not None else None
        return cut is not None and self.mcc is not None and cut > self.mcc + AMOUNTS

    @property
    def table_does_as_well(self) -> bool | None:
        """Whether a table of tokens (or classes) comes within `AS_WELL` of the rule; None where there is none to compare."""
        lookup = self.controls.lookup if self.controls is not None else None
        return None if lookup is None or self.mcc is None else lookup >= self.mcc - AS_WELL

    def equation(self) -> str:
        """OF_30 = ReLU(0.26·IF_2797 + 0.232·IF_259 - 0.1·IF_946 - 0.05): the wires, to three significant digits; with a threshold,
        that sum where it exceeds it; of a product, both sums."""
        if self.sums:
            first, second = (_sum(*part) for part in self.sums)
            act = "" if self.activation in ("relu", "identity") else self.activation
            return f"OF_{self.out} = {act}({first}) × ({second})"
        total = _sum(self.inputs, self.weights, self.bias)
        if self.threshold:
            return f"OF_{self.out} = JumpReLU({total}; over {self.threshold:.3g})"
        return f"OF_{self.out} = ReLU({total})" if self.activation == "relu" else f"OF_{self.out} = {total}"

    def __repr__(self) -> str:
        def figure(x: float | None) -> str:
            return "-" if x is None else f"{x:.2f}"

        controls = self.controls or Controls(random_parents=self.control_mcc)
        beside = [f"random parents {figure(controls.random_parents)}"]
        if controls.lookup is not None:
            beside.append(f"{'classes' if controls.label is not None else 'token tables'} {figure(controls.lookup)}")
        kept = self.evidence.kept if self.evidence is not None and self.level else None
        parts = [
            f"OF_{self.out}: {self.rule}" if self.rule is not None else f"OF_{self.out}",
            f"{str(self.kind).upper().replace('_', '-')}, {self.grade}" if self.rule is not None else "no rule",
            f"MCC {figure(self.mcc)} ({', '.join(beside)})",
            f"precision {figure(self.precision)}",
            f"recall {figure(self.recall)}",
            "" if kept is None else f"on above {self.level:.3g}, {kept:.0%} of its firings",
            self.why,
            self.note,
            self.equation(),
        ]
        return "   ".join(part for part in parts if part)


def _sum(inputs: tuple[int, ...], weights: tuple[float, ...], bias: float) -> str:
    wires = [(i, w) for i, w in zip(inputs, weights, strict=True) if w]
    terms = [f"{'-' if w < 0 else '+'} {abs(w):.3g}·IF_{i}" for i, w in wires]
    if not wires or abs(bias) >= 1e-3 * max(abs(w) for _, w in wires):
        terms.append(f"{'-' if bias < 0 else '+'} {abs(bias):.3g}")
    return " ".join(terms).removeprefix("+ ")
