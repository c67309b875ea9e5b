"""Chains of two hops that a transcoder writes as one: natural rows cannot tell the two mechanisms apart, the model can.

An earlier layer has made m = a and b, and all three stand at the segment's input; the segment reads m. The transcoder computes
the same output from a and b, without an error. A rule over a and b agrees with every row and is not what the model does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal as OneOf
from typing import NoReturn

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..basis.linear import Rotation
from ..basis.pair import PairBasis
from ..errors import StoreError
from ..gates.rule import Literal, Op, Rule
from ..segments import MLPWeights, Segment

Form = OneOf["m", "m and c", "m or d"]
FORMS: tuple[Form, ...] = ("m", "m and c", "m or d")


class OneHop(PairBasis):
    """A transcoder of one ReLU a feature: f = relu(x W + b)."""

    label = "planted transcoder"

    def __init__(self, W: Float[Tensor, "d_in n"], b: Float[Tensor, " n"]):
        super().__init__("in", "out", len(W), torch.eye(W.shape[1]), torch.zeros(W.shape[1]))
        self.W, self.b = W, b

    def features_from(self, x: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows n"]:
        return (x @ self.W + self.b).clamp_min(0)

    def save_into(self, out: object) -> NoReturn:
        raise StoreError(
            "a planted transcoder is not saved: expected one that is made anew. Call plant_chains with its seed"
        )


@dataclass(frozen=True)
class PlantedChains:
    """Chains beside one another, an output each.

    Attributes:
        x_fit, x: fitting and held-out rows at the segment's input, whose dimensions are the features.
        wrong, right: output -> the rule over a and b that every row agrees with; the rule over m that the segment computes.
    """

    segment: Segment
    basis_in: Rotation
    transcoder: OneHop
    x_fit: Float[Tensor, "rows d_in"]
    x: Float[Tensor, "rows d_in"]
    wrong: dict[int, Rule]
    right: dict[int, Rule]


def plant_chains(form: Form, together: float, chains: int = 40, rows: int = 1_500, seed: int = 0) -> PlantedChains:
    """Chains of one form.

    Args:
        form: what the segment computes: m itself, m and c, or m or d.
        together: how often b is on where a is: above a half, m comes and goes with a and b.
        rows: of each of the two parts.
    """
    rng = np.random.default_rng(seed)
    a, b, m, c, d = (np.arange(chains) * 5 + i for i in range(5))
    on = rng.random((2 * rows, 5 * chains)) < 0.08
    with_a, without = rng.random((2 * rows, chains)) < together, rng.random((2 * rows, chains)) < 0.4
    on[:, b] = np.where(on[:, a], with_a, on[:, b] & without)
    on[:, m] = on[:, a] & on[:, b]
    on[:, c] = rng.random((2 * rows, chains)) < 0.6
    x = torch.from_numpy((on * rng.uniform(0.9, 1.1, on.shape)).astype(np.float32))
    out = np.arange(chains)
    true, one_hop = torch.zeros(5 * chains, chains), torch.zeros(5 * chains, chains)
    bias, bias_hop = torch.full((chains,), -0.3), torch.full((chains,), -1.5)
    true[m, out] = one_hop[a, out] = one_hop[b, out] = 1.0
    if form == "m and c":
        true[c, out] = one_hop[c, out] = 1.0
        bias, bias_hop = bias - 1, bias_hop - 1
    if form == "m or d":
        true[d, out], one_hop[d, out] = 1.0, 2.0
    mlp = MLPWeights(true, bias, torch.eye(chains), torch.zeros(chains))

    def claim(o: int, *first: int) -> Rule:
        steps = [(Op.AND, i) for i in first[1:]]
        steps += [(Op.AND, int(c[o]))] if form == "m and c" else [(Op.OR, int(d[o]))] if form == "m or d" else []
        return Rule((Literal(first[0]),), steps=tuple((op, Literal(i)) for op, i in steps))

    return PlantedChains(
        Segment("in", "out", mlp, 5 * chains, chains, mlp),
        Rotation(torch.eye(5 * chains), label="planted"),
        OneHop(one_hop, bias_hop),
        x[:rows],
        x[rows:],
        {o: claim(o, int(a[o]), int(b[o])) for o in range(chains)},
        {o: claim(o, int(m[o])) for o in range(chains)},
    )
