"""Training a small network on labelled rows: enough for the demonstrations, the same bytes for the same seed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ..data import Batches
from ..data.readable import check_readable
from ..errors import ConfigError
from ..errors.door import at_the_door
from ..errors.progress import bar
from ..errors.tracker import tell_curve
from .mlp import HookedMLP


@at_the_door
@dataclass(frozen=True)
class Training:
    """Adam with a cosine learning rate on cross-entropy.

    Attributes:
        epochs, batch_size, lr, weight_decay: as in `torch.optim.AdamW`.
    """

    epochs: int = 20
    batch_size: int = 128
    lr: float = 2e-3
    weight_decay: float = 1e-2

    def __post_init__(self) -> None:
        for name, least in (("epochs", 0), ("batch_size", 1)):  # of no epoch comes the network as it was drawn
            if getattr(self, name) < least:
                raise ConfigError(f"train: {name} must be at least {least}; got {getattr(self, name)}. Raise it")
        if not 0 < self.lr < math.inf or not 0 <= self.weight_decay < math.inf:
            raise ConfigError(
                f"train: lr must be above 0 and weight_decay at least 0; got lr={self.lr}, weight_decay={self.weight_decay}"
            )

    def fit(self, model: HookedMLP, data: Batches, seed: int = 0, progress: bool | None = None) -> HookedMLP:
        """Train `model` in place on `data` and return it in evaluation mode, its weights frozen.

        Raises:
            DataError: images of another width than the network's, or labels that it has no class for.
        """
        check_readable(model, data.inputs, data.targets, data.name)
        order = torch.Generator().manual_seed(seed)
        steps = self.epochs * -(-data.examples // self.batch_size)
        optimiser = torch.optim.AdamW(model.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        step = 0
        for _ in bar(range(self.epochs), "train", progress):
            for rows in torch.randperm(data.examples, generator=order).split(self.batch_size):
                loss = F.cross_entropy(model(data.inputs[rows]), data.targets[rows])
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                schedule.step()
                tell_curve("model", step, loss.item)
                step += 1
        return model.eval().requires_grad_(False)
