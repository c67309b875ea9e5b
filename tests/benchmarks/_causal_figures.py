"""The causal figures of a segment: edits foreseen, wires against ablation, flips that printed rules require."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from _rule_flips import levels_of, rule_flips
from _wire_ablation import ablate_wires
from jaxtyping import Float
from torch import Tensor

from gatelens.basis import Basis
from gatelens.connectors import Connector
from gatelens.edits.kinds import KINDS
from gatelens.errors import DataError
from gatelens.evaluation.causal import edit_figures, restoring_figures
from gatelens.gates import Gate
from gatelens.gates.stage import Stage
from gatelens.models import host, there
from gatelens.segments import Segment

#: the kinds of edits in a report
EDITS = ("removals", "subsets", "additions")


def causal_figures(
    segment: Segment,
    basis_in: Basis,
    basis_out: Basis,
    connector: Connector,
    x: Float[Tensor, "rows d_in"],
    *,
    gates: Sequence[Gate] | None = None,
    rows: int = 2_000,
    top_wires: int = 200,
    seed: int = 0,
) -> dict[str, Any]:
    """The causal figures of one segment, as plain numbers; undefined ones are None.

    Args:
        x: held-out rows at the segment's input.
        gates: of the connector; with them, how often the model does what the printed rules require.
        rows: how many rows are edited, drawn from `x`; top_wires: how many of the strongest wires are ablated.

    Returns:
        removals (one active feature removed), subsets (each active one dropped with p = .4), additions (one feature
        switched on, at its mean value), restoring (a removed feature put back where an output is closed only for its lack): each with r2, local_jacobian_r2, shuffled_r2 of the predicted change in the segment's
        output, size: the change over the output's variance, and on_off, off_on: {predicted, happened, base_rate, recall} of
        output features' flips.
        wires: agreement between wires and ablation. rules: flips that the printed rules require.
    """
    if x.ndim != 2 or x.shape[1] != segment.d_in or len(x) < 2:
        raise DataError(
            f"causal figures need two rows or more at {segment.hook_in}, [rows, {segment.d_in}]; got {tuple(x.shape)}"
        )
    basis_in, basis_out, connector, x = there((basis_in, basis_out, connector, x), segment.device)
    generator = torch.Generator().manual_seed(seed)
    chosen = x[torch.randperm(len(x), generator=generator)[:rows].to(x.device)]
    found: dict[str, Any] = {
        name: edit_figures(segment, basis_in, basis_out, connector, chosen, KINDS[name], generator) for name in EDITS
    }
    found["restoring"] = restoring_figures(segment, basis_in, basis_out, connector, chosen, generator)
    stage = Stage.of(segment, basis_in, basis_out, x, levels_of(gates or (), connector.weight.shape[0]))
    found["edges"] = ablate_wires(stage, host(connector), top_wires, seed=seed).figures(seed)
    found["rules"] = rule_flips(stage, gates, seed=seed).figures() if gates is not None else None
    return found
