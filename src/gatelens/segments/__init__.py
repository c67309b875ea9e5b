"""Segments: the stretches of a model that circuits explain, one a module of the network."""

from __future__ import annotations

from collections.abc import Sequence

from ..models import Model
from .segment import ACTIVATIONS as ACTIVATIONS
from .segment import MLPWeights as MLPWeights
from .segment import Segment as Segment


def mlp_segments(
    model: Model, layers: Sequence[int] | None = None, mlp_in: str = "mlp_in", frozen_norm: bool = False
) -> list[Segment]:
    """The MLPs of a model as segments, in the order in which data flows.

    Args:
        model: a `HookedMLP` (its hidden-to-hidden maps), or a transformer (one MLP a block).
        layers: which; None for all. For a HookedMLP, map i goes from hidden layer i to i + 1.
        mlp_in: for transformers, "mlp_in" (what W_in multiplies) or "resid_mid" (LayerNorm inside the segment).
        frozen_norm: with "resid_mid", hold LayerNorm's scale at its value instead of differentiating through it.

    Raises:
        SegmentError: for a layer that the model does not have.
    """
    from ..models.mlp import HookedMLP

    if isinstance(model, HookedMLP):
        from .hidden import hidden_maps

        return hidden_maps(model, layers)
    from .transformer import transformer_segments

    return transformer_segments(model, layers, mlp_in, frozen_norm)
