"""What the house asks of a solver beyond `fit`, with the answers of one that has nothing to say.

A solver is any object with `fit(f_in, f_out) -> Connector`. Solvers of ours say more (where they stand, how much memory they
take, how to spend another budget of wires); `as_solver` gives anybody else's the answers below.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from ..basis.linear import Basis
from ..connectors import Connector
from ..errors import SolverError
from ..errors.protocol import Foreign, completed
from ..segments import Segment
from ..store.estimate import Estimate, in_all
from ..store.estimate import features as feature_bytes


class SolverDefaults:
    """The optional parts of the protocol; a solver overrides what it knows better."""

    #: whether each output is solved apart from the others, in blocks kept in a folder, so that processes can share them
    in_blocks: bool = False
    #: whether the fit computes where its features lie, so that they are brought to the model's device for it
    on_device: bool = False

    def at(self, segment: Segment, basis_in: Basis, basis_out: Basis) -> Any:
        """The solver for one segment: one that reads the model's weights or a dictionary's learns here which."""
        return self

    def refit_on(self, connector: Connector, f_in: Tensor, f_out: Tensor) -> Connector:
        """The connector's weights fitted again on other rows (features predicted by the segment before), its wires kept."""
        return connector

    def with_budget(self, mean_wires: float, signed: bool) -> Any:
        """The same solver with about so many wires an output; `signed`: outputs may be negative."""
        return self

    def for_others(self, mean_wires: float) -> Any:
        """What finds wires where this solver's own are not to be had: between the dictionaries of a baseline."""
        return self

    def keeping(self, folder: Path) -> Any:
        """The solver, keeping blocks of outputs that are done in a folder (where `in_blocks`)."""
        return self

    def estimate(self, rows: int, m: int, n: int, active_in: float, active_out: float) -> Estimate:
        """Memory of a fit on top of its features.

        Args:
            rows: of the fit. m, n: features at the input and at the output, of which so many are active in a row.
        """
        return in_all("connect", {"copies of the features": feature_bytes(rows, m + n)})


class ForeignSolver(Foreign, SolverDefaults):
    """Somebody else's solver: `fit` is its own, and so is whatever else of the protocol it has."""

    def at(self, segment: Segment, basis_in: Basis, basis_out: Basis) -> Any:
        return as_solver(self.own.at(segment, basis_in, basis_out)) if hasattr(self.own, "at") else self

    def fit(self, f_in: Tensor, f_out: Tensor) -> Connector:
        """The user's own fit."""
        found = self.own.fit(f_in, f_out)
        if not isinstance(found, Connector):
            raise SolverError(
                f"{type(self.own).__name__}.fit gave a {type(found).__name__}; expected a Connector. "
                "Connector.from_dense(weight, bias) makes one from a matrix"
            )
        return found


def as_solver(solver: Any) -> Any:
    """The solver with the whole protocol.

    Raises:
        SolverError: an object without `fit`, or the class instead of an object of it.
    """
    fit = "fit(f_in, f_out) -> Connector: the Solver protocol asks for it. See gatelens.solvers"
    return completed(solver, "solver", SolverDefaults, ForeignSolver, SolverError, fit)
