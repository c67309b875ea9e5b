"""Train an input dictionary on together with the gates that read it: what gates need is then in the code that they are given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..bases.sae.pair_training import Beyond, PairRun, PairTraining, PairWeights, Scale
from ..bases.sae.trained import as_jumprelu, single_threshold
from ..bases.sae.training import shuffled
from ..codes.active import unit_rows_
from ..codes.rows import Codes
from ..edits.counterfactual import Counterfactual, Library
from ..errors import BasisError
from ..errors.progress import bar
from ..models import host
from ..segments import Segment
from .gate_start import Units
from .gate_training import GateRun


@dataclass(frozen=True)
class InputTuning:
    """The gates' error reaches the input's encoder, beside the dictionary's own: |x - x_hat|^2 + |segment(x) - segment(x_hat)|^2.

    A dictionary of x alone says what x is; whether a few of its features say what a gate must know is left to chance. Here both are
    learned at once, from natural rows and edits of them. What is tuned stays a dictionary of x (its own error is in the loss), but it
    is made for this segment: rivals are to be given it too.

    Attributes:
        samples: natural rows seen, each with a fresh edit of it where the gates are fitted to pairs.
        own: weight of the dictionary's own error, relative to that of the gates.
        lr: of the dictionary; the gates go on with their own. Both fall to a fiftieth. The wires stay as they are.
    """

    samples: int = 150_000
    own: float = 0.5
    lr: float = 1e-3

    def __post_init__(self):
        if self.samples < 1 or self.own < 0 or self.lr <= 0:
            raise BasisError(
                f"samples must be at least 1, own not negative, lr positive; got {self.samples}, {self.own}, {self.lr}"
            )

    def check(self, basis_in: Any) -> None:
        """Refuse a dictionary that cannot be tuned, before any training.

        Raises:
            BasisError: features without one common threshold.
        """
        single_threshold(basis_in)

    def tune(
        self,
        run: GateRun,
        basis_in: Any,
        segment: Segment,
        x: Float[Tensor, "rows d_in"],
        units: Units,
        edits: Counterfactual | None,
    ) -> Any:
        """A sae-lens SAE in the place of `basis_in`; the gates of `run` are trained on with it.

        Args:
            run: gates trained on the codes of `basis_in` over the rows of `x`. units: theirs.
        """
        joint = _JointRun(self, run, single_threshold(basis_in), segment, x, units, edits)
        joint.train()
        return as_jumprelu(host(joint.found()), segment.hook_in)


class _JointRun:
    def __init__(
        self,
        settings: InputTuning,
        run: GateRun,
        start: PairWeights,
        segment: Segment,
        x: Float[Tensor, "rows d_in"],
        units: Units,
        edits: Counterfactual | None,
    ):
        self.settings, self.run, self.segment, self.x, self.units, self.edits = settings, run, segment, x, units, edits
        codes = run.rows.codes
        active = len(codes.value) / len(codes)
        self.scale = Scale.of(x)
        seed = run.settings.seed
        training = PairTraining(d_sae=len(start.bias), k=active, lr=settings.lr, seed=seed)
        beyond = Beyond(lambda x: units.y(segment.forward(self.scale.back(x))), run.rows.y)
        scaled = self.scale(x)
        self.dictionary = PairRun(scaled, scaled, training, beyond, self.scale.into(start))
        self.optimisers = (self.dictionary.optimiser, run.optimiser)
        self.library = None if edits is None else Library.of(codes.over(1 / units.size_in))
        self.generator = torch.Generator().manual_seed(seed + 1)

    def train(self) -> None:
        natural = self.run.settings.batch_size if self.edits is None else self.run.settings.batch_size // 2
        batches = shuffled(len(self.x), natural, self.generator)
        steps = max(1, self.settings.samples // natural)
        for step in bar(range(steps), "input dictionary", self.run.settings.progress):
            share = max(0.02, 1 - step / steps)
            for optimiser, lr in zip(self.optimisers, (self.settings.lr, self.run.settings.lr), strict=True):
                for group in optimiser.param_groups:
                    group["lr"] = lr * share
            self._step(next(batches))

    def _step(self, index: Int[Tensor, " batch"]) -> None:
        seen = self.dictionary.see(index)
        value, m = seen.value * self.scale.size, len(self.dictionary.bias)
        inputs = value.new_zeros(m, len(index)).index_put((seen.cols, seen.rows), value)
        y, pairs = self.run.rows.y[index], 0
        if self.edits is not None:
            natural = Codes.from_entries(seen.rows, seen.cols, value.detach(), len(index), m)
            change, y_edited = self._edit(index, natural)
            # what is taken away has no derivative, what is put in is a constant
            edited = torch.where(change < 0, 0.0, inputs) + change.clamp_min(0)
            inputs, y, pairs = torch.cat([inputs, edited], 1), torch.cat([y, y_edited]), len(index)
        gates = self.run.see(inputs / self.units.size_in, y, pairs)
        loss = gates.loss + self.settings.own * seen.loss
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        for optimiser in self.optimisers:
            optimiser.step()
        unit_rows_(self.dictionary.dictionary)
        unit_rows_(self.run.dictionary)

    @torch.no_grad()
    def _edit(self, index: Tensor, natural: Codes) -> tuple[Float[Tensor, "m batch"], Float[Tensor, "batch d"]]:
        """What a fresh edit of every row changes, feature by feature, and what the model makes of it, in training units."""
        edit = self.edits.edit(natural, self.library, self.generator)  # pyright: ignore
        x = self.edits.edited_inputs(self.x[index], edit, self.dictionary.dictionary, self._decode)  # pyright: ignore
        return edit.change.columns(), self.units.y(self.segment.forward(x))

    def _decode(self, f: Float[Tensor, "rows m"]) -> Float[Tensor, "rows d_in"]:
        return f @ self.dictionary.dictionary + self.scale.back(self.dictionary.offset)

    def found(self) -> PairWeights:
        return self.dictionary.weights(self.scale, self.scale)
