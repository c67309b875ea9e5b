"""Product gates: act(sum a f) * (sum b f), the neurons of a gated MLP with few inputs a side, pruned from the model's own."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..bases.sae.pair_training import level
from ..bases.sae.training import falling, shuffled
from ..basis.linear import Basis, directions
from ..codes.active import Seen, decode_active, unit_rows_
from ..codes.rows import Codes, stacked
from ..connectors import Connector, ProductConnector
from ..edits.rows import Rows
from ..errors import BasisError
from ..errors.progress import bar
from ..errors.tracker import tell_curve
from ..segments import Segment
from ..segments.segment import ACTIVATIONS
from ..store.estimate import THRESHOLD_ROWS
from .gate_training import REFIT_BLOCK, GateTraining
from .gate_units import Units
from .normal_equations import NormalEquations

#: inputs a side at first, over those at the end; training's share by whose end they are all pruned
_WIDE, _PRUNED_BY = 4, 0.6
#: neurons move in their own units, in which gates' steps would be long
_STEP = 0.3
_BLOCK = 1_024


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
        power, mean = codes.mean_square(), _mean(codes)
        size = whole.square() * power[:, None]
        size[~allowed] = -1.0
        self.parents = size.topk(k, dim=0).indices.T.contiguous()
        self.weights = whole.T.gather(1, self.parents).clone().requires_grad_()
        left_out = mean @ whole - (mean[self.parents] * self.weights.detach()).sum(1)
        self.bias = (bias + left_out).clone().requires_grad_()
        self.power = power

    @torch.no_grad()
    def table(self, inputs: Float[Tensor, "m rows"]) -> Float[Tensor, "n rows"]:
        """The sum of every gate, from the features one by one."""
        n, k = self.weights.shape
        starts = torch.arange(0, n * k, k, device=inputs.device)
        weights = self.weights.flatten()
        return torch.nn.functional.embedding_bag(
            self.parents.flatten(), inputs, starts, mode="sum", per_sample_weights=weights
        ).add_(self.bias[:, None])

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


class ProductRun:
    """One training run: neurons pruned while they are trained, `l0` of them on in the mean; then the closed-form dictionary."""

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
        self.rows, self.units, self.settings, self.fan_in = rows, units, settings, fan_in
        self.activation, self.act = mlp.act, ACTIVATIONS[mlp.act]
        m = rows.codes.width
        decoder, start = directions(basis_in, m), basis_in.decode(rows.y.new_zeros(1, m))[0]
        k = min(_WIDE * fan_in, int(allowed.sum()))
        gate = decoder @ mlp.W_gate * units.size_in, start @ mlp.W_gate
        length = mlp.W_out.norm(dim=1) / units.size_out
        up = decoder @ mlp.W_in * units.size_in * length, (start @ mlp.W_in + mlp.b_in) * length
        self.gate, self.up = (Side(whole, bias, rows.codes, k, allowed) for whole, bias in (gate, up))
        self.dictionary = mlp.W_out.clone()
        unit_rows_(self.dictionary)
        self.dictionary.requires_grad_()
        self.offset = rows.y.new_zeros(rows.y.shape[1]).requires_grad_()
        parameters = [s for side in (self.gate, self.up) for s in (side.weights, side.bias)]
        self.optimiser = torch.optim.Adam(
            [*parameters, self.dictionary, self.offset], lr=settings.lr, betas=(0.9, 0.99)
        )
        self.generator = torch.Generator().manual_seed(settings.seed)

    def train(self) -> None:
        s = self.settings
        natural = s.batch_size if self.rows.partner is None else s.batch_size // 2
        batches = shuffled(len(self.rows.y), natural, self.generator)
        for step in bar(range(s.steps), "product gates", s.progress):
            for group in self.optimiser.param_groups:
                group["lr"] = _STEP * s.lr * falling(step, s.steps)
            error = self._step(next(batches))
            tell_curve("product gates", step, error.square().mean().item)
            self._prune(step + 1)
        self._prune(s.steps)

    def _prune(self, step: int) -> None:
        """Fewer parents step by step, in equal ratios."""
        share = min(1.0, step / max(1.0, _PRUNED_BY * self.settings.steps))
        k = max(self.fan_in, round(self.fan_in * _WIDE ** (1 - share)))
        for side in (self.gate, self.up):
            if k < side.parents.shape[1]:
                side.prune(k, self.optimiser)

    def _step(self, index: Int[Tensor, " batch"]) -> Float[Tensor, "rows d"]:
        codes, y = self.rows.together(index)
        seen = self.see(codes.columns(), y, len(y) - len(index))
        self.optimiser.zero_grad(set_to_none=True)
        seen.loss.backward()
        self.optimiser.step()
        unit_rows_(self.dictionary)
        return seen.error.detach()

    def see(self, inputs: Float[Tensor, "m rows"], y: Float[Tensor, "rows d"], pairs: int) -> Seen:
        """The loss of some rows, with derivatives; the last `pairs` rows are edits of the first ones."""
        size = self.values(inputs).abs().T
        count = min(round(self.settings.l0 * len(y)), size.numel())
        places = size.flatten().topk(count, sorted=False).indices.sort().values
        rows, cols = places // size.shape[1], places % size.shape[1]
        value = self.act(self.gate.some(inputs, rows, cols)) * self.up.some(inputs, rows, cols)
        error = decode_active(self.dictionary, rows, cols, value, len(y)) + self.offset - y
        loss = error.square().mean()
        if pairs and self.settings.lam:
            loss = loss + self.settings.lam * (error[-pairs:] - error[:pairs]).square().mean()
        return Seen(rows, cols, value, error, loss)

    @torch.no_grad()
    def values(self, inputs: Float[Tensor, "m rows"]) -> Float[Tensor, "n rows"]:
        """All gates, before any is left out."""
        return self.act(self.gate.table(inputs)) * self.up.table(inputs)

    def _active(self, codes: Codes, least: float) -> Codes:
        parts = []
        for part in torch.arange(len(codes), device=codes.col.device).split(_BLOCK):
            value = self.values(codes.rows(part).columns()).T
            parts.append(Codes.of(torch.where(value.abs() > least, value, 0.0)))
        return stacked(parts)

    @torch.no_grad()
    def found(self, refit_rows: int) -> tuple[ProductConnector, Tensor, Tensor, dict[str, int]]:
        """The gates as a connector, their directions and offset in the output's units, and how many are never on."""
        index = torch.randperm(len(self.rows.y), generator=self.generator)
        few = index[:THRESHOLD_ROWS]
        codes = self.rows.codes.rows(few)
        sizes = (self.values(codes.rows(part).columns()).abs() for part in torch.arange(len(few)).split(_BLOCK))
        least = level(sizes, round(self.settings.l0 * len(few)))
        dead = int((self._active(codes, least).frequency() == 0).sum())
        size = torch.ones_like(self.gate.bias)
        if refit_rows:
            size = self._refit(index[:refit_rows], least)
        size_out, m = self.units.size_out, self.rows.codes.width
        gate = self.gate.wires(m, torch.ones_like(size), self.units, self.activation)
        up = self.up.wires(m, size * size_out, self.units, "identity")
        offset = self.offset.detach() * size_out + self.units.mean_out
        wires = ProductConnector.of(gate, up, least * size * size_out)
        return wires, self.dictionary.detach(), offset, {"dead_outputs": dead}

    def _refit(self, index: Int[Tensor, " rows"], least: float) -> Float[Tensor, " n"]:
        """The best dictionary in closed form, with the loss of training; its rows' lengths, which the up side takes."""
        normal = NormalEquations()
        for both in self.rows.blocks(index, REFIT_BLOCK):
            normal.add_edited(*both, self.settings.lam, lambda codes: self._active(codes, least))
        dictionary, offset = normal.solve()
        length = dictionary.norm(dim=0)
        live = length > 1e-6
        self.dictionary[live] = (dictionary / length.clamp_min(1e-12)).T[live].to(self.dictionary)
        self.offset.copy_(offset)
        return torch.where(live, length, 1.0).to(self.gate.bias)


def _mean(codes: Codes) -> Float[Tensor, " m"]:
    """The mean of each feature over all rows."""
    return codes.typical() * codes.frequency()
