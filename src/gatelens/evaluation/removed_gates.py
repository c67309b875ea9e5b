"""What the model's predictions make of the first gates of a segment: each output removed, beside a direction of equal norm."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ..basis import Basis, directions
from ..data import Batches
from ..gates import Gate, Grade
from ..gates.stage import sparse_rows
from .removal import removals


def first_gates(gates: Sequence[Gate], most: int) -> list[Gate]:
    """By grade, then by how clearly what they favour comes, then by how often they fire; those with a rule."""
    ruled = [g for g in gates if g.rule is not None and g.firings]
    return sorted(ruled, key=lambda g: ([*Grade].index(g.grade), -_clear(g), -g.firings, g.out))[:most]


def _clear(gate: Gate) -> float:
    return gate.effect.t if gate.effect is not None and gate.effect.t is not None else 0.0


def removed_gates(
    model: Any,
    hook: str,
    basis_out: Basis,
    gates: Sequence[Gate],
    f_out: Tensor,
    batches: Batches,
    most: int,
    seed: int,
) -> dict[str, Any] | None:
    """Median divergences and their ratio over the first `most` gates, and each gate's; None where none could be removed.

    Args:
        hook: where the outputs stand. f_out: their features over the rows of `batches`.
    """
    levels = np.zeros(f_out.shape[1])
    levels[[g.out for g in gates]] = [g.level for g in gates]
    outs = [g.out for g in first_gates(gates, most)]
    found = removals(
        model, hook, directions(basis_out, f_out.shape[1]), sparse_rows(f_out), levels, outs, batches, seed
    )
    if not found:
        return None
    ratios = [r.own / r.other for r in found.values() if r.other > 0]
    return {
        "gates": len(found),
        "own": statistics.median(r.own for r in found.values()),
        "other": statistics.median(r.other for r in found.values()),
        "ratio": statistics.median(ratios) if ratios else None,
        "more_than_other": statistics.fmean(r.own > r.other for r in found.values()),
        "by_output": {str(out): {"own": r.own, "other": r.other, "windows": r.windows} for out, r in found.items()},
    }
