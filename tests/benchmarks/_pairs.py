"""Forms with products beside their rivals: what each is, how it is fitted, and its figures, all by the same plain functions.

A form is a name and a function `(Task) -> basis`, where the basis stands at the segment's output and has a `connector`; `figures`
measures any of them. `gatelens bench peers` goes through `FORMS` as this file's own study does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from _explained import explained
from torch import Tensor

import gatelens as gl
from gatelens.codes.rows import Codes
from gatelens.edits.kinds import KINDS
from gatelens.evaluation.causal import edit_figures

#: held-out rows that are edited for the causal figures
CAUSAL_ROWS = 2_000


@dataclass(frozen=True)
class Task:
    """One MLP to replace: its segment, the input's dictionary, rows of both ends to fit and to judge on.

    Attributes:
        start: a dictionary of y or a transcoder, from which gates start.
        pairs: pairs of a row and its edit that a closed form is fitted to; gates see five times as many.
    """

    segment: gl.Segment
    basis_in: Any
    start: Any
    x: Tensor
    y: Tensor
    held_x: Tensor
    held_y: Tensor
    pairs: int = 60_000
    seed: int = 0

    def codes(self) -> Codes:
        return Codes.encode(self.basis_in, self.x)


Form = Callable[[Task], Any]


def products(count: int, shuffled: bool = False) -> Form:
    """The linear map and so many products."""

    def fit(task: Task) -> Any:
        edits = gl.Counterfactual(pairs=task.pairs, seed=task.seed)
        recipe = gl.PairBypass(pairs=count, shuffled=shuffled, counterfactual=edits, seed=task.seed)
        return recipe.train(task.segment, task.basis_in, task.x, task.y)

    return fit


def gates(fan_in: int, l0: float, count: int = 0) -> Form:
    """Gates of so many inputs, on what so many products leave."""

    def fit(task: Task) -> Any:
        edits = gl.Counterfactual(pairs=5 * task.pairs, seed=task.seed)
        few = gl.Counterfactual(pairs=task.pairs, seed=task.seed)
        bypass = gl.PairBypass(pairs=count, counterfactual=few) if count else "none"
        recipe = gl.GateDictionary(fan_in=fan_in, l0=l0, counterfactual=edits, bypass=bypass, seed=task.seed)
        return recipe.train(task.segment, task.basis_in, task.start, task.x, task.y)

    return fit


def product_gates(fan_in: int, l0: float) -> Form:
    """The model's neurons with so many inputs a side."""

    def fit(task: Task) -> Any:
        edits = gl.Counterfactual(pairs=5 * task.pairs, seed=task.seed)
        recipe = gl.GateDictionary(fan_in=fan_in, l0=l0, counterfactual=edits, product=True, seed=task.seed)
        return recipe.train(task.segment, task.basis_in, None, task.x, task.y)

    return fit


def figures(task: Task, basis: Any) -> dict[str, float]:
    """FVU of y; R2 of the predicted change by kind of edit; active features, inputs of an output, weights; all held out.

    `l0` counts what is on of gates and products, `l0_all` the input features that go past them besides. `weights` counts wires,
    directions and bypass; `wires` wires alone. `inputs` is the most that one output reads.
    """
    generator = torch.Generator().manual_seed(task.seed)
    rows = torch.randperm(len(task.held_x), generator=generator)[:CAUSAL_ROWS]
    found = {"fvu": explained(basis, task.held_x, task.held_y)}
    for name, edit in KINDS.items():
        made = edit_figures(task.segment, task.basis_in, basis, basis.connector, task.held_x[rows], edit, generator)
        found |= {
            name: made["r2"],
            f"{name}_jacobian": made["local_jacobian_r2"],
            f"{name}_shuffled": made["shuffled_r2"],
        }
    with torch.no_grad():
        on = basis.features_from(task.held_x[rows]) != 0
        past = (basis.basis_in.encode(task.held_x[rows]) != 0).float().sum(1).mean() if basis.bypassed else 0.0
    l0, wires = float(on.float().sum(1).mean()), basis.connector.wires
    return found | {
        "l0": l0,
        "l0_all": l0 + float(past),
        "inputs": int(basis.connector.fan_in().max()),
        "wires": wires,
        "weights": wires + basis.W_dec.numel() + basis.bypassed * basis.W_dec.shape[1],
        "seconds": basis.seconds,
    }


#: name -> how it is fitted
FORMS: dict[str, Form] = {
    "ridge + 2,000 products": products(2_000),
    "ridge + 2,000 shuffled products": products(2_000, shuffled=True),
    "ridge + 5,000 products": products(5_000),
    "ridge + 5,000 shuffled products": products(5_000, shuffled=True),
    "gates of 8 inputs": gates(8, 32),
    "gates of 16 inputs": gates(16, 64),
    "gates of 8 inputs on 2,000 products": gates(8, 24, 2_000),
    "product gates, 8 inputs a side": product_gates(8, 64),
}
