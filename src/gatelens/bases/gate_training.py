"""Sparse training of gates: exactly k parents each, loss in the space of the output, parents pruned and regrown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm import trange

from .active import Chooser, decode_active, unit_rows_
from .codes import Codes
from .counterfactual import stacked
from .gate_start import GateStart
from .normal_equations import NormalEquations
from .pair_training import falling, level, shuffled

_REGROWN_UNTIL = 0.75
_SCORED_BATCHES = 16  # batches whose gradients decide which parents come in
_THRESHOLD_ROWS = 16_384
_REFIT_BLOCK = 16_384
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
    progress: bool = False


@dataclass(frozen=True)
class Rows:
    """Natural rows in training units, and where their counterfactual partners come from.

    Attributes:
        partner: (row numbers, codes) -> (edited codes, edited output), or None to fit on natural rows alone.
    """

    codes: Codes
    y: Float[Tensor, "rows d"]
    partner: Callable[[Tensor, Codes], tuple[Codes, Tensor]] | None


class _ActiveGates(torch.autograd.Function):
    """The active entries of sum_j weights[:, j] f[:, parents[:, j]] + bias, computed before; derivatives touch only those."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, bias: Tensor, active: Tensor, inputs: Tensor, cols: Tensor) -> Tensor:  # pyright: ignore
        ctx.save_for_backward(inputs, cols)
        ctx.shape = weights.shape
        return active.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        inputs, cols = ctx.saved_tensors
        n, k = ctx.shape
        slots = (cols[:, None] * k + torch.arange(k, device=cols.device)).flatten()
        to_weights = torch.zeros(n * k, dtype=grad.dtype, device=grad.device).index_add_(
            0, slots, (grad[:, None] * inputs).flatten()
        )
        to_bias = torch.zeros(n, dtype=grad.dtype, device=grad.device).index_add_(0, cols, grad)
        return to_weights.view(n, k), to_bias, None, None, None


class GateRun:
    """One training run; `train()`, then read `weights`, `bias`, `dictionary`, `offset`, `parents`, `bypass`."""

    def __init__(
        self,
        rows: Rows,
        start: GateStart,
        allowed: Bool[Tensor, " m"],
        settings: GateTraining,
        bypass: Float[Tensor, "m d"] | None = None,
    ):
        self.rows, self.settings, self.allowed = rows, settings, allowed
        self.parents = start.parents
        self.weights, self.bias = start.weights.clone().requires_grad_(), start.bias.clone().requires_grad_()
        self.dictionary, self.offset = start.dictionary.clone().requires_grad_(), start.offset.clone().requires_grad_()
        self.bypass = None if bypass is None else bypass.clone().requires_grad_()
        unit_rows_(self.dictionary)
        parameters = [
            self.weights,
            self.bias,
            self.dictionary,
            self.offset,
            *([] if self.bypass is None else [self.bypass]),
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
        for step in trange(s.steps, disable=not s.progress, desc="gates", delay=2):
            for group in self.optimiser.param_groups:
                group["lr"] = s.lr * falling(step, s.steps)
            scoring = any(0 <= r - step < _SCORED_BATCHES for r in rounds)
            codes, error = self._step(next(batches), scoring)
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
        codes, y = self.rows.codes.rows(index), self.rows.y[index]
        if self.rows.partner is not None:
            edited, y_edited = self.rows.partner(index, codes)
            codes, y = stacked([codes, edited]), torch.cat([y, y_edited])
        inputs = codes.columns()
        table = self.table(inputs)
        rows, cols = self._chosen(table)
        self.fired[cols] = True
        given = inputs[self.parents[cols], rows[:, None]]
        value = _ActiveGates.apply(self.weights, self.bias, table[cols, rows], given, cols)
        value.retain_grad()  # pyright: ignore
        error = decode_active(self.dictionary, rows, cols, value, len(y)) + self.offset - y  # pyright: ignore
        if self.bypass is not None:
            error = error + inputs.T @ self.bypass
        loss = error.square().mean()
        if self.rows.partner is not None and self.settings.lam:
            half = len(index)
            loss = loss + self.settings.lam * (error[half:] - error[:half]).square().mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if scoring:
            self._collect(codes, rows, cols, value.grad)  # pyright: ignore
        self.optimiser.step()
        unit_rows_(self.dictionary)
        return codes, error.detach()

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
        slope, mass = self.score.view(2, n, -1)
        slope = slope * self.rows.y.shape[1]  # the loss is a mean over coordinates
        prior = self.power * (0.1 * self.settings.l0 / n * self.scored_rows)  # a few rows' luck is no evidence
        gain, mass = slope.square() / (4 * (mass + prior).clamp_min(1e-12)), mass + prior
        self.score = None
        gain[:, ~self.allowed] = -1.0
        gain.scatter_(1, self.parents, -1.0)
        best = gain.topk(swap, dim=1)
        weakest = (self.weights.square() * mass.gather(1, self.parents)).topk(swap, dim=1, largest=False)
        useful = (
            best.values > weakest.values
        )  # the best against the weakest, the second best against the second weakest, ...
        weakest = weakest.indices
        incoming = torch.where(useful, best.indices, self.parents.gather(1, weakest))
        self.parents.scatter_(1, weakest, incoming)
        new = torch.where(useful, 0.0, self.weights.gather(1, weakest))
        self.weights.scatter_(1, weakest, new)
        for moment in ("exp_avg", "exp_avg_sq"):
            state = self.optimiser.state[self.weights][moment]
            state.scatter_(1, weakest, torch.where(useful, 0.0, state.gather(1, weakest)))

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
        index = torch.randperm(len(self.rows.y), generator=self.generator)[:_THRESHOLD_ROWS]
        found, counts = [], torch.zeros(len(self.bias), dtype=torch.long, device=self.rows.y.device)
        for part in index.split(1024):
            pre = self.pre(self.rows.codes.rows(part))
            found.append(pre[pre > 0])
        threshold = level(torch.cat(found), round(self.settings.l0 * len(index)))
        for part in index.split(1024):
            counts += (self.pre(self.rows.codes.rows(part)) > threshold).sum(0)
        return threshold, counts

    @torch.no_grad()
    def refit(self, threshold: float, rows: int) -> Float[Tensor, " n"]:
        """The best dictionary for the gates as they are, in closed form, with the loss of training; which gates are on stays as it is.

        Dictionary rows keep length 1: weights and bias take the scale, and so do the thresholds.

        Returns:
            [n], the threshold of each gate.
        """
        normal = NormalEquations()
        index = torch.randperm(len(self.rows.y), generator=self.generator)[:rows]
        for part in index.split(_REFIT_BLOCK):
            codes, y = self.rows.codes.rows(part), self.rows.y[part]
            on, left = self._active(codes, threshold), self._beside(codes, y)
            normal.add(on, left)
            if self.rows.partner is not None:
                edited, y_edited = self.rows.partner(part, codes)
                on_edited, left_edited = self._active(edited, threshold), self._beside(edited, y_edited)
                normal.add(on_edited, left_edited)
                if self.settings.lam:
                    normal.add(difference(on_edited, on), left_edited - left, self.settings.lam, constant=False)
        dictionary, offset = normal.solve()
        length = dictionary.norm(dim=0)
        live = length > 1e-6  # a gate that is never on has no direction of its own: it keeps what it had
        scale = torch.where(live, length, 1.0)
        self.dictionary[live] = (dictionary / scale).T[live].to(self.dictionary)
        self.offset.copy_(offset)
        self.weights.mul_(scale[:, None])
        self.bias.mul_(scale)
        return threshold * scale

    def _active(self, codes: Codes, threshold: float) -> Codes:
        """The gates that are on."""
        parts = []
        for start in range(0, len(codes), 1024):
            pre = self.pre(codes.rows(torch.arange(start, min(start + 1024, len(codes)))))
            parts.append(Codes.of(torch.where(pre > threshold, pre, 0.0)))
        return stacked(parts)

    def _beside(self, codes: Codes, y: Tensor) -> Tensor:
        """What the bypass leaves to the gates."""
        return y if self.bypass is None else y - codes.times(self.bypass)


def difference(a: Codes, b: Codes) -> Codes:
    """a - b over the same rows; entries of one feature are left beside one another."""
    row = torch.cat([a.row, b.row])
    order = torch.argsort(row, stable=True)
    return Codes.from_entries(
        row[order], torch.cat([a.col, b.col])[order], torch.cat([a.value, -b.value])[order], len(a), a.width
    )
