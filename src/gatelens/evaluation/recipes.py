"""What stands in for a feature or a wire that is taken away: its mean, zero, or its value on another row."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..connectors import Connector
from ..errors import ConfigError, unknown

RECIPES = ("mean", "zero", "resample")


def check_recipe(recipe: str) -> None:
    if recipe not in RECIPES:
        raise ConfigError(unknown("ablation", recipe, RECIPES))


def stand_in(f: Float[Tensor, "rows f"], recipe: str, mean: Float[Tensor, " f"], seed: int) -> Float[Tensor, "*n f"]:
    """What replaces features f: [f] for every row, or (resample) [rows, f], the values of rows in a random order."""
    if recipe == "mean":
        return mean.to(f)
    if recipe == "zero":
        return torch.zeros_like(mean).to(f)
    order = torch.randperm(len(f), generator=torch.Generator().manual_seed(seed))
    return f[order.to(f.device)]


@dataclass(frozen=True, eq=False)
class PartialWires:
    """A connector some of whose wires carry a stand-in of their input instead of its value.

    Attributes:
        keep: [wires] those that carry their inputs, in CSR order.
        mean: [m] means of the input features.
    """

    connector: Connector
    keep: Bool[Tensor, " wires"]
    recipe: str
    mean: Float[Tensor, " m"]
    seed: int = 0

    def __call__(self, f_in: Tensor) -> Float[Tensor, "rows n"]:
        f_in = f_in.to_dense() if f_in.layout == torch.sparse_csr else f_in
        return self.connector.partly(f_in, self.keep, stand_in(f_in, self.recipe, self.mean, self.seed))


@dataclass(frozen=True, eq=False)
class PartialOutputs:
    """A connector of which only some outputs count; the others get a stand-in of what the connector says of them.

    Attributes:
        chosen: [n] outputs that count.
        mean: [n] means of the output features.
    """

    connector: Connector
    chosen: Bool[Tensor, " n"]
    recipe: str
    mean: Float[Tensor, " n"]
    seed: int = 0

    def __call__(self, f_in: Tensor) -> Float[Tensor, "rows n"]:
        f_out = self.connector(f_in)
        return torch.where(self.chosen.to(f_out.device), f_out, stand_in(f_out, self.recipe, self.mean, self.seed))


def with_wires(circuit: Any, segment: str, wires: Any) -> Any:
    """The circuit as `splice` reads it, with something else in the place of one connector."""
    return SimpleNamespace(
        segments=circuit.segments, bases=circuit.bases, connectors={**circuit.connectors, segment: wires}
    )
