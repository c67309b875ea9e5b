"""The units in which gates are trained."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ..bases.sae.pair_training import Scale
from ..codes.rows import Codes
from ..errors import BasisError
from .gate_start import GateStart


@dataclass(frozen=True)
class Units:
    """Outputs centred with mean square 1 per coordinate, input features in units of their root mean square norm."""

    size_in: float
    size_out: float
    mean_out: Float[Tensor, " d"]

    @classmethod
    def of(cls, codes: Codes, y: Float[Tensor, "rows d"]) -> Units:
        out = Scale.of(y)
        if out.size == 0:
            raise BasisError(
                "the output is the same in every row: there is nothing to explain. Collect more varied inputs"
            )
        mean_power = float(codes.value.double().square().sum()) / max(len(codes.value), 1)
        return cls(max(mean_power, 1e-24) ** 0.5, out.size, out.mean)

    def codes(self, codes: Codes) -> Codes:
        return codes.over(self.size_in)

    def y(self, y: Tensor) -> Tensor:
        return (y - self.mean_out).div_(self.size_out)

    def start(self, first: GateStart) -> GateStart:
        """The start in training units; dictionary rows of another length than 1 hand their length to the gate."""
        length = first.dictionary.norm(dim=1).clamp_min(1e-12)
        return GateStart(
            first.parents,
            first.weights * length[:, None] * self.size_in / self.size_out,
            first.bias * length / self.size_out,
            first.dictionary / length[:, None],
            self.y(first.offset),
        )
