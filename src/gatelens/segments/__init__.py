"""Segments: the stretches of a model that circuits explain, one a module of the network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ..errors import SegmentError
from ..models import Model, check_model, device_of, there
from ..models.placing import same_device
from .outside import Outside
from .segment import ACTIVATIONS as ACTIVATIONS
from .segment import MLPWeights as MLPWeights
from .segment import Segment as Segment


def each_segment(segments: Any) -> list[Segment]:
    """Segments as a list, also of one that comes alone.

    Raises:
        SegmentError: something that is no segment.
    """
    if isinstance(segments, Segment):
        return [segments]
    found = list(segments) if isinstance(segments, Iterable) else [segments]
    for segment in found:
        if not isinstance(segment, Segment):
            raise SegmentError(
                f"expected segments, got {type(segment).__name__}: give mlp_segments(model), or a Segment of your own"
            )
    return list({id(segment): segment for segment in found}.values())  # one that is given twice is one


def at_home(model: Any, segments: Sequence[Segment]) -> list[Segment]:
    """The segments, on the model's device, each knowing how a pass of it shows where BOS and padding stand."""
    home = device_of(model)
    segments = [s if same_device(s.device, home) else replace(there(s, home), home=home) for s in segments]
    if all(segment.outside is not None for segment in segments):
        return segments
    outside = Outside.of(model)
    return [s if s.outside is not None else replace(s, outside=outside) for s in segments]


def mlp_segments(model: Any, layers: Any = None, mlp_in: str = "mlp_in", frozen_norm: bool = False) -> list[Segment]:
    """The MLPs of a model as segments, in the order in which data flows.

    Args:
        model: a `HookedMLP` (its hidden-to-hidden maps), or a transformer (one MLP a block).
        layers: which (3, [0, -1]); None for all. For a HookedMLP, map i goes from hidden layer i to i + 1.
        mlp_in: for transformers, "mlp_in" (what W_in multiplies) or "resid_mid" (LayerNorm inside the segment).
        frozen_norm: with "resid_mid", hold LayerNorm's scale at its value instead of differentiating through it.

    Returns:
        A list of `Segment`, each a function [rows, d_in] -> [rows, d_out].

    Raises:
        SegmentError: for a layer that the model does not have.
        ModelError: for a model without hook points, with how to wrap it.

    Examples:
        >>> gl.mlp_segments(gl.HookedMLP((64, 32, 16, 10)))
        [Segment(hook_post.0 -> hook_post.1: 32 -> 16, relu MLP of 16)]
        >>> gl.mlp_segments(gl.load_model("gpt2-mini"), layers=[-1])
        [Segment(blocks.3.ln2.hook_normalized -> blocks.3.hook_mlp_out: 256 -> 256, gelu_new MLP of 1024)]
    """
    from ..models.mlp import HookedMLP

    check_model(model)
    if isinstance(model, HookedMLP):
        from .hidden import hidden_maps

        return hidden_maps(model, layers)
    from .transformer import transformer_segments

    return at_home(model, transformer_segments(model, layers, mlp_in, frozen_norm))


def like_segments(model: Model, segments: Sequence[Segment]) -> list[Segment]:
    """The segments between the same hook points in another model of the same shape.

    Raises:
        SegmentError: for a segment that is no MLP: how it is computed there is not known.
    """
    wanted = [segment.name for segment in segments]
    known = {s.name: s for mlp_in in ("mlp_in", "resid_mid") for s in _segments_or_none(model, mlp_in)}
    for name in wanted:
        if name not in known:
            raise SegmentError(
                f"segment {name} is none of this model's MLPs ({', '.join(known) or 'it has none'}), so it is not known how another "
                "model computes it. Give the other model's segments yourself"
            )
    return [known[name] for name in wanted]


def _segments_or_none(model: Model, mlp_in: str) -> list[Segment]:
    try:
        return mlp_segments(model, mlp_in=mlp_in)
    except SegmentError:  # parallel blocks have no resid_mid
        return []
