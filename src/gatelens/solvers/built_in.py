"""BuiltInWires: the wires that a gate dictionary's features are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..basis.linear import Basis
from ..connectors import Connector
from ..errors import BasisError
from ..segments import Segment
from .gram_lasso import GramLasso
from .protocol import SolverDefaults


@dataclass(frozen=True)
class BuiltInWires(SolverDefaults):
    """The solver for a gate dictionary: its wires are there already.

    Attributes:
        connector: the wires, once `at` has named the segment.

    Raises:
        BasisError: an output dictionary whose features are not made of wires.

    Examples:
        >>> recipe = gl.GateDictionary(fan_in=4, l0=2, inputs=bases, outputs=bases, samples=10_000, counterfactual=None)
        >>> made = recipe.fit(segments, acts)
        >>> gl.build_circuit(model, segments, made, acts, gl.BuiltInWires(), gates=False)
        Circuit(1 segments)
          hook_resid -> hook_mlp_out: Connector(96 -> 32, ..., max 4, ...
    """

    connector: Connector | None = None

    def at(self, segment: Segment, basis_in: Basis, basis_out: Any) -> BuiltInWires:
        wires = basis_out.connector
        if wires is None:
            raise BasisError(
                f"BuiltInWires takes the wires of a gate dictionary; at {segment.hook_out} there is a {type(basis_out).__name__}. "
                "Fit GateDictionary for this segment, or use a solver that finds wires"
            )
        basis_out.check(segment)
        return BuiltInWires(wires)

    def for_others(self, mean_wires: float) -> GramLasso:
        """A gate dictionary's wires are built in, and nothing else has such wires."""
        return GramLasso(mean_wires=mean_wires)

    def fit(self, f_in: Tensor, f_out: Tensor) -> Connector:
        """The wires that are there, for features [rows, m] of the dictionary that they were made with."""
        if self.connector is None:
            raise BasisError(
                "BuiltInWires has no wires yet: call at(segment, basis_in, basis_out) first, as build_circuit does"
            )
        if f_in.ndim != 2 or f_in.shape[1] != self.connector.weight.shape[1]:
            raise BasisError(
                f"the gates read {self.connector.weight.shape[1]} input features, features of shape {list(f_in.shape)} came. "
                "Use the input dictionary they were made with"
            )
        return self.connector
