"""Whether a circuit is of this model: said before any run, from hook names, widths, weights and what was recorded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from ..circuits import Circuit
from ..errors import ModelError, SegmentError
from ..models import block_of, check_hook_names
from ..segments import MLPWeights, Segment


def of_this_model(circuit: Circuit, model: Any) -> Circuit:
    """The circuit with segments that run this model's weights, for one that was loaded without its model.

    Raises:
        HookNameError: the model lacks a hook point of the circuit.
        ModelError: an MLP of other widths or weights than the circuit was made from, or a model that was changed since.
    """
    check_hook_names(model, [h for s in circuit.segments for h in (s.hook_in, s.hook_out)])
    segments = [_checked(segment, _own(model, segment)) for segment in circuit.segments]
    circuit.check_model(model)  # what was recorded tells more than the MLPs' weights
    return replace(circuit, segments=segments)


def _checked(segment: Segment, own: Segment | None) -> Segment:
    if own is None:  # a segment of the user's own: its forward is proved on the prompt
        return segment
    same = (segment.d_in, segment.d_out) == (own.d_in, own.d_out)
    if not same or (segment.mlp is not None and own.mlp is not None and not _equal(segment.mlp, own.mlp)):
        what = "weights" if same else f"widths ({segment.d_in} -> {segment.d_out}, not {own.d_in} -> {own.d_out})"
        raise ModelError(
            f"the circuit was made from another model: its MLP {segment.name} has other {what} than this one's. "
            "Give the model that it was made from, loaded in the same way"
        )
    return segment if segment.mlp is not None else own


def _equal(a: MLPWeights, b: MLPWeights) -> bool:
    pairs: Sequence[tuple[Any, Any]] = ((a.W_in, b.W_in), (a.b_in, b.b_in), (a.W_out, b.W_out), (a.W_gate, b.W_gate))
    return all((x is None) == (y is None) for x, y in pairs) and all(
        x.shape == y.shape and torch.allclose(x.float().cpu(), y.float().cpu(), rtol=1e-4, atol=1e-6)
        for x, y in pairs
        if x is not None
    )


def _own(model: Any, segment: Segment) -> Segment | None:
    """This model's own segment between the same hook points; None where it has no MLP there."""
    from ..segments.hidden import hidden_maps
    from ..segments.transformer import transformer_segments

    block, hidden = block_of(segment.hook_in), re.fullmatch(r"hook_post\.(\d+)", segment.hook_in)
    try:
        if hidden and hasattr(model, "n_hidden"):
            found = hidden_maps(model, [int(hidden[1])])
        elif block is not None and hasattr(model, "blocks"):
            begin = "resid_mid" if segment.hook_in.endswith("resid_mid") else "mlp_in"
            found = transformer_segments(model, [block], begin, check=False)
        else:
            return None
    except SegmentError:
        return None
    return found[0] if found[0].name == segment.name else None
