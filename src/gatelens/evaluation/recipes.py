"""What stands in for a feature or a wire that is taken away: its mean, zero, or its value on another row."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..codes.csr import csr
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
        kept, dropped: the connector split in two; bias, threshold and activation are `kept`'s.
        mean: [m] means of the input features.
    """

    kept: Connector
    dropped: Connector
    recipe: str
    mean: Float[Tensor, " m"]
    seed: int = 0

    def __call__(self, f_in: Tensor) -> Float[Tensor, "rows n"]:
        f_in = f_in.to_dense() if f_in.layout == torch.sparse_csr else f_in
        absent = stand_in(f_in, self.recipe, self.mean, self.seed)
        away = self.dropped.pre(absent[None] if absent.ndim == 1 else absent)
        z = self.kept.pre(f_in) + away
        if self.kept.threshold is not None:
            return torch.where(z > self.kept.threshold, z, 0.0)
        return z.clamp_min(0) if self.kept.activation == "relu" else z


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


def split_wires(connector: Connector, keep: Bool[Tensor, " wires"]) -> tuple[Connector, Connector]:
    """The connector with the wires in `keep` (in CSR order), and the others without bias."""
    weight = connector.weight

    def part(values: Tensor, bias: Tensor) -> Connector:
        matrix = csr(weight.crow_indices(), weight.col_indices(), values, (weight.shape[0], weight.shape[1]))
        return Connector(matrix, bias, connector.threshold, connector.activation, connector.solver)

    values = weight.values()
    none = torch.zeros_like(values)
    return (
        part(torch.where(keep, values, none), connector.bias),
        part(torch.where(keep, none, values), torch.zeros_like(connector.bias)),
    )


def with_wires(circuit: Any, segment: str, wires: Any) -> Any:
    """The circuit as `splice` reads it, with something else in the place of one connector."""
    return SimpleNamespace(
        segments=circuit.segments, bases=circuit.bases, connectors={**circuit.connectors, segment: wires}
    )
