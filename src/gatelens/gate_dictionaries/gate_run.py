"""One training run of gates, whatever they compute: rows and edits of them, steps, threshold, and the dictionary in closed form."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..bases.sae.training import shuffled, steps_of
from ..codes.active import Seen, decode_active, level, unit_rows_
from ..codes.rows import Codes, stacked, weighted_rows
from ..connectors import Connector
from ..errors.tracker import tell_curve
from ..models import there
from .gate_start import Units
from .rows import NormalEquations, Rows

_BLOCK, _REFITTED = 1_024, 16_384  # rows whose gates are computed, and that go into the closed form, at a time


@dataclass(frozen=True)
class GateTraining:
    """Settings of a `Run`.

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


#: (rows, gates, values) of the active entries of a batch
Active = tuple[Int[Tensor, " active"], Int[Tensor, " active"], Float[Tensor, " active"]]
#: wires, what gates write and its offset, what goes past them, and what is to be said of the fit
Found = tuple[Connector, Float[Tensor, "n d"], Float[Tensor, " d"], Float[Tensor, "m d"] | None, dict[str, int]]


def sums(
    parents: Int[Tensor, "n k"],
    weights: Float[Tensor, "n k"],
    bias: Float[Tensor, " n"],
    inputs: Float[Tensor, "m rows"],
) -> Float[Tensor, "n rows"]:
    """The weighted sum of every gate's parents, gate by gate, from the features one by one: sums of whole rows of memory."""
    starts = torch.arange(0, parents.numel(), parents.shape[1], device=inputs.device)
    return weighted_rows(inputs, parents.flatten(), weights.flatten(), starts).add_(bias[:, None])


class Run(ABC):
    """One training run of gates that write one direction of the output each: `train()`, then `found()`.

    A subclass says what its gates compute (`table`, and `chosen` with derivatives); the loss, the steps, the threshold at which so many
    gates are on as were asked for, and the closed-form dictionary at the end are the same.

    Attributes:
        rows: features and outputs in training units. dictionary, offset: what gates write; dictionary rows have length 1.
    """

    name: str
    #: learning rates over those that were given
    pace = 1.0
    optimiser: torch.optim.Optimizer

    def __init__(
        self, rows: Rows, settings: GateTraining, dictionary: Float[Tensor, "n d"], offset: Float[Tensor, " d"]
    ):
        self.rows, self.settings = rows, settings
        self.dictionary, self.offset = dictionary.clone(), offset.clone().requires_grad_()
        unit_rows_(self.dictionary)
        self.dictionary.requires_grad_()
        self.generator = torch.Generator().manual_seed(settings.seed)

    @abstractmethod
    def found(self, refit_rows: int, units: Units, said: str) -> Found:
        """The gates as a connector that was found by what is `said`, all in the units of the data."""

    @abstractmethod
    def table(self, inputs: Float[Tensor, "m rows"]) -> Float[Tensor, "n rows"]:
        """All gates before any is left out, without derivatives."""

    @abstractmethod
    def chosen(self, inputs: Float[Tensor, "m rows"]) -> Active:
        """The active entries of some rows, in order of the rows, with derivatives."""

    def strength(self, value: Tensor) -> Tensor:
        """By what gates are chosen."""
        return value

    def past(self, inputs: Float[Tensor, "m rows"]) -> Float[Tensor, "rows d"] | float:
        """What goes past the gates."""
        return 0.0

    def learned(self, step: int, codes: Codes, seen: Seen) -> None:  # noqa: B027
        """Told of every batch's derivatives."""

    def stepped(self, step: int, codes: Codes, error: Float[Tensor, "rows d"]) -> None:  # noqa: B027
        """Told when a step was taken."""

    def train(self) -> None:
        s = self.settings
        natural = s.batch_size if self.rows.partner is None else s.batch_size // 2
        batches = shuffled(len(self.rows.y), natural, self.generator)
        for step in steps_of(self.name, s.steps, self.pace * s.lr, self.optimiser, s.progress):
            index = next(batches)
            codes, y = self.rows.together(index)
            seen = self.see(codes.columns(), y, pairs=len(y) - len(index))
            self.optimiser.zero_grad(set_to_none=True)
            seen.loss.backward()
            self.learned(step, codes, seen)
            self.optimiser.step()
            unit_rows_(self.dictionary)
            error = seen.error.detach()
            tell_curve(self.name, step, error.square().mean().item)
            self.stepped(step, codes, error)

    def see(self, inputs: Float[Tensor, "m rows"], y: Float[Tensor, "rows d"], pairs: int) -> Seen:
        """The loss of some rows, with derivatives; the last `pairs` rows are edits of the first ones."""
        rows, cols, value = self.chosen(inputs)
        error = decode_active(self.dictionary, rows, cols, value, len(y)) + self.offset - y + self.past(inputs)
        loss = error.square().mean()
        if pairs and self.settings.lam:
            loss = loss + self.settings.lam * (error[-pairs:] - error[:pairs]).square().mean()
        return Seen(rows, cols, value, error, loss)

    def pre(self, codes: Codes) -> Float[Tensor, "rows n"]:
        """All gates before any is left out."""
        return self.table(codes.columns()).T

    def drawn(self, rows: int) -> Int[Tensor, " some"]:
        """Some of the natural rows."""
        return torch.randperm(len(self.rows.y), generator=self.generator)[:rows]

    @torch.no_grad()
    def threshold(self, index: Int[Tensor, " some"]) -> tuple[float, Int[Tensor, " n"]]:
        """The threshold at which some natural rows have l0 active gates in the mean, and how often each gate passes it there."""
        codes = self.rows.codes.rows(index)
        parts = (self.strength(self.pre(codes.rows(part))) for part in _blocks(codes))
        least = level(parts, round(self.settings.l0 * len(index)))
        active = self.active(codes, least)
        return least, torch.bincount(active.col, minlength=active.width)

    def active(self, codes: Codes, least: float) -> Codes:
        """The gates that are on."""
        parts = (self.pre(codes.rows(part)) for part in _blocks(codes))
        return stacked([Codes.of(torch.where(self.strength(pre) > least, pre, 0.0)) for pre in parts])

    def terms(self, codes: Codes, least: float) -> Codes:
        """What y is a weighted sum of."""
        return self.active(codes, least)

    @torch.no_grad()
    def refit(self, index: Int[Tensor, " some"], least: float) -> tuple[Float[Tensor, " n"], Float[Tensor, "p d"]]:
        """The best dictionary for the gates as they are, in closed form, with the loss of training; which gates are on stays.

        Returns:
            The lengths that dictionary rows had, for they keep length 1: the gates take them. The directions of the terms after the gates.
        """
        normal, n = NormalEquations(), len(self.dictionary)
        for part in index.split(_REFITTED):
            normal.add_edited(
                self.rows.at(part).each(lambda codes, y: (self.terms(codes, least), y)), self.settings.lam
            )
        found, offset = there(normal.solve(), self.offset.device)
        length = found[:, :n].norm(dim=0)
        live = length > 1e-6  # a gate that is never on has no direction of its own: it keeps what it had
        scale = torch.where(live, length, 1.0)
        self.dictionary[live] = (found[:, :n] / scale).T[live].to(self.dictionary)
        self.offset.copy_(offset)
        return scale, found[:, n:].T


def _blocks(codes: Codes) -> tuple[Tensor, ...]:
    return torch.arange(len(codes), device=codes.col.device).split(_BLOCK)
