"""One output feature behind an MLP, for many changes of few input features in the same rows.

Setting a rule's literals moves a row along a few directions, so what the hidden layer receives moves along as few; and of the
output one feature is asked for, so the output itself need not be made.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..basis import Basis
from ..basis.columns import Columns
from ..segments import Segment
from ..segments.segment import ACTIVATIONS, MLPWeights

#: largest difference from the segment and the whole encoder, as a share of the largest value, that passes as rounding
_CLOSE = 1e-4


@dataclass(frozen=True)
class OneFeature:
    """The MLP up to its hidden layer, and each feature's encoder seen from there.

    Attributes:
        read: [m, f] what each feature reads from the hidden layer; bias: [f]; threshold: [f].
    """

    mlp: MLPWeights
    read: Float[Tensor, "m f"]
    bias: Float[Tensor, " f"]
    threshold: Float[Tensor, " f"]

    @classmethod
    def proven(cls, segment: Segment, basis_out: Basis, x: Float[Tensor, "rows d_in"]) -> OneFeature | None:
        """None where the segment is not exactly one MLP, or the dictionary not one that `Columns` knows: shown on real rows."""
        mlp = segment.mlp
        if mlp is None or mlp.W_out is None or not len(x):
            return None
        with torch.no_grad():
            y = segment.forward(x)
            columns = Columns.proven(basis_out, y)
            if columns is None or columns.weight.device != mlp.W_in.device:
                return None
            bias = columns.bias if mlp.b_out is None else columns.bias + mlp.b_out @ columns.weight
            found, whole = cls(mlp, mlp.W_out @ columns.weight, bias, columns.threshold), basis_out.encode(y)
            strongest = int(whole.sum(0).argmax())
            step = (x[:1] - x[-1:]) / 2
            apart = found.changed(x - step, step, torch.ones(1, len(x), 1).to(x), strongest)[0]
        return found if bool((whole[:, strongest] - apart).abs().max() <= _CLOSE * whole.abs().max()) else None

    def changed(
        self,
        x: Float[Tensor, "rows d_in"],
        directions: Float[Tensor, "t d_in"],
        change: Float[Tensor, "patterns rows t"],
        out: int,
    ) -> Float[Tensor, "patterns rows"]:
        """The feature in each row moved by `change` along the directions, under each pattern."""
        mlp = self.mlp
        pre = (x @ mlp.W_in + mlp.b_in) + change @ (directions @ mlp.W_in)
        act = ACTIVATIONS[mlp.act]
        if mlp.W_gate is None:
            hidden = act(pre)
        else:
            hidden = act(x @ mlp.W_gate + change @ (directions @ mlp.W_gate)) * pre
        z = hidden @ self.read[:, out] + self.bias[out]
        return torch.where(z > self.threshold[out], z, 0.0)
