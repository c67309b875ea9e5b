"""E[J^T J] at a hook point: which directions what follows depends on, to the next hook point or to the model's output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..data import Batch, Batches
from ..errors import DataError
from ..models import Model, check_hook_names, run_hooked
from ..segments import Segment
from .rank import segment_jacobians


def segment_sensitivity(
    function: Segment | Callable[[Tensor], Tensor], x: Float[Tensor, "N i"], chunk: int = 64
) -> Float[Tensor, "i i"]:
    """E[J^T J] of a segment (or any rowwise function) over inputs x, in float64."""
    total = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
    for part in x.split(chunk):
        jacobians = segment_jacobians(function, part).double()
        total += torch.einsum("noi,noj->ij", jacobians, jacobians)
    return total / len(x)


def output_sensitivity(
    model: Model, batches: Batches, hook: str, output: str = "auto", probes: int = 4, seed: int = 0
) -> Float[Tensor, "d d"]:
    """E[J^T J] from a hook point to the model's output, over every position that counts; float64.

    Args:
        output: "logits" sums exactly over them (one backward pass a class); "fisher" measures by the KL divergence of the
            prediction instead: gradients of log p(y) with y drawn from the model, `probes` draws a batch. "auto" takes
            the logits for classifiers of at most 64 classes, else Fisher.

    Raises:
        HookNameError: before any forward pass.
    """
    if output not in ("auto", "logits", "fisher"):
        raise DataError(f'expected output "auto", "logits" or "fisher", got {output!r}')
    check_hook_names(model, [hook])
    generator = torch.Generator().manual_seed(seed)
    total: Tensor | None = None
    rows = 0
    for batch in batches:
        logits, hooked = _logits_from(model, batch, hook)
        few = logits.shape[-1] <= 64 and logits.ndim == 2
        if output == "logits" or (output == "auto" and few):
            heads = [logits[..., c].sum() for c in range(logits.shape[-1])]
        else:
            heads = [_drawn(logits, generator) for _ in range(probes)]
        weight = 1.0 if output == "logits" or (output == "auto" and few) else 1 / probes
        for number, head in enumerate(heads):
            (gradient,) = torch.autograd.grad(head, hooked, retain_graph=number < len(heads) - 1)
            kept = gradient[batch.keep.to(gradient.device)].double().cpu()
            product = weight * kept.T @ kept
            total = product if total is None else total + product
        rows += int(batch.keep.sum())
    if total is None or rows == 0:
        raise DataError(f"{batches.name} has no rows that count; E[J^T J] needs at least one")
    return total / rows


def _logits_from(model: Any, batch: Batch, hook: str) -> tuple[Tensor, Tensor]:
    """The logits and the activation they were computed from, a leaf that gradients reach."""
    held: list[Tensor] = []

    def keep(value: Tensor, hook: Any) -> Tensor:
        held.append(value.detach().requires_grad_(True))
        return held[0]

    with torch.enable_grad():
        logits = run_hooked(model, batch.inputs, batch.mask, [(hook, keep)])
    return logits, held[0]


def _drawn(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Sum over rows of log p(y), y drawn from the prediction itself (so that the gradients' spread is the Fisher matrix)."""
    logp = logits.log_softmax(-1)
    flat = logp.reshape(-1, logp.shape[-1])
    drawn = torch.multinomial(flat.detach().cpu().exp(), 1, generator=generator).to(flat.device)
    return flat.gather(1, drawn).sum()
