"""Gates get the second half of their reading: what each output favours, and whether that comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from ..basis import Basis, directions
from .agreement import Rows
from .effects import output_effects
from .gate import Gate
from .logit_effects import logit_effects
from .stage import sparse_rows


def with_effects(
    gates: Sequence[Gate], model: Any, hook: str, basis_out: Basis, f_out: Tensor, acts: Any
) -> list[Gate]:
    """The gates with their outputs' effects; as they were where no linear way leads from the hook point to the model's outputs,
    or where nothing is known of what comes next.

    Args:
        hook: at which the outputs stand. f_out: their features over the held-out rows, of which `acts` knows where they come from.
    """
    effects = logit_effects(model, hook, directions(basis_out, f_out.shape[1]))
    rows = Rows.of(acts)
    if effects is None or len(rows.target) != len(f_out) or not (rows.target >= 0).any():
        return list(gates)
    levels = np.zeros(f_out.shape[1])
    levels[[g.out for g in gates]] = [g.level for g in gates]
    found = output_effects(effects, sparse_rows(f_out), levels, rows)
    return [replace(gate, effect=found[gate.out]) for gate in gates]
