"""The linear map from which sparse training starts."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ...models.placing import same_device

_SHRINK = 1e-3
#: rows brought to the device at a time, where they do not fit there
_STREAMED = 65_536


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
