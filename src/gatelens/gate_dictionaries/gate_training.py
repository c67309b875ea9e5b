"""Thresholded sums of exactly k parents each, trained sparsely on the loss in the output's space; parents are pruned and regrown."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..codes.active import Chooser, Seen
from ..codes.rows import Codes, beside
from ..connectors import Connector
from ..store.estimate import THRESHOLD_ROWS
from .gate_run import Active, Found, GateTraining, Run, sums
from .gate_start import GateStart, Units
from .rows import Rows

_REGROWN_UNTIL = 0.75
_REGROWN = 256  # gates that exchange parents at once
_SCORED_BATCHES = 16  # batches whose gradients decide which parents come in
_REVIVED_AFTER = 100  # steps before a gate that was never on counts as dead


class _ActiveGates(torch.autograd.Function):
    """The active entries of sum_j weights[:, j] f[:, parents[:, j]] + bias, computed before; derivatives touch only those."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, bias: Tensor, active: Tensor, inputs: Tensor, cols: Tensor) -> Tensor:  # pyright: ignore
        ctx.save_for_backward(weights, inputs, cols)
        return active.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        weights, inputs, cols = ctx.saved_tensors
        n, k = weights.shape
        slots = (cols[:, None] * k + torch.arange(k, device=cols.device)).flatten()
        to_weights = torch.zeros(n * k, dtype=grad.dtype, device=grad.device).index_add_(
            0, slots, (grad[:, None] * inputs).flatten()
        )
        to_bias = torch.zeros(n, dtype=grad.dtype, device=grad.device).index_add_(0, cols, grad)
        to_inputs = grad[:, None] * weights[cols] if ctx.needs_input_grad[3] else None
        return to_weights.view(n, k), to_bias, None, to_inputs, None


class GateRun(Run):
    """Thresholded sums: also read `weights`, `bias`, `parents` and `bypass`.

    Args:
        linear: the features that go past the gates.
    """

    name = "gate dictionary"

    def __init__(
        self,
        rows: Rows,
        start: GateStart,
        allowed: Bool[Tensor, " m"],
        settings: GateTraining,
        linear: Int[Tensor, " p"] | None = None,
    ):
        super().__init__(rows, settings, start.dictionary, start.offset)
        self.allowed, self.parents = allowed, start.parents
        self.weights, self.bias = start.weights.clone().requires_grad_(), start.bias.clone().requires_grad_()
        self.linear = torch.zeros(0, dtype=torch.long, device=rows.y.device) if linear is None else linear
        self.bypass = torch.zeros(len(self.linear), rows.y.shape[1], device=rows.y.device, requires_grad=True)
        parameters = [
            self.weights,
            self.bias,
            self.dictionary,
            self.offset,
            *([self.bypass] if len(self.linear) else []),
        ]
        self.optimiser = torch.optim.Adam(parameters, lr=settings.lr, betas=(0.9, 0.99), fused=True)
        self.choose = Chooser("batchtopk", settings.l0)
        self.power = rows.codes.mean_square()
        self.fired = torch.zeros(len(self.bias), dtype=torch.bool, device=rows.y.device)
        #: for each gate and input: [0] the loss's derivative, [1] the sum of f^2 where the gate is on
        self.score: Tensor | None = None
        self.scored_rows = 0
        last = int(_REGROWN_UNTIL * settings.steps)  # parents are exchanged evenly over the first three quarters
        rounds = settings.rounds if last > settings.rounds else 0
        self.rounds = [last * (i + 1) // rounds for i in range(rounds)]

    def learned(self, step: int, codes: Codes, seen: Seen) -> None:
        if any(0 <= r - step < _SCORED_BATCHES for r in self.rounds):
            self._collect(codes, seen.rows, seen.cols, seen.value.grad)  # pyright: ignore

    def stepped(self, step: int, codes: Codes, error: Float[Tensor, "rows d"]) -> None:
        if step in self.rounds:
            self._regrow(self.rounds.index(step))
            if step >= _REVIVED_AFTER:
                self._revive(codes, error)

    @torch.no_grad()
    def table(self, inputs: Float[Tensor, "m rows"]) -> Float[Tensor, "n rows"]:
        return sums(self.parents, self.weights, self.bias, inputs)

    def chosen(self, inputs: Float[Tensor, "m rows"]) -> Active:
        table = self.table(inputs)
        count = table.shape[1]
        places = self.choose.largest(table.flatten(), round(self.settings.l0 * count))
        rows, order = (places % count).sort(stable=True)
        cols = places[order] // count
        self.fired[cols] = True
        given = inputs[self.parents[cols], rows[:, None]]
        value: Any = _ActiveGates.apply(self.weights, self.bias, table[cols, rows], given, cols)
        value.retain_grad()
        return rows, cols, value

    def past(self, inputs: Float[Tensor, "m rows"]) -> Float[Tensor, "rows d"] | float:
        return inputs[self.linear].T @ self.bypass if len(self.linear) else 0.0

    def _collect(self, codes: Codes, rows: Tensor, cols: Tensor, grad: Tensor) -> None:
        """Add each active gate's derivative with every input feature that was on in its row: what a new wire would gain."""
        if self.score is None:
            self.score, self.scored_rows = torch.zeros(2, len(self.bias) * codes.width, device=grad.device), 0
        self.scored_rows += len(codes)
        counts = codes.crow.diff()[rows]
        first = torch.repeat_interleave(codes.crow[rows] - (counts.cumsum(0) - counts), counts)
        entry = first + torch.arange(int(counts.sum()), device=grad.device)
        gate = torch.repeat_interleave(torch.arange(len(rows), device=grad.device), counts)
        place, value = cols[gate] * codes.width + codes.col[entry], codes.value[entry]
        self.score[0].index_add_(0, place, grad[gate] * value * len(codes))
        self.score[1].index_add_(0, place, value.square())

    @torch.no_grad()
    def _regrow(self, round_number: int) -> None:
        """A gate's weakest parents give way to inputs that would lower the loss by more than those raise it when they go.

        To second order, over the rows where the gate is on (its dictionary row has length 1): dropping parent j costs w_j^2 S_j, adding
        input j gains g_j^2 / (4 S_j), with S_j the sum of f_j^2 and g_j the derivative of the summed squared error.
        """
        if self.score is None:
            return
        n, k = self.weights.shape
        swap = max(1, round(self.settings.swap * (1 - round_number / max(1, self.settings.rounds))))
        swap = min(swap, k, max(0, int(self.allowed.sum()) - k))
        score, self.score = self.score.view(2, n, -1), None
        for start in range(0, n, _REGROWN):
            gates = slice(start, start + _REGROWN)
            self._exchange(gates, swap, *score[:, gates])

    def _exchange(self, gates: slice, swap: int, slope: Float[Tensor, "some m"], mass: Float[Tensor, "some m"]) -> None:
        """New parents for some of the gates."""
        parents, weights = self.parents[gates], self.weights[gates]
        slope = slope * self.rows.y.shape[1]  # the loss is a mean over coordinates
        # a few rows' luck is no evidence
        mass = mass + self.power * (0.1 * self.settings.l0 / len(self.weights) * self.scored_rows)
        gain = slope.square() / (4 * mass.clamp_min(1e-12))
        gain[:, ~self.allowed] = -1.0
        gain.scatter_(1, parents, -1.0)
        best = gain.topk(swap, dim=1)
        weakest = (weights.square() * mass.gather(1, parents)).topk(swap, dim=1, largest=False)
        # the best against the weakest, the second best against the second weakest, ...
        useful, weakest = best.values > weakest.values, weakest.indices
        parents.scatter_(1, weakest, torch.where(useful, best.indices, parents.gather(1, weakest)))
        moments = (self.optimiser.state[self.weights][moment][gates] for moment in ("exp_avg", "exp_avg_sq"))
        for kept in (weights, *moments):
            kept.scatter_(1, weakest, torch.where(useful, 0.0, kept.gather(1, weakest)))

    @torch.no_grad()
    def _revive(self, codes: Codes, error: Float[Tensor, "rows d"]) -> None:
        """Gates that have not been on since the last round start again on badly explained rows."""
        dead = (~self.fired).nonzero().squeeze(1).tolist()
        self.fired.zero_()
        if not dead:
            return
        chances = error.square().sum(1).double().cpu()
        picked = torch.multinomial(chances, len(dead), replacement=True, generator=self.generator).tolist()
        k = self.weights.shape[1]
        for gate, row in zip(dead, picked, strict=True):
            part = slice(int(codes.crow[row]), int(codes.crow[row + 1]))
            col, value = codes.col[part], codes.value[part]
            kept = self.allowed[col]
            col, value = col[kept], value[kept]
            if len(col) < k:
                continue
            top = (value.square() / self.power[col].clamp_min(1e-12)).topk(k).indices
            self.parents[gate] = col[top]
            self.weights[gate] = value[top] / value[top].square().sum() * error[row].norm() * 0.25
            self.bias[gate] = 0.0
            self.dictionary[gate] = -error[row] / error[row].norm().clamp_min(1e-12)
            for parameter in (self.weights, self.bias, self.dictionary):
                for moment in ("exp_avg", "exp_avg_sq"):
                    self.optimiser.state[parameter][moment][gate] = 0

    def terms(self, codes: Codes, least: float) -> Codes:
        """The gates that are on and, after them, the features that go past the gates."""
        gates = self.active(codes, least)
        if not len(self.linear):
            return gates
        place = torch.full((codes.width,), -1, device=self.linear.device)
        place[self.linear] = torch.arange(len(self.linear), device=self.linear.device)
        kept = codes.only(place[codes.col] >= 0)
        return beside(gates, Codes(kept.crow, place[kept.col], kept.value, len(self.linear)))

    @torch.no_grad()
    def found(self, refit_rows: int, units: Units, said: str) -> Found:
        """The gates as a connector `said` to be of a solver, in the units of the data."""
        least, counts = self.threshold(self.drawn(THRESHOLD_ROWS))
        scale, m = torch.ones_like(self.bias), self.rows.codes.width
        if refit_rows:
            scale, bypass = self.refit(self.drawn(refit_rows), least)
            self.bypass.copy_(bypass)
            self.weights.mul_(scale[:, None])
            self.bias.mul_(scale)
        weights = self.weights.detach() * units.size_out / units.size_in
        rows, bias = list(zip(self.parents, weights, strict=True)), self.bias.detach() * units.size_out
        wires = Connector.from_rows(rows, bias, m, threshold=least * scale * units.size_out, solver=said)
        children = torch.bincount(self.parents.flatten(), minlength=m)
        info = {
            "dead_outputs": int((counts == 0).sum()),
            "largest_out_degree": int(children.max()),
            "inputs_used": int((children > 0).sum()),
        }
        past = None
        if len(self.linear):
            past = self.bypass.new_zeros(m, self.rows.y.shape[1])
            past[self.linear] = self.bypass.detach() * units.size_out / units.size_in
        return wires, self.dictionary.detach(), self.offset.detach() * units.size_out + units.mean_out, past, info
