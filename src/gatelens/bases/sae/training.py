"""What every dictionary trained by gradient descent has: settings, what is refused before any row is read, a start, steps and batches."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...basis.recipe import RecipeDefaults
from ...errors import BasisError, GateLensWarning, NonFiniteError
from ...errors.progress import bar
from ...models.placing import same_device
from ...store.estimate import Estimate, training

#: rows seen in training where nobody said how many; and at most so often each
SAMPLES, PASSES = 1_000_000, 50
#: batches are made smaller, down to 64 rows, until there are so many steps; and there are never fewer than `FEWEST`
STEPS, FEWEST = 1_000, 500
LARGEST, SMALLEST = 512, 64
#: of the linear map from which training starts; rows brought to the device at a time, where they do not fit there
_SHRINK, _STREAMED = 1e-3, 65_536
#: from so many passes on over rows that a user asked for, a warning is due
_MANY_PASSES = 200


@dataclass(frozen=True, kw_only=True)
class DictionaryTraining(RecipeDefaults):
    """Settings shared by the recipes that train sparse dictionaries.

    Attributes:
        expansion: features per dimension; `d_sae` overrides it.
        k: mean or exact number of active features.
        samples: rows seen in training, with repetition. None: a million, each row at most fifty times.
        batch_size: None: 512, fewer where that would leave less than a thousand steps.
        lr: of Adam.
        seed: of the initial weights and of the order of rows.
        progress: bars on standard error; None: where somebody watches.
        data_parallel: under torchrun all processes train each dictionary together, each on its part of every batch, in place of one
            dictionary to a process. For fewer dictionaries than processes: the same at every run of as many processes, but not, bit
            for bit, what one process finds.
    """

    expansion: int = 8
    d_sae: int | None = None
    k: float = 32
    samples: int | None = None
    batch_size: int | None = None
    lr: float = 2e-3
    seed: int = 0
    progress: bool | None = None
    data_parallel: bool = False

    #: hook points whose rows a dictionary is trained on
    ends = 1

    def __post_init__(self):
        counts = {name: getattr(self, name) for name in ("expansion", "d_sae", "k", "samples", "batch_size")}
        wrong = {name: value for name, value in counts.items() if value is not None and value < 1}
        if wrong or self.lr <= 0:
            found = ", ".join(f"{name} = {value}" for name, value in (wrong or {"lr": self.lr}).items())
            raise BasisError(
                f"expansion, d_sae, k, samples and batch_size must be at least 1, and lr positive; got {found}"
            )

    def schedule(self, rows: int) -> tuple[int, int]:
        """(steps, rows a step): as they were given, and what was left open chosen from the number of rows there are.

        Warns:
            GateLensWarning: samples that were asked for are hundreds of times the rows.
        """
        samples = min(SAMPLES, PASSES * rows) if self.samples is None else self.samples
        if self.samples is not None and samples > _MANY_PASSES * rows:
            warnings.warn(
                f"samples = {samples:,} of {rows:,} rows: training will see each row {samples // rows:,} times, which teaches little more. "
                "Collect more rows, or leave `samples` out: then it is chosen from the rows there are",
                GateLensWarning,
                stacklevel=4,
            )
        batch = self.batch_size or LARGEST
        while self.batch_size is None and batch > SMALLEST and samples // batch < STEPS:
            batch //= 2
        fewest = FEWEST if self.samples is None else 1
        return max(samples // batch, fewest), batch

    def shape_at(self, hook: str, width: int) -> tuple[int, float]:
        return self.d_sae or self.expansion * width, float(self.k)

    def estimate(self, hook: str, rows: int, width: int) -> Estimate:
        """Its rows (of both ends, taken to be of one width, where it has two), weights, gradients and two moments of Adam, in float32."""
        features, active = self.shape_at(hook, width)
        return training(rows, width, features, self.batch_size or LARGEST, active, ends=self.ends)

    def width_for(self, d: int, limited: bool = True) -> int:
        """The number of features for a hook point of width d.

        Raises:
            BasisError: more active features asked for than there are (where `limited`: the activation keeps k).
        """
        width = self.d_sae or self.expansion * d
        if limited and self.k > width:
            raise BasisError(
                f"k = {self.k} active features were asked of a dictionary of {width}; choose k <= {width}, or a larger d_sae"
            )
        return width


def falling(step: int, steps: int) -> float:
    """The share of the learning rate: rises over the first 2 %, falls to a tenth over the last third."""
    rise = min(1.0, (step + 1) / max(1.0, 0.02 * steps))
    return rise * min(1.0, max(0.1, 1 - 0.9 * (step / steps - 2 / 3) * 3))


def steps_of(
    name: str, steps: int, lr: float, optimiser: torch.optim.Optimizer, progress: bool | None
) -> Iterator[int]:
    """So many steps of a training run, with a bar; the optimiser's rate is set before each."""
    for step in bar(range(steps), name, progress):
        for group in optimiser.param_groups:
            group["lr"] = lr * falling(step, steps)
        yield step


def shuffled(rows: int, batch: int, generator: torch.Generator, whole: bool = False) -> Iterator[Int[Tensor, " batch"]]:
    """Batches of row numbers without end, every row once before any row twice; `whole`: also those larger than the rows are many."""
    batch, kept = batch if whole else min(batch, rows), torch.empty(0, dtype=torch.long)
    while True:
        while len(kept) < batch:
            kept = torch.cat([kept, torch.randperm(rows, generator=generator)])
        yield kept[:batch]
        kept = kept[batch:]


def check_rows(x: Float[Tensor, "rows d"], what: str) -> None:
    """Refuse rows from which nothing can be learned, before training.

    Raises:
        BasisError: no rows, or all of them equal. NonFiniteError: NaN or infinity, with the first row that holds one.
    """
    if len(x) == 0:
        raise BasisError(
            f"a dictionary of {what} needs rows: got none. Collect activations of at least a few thousand rows"
        )
    if x.layout != torch.strided or x.ndim != 2:
        raise BasisError(f"{what} of shape {list(x.shape)} and layout {x.layout}: expected a dense matrix [rows, d]")
    finite = torch.isfinite(x).all(dim=1)
    if not finite.all():
        raise NonFiniteError(
            f"{what} hold NaN or infinity in {int((~finite).sum())} rows, first in row {int((~finite).nonzero()[0])}: expected "
            "finite activations. Look at the model and its inputs"
        )
    if (x == x[0]).all():
        raise BasisError(f"{what} are the same in every row: there is nothing to explain. Collect more varied inputs")


def ridge(
    x: Float[Tensor, "rows d_in"], y: Float[Tensor, "rows d_out"], device: torch.device | None = None
) -> Float[Tensor, "d_in d_out"]:
    """The linear map of least squares from centred x to centred y, slightly shrunk; identity-like where x = y."""
    device = device or x.device
    step = len(x) if same_device(x.device, device) else _STREAMED
    gram, cross = (torch.zeros(x.shape[1], part.shape[1], dtype=torch.float64, device=device) for part in (x, y))
    for a, b in zip(x.split(step), y.split(step), strict=True):
        a, b = a.to(device), b.to(device)
        gram, cross = gram + (a.T @ a).double(), cross + (a.T @ b).double()
    gram.diagonal().add_(_SHRINK * gram.diagonal().mean().clamp_min(1e-12))
    return torch.linalg.solve(gram, cross).to(x.dtype)
