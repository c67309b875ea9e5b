"""A few features of a wide dictionary, without the others: what a trial asks of thousands of changed rows is one feature each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .linear import Basis

#: largest difference from the whole encoding, as a share of the largest value, that passes as rounding
_CLOSE = 1e-4
#: by how much rows are made longer for the proof
LONGER = 4.0


@dataclass(frozen=True)
class Columns:
    """The encoder of a ReLU or JumpReLU dictionary, feature by feature.

    Attributes:
        weight: [d, f]; bias: [f]; threshold: [f], a feature is zero up to it.
    """

    weight: Float[Tensor, "d f"]
    bias: Float[Tensor, " f"]
    threshold: Float[Tensor, " f"]

    @classmethod
    def proven(cls, basis: Basis, y: Float[Tensor, "rows d"]) -> Columns | None:
        """What `basis.encode` computes, feature by feature; None where it is not this on some real rows and on these made longer.

        A TopK over all features, a norm of the row or anything else that one feature alone cannot know shows itself there: longer
        rows have more features on than any real one, as changed rows may have.
        """
        found = cls._of(basis)
        if found is None or not len(y):
            return None
        with torch.no_grad():
            y = torch.cat([y, LONGER * y])
            whole = basis.encode(y)
            outs = torch.arange(whole.shape[1], device=whole.device)
            if whole.layout != torch.strided or found.bias.shape != whole.shape[1:]:
                return None
            apart = found.encode(y, outs)
        return found if bool((whole - apart).abs().max() <= _CLOSE * whole.abs().max()) else None

    @classmethod
    def _of(cls, basis: Any) -> Columns | None:
        weight, bias = getattr(basis, "W_enc", None), getattr(basis, "b_enc", None)
        if not isinstance(weight, Tensor) or not isinstance(bias, Tensor):
            return None
        with torch.no_grad():
            if getattr(getattr(basis, "cfg", None), "apply_b_dec_to_input", False):
                bias = bias - basis.b_dec @ weight
            threshold = getattr(basis, "threshold", None)
            threshold = torch.zeros_like(bias) if not isinstance(threshold, Tensor) else threshold
            return cls(weight.detach(), bias.detach(), threshold.detach())

    def encode(self, y: Float[Tensor, "rows d"], outs: Int[Tensor, " k"]) -> Float[Tensor, "rows k"]:
        """Some of the features."""
        z = y @ self.weight[:, outs] + self.bias[outs]
        return torch.where(z > self.threshold[outs], z, 0.0)
