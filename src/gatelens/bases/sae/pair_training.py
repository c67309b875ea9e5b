"""Sparse training of a dictionary over a pair of hook points: f = act(x E + e), y ~ f D + b (+ x V).

An autoencoder is the case x = y. Only active entries are visited by the derivatives, so a step costs one product with the
encoder and little else: 3,072 features of width 384 take about a minute for a million rows on one CPU thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...codes.active import ACTIVATIONS, ActiveLinear, Chooser, Seen, decode_active, level, unit_rows_
from ...distributed import Worker, add_up, from_first, shared, team
from ...errors import BasisError
from ...errors.tracker import tell_curve
from ...models.placing import batch_there, rows_there, there
from ...store.estimate import THRESHOLD_ROWS
from .row_adam import RowAdam
from .training import DictionaryTraining, ridge, shuffled, steps_of

_BETAS = (0.5, 0.99)  # directions of unit length turn with every step: a long memory of gradients points past them
_REVIVALS = 8  # how often dead features are restarted, in the first part of training
_REVIVED_UNTIL = 0.7
_PART = 1_024  # directions that are compared with one another in a step; rows that are summed at once


@dataclass
class PairWeights:
    """What training finds, in the units of the data.

    Attributes:
        encoder, bias: E as [f, d_in], e as [f].
        threshold: features pass where the pre-activation is above it.
        dictionary, offset: D as [f, d_out] with rows of length 1, b as [d_out].
        bypass: V as [d_in, d_out], or None.
        dead: features that were never on in the rows on which the threshold was set.
    """

    encoder: Float[Tensor, "f d_in"]
    bias: Float[Tensor, " f"]
    threshold: float
    dictionary: Float[Tensor, "f d_out"]
    offset: Float[Tensor, " d_out"]
    bypass: Float[Tensor, "d_in d_out"] | None
    dead: int

    def tensors(self, jump: bool = True) -> dict[str, Tensor]:
        """By sae-lens' names; `jump`: with its threshold, for every feature."""
        parts = {"W_enc": self.encoder.T, "b_enc": self.bias, "W_dec": self.dictionary, "b_dec": self.offset}
        parts |= {"threshold": torch.full_like(self.bias, self.threshold)} if jump else {}
        return parts | ({} if self.bypass is None else {"W_skip": self.bypass.T})


@dataclass(frozen=True)
class PairTraining(DictionaryTraining):
    """Settings of `train_pair`; the learning rate falls to a tenth over the last third.

    Attributes:
        activation: "batchtopk" or "topk" (k active features), or "relu"; see `Chooser`.
        l1: coefficient of mean |f|_1, in units of the output's deviation ("relu").
        bypass: let a dense linear map carry what is linear, as in skip transcoders ("Transcoders Beat Sparse
            Autoencoders for Interpretability").
        orthogonality: coefficient of the mean over features of the largest squared cosine with another one's direction ("OrtSAE:
            Orthogonal Sparse Autoencoders Uncover Atomic Features"). Against absorption: a feature that only fires inside another one
            saves an active feature by taking the other's direction into its own, and the other one falls silent there.
    """

    activation: str = "batchtopk"
    l1: float = 0.02
    bypass: bool = False
    _: KW_ONLY
    batch_size: int | None = 1024
    orthogonality: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if self.activation not in ACTIVATIONS:
            raise BasisError(f"unknown activation {self.activation!r}: expected one of {', '.join(ACTIVATIONS)}")
        if self.l1 < 0 or self.orthogonality < 0:
            raise BasisError(f"l1 and orthogonality must not be negative, got {self.l1} and {self.orthogonality}")


@dataclass(frozen=True)
class Beyond:
    """What the reconstruction is pushed through, so that what matters there is kept: end-to-end training.

    Source: "Identifying Functionally Important Features with End-to-End Sparse Dictionary Learning".

    Attributes:
        forward: from the space of y to that of `target`, differentiable.
        target: what it gives for the true rows.
        weight: of its relative squared error, beside that of the reconstruction.
    """

    forward: Callable[[Float[Tensor, "rows d_out"]], Float[Tensor, "rows d"]]
    target: Float[Tensor, "rows d"]
    weight: float = 1.0

    def from_units(self, scale: Scale) -> Beyond:
        """The same for reconstructions in training units, its error in units of the target's variance."""
        variance = float(self.target.var(0).mean().clamp_min(1e-24))
        return Beyond(lambda y: self.forward(scale.back(y)), self.target, self.weight / variance)


def train_pair(
    x: Float[Tensor, "rows_x d_in"],
    y: Float[Tensor, "rows_y d_out"],
    settings: PairTraining,
    beyond: Beyond | None = None,
    device: torch.device | None = None,
) -> PairWeights:
    """Minimise the squared error of y (and the L1 penalty) by Adam; dead features are restarted on badly explained rows.

    Args:
        device: where to train, if not where the rows lie; rows that are too many for it are brought batch by batch.

    Raises:
        BasisError: different numbers of rows, more active features than there are, or an output that never varies.
    """
    if len(x) != len(y) or len(x) == 0:
        raise BasisError(
            f"x has {len(x)} rows and y {len(y)}: give both ends of the segment over the same rows, at least one"
        )
    scale_x, scale_y = Scale.of(x), Scale.of(y)
    if scale_y.size == 0:
        raise BasisError("the output is the same in every row: there is nothing to explain. Collect more varied inputs")
    device = x.device if device is None else device
    in_units = rows_there(scale_x(x), device)
    out_units = in_units if y is x else rows_there(scale_y(y), device)
    scale_x, scale_y = there((scale_x, scale_y), device)
    run = PairRun(in_units, out_units, settings, None if beyond is None else beyond.from_units(scale_y), None, device)
    run.train()
    found = run.weights(scale_x, scale_y)
    return from_first(lambda: found) if settings.data_parallel else found


@dataclass(frozen=True)
class Scale:
    """Rows with their mean taken off and a mean square of 1 per coordinate."""

    mean: Float[Tensor, " d"]
    size: float

    @classmethod
    def of(cls, x: Float[Tensor, "rows d"]) -> Scale:
        # a few rows at a time: sums in float64 make a float64 copy of what they are given
        parts = x.split(_PART)
        mean = (torch.stack([part.sum(0, dtype=torch.float64) for part in parts]).sum(0) / len(x)).to(x.dtype)
        squares = torch.stack([(part - mean).square_().sum(dtype=torch.float64) for part in parts])
        return cls(mean, float((squares.sum() / x.numel()).sqrt()))

    def __call__(self, x: Tensor) -> Tensor:
        return (x - self.mean).div_(max(self.size, 1e-12))

    def back(self, x: Tensor) -> Tensor:
        return x * self.size + self.mean

    def into(self, found: PairWeights) -> PairWeights:
        """The weights of an autoencoder in training units, from those in the units of the data."""
        size = max(self.size, 1e-12)
        bias, offset = (found.bias + found.encoder @ self.mean) / size, (found.offset - self.mean) / size
        return replace(found, bias=bias, threshold=found.threshold / size, offset=offset)


class PairRun:
    """One training run, in training units; `start`: weights in those units to go on from, drawn afresh without."""

    def __init__(
        self,
        x: Float[Tensor, "rows d_in"],
        y: Float[Tensor, "rows d_out"],
        settings: PairTraining,
        beyond: Beyond | None,
        start: PairWeights | None = None,
        device: torch.device | None = None,
    ):
        self.x, self.y, self.settings, self.beyond = x, y, settings, beyond
        self.device = x.device if device is None else device
        self.steps, batch_size = settings.schedule(len(x))
        self.batch_size = min(batch_size, len(x))
        self.generator = torch.Generator(device="cpu").manual_seed(settings.seed)
        self.revivals = torch.Generator(device="cpu").manual_seed(settings.seed + 1)
        start = self._fresh() if start is None else start
        self.encoder, self.bias = start.encoder.clone(), start.bias.clone()
        self.dictionary, self.offset = start.dictionary.clone(), start.offset.clone()
        self.bypass = start.bypass
        features = [self.encoder, self.bias, self.dictionary]
        others = [self.offset, *([] if self.bypass is None else [self.bypass])]
        self.parameters = (*features, *others)
        for parameter in self.parameters:
            parameter.requires_grad_()
        self.optimiser = RowAdam(features, others, settings.lr, _BETAS)
        self.choose = Chooser(settings.activation, settings.k)
        self.fired = torch.zeros(len(self.bias), dtype=torch.bool, device=self.device)
        self.worker = team() if settings.data_parallel else Worker()
        if self.batch_size < self.worker.world:
            raise BasisError(
                f"{self.worker.world} processes train a dictionary together on batches of {self.batch_size} rows: expected a row for each. "
                "Give a larger batch_size, or data_parallel=False"
            )

    def _fresh(self) -> PairWeights:
        linear, d_out = ridge(self.x, self.y, self.device), self.y.shape[1]
        width = self.settings.width_for(d_out, limited=self.settings.activation != "relu")
        dictionary = torch.randn(width, d_out, generator=self.generator).to(self.y.dtype).to(self.device)
        unit_rows_(dictionary)
        encoder = 0.5 * dictionary @ linear.T  # half: overlapping features would overshoot together
        bypass = linear if self.settings.bypass else None
        bias, offset = (dictionary.new_zeros(size) for size in (width, d_out))
        return PairWeights(encoder, bias, 0.0, dictionary, offset, bypass, 0)

    def train(self) -> None:
        s, steps = self.settings, self.steps
        every = max(50, int(steps * _REVIVED_UNTIL / _REVIVALS))
        batches = shuffled(len(self.x), self.batch_size, self.generator)
        for step in steps_of("dictionary", steps, s.lr, self.optimiser, s.progress):
            rows = next(batches)
            error = self._step(rows)
            tell_curve("dictionary", step, error.square().mean().item)
            if step and step % every == 0 and step < _REVIVED_UNTIL * steps:
                if not self.worker.alone:
                    error, self.fired = self._of_all(error)
                self._revive(batch_there(self.x, rows, self.device), error)

    def _step(self, index: Int[Tensor, " batch"]) -> Float[Tensor, "own d_out"]:
        """One step on a batch, of which each process that trains along sees its part; what this one missed."""
        own = index.tensor_split(self.worker.world)[self.worker.rank]
        seen = self.see(own)
        self.optimiser.zero_grad(set_to_none=True)
        if self.worker.alone:
            seen.loss.backward()
        else:
            (seen.loss * (len(own) / len(index))).backward()
            add_up(p.grad for p in self.parameters if p.grad is not None)
        self.optimiser.step()
        unit_rows_(self.dictionary)
        return seen.error.detach()

    def _of_all(self, error: Float[Tensor, "own d_out"]) -> tuple[Float[Tensor, "batch d_out"], Bool[Tensor, " f"]]:
        """What all processes missed in their parts of a batch, in its order; the features that were on at any of them."""
        parts = shared(self.worker.world, lambda i: error.cpu())
        fired = self.fired.int()
        add_up([fired])
        return torch.cat(parts).to(self.device), fired > 0

    def see(self, index: Int[Tensor, " batch"]) -> Seen:
        """The loss of some rows, with derivatives."""
        x = batch_there(self.x, index, self.device)
        y = x if self.y is self.x else batch_there(self.y, index, self.device)
        with torch.no_grad():
            pre = x @ self.encoder.T + self.bias
            rows, cols = self.choose(pre)
        self.fired[cols] = True
        value = ActiveLinear.apply(self.encoder, self.bias, x, pre, rows, cols)
        y_hat = decode_active(self.dictionary, rows, cols, value, len(x)) + self.offset
        if self.bypass is not None:
            y_hat = y_hat + x @ self.bypass
        error = y_hat - y
        loss = error.square().sum(1).mean() / y.shape[1]
        if self.settings.activation == "relu":
            loss = loss + self.settings.l1 * value.abs().sum() / len(x) / y.shape[1] ** 0.5
        if self.settings.orthogonality:
            loss = loss + self.settings.orthogonality * overlap(self.dictionary, self.generator)
        if self.beyond is not None:
            loss = (
                loss
                + self.beyond.weight
                * (self.beyond.forward(y_hat) - batch_there(self.beyond.target, index, self.device)).square().mean()
            )
        return Seen(rows, cols, value, error, loss)

    @torch.no_grad()
    def _revive(self, x: Tensor, error: Tensor) -> None:
        """Restart the features that have not been on since the last time: one badly explained row each."""
        dead = (~self.fired).nonzero().squeeze(1)
        self.fired.zero_()
        # every feature has a draw of its own, from a generator that nothing else draws from: one feature more or less that is
        # dead by a rounding error changes neither the others' rows nor the order of batches
        draws = torch.rand(len(self.bias), dtype=torch.float64, generator=self.revivals)[dead.cpu()]
        chances = error.square().sum(1).double().cpu().cumsum(0)
        rows = torch.searchsorted(chances, draws * chances[-1]).clamp_max(len(x) - 1).to(x.device)
        self.dictionary[dead] = -error[rows]
        unit_rows_(self.dictionary)
        live = self.encoder.norm(dim=1).median()
        self.encoder[dead] = x[rows] / x[rows].norm(dim=1, keepdim=True).clamp_min(1e-12) * live * 0.5
        self.bias[dead] = 0
        self.optimiser.restart(dead)

    @torch.no_grad()
    def weights(self, scale_x: Scale, scale_y: Scale) -> PairWeights:
        """Thresholds set on the data, everything in the data's own units."""
        threshold, dead = self._threshold()
        gain = scale_y.size / max(scale_x.size, 1e-12)
        encoder = self.encoder.detach() * gain
        bypass = None if self.bypass is None else self.bypass.detach() * gain
        offset = self.offset.detach() * scale_y.size + scale_y.mean
        return PairWeights(
            encoder,
            self.bias.detach() * scale_y.size - encoder @ scale_x.mean,
            threshold * scale_y.size,
            self.dictionary.detach().clone(),
            offset if bypass is None else offset - scale_x.mean @ bypass,
            bypass,
            dead,
        )

    def _threshold(self) -> tuple[float, int]:
        """The threshold at which the mean number of active features is k, and how many features never pass it."""
        if self.settings.activation == "relu":
            rows = self.x[:THRESHOLD_ROWS].to(self.device)
            on = ((rows @ self.encoder.T + self.bias) > 0).any(0)
            return 0.0, int((~on).sum())
        index = torch.randperm(len(self.x), generator=self.generator)[:THRESHOLD_ROWS]
        wanted = round(self.settings.k * len(index))
        threshold = level(self._pre(index), wanted)
        alive = torch.stack([(pre > threshold).any(0) for pre in self._pre(index)]).any(0)
        return threshold, int((~alive).sum())

    def _pre(self, index: Int[Tensor, " rows"]) -> Iterator[Float[Tensor, "some f"]]:
        """The pre-activations of some rows, some hundreds at a time."""
        for part in index.split(512):
            yield batch_there(self.x, part, self.device) @ self.encoder.T + self.bias


def overlap(dictionary: Float[Tensor, "f d"], generator: torch.Generator) -> Float[Tensor, ""]:
    """The mean over features of the largest squared cosine with another one, among a random thousand where there are more."""
    total = dictionary.new_zeros(())
    order = torch.randperm(len(dictionary), generator=generator).to(dictionary.device)
    for part in order.split(_PART):
        directions = torch.nn.functional.normalize(dictionary[part], dim=1)
        squares = (directions @ directions.T).square()
        total = total + (squares - torch.diag(squares.diagonal())).amax(1).sum()
    return total / len(dictionary)
