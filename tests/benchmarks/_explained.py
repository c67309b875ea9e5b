"""How much of a segment's output a dictionary of a pair of hook points leaves unexplained."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from gatelens.basis.pair import PairBasis
from gatelens.models import blockwise

_ROWS = 4_096


def explained(basis: PairBasis, x: Float[Tensor, "rows d_in"], y: Float[Tensor, "rows d_out"]) -> float:
    """FVU of y by a pair dictionary, bypass included."""
    with torch.no_grad():
        parts = zip(x.split(_ROWS), y.split(_ROWS), strict=True)
        missed = (blockwise(basis.reconstruct, basis.W_dec.device, a) - b for a, b in parts)
        error = sum(float(part.double().square().sum()) for part in missed)
    return error / max(float((y - y.mean(0)).double().square().sum()), 1e-30)
