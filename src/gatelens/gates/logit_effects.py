"""Logit effects: what one unit of each output feature does to the model's outputs on the straight way, past all later layers.

The final norm's gain is counted in, its scale is not (it is one number a row). Effects are centred over the outputs, which no
softmax sees, and divided by their own standard deviation, so that features of any length are comparable: z.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from ..data.told import class_weights, final_gain, unembedding

#: features whose effects on all outputs are held at once: 200 MB for a vocabulary of 50,000
BLOCK = 1_024


@dataclass(frozen=True)
class LogitEffects:
    """Decoder directions and the linear way from their hook point to the model's outputs.

    Attributes:
        directions: [n, d] what one unit of each feature adds. readout: [d, outputs].
        over: "tokens" or "classes", what the outputs are.
    """

    directions: Float[Tensor, "n d"]
    readout: Float[Tensor, "d outputs"]
    over: str

    def blocks(self) -> Iterator[tuple[int, Float[Tensor, "block outputs"]]]:
        """(first feature, z of a block of features on every output), never all of them at once."""
        for start in range(0, len(self.directions), BLOCK):
            yield start, standardised(self.directions[start : start + BLOCK] @ self.readout)

    def of(self, feature: int) -> Float[Tensor, " outputs"]:
        """z of one feature on every output."""
        return standardised(self.directions[feature : feature + 1] @ self.readout)[0]

    def favoured(self, feature: int, most: int = 5) -> Int[Tensor, " most"]:
        """The outputs that a feature raises most, the strongest first."""
        return self.of(feature).topk(min(most, self.readout.shape[1])).indices


def standardised(effect: Float[Tensor, "n outputs"]) -> Float[Tensor, "n outputs"]:
    """Centred over the outputs, divided by the standard deviation over them; zero for a feature without any effect."""
    centred = effect - effect.mean(1, keepdim=True)
    return centred / centred.square().mean(1, keepdim=True).sqrt().clamp_min(1e-12)


def logit_effects(model: Any, hook: str, directions: Float[Tensor, "n d"]) -> LogitEffects | None:
    """The effects of features at a hook point; None where no linear map leads from there to the outputs.

    The output of a transformer's block adds to the residual stream, which the unembedding reads; the last hidden layer of a plain
    network is read by its last weights. Earlier hidden layers of one have no such way.
    """
    over, matrix, gain = "classes", class_weights(model, hook), None
    if hook.endswith(("hook_mlp_out", "mlp.hook_out", "hook_resid_post")):
        over, matrix, gain = "tokens", unembedding(model, directions.shape[1]), final_gain(model)
    if matrix is None:
        return None
    matrix = matrix if gain is None else gain[:, None] * matrix
    return LogitEffects(directions.detach().to(matrix), matrix, over)
