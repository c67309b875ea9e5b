"""The model's metric over batches, with hooks on: what every replacement and every control is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data import Batches
from ..errors import NonFiniteError
from ..models import Model, device_of


def mean_metric(
    model: Model, batches: Batches, hooks: Sequence[tuple[str, Any]] = (), metric: str | None = None
) -> float:
    """Accuracy (0..1) or cross-entropy in nats, over the positions that have a target and count.

    Args:
        hooks: for `run_with_hooks`. metric: "accuracy" or "ce"; None for the batches' own.

    Raises:
        NonFiniteError: NaN or infinity in the logits.
    """
    metric = metric or batches.metric
    total, rows = 0.0, 0
    device = device_of(model)
    for batch in batches:
        with torch.no_grad():
            logits = model.run_with_hooks(batch.inputs.to(device), fwd_hooks=list(hooks)).cpu()
        wanted = batch.keep & (batch.targets >= 0)
        part = logits[wanted]
        if not torch.isfinite(part).all():
            raise NonFiniteError("the model's logits hold NaN or infinity. Look at the weights and at what replaces them")
        total += _summed(part, batch.targets[wanted], metric)
        rows += len(part)
    return total / max(rows, 1)


def _summed(logits: Tensor, targets: Tensor, metric: str) -> float:
    if metric == "accuracy":
        return float((logits.argmax(-1) == targets).sum())
    return float(F.cross_entropy(logits.double(), targets, reduction="sum"))
