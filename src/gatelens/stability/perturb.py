"""Small changes of a model: noise in its weights, sized by the loss that it costs, and a few steps more of training."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import torch
from torch.nn import functional as F

from ..data import Batches
from ..errors import ConfigError, DataError
from ..evaluation.passes import metric
from ..models import Model, device_of, run_hooked


def noisy_model(model: Model, relative: float, seed: int = 0) -> Any:
    """A copy whose parameters each got Gaussian noise of `relative` times the root mean square of their tensor."""
    if not (math.isfinite(relative) and relative >= 0):
        raise ConfigError(f"expected relative noise of zero or more, got {relative}")
    generator = torch.Generator().manual_seed(seed)
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in changed.parameters():
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            parameter += relative * parameter.square().mean().sqrt() * noise
    return changed


def noise_for_rise(
    model: Model, batches: Batches, rise: float, seed: int = 0, steps: int = 10
) -> tuple[float, float, Any]:
    """The noise that raises the mean cross-entropy by the share `rise` (0.001 for .1 %), found by bisection.

    Returns:
        relative noise, the rise that it really causes, the changed model. One fixed draw of noise is scaled; where its
        direction lowers the loss at first, the search still ends at a scale at which it has risen.

    Raises:
        DataError: a loss of zero, of which no share can be taken.
    """
    if not rise > 0:
        raise ConfigError(f"expected a rise above zero (0.001 is .1 %), got {rise}")
    judged = replace(batches, metric="ce")
    clean = metric(model, judged)
    if not clean > 0:
        raise DataError("the model's cross-entropy is zero on these batches, so no share of it can be added")

    def risen(relative: float) -> float:
        return metric(noisy_model(model, relative, seed), judged) / clean - 1

    low, high = 0.0, 1e-3
    while risen(high) < rise and high < 10:
        low, high = high, 2 * high
    for _ in range(steps):
        middle = math.sqrt(low * high) if low else high / 2
        low, high = (middle, high) if risen(middle) < rise else (low, middle)
    return high, risen(high), noisy_model(model, high, seed)


def fine_tuned(model: Model, batches: Batches, steps: int, lr: float = 1e-4, seed: int = 0) -> Any:
    """A copy trained for `steps` more batches by Adam on cross-entropy; in evaluation mode, its weights frozen."""
    if steps < 1 or not 0 < lr < math.inf:
        raise ConfigError(f"expected at least one step of fine-tuning at a rate above 0, got {steps} at {lr}")
    changed = copy.deepcopy(model).requires_grad_(True)
    optimiser = torch.optim.Adam([p for p in changed.parameters() if p.is_floating_point()], lr=lr)
    generator = torch.Generator().manual_seed(seed)
    device = device_of(changed)
    for _ in range(steps):
        rows = torch.randint(batches.examples, (min(128, batches.examples),), generator=generator)
        part = batches.part(rows, batches.name)
        logits = run_hooked(changed, part.inputs, part.mask)
        targets = part.targets.to(device)
        loss = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=-100)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    return changed.eval().requires_grad_(False)
