"""Connectors in blocks of outputs: solvers that fit each output by itself can share the work between processes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import store
from ..connectors import Connector
from ..segments import Segment
from ..solvers.relu_omp import ReluOMP


def can_block(solver: Any) -> bool:
    """Whether the solver's outputs do not depend on one another, and it keeps its blocks in a folder."""
    return isinstance(solver, ReluOMP)


def in_blocks(solver: Any, folder: Path) -> Any:
    """The solver, keeping each segment's blocks in a folder of its own below `folder`; others as they are."""
    return _Blocked(solver, folder) if can_block(solver) else solver


@dataclass(frozen=True)
class _Blocked:
    solver: ReluOMP
    folder: Path

    def at(self, segment: Segment, basis_in: Any, basis_out: Any) -> ReluOMP:
        return replace(self.solver, store=self.folder / store.slug(segment.name))

    def fit(self, f_in: Tensor, f_out: Tensor) -> Connector:
        return self.solver.fit(f_in, f_out)
