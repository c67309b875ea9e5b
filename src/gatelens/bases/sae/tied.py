"""The tied ReLU-L1 autoencoder: its decoder is its encoder transposed."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...errors.progress import bar
from ...errors.tracker import tell_curve
from ...models.placing import batch_there, host
from .files import in_sae_lens_form
from .training import DictionaryTraining


def train_tied(x: Float[Tensor, "rows d"], d_sae: int, recipe: DictionaryTraining, l1: float, hook: str) -> Any:
    """Minimise |x - x_hat|^2 + l1 |f|_1 (mean over rows) with f = relu((x - b) W + c), x_hat = f W^T + b.

    The columns of W are kept at length 1, so that the penalty cannot be escaped by scale. Returned as a sae-lens
    `StandardSAE` with W_enc = W and W_dec = W^T.
    """
    rows = torch.Generator().manual_seed(recipe.seed)
    W = torch.randn(x.shape[1], d_sae, generator=rows).to(x.device)
    W = (W / W.norm(dim=0)).requires_grad_()
    b = x.mean(0).clone().requires_grad_()
    c = torch.zeros(d_sae, device=x.device, requires_grad=True)
    optimiser = torch.optim.Adam([W, b, c], lr=recipe.lr)
    plan = recipe.schedule(len(x))
    steps = plan.steps
    for step in bar(range(steps), f"tied SAE {hook}", recipe.progress):
        for group in optimiser.param_groups:  # the last fifth anneals to a tenth, as for the others
            group["lr"] = recipe.lr * min(1.0, 0.1 + 4.5 * (1 - step / steps))
        batch = batch_there(x, torch.randint(len(x), (plan.batch_size,), generator=rows), x.device)
        f = torch.relu((batch - b) @ W + c)
        loss = (batch - f @ W.T - b).square().sum(-1).mean() + l1 * f.sum(-1).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        tell_curve(f"tied/{hook}", step, loss.item)
        with torch.no_grad():
            W /= W.norm(dim=0).clamp_min(1e-8)
    tensors = host({"W_enc": W.detach(), "W_dec": W.detach().T.contiguous(), "b_enc": c.detach(), "b_dec": b.detach()})
    return in_sae_lens_form("standard", tensors, {"hook_name": hook}, apply_b_dec_to_input=True)
