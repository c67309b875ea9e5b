"""Faithfulness and completeness of a circuit against the wires that are kept, the ablation recipe named.

Faithfulness: how much of the metric comes back with only the strongest k wires. Completeness: how much comes back with only
the others; low means that the strongest k are all that matters (Marks et al., "Sparse feature circuits", 2025).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..activations.collecting import collect, hook_names
from ..basis.linear import directions
from ..circuits import Circuit, features_at
from ..codes.csr import blocks
from ..data import Batches
from ..errors import ConfigError
from ..models import device_of, host
from .figures import gap_closed
from .passes import Passes
from .recipes import RECIPES, PartialWires, check_recipe, with_wires
from .splicing import splice


@dataclass(frozen=True)
class WireCurve:
    """One segment's curves; each value is 1 at the untouched model and 0 with every wire ablated.

    Attributes:
        wires: wires kept. faithfulness: of those, the strongest first. random_faithfulness: of as many random wires, the
            null. completeness: of all wires but those. None where ablation costs nothing.
    """

    segment: str
    recipe: str
    wires: tuple[int, ...]
    faithfulness: tuple[float | None, ...]
    random_faithfulness: tuple[float | None, ...]
    completeness: tuple[float | None, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> WireCurve:
        """From plain JSON values, in which tuples are lists."""
        # "edges" is what reports of 0.1.0 call the wires
        named = {"wires" if name == "edges" else name: value for name, value in values.items()}
        plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in named.items()}
        return cls(**plain)

    def __repr__(self) -> str:
        def row(name: str, values: Sequence[float | None]) -> str:
            return f"  {name:<22}" + " ".join(f"{'-' if v is None else f'{v:.3f}':>8}" for v in values)

        return "\n".join(
            [
                f"WireCurve({self.segment}; wires taken away carry: {self.recipe})",
                f"  {'wires kept':<22}" + " ".join(f"{e:>8}" for e in self.wires),
                row("faithfulness", self.faithfulness),
                row("  of random wires", self.random_faithfulness),
                row("completeness (low)", self.completeness),
            ]
        )


def circuit_wire_curves(
    model: Any,
    circuit: Circuit,
    held_out: Batches,
    shares: Sequence[float] = (0.0, 0.1, 0.25, 0.5, 1.0),
    seed: int = 0,
) -> dict[str, dict[str, WireCurve]]:
    """segment name -> ablation recipe -> curves: every segment by itself, by each of the three recipes."""
    acts, passes = collect(model, held_out, circuit.segments), Passes(model, held_out, hook_names(circuit.segments))
    return {
        s.name: {r: wire_curve(model, circuit, held_out, s.name, shares, r, seed, acts, passes) for r in RECIPES}
        for s in circuit.segments
    }


def wire_curve(
    model: Any,
    circuit: Circuit,
    held_out: Batches,
    segment: str | None = None,
    shares: Sequence[float] = (0.0, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0),
    recipe: str = "mean",
    seed: int = 0,
    acts: Mapping[str, Tensor] | None = None,
    passes: Passes | None = None,
) -> WireCurve:
    """Keep growing shares of one segment's wires, strongest first: |weight| times the input's spread times the output's length.

    Args:
        acts, passes: the model's activations and passes on `held_out` where they are at hand.

    Raises:
        ConfigError: an unknown recipe, or a share outside 0..1.
    """
    check_recipe(recipe)
    if not shares or min(shares) < 0 or max(shares) > 1:
        raise ConfigError(f"shares of wires to keep lie between 0 and 1, got {list(shares)}")
    here = circuit.segment(segment)
    circuit = circuit.at(device_of(model))
    connector = host(circuit.connectors[here.name])
    acts = collect(model, held_out, [here]) if acts is None else acts
    mean, spread = _moments(features_at([here], circuit.bases, acts)[here.hook_in])
    strength = _strength(connector, spread, host(directions(circuit.bases[here.hook_out], len(connector.bias))))
    order = torch.argsort(strength, descending=True, stable=True)
    random = torch.randperm(len(order), generator=torch.Generator().manual_seed(seed))
    passes = Passes(model, held_out, [here.hook_in, here.hook_out]) if passes is None else passes

    def score(chosen: Tensor) -> float:
        keep = torch.zeros(len(order), dtype=torch.bool)
        keep[chosen] = True
        wires = PartialWires(connector, keep, recipe, mean, seed)
        changed = with_wires(circuit, here.name, wires)
        return passes.metric(lambda kept: splice(changed, [here], "connectors", keep=kept))

    ends = {len(order): score(order), 0: score(order[:0])}  # no wire and every wire: the same on all three curves

    def won_back(chosen: Tensor) -> float | None:
        value = ends[len(chosen)] if len(chosen) in ends else score(chosen)
        return gap_closed(passes.clean, ends[0], value)

    counts = tuple(round(share * len(order)) for share in shares)
    return WireCurve(
        here.name,
        recipe,
        counts,
        tuple(won_back(order[:k]) for k in counts),
        tuple(won_back(random[:k]) for k in counts),
        tuple(won_back(order[k:]) for k in counts),
    )


def _moments(f: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature, over dense or CSR rows."""
    total, square = torch.zeros(f.shape[1], dtype=torch.float64), torch.zeros(f.shape[1], dtype=torch.float64)
    for block in blocks(f, 1_024):
        total += block.double().sum(0)
        square += block.double().square().sum(0)
    mean = total / len(f)
    return mean.float(), (square / len(f) - mean.square()).clamp_min(0).sqrt().float()


def _strength(connector: Any, spread: Tensor, written: Tensor) -> Tensor:
    """[wires] in CSR order."""
    weight = connector.weight
    rows = torch.repeat_interleave(torch.arange(len(connector.bias)), weight.crow_indices().diff())
    return weight.values().abs() * spread[weight.col_indices()] * written.norm(dim=1)[rows]
