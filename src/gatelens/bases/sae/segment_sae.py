"""SegmentSAE: a sparse autoencoder at a segment's input that keeps what the segment needs, not only what has much variance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ...basis.linear import Basis
from ...basis.recipe import AtWork
from ...errors import BasisError
from ...models import host
from ...segments import Segment
from .pair_training import Beyond, PairTraining, train_pair
from .trained import as_jumprelu


@dataclass(frozen=True)
class SegmentSAE(PairTraining):
    """|x - x_hat|^2 + weight * |segment(x) - segment(x_hat)|^2, each relative to its variance: end-to-end training.

    Source: "Identifying Functionally Important Features with End-to-End Sparse Dictionary Learning".

    What no gate can be better than is the model's own segment on decoded inputs. A dictionary of x alone spends its features on
    variance that the segment does not read; this one lowers that ceiling's error at the same number of active features.

    Attributes:
        weight: of the segment's error; 0 trains a plain autoencoder, as `TrainedSAE` does.
        activation, k, ...: see `PairTraining`.
    """

    _: KW_ONLY
    weight: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if self.weight < 0 or self.bypass:
            raise BasisError(
                f"weight must not be negative, and an autoencoder has no bypass; got {self.weight}, {self.bypass}"
            )

    def fit(self, segments: Sequence[Segment], acts: Mapping[str, Tensor]) -> dict[str, Basis]:
        """hook_in -> sae-lens SAE. The output's dictionary is chosen apart."""
        rows = AtWork(segments, acts)
        return {s.hook_in: self.train(rows[s.hook_in], s, acts.get(s.hook_out)) for s in segments}

    def train(
        self, x: Float[Tensor, "rows d_in"], segment: Segment, y: Float[Tensor, "rows d_out"] | None = None
    ) -> Any:
        """A sae-lens SAE of the rows of x; `y`: what the segment gives for them, where it is at hand."""
        beyond = Beyond(segment.forward, segment.outputs(x) if y is None else y, self.weight)
        return as_jumprelu(host(train_pair(x, x, self, beyond, segment.device)), segment.hook_in)
