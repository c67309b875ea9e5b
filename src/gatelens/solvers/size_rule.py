"""Which solver where none is named: built-in wires, statistics of all pairs of features while few, one output at a time beyond."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ..basis.output import at_output
from ..connectors import Connector
from ..segments import Segment
from ..store.estimate import Estimate
from .built_in import BuiltInWires
from .gram_lasso import GramLasso, below_zero
from .protocol import SolverDefaults
from .relu_omp import ReluOMP

#: widest end for which statistics of all pairs of features are formed
GRAM_WIDTH = 4096


@dataclass(frozen=True)
class BySize(SolverDefaults):
    """The solver where none is named: `GramLasso()` up to 4,096 features, `ReluOMP()` beyond; connectors say which it was.

    GramLasso's statistics take (width_in + width_out) * width_in numbers and pay for dense features; ReluOMP needs
    features that are mostly off, and never forms a matrix of pairs. Coordinates with a sign are for GramLasso at any width.
    """

    seed: int = 0
    on_device = True

    def fit(self, f_in: Tensor, f_out: Tensor) -> Connector:
        """A connector from features over the same rows, [rows, m] and [rows, n], dense or sparse CSR."""
        return self._told(self.choose(f_in, f_out).fit(f_in, f_out), f_in, f_out)

    def refit_on(self, connector: Connector, f_in: Tensor, f_out: Tensor) -> Connector:
        """The same wires fitted again to input features as another connector predicts them; ReluOMP's stay as they are."""
        solver = self.choose(f_in, f_out)
        return (
            connector
            if isinstance(solver, ReluOMP)
            else self._told(solver.refit_on(connector, f_in, f_out), f_in, f_out)
        )

    def with_budget(self, mean_wires: float, signed: bool) -> GramLasso:
        return GramLasso().with_budget(mean_wires, signed)

    def estimate(self, rows: int, m: int, n: int, active_in: float, active_out: float) -> Estimate:
        return solver_for(max(m, n)).estimate(rows, m, n, active_in, active_out)

    def choose(self, f_in: Tensor, f_out: Tensor) -> GramLasso | ReluOMP:
        """The solver for features of these widths and signs."""
        signed = below_zero(f_out)
        if signed or below_zero(f_in) or max(f_in.shape[1], f_out.shape[1]) <= GRAM_WIDTH:
            return GramLasso(signed=signed)
        return ReluOMP(seed=self.seed)

    def _told(self, connector: Connector, f_in: Tensor, f_out: Tensor) -> Connector:
        return replace(connector, solver=f"{connector.solver} by size ({f_in.shape[1]} -> {f_out.shape[1]} features)")


def default_solver(segments: Sequence[Segment], bases: Mapping[str, Any], seed: int = 0) -> Any:
    """`BuiltInWires` where every output dictionary has its wires built in, else `BySize`.

    Args:
        bases: hook name -> basis, as fitted.
    """
    if all(at_output(bases[s.hook_out]).connector is not None for s in segments):
        return BuiltInWires()
    return BySize(seed)


def solver_for(width: int, seed: int = 0) -> GramLasso | ReluOMP:
    """`GramLasso` up to `GRAM_WIDTH` features at the wider end; `ReluOMP` beyond.

    GramLasso's statistics take numbers in the square of the width and pay for dense features; ReluOMP needs features that
    are mostly off, and never forms a matrix of pairs.
    """
    return GramLasso() if width <= GRAM_WIDTH else ReluOMP(seed=seed)
