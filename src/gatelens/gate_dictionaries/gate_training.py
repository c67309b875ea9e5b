"""Sparse training of gates: exactly k parents each, loss in the space of the output, parents pruned and regrown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..bases.sae.pair_training import level
from ..bases.sae.training import falling, shuffled
from ..codes.active import Chooser, Seen, decode_active, unit_rows_
from ..codes.rows import Codes, stacked
from ..edits.rows import Rows
from ..errors.progress import bar
from ..errors.tracker import tell_curve
from ..models import there
from ..store.estimate import THRESHOLD_ROWS
from .gate_start import GateStart
from .normal_equations import NormalEquations

_REGROWN_UNTIL = 0.75
_REGROWN = 256  # gates that exchange parents at once
_SCORED_BATCHES = 16  # batches whose gradients decide which parents come in
#: rows that go into the closed form at a time
REFIT_BLOCK = 16_384
_REVIVED_AFTER = 100  # steps before a gate that was never on counts as dead


@dataclass(frozen=True)
class GateTraining:
    """Settings of `GateRun`.

    Attributes:
        l0: mean number of active gates.
        lam: weight of the squared error of the difference of each pair, relative to that of the rows.
        steps, batch_size (pairs count as two rows), lr, seed: of Adam.
        rounds: how often parents are pruned and regrown. swap: parents of a gate exchanged in the first round; falls to one.
    """

    l0: float
    lam: float
    steps: int
    batch_size: int
    lr: float
    rounds: int
    swap: int
    seed: int
    progress: bool | None = None


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


class GateRun:
    """One training run; `train()`, then read `weights`, `bias`, `dictionary`, `offset`, `parents`, `bypass`."""

    def __init__(
        self,
        rows: Rows,
        start: GateStart,
        allowed: Bool[Tensor, " m"],
        settings: GateTraining,
        linear: Int[Tensor, " p"] | None = None,
    ):
        self.rows, self.settings, self.allowed = rows, settings, allowed
        self.parents = start.parents
        self.weights, self.bias = start.weights.clone().requires_grad_(), start.bias.clone().requires_grad_()
        self.dictionary, self.offset = start.dictionary.clone().requires_grad_(), start.offset.clone().requires_grad_()
        self.linear = torch.zeros(0, dtype=torch.long, device=rows.y.device) if linear is None else linear
        self.bypass = torch.zeros(len(self.linear), rows.y.shape[1], device=rows.y.device, requires_grad=True)
        unit_rows_(self.dictionary)
        parameters = [
            self.weights,
            self.bias,
            self.dictionary,
            self.offset,
            *([self.bypass] if len(self.linear) else []),
        ]
        self.optimiser = torch.optim.Adam(parameters, lr=settings.lr, betas=(0.9, 0.99), fused=True)
        self.choose = Chooser("batchtopk", settings.l0)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.power = rows.codes.mean_square()
        self.fired = torch.zeros(len(self.bias), dtype=torch.bool, device=rows.y.device)
        self.score: Tensor | None = (
            None  # for each gate and input: [0] the loss's derivative, [1] the sum of f^2 where the gate is on
        )
        self.scored_rows = 0

    def train(self) -> None:
        s, rounds = self.settings, self._rounds()
        natural = s.batch_size if self.rows.partner is None else s.batch_size // 2
        batches = shuffled(len(self.rows.y), natural, self.generator)
        for step in bar(range(s.steps), "gate dictionary", s.progress):
            for group in self.optimiser.param_groups:
                group["lr"] = s.lr * falling(step, s.steps)
            scoring = any(0 <= r - step < _SCORED_BATCHES for r in rounds)
            codes, error = self._step(next(batches), scoring)
            tell_curve("gate dictionary", step, error.square().mean().item)
            if step in rounds:
                self._regrow(rounds.index(step))
                if step >= _REVIVED_AFTER:
                    self._revive(codes, error)

    def _rounds(self) -> list[int]:
        """Steps after which parents are exchanged: evenly over the first three quarters."""
        last = int(_REGROWN_UNTIL * self.settings.steps)
        return (
            [last * (i + 1) // self.settings.rounds for i in range(self.settings.rounds)]
            if last > self.settings.rounds
            else []
        )

    def _step(self, index: Int[Tensor, " batch"], scoring: bool) -> tuple[Codes, Float[Tensor, "rows d"]]:
        codes, y = self.rows.together(index)
        seen = self.see(codes.columns(), y, pairs=len(y) - len(index))
        seen.value.retain_grad()
        self.optimiser.zero_grad(set_to_none=True)
        seen.loss.backward()
        if scoring:
            self._collect(codes, seen.rows, seen.cols, seen.value.grad)  # pyright: ignore
        self.optimiser.step()
        unit_rows_(self.dictionary)
        return codes, seen.error.detach()

    def see(self, inputs: Float[Tensor, "m rows"], y: Float[Tensor, "rows d"], pairs: int) -> Seen:
        """The loss of some rows, with derivatives; the last `pairs` rows are edits of the first ones."""
        table = self.table(inputs)
        rows, cols = self._chosen(table)
        self.fired[cols] = True
        given = inputs[self.parents[cols], rows[:, None]]
        value = _ActiveGates.apply(self.weights, self.bias, table[cols, rows], given, cols)
        error = decode_active(self.dictionary, rows, cols, value, len(y)) + self.offset - y  # pyright: ignore
        if len(self.linear):
            error = error + inputs[self.linear].T @ self.bypass
        loss = error.square().mean()
        if pairs and self.settings.lam:
            loss = loss + self.settings.lam * (error[-pairs:] - error[:pairs]).square().mean()
        return Seen(rows, cols, value, error, loss)  # pyright: ignore[reportArgumentType]

    def pre(self, codes: Codes) -> Float[Tensor, "rows n"]:
        """All gates before the activation."""
        return self.table(codes.columns()).T

    @torch.no_grad()
    def table(self, inputs: Float[Tensor, "m rows"]) -> Float[Tensor, "n rows"]:
        """The same, gate by gate, from the features one by one: sums of whole rows of memory."""
        n, k = self.weights.shape
        starts = torch.arange(0, n * k, k, device=inputs.device)
        table = torch.nn.functional.embedding_bag(
            self.parents.flatten(), inputs, starts, mode="sum", per_sample_weights=self.weights.flatten()
        )
        return table.add_(self.bias[:, None])

    def _chosen(self, table: Float[Tensor, "n rows"]) -> tuple[Int[Tensor, " active"], Int[Tensor, " active"]]:
        """(rows, gates) of the batch's largest entries, in order of the rows."""
        count = table.shape[1]
        places = self.choose.largest(table.flatten(), round(self.settings.l0 * count))
        rows, order = (places % count).sort(stable=True)
        return rows, places[order] // count

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

    @torch.no_grad()
    def threshold(self) -> tuple[float, Int[Tensor, " n"]]:
        """The threshold at which natural rows have l0 active gates in the mean, and how often each gate passes it."""
        index = torch.randperm(len(self.rows.y), generator=self.generator)[:THRESHOLD_ROWS]
        counts = torch.zeros(len(self.bias), dtype=torch.long, device=self.rows.y.device)
        parts = (self.pre(self.rows.codes.rows(part)) for part in index.split(1024))
        threshold = level(parts, round(self.settings.l0 * len(index)))
        for part in index.split(1024):
            counts += (self.pre(self.rows.codes.rows(part)) > threshold).sum(0)
        return threshold, counts

    @torch.no_grad()
    def refit(self, threshold: float, rows: int) -> Float[Tensor, " n"]:
        """The best dictionary (and bypass) for the gates as they are, in closed form, with the loss of training; which gates are on stays.

        Dictionary rows keep length 1: weights and bias take the scale, and so do the thresholds.

        Returns:
            [n], the threshold of each gate.
        """
        normal, n = NormalEquations(), len(self.bias)
        index = torch.randperm(len(self.rows.y), generator=self.generator)[:rows]
        for both in self.rows.blocks(index, REFIT_BLOCK):
            normal.add_edited(*both, self.settings.lam, lambda codes: self._terms(codes, threshold))
        found, offset = there(normal.solve(), self.bias.device)
        dictionary, bypass = found[:, :n], found[:, n:]
        length = dictionary.norm(dim=0)
        live = length > 1e-6  # a gate that is never on has no direction of its own: it keeps what it had
        scale = torch.where(live, length, 1.0)
        self.dictionary[live] = (dictionary / scale).T[live].to(self.dictionary)
        self.bypass.copy_(bypass.T)
        self.offset.copy_(offset)
        self.weights.mul_(scale[:, None])
        self.bias.mul_(scale)
        return threshold * scale

    def _terms(self, codes: Codes, threshold: float) -> Codes:
        """What y is a weighted sum of: the gates that are on and, after them, the features that go past the gates."""
        gates = self._active(codes, threshold)
        if not len(self.linear):
            return gates
        place = torch.full((codes.width,), -1, device=self.linear.device)
        place[self.linear] = torch.arange(len(self.linear), device=self.linear.device) + gates.width
        kept = place[codes.col] >= 0
        row = torch.cat([gates.row, codes.row[kept]])
        order = torch.argsort(row, stable=True)
        col, value = torch.cat([gates.col, place[codes.col[kept]]]), torch.cat([gates.value, codes.value[kept]])
        return Codes.from_entries(row[order], col[order], value[order], len(codes), gates.width + len(self.linear))

    def _active(self, codes: Codes, threshold: float) -> Codes:
        """The gates that are on."""
        parts = []
        for start in range(0, len(codes), 1024):
            pre = self.pre(codes.rows(torch.arange(start, min(start + 1024, len(codes)))))
            parts.append(Codes.of(torch.where(pre > threshold, pre, 0.0)))
        return stacked(parts)
