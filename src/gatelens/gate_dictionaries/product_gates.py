"""Product gates: act(sum a f) * (sum b f), the neurons of a gated MLP with few inputs a side, pruned from the model's own."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..basis.linear import Basis, directions
from ..codes.rows import Codes
from ..connectors import Connector, ProductConnector
from ..errors import BasisError
from ..segments import Segment
from ..segments.segment import ACTIVATIONS
from ..store.estimate import THRESHOLD_ROWS
from .gate_run import Active, Found, GateTraining, Run, sums
from .gate_start import Units
from .rows import Rows

#: inputs a side at first, over those at the end; training's share by whose end they are all pruned
_WIDE, _PRUNED_BY = 4, 0.6


def check_gated(segment: Segment) -> None:
    """Refuse a segment without gate and up weights, before any work.

    Raises:
        BasisError: a plain MLP, one whose weights are not known, or one behind a norm.
    """
    mlp = segment.mlp
    if mlp is None or mlp.W_gate is None or mlp.W_out is None or segment.prenorm is not None:
        kind = "weights that are not known" if mlp is None else "a plain MLP" if mlp.W_gate is None else "a norm first"
        raise BasisError(
            f"product gates start from the neurons of a gated MLP, act(x W_gate) * (x W_in) at its true input; segment {segment.name} "
            f"has {kind}. Leave product=False, or take mlp_segments(model, mlp_in='mlp_in') of a gated model"
        )


class Side:
    """One of the two sums of every gate: parents and weights [n, k], bias [n]."""

    def __init__(self, whole: Float[Tensor, "m n"], bias: Float[Tensor, " n"], codes: Codes, k: int, allowed: Tensor):
        power, mean = codes.mean_square(), codes.typical() * codes.frequency()
        size = whole.square() * power[:, None]
        size[~allowed] = -1.0
        self.parents = size.topk(k, dim=0).indices.T.contiguous()
        self.weights = whole.T.gather(1, self.parents).clone().requires_grad_()
        left_out = mean @ whole - (mean[self.parents] * self.weights.detach()).sum(1)
        self.bias = (bias + left_out).clone().requires_grad_()
        self.power = power

    def all(self, inputs: Float[Tensor, "m rows"]) -> Float[Tensor, "n rows"]:
        """The sums of all gates in all rows."""
        return sums(self.parents, self.weights, self.bias, inputs)

    def some(self, inputs: Float[Tensor, "m rows"], rows: Tensor, cols: Tensor) -> Float[Tensor, " active"]:
        """The sums of some gates in some rows, with derivatives."""
        given = inputs[self.parents[cols], rows[:, None]]
        return (self.weights[cols] * given).sum(1) + self.bias[cols]

    @torch.no_grad()
    def prune(self, k: int, optimiser: torch.optim.Optimizer) -> None:
        """Keep the k parents of each gate that move its sum most."""
        kept = (self.weights.square() * self.power[self.parents]).topk(min(k, self.parents.shape[1]), dim=1).indices
        self.parents = self.parents.gather(1, kept)
        old, state = self.weights, optimiser.state.pop(self.weights, {})
        self.weights = old.gather(1, kept).requires_grad_()
        for group in optimiser.param_groups:
            group["params"] = [self.weights if p is old else p for p in group["params"]]
        optimiser.state[self.weights] = {
            name: v.gather(1, kept) if v.shape == old.shape else v for name, v in state.items()
        }

    def wires(self, m: int, size: Float[Tensor, " n"], units: Units, activation: str) -> Connector:
        """As a connector of features in their own units."""
        weights = self.weights.detach() * size[:, None] / units.size_in
        rows = list(zip(self.parents, weights, strict=True))
        return Connector.from_rows(rows, self.bias.detach() * size, m, activation=activation, solver="product gates")


class ProductRun(Run):
    """Neurons pruned while they are trained, `l0` of them on in the mean; see `gate` and `up`, the two sides.

    Args:
        fan_in: inputs a side at the end.
    """

    name = "product gates"
    pace = 0.3  # neurons move in their own units, in which gates' steps would be long

    def __init__(
        self,
        rows: Rows,
        segment: Segment,
        basis_in: Basis,
        units: Units,
        allowed: Bool[Tensor, " m"],
        fan_in: int,
        settings: GateTraining,
    ):
        mlp: Any = segment.mlp
        super().__init__(rows, settings, mlp.W_out, rows.y.new_zeros(rows.y.shape[1]))
        self.fan_in, self.activation, self.act = fan_in, mlp.act, ACTIVATIONS[mlp.act]
        m = rows.codes.width
        decoder, start = directions(basis_in, m), basis_in.decode(rows.y.new_zeros(1, m))[0]
        k = min(_WIDE * fan_in, int(allowed.sum()))
        gate = decoder @ mlp.W_gate * units.size_in, start @ mlp.W_gate
        length = mlp.W_out.norm(dim=1) / units.size_out
        up = decoder @ mlp.W_in * units.size_in * length, (start @ mlp.W_in + mlp.b_in) * length
        self.gate, self.up = (Side(whole, bias, rows.codes, k, allowed) for whole, bias in (gate, up))
        sides = [s for side in (self.gate, self.up) for s in (side.weights, side.bias)]
        self.optimiser = torch.optim.Adam([*sides, self.dictionary, self.offset], lr=settings.lr, betas=(0.9, 0.99))

    def stepped(self, step: int, codes: Codes, error: Float[Tensor, "rows d"]) -> None:
        """Fewer parents step by step, in equal ratios."""
        share = min(1.0, (step + 1) / max(1.0, _PRUNED_BY * self.settings.steps))
        k = max(self.fan_in, round(self.fan_in * _WIDE ** (1 - share)))
        for side in (self.gate, self.up):
            if k < side.parents.shape[1]:
                side.prune(k, self.optimiser)

    @torch.no_grad()
    def table(self, inputs: Float[Tensor, "m rows"]) -> Float[Tensor, "n rows"]:
        return self.act(self.gate.all(inputs)) * self.up.all(inputs)

    def strength(self, value: Tensor) -> Tensor:
        return value.abs()

    def chosen(self, inputs: Float[Tensor, "m rows"]) -> Active:
        size = self.table(inputs).abs().T
        count = min(round(self.settings.l0 * len(size)), size.numel())
        places = size.flatten().topk(count, sorted=False).indices.sort().values
        rows, cols = places // size.shape[1], places % size.shape[1]
        return rows, cols, self.act(self.gate.some(inputs, rows, cols)) * self.up.some(inputs, rows, cols)

    @torch.no_grad()
    def found(self, refit_rows: int, units: Units, said: str) -> Found:
        """The gates as a connector, in the units of the data; its sides say that they are of product gates."""
        index = self.drawn(len(self.rows.y))
        least, counts = self.threshold(index[:THRESHOLD_ROWS])
        size, m = torch.ones_like(self.gate.bias), self.rows.codes.width
        if refit_rows:
            size, _ = self.refit(index[:refit_rows], least)
        gate = self.gate.wires(m, torch.ones_like(size), units, self.activation)
        up = self.up.wires(m, size * units.size_out, units, "identity")
        wires = ProductConnector.of(gate, up, least * size * units.size_out)
        info = {"dead_outputs": int((counts == 0).sum())}
        return wires, self.dictionary.detach(), self.offset.detach() * units.size_out + units.mean_out, None, info
