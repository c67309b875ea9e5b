"""The hidden-to-hidden maps of a plain network, as segments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import SegmentError
from ..models import check_hook_names
from .segment import MLPWeights, Segment


def hidden_maps(model: Any, layers: Sequence[int] | None = None) -> list[Segment]:
    """Map i of a `HookedMLP`, from hidden layer i to i + 1, for each i in `layers` (None: all)."""
    return [_hidden_map(model, i) for i in chosen_layers(layers, model.n_hidden - 1)]


def chosen_layers(layers: Sequence[int] | None, count: int) -> list[int]:
    """`layers`, or all of 0..count-1; refused when out of range."""
    chosen = list(range(count)) if layers is None else list(layers)
    for layer in chosen:
        if not 0 <= layer < count:
            raise SegmentError(
                f"layer {layer} is out of range: this model has MLP layers 0..{count - 1}. "
                "Choose among them, or leave `layers` out for all"
            )
    return chosen


def _hidden_map(model: Any, i: int) -> Segment:
    hook_in, hook_out = f"hook_post.{i}", f"hook_post.{i + 1}"
    check_hook_names(model, [hook_in, hook_out])
    layer = model.layers[i + 1]
    weights = MLPWeights(layer.weight.detach().T, layer.bias.detach(), act="relu")
    return Segment(hook_in, hook_out, weights, layer.in_features, layer.out_features, weights)
