"""Gate: one output feature's reading, with its evidence; a plain value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..lazy import shows_itself
from .rule import GateKind as GateKind


@dataclass(frozen=True)
class TruthTable:
    """How often the output fired under each pattern of its parents, with the counts behind each cell.

    Attributes:
        patterns: [p, k] which parents are on, columns in the order of the gate's inputs.
        count: [p] rows seen with that pattern.
        fired: [p] of those, rows on which the output fired.
        magnitude: [p] mean output over the rows (0 where none was seen).
        source: "observed" on natural rows, or "interventional": parents set by adding and removing their directions.
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
        """Lower and upper end of the Wilson score interval of each rate (Wilson 1927); 0 and 1 where unseen."""
        n = self.count.double()
        p = self.fired.double() / n.clamp_min(1)
        centre = (p + z * z / (2 * n.clamp_min(1))) / (1 + z * z / n.clamp_min(1))
        spread = torch.sqrt(p * (1 - p) / n.clamp_min(1) + (z / (2 * n.clamp_min(1))) ** 2)
        half = z / (1 + z * z / n.clamp_min(1)) * spread
        seen = n > 0
        return torch.where(seen, centre - half, 0.0).float(), torch.where(seen, centre + half, 1.0).float()


@shows_itself
@dataclass(frozen=True)
class Gate:
    """One output feature: its equation, its kind, the rule that is claimed, and the evidence on held-out rows.

    The rule: the output fires when at least `at_least` of the excitatory inputs (weight > 0) are on and none of the
    inhibitory ones (weight < 0) that the rule names.

    Attributes:
        out: index of the output feature.
        kind: the reading; `not_read` when the evidence does not carry one, with the reason in `why`.
        inputs, weights: parents, those of the tables first, the strongest (weight times typical value) at the head;
            then what no table holds: copies of these, and inputs beyond the limit of a table.
        bias, threshold, activation: of the connector's row; rotated coordinates are linear, so "identity".
        excite, inhibit: the inputs that the rule names; at_least: how many exciters it needs.
        table: observed on held-out rows; intervention: with parents set in the real model, None when not run. Their
            columns are the first of `inputs`.
        firings: held-out rows on which the output fired; base_rate: their share.
        precision, recall, mcc: of the rule on held-out rows (None where undefined).
        control_mcc: the same for matched random parents: the null.
        r2: of the connector's value for this output, on held-out rows.
        verified: weights, observed and interventional tables agree; None when no intervention was run, or when it was
            undecided (`why` says so).
        magnitude: how the value behaves beside the firing, "adder" or "saturating"; "" when not determined.
        missed: a few held-out rows on which the output fired and the rule says it does not; false_alarms: the reverse.
        note: such as "A minus B" where one cell of the table cannot be seen.
    """

    out: int
    kind: GateKind
    inputs: tuple[int, ...]
    weights: tuple[float, ...]
    bias: float
    threshold: float | None = None
    activation: Literal["relu", "identity"] = "relu"
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

    def equation(self, digits: int = 2) -> str:
        """OF_30 = ReLU(0.26·IF_2797 + 0.23·IF_259 - 0.10·IF_946 - 0.05); with a threshold, that sum where it exceeds it."""
        terms = [
            f"{'-' if w < 0 else '+'} {abs(w):.{digits}f}·IF_{i}"
            for i, w in zip(self.inputs, self.weights, strict=True)
        ]
        if abs(self.bias) >= 0.5 * 10**-digits or not terms:
            terms.append(f"{'-' if self.bias < 0 else '+'} {abs(self.bias):.{digits}f}")
        total = " ".join(terms).removeprefix("+ ")
        if self.threshold:
            return f"OF_{self.out} = JumpReLU({total}; over {self.threshold:.{digits}f})"
        return f"OF_{self.out} = ReLU({total})" if self.activation == "relu" else f"OF_{self.out} = {total}"

    def __repr__(self) -> str:
        def figure(x: float | None) -> str:
            return "-" if x is None else f"{x:.2f}"

        parts = [
            self.equation(),
            str(self.kind).upper().replace("_", "-"),
            f"precision {figure(self.precision)}",
            f"recall {figure(self.recall)}",
            f"MCC {figure(self.mcc)} (random parents {figure(self.control_mcc)})",
            {None: "", True: "verified", False: "not verified"}[self.verified],
            self.why,
            self.note,
        ]
        return "   ".join(part for part in parts if part)
