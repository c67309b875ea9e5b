"""The hidden-to-hidden maps of a plain network, as segments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import index
from typing import Any

from ..errors import SegmentError
from ..models import check_hook_names
from .segment import MLPWeights, Segment


def hidden_maps(model: Any, layers: Any = None) -> list[Segment]:
    """Map i of a `HookedMLP`, from hidden layer i to i + 1, for each i in `layers` (None: all)."""
    return [_hidden_map(model, i) for i in chosen_layers(layers, model.n_hidden - 1)]


def chosen_layers(layers: Any, count: int) -> list[int]:
    """`layers` in order, or all of 0..count-1; one number will do, and -1 is the last.

    Raises:
        SegmentError: out of range, no whole numbers, or a model without any.
    """
    if count < 1:
        raise SegmentError(
            "this model has no MLP between two hook points: expected a transformer, or a HookedMLP of at least two hidden layers"
        )
    if layers is None:
        return list(range(count))
    try:
        if isinstance(layers, Mapping):
            raise TypeError("which of its parts are layers is not known")
        each = list(layers) if _several(layers) else [layers]
        if any(isinstance(layer, bool) or str(getattr(layer, "dtype", "")) in ("bool", "torch.bool") for layer in each):
            raise TypeError("true and false are no numbers")
        chosen = [index(layer) for layer in each]  # pyright: ignore
    except TypeError as error:
        raise SegmentError(
            f"layers must be whole numbers out of 0..{count - 1}, [0, 2] for instance, or None for all; got {layers!r}"
        ) from error
    for layer in chosen:
        if not -count <= layer < count:
            raise SegmentError(
                f"layer {layer} is out of range: this model has MLP layers 0..{count - 1}. "
                "Choose among them, or leave `layers` out for all"
            )
    if not chosen:
        raise SegmentError(f"no layer was chosen: expected some of 0..{count - 1}, or None for all")
    return sorted({layer % count for layer in chosen})


def _several(layers: Any) -> bool:
    return isinstance(layers, Iterable) and getattr(layers, "ndim", 1) > 0


def _hidden_map(model: Any, i: int) -> Segment:
    hook_in, hook_out = f"hook_post.{i}", f"hook_post.{i + 1}"
    check_hook_names(model, [hook_in, hook_out])
    layer = model.layers[i + 1]
    weights = MLPWeights(layer.weight.detach().T, layer.bias.detach(), act="relu")
    return Segment(hook_in, hook_out, weights, layer.in_features, layer.out_features, weights)
