"""Logit effects: which outputs of the model one unit of a feature raises and lowers, read straight through the unembedding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from markupsafe import Markup
from torch import Tensor

from ..basis.linear import directions
from ..data.told import class_weights, unembedding
from .document import fragment, visible
from .labels import unspaced
from .sketch import Effect

#: outputs listed at either end
ENDS = 7
#: outputs named in a drawing
FAVOURED = 3


@dataclass(frozen=True)
class Readout:
    """A linear map from a hook point to the model's outputs, and what these are called.

    Attributes:
        matrix: [width, outputs]; the mean over outputs is taken out, which no softmax sees.
        name: output -> text.
        note: what the map leaves out.
    """

    matrix: Float[Tensor, "width outputs"]
    name: Callable[[int], str]
    note: str = ""

    def ends(
        self, direction: Float[Tensor, " width"], most: int = ENDS
    ) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
        """The outputs that a direction raises and lowers most, as (output, effect); empty where an effect is not finite."""
        effect = (direction.to(self.matrix) @ self.matrix).cpu()
        effect = effect - effect.mean()
        order = effect.argsort(descending=True).tolist()
        most = min(most, len(order) // 2)
        if not most or not torch.isfinite(effect).all():
            return [], []
        up, down = order[:most], order[: -most - 1 : -1]
        return [(i, float(effect[i])) for i in up], [(i, float(effect[i])) for i in down]

    def table(self, direction: Float[Tensor, " width"]) -> Markup:
        """The same as a table."""
        up, down = ([(self.name(i), x) for i, x in end] for end in self.ends(direction))
        return fragment("logits.html.j2", up=up, down=down, note=self.note) if up else Markup("")


def readout_of(model: Any, hook: str, d: int, tokenizer: Any = None) -> Readout | None:
    """The model's own way from a hook point to its outputs; None where it is not a linear one.

    MLP outputs of a transformer go through the unembedding (the final LayerNorm's scale and later layers are left out);
    the last hidden layer of a plain network through its last weights.
    """
    matrix = unembedding(model, d)
    if matrix is not None and hook.endswith(("hook_mlp_out", "mlp.hook_out")) and tokenizer is not None:
        note = "straight through the unembedding; later layers and the final LayerNorm are left out"
        return Readout(matrix, lambda i: visible(tokenizer.decode([i]), spaces=True), note)
    weights = class_weights(model, hook)
    return None if weights is None else Readout(weights, lambda i: f"class {i}", "through the last layer's weights")


@dataclass(frozen=True)
class Effects:
    """What the features of one basis do to the model's outputs, straight through a readout."""

    readout: Readout
    columns: Float[Tensor, "features width"]

    def table(self, feature: int) -> Markup:
        """The outputs that the feature raises and lowers most."""
        return self.readout.table(self.columns[feature])

    def favoured(self, feature: int) -> Effect:
        """The few that it raises most."""
        up, _ = self.readout.ends(self.columns[feature])
        return Effect(tuple(unspaced(self.readout.name(i)) for i, _ in up[:FAVOURED]))


def effects_of(readout: Readout | None, basis: Any, width: int) -> Effects | None:
    """For a basis at the readout's hook point; None without a readout."""
    return Effects(readout, directions(basis, width)) if readout is not None else None
