"""The direct way to the logits: what a step at a hook point adds to them when nothing in between answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..data.told import class_weights, final_gain, unembedding
from ..segments.transformer import Normalise

#: ends of the names of hook points whose values are added to the residual stream as they are, or are the stream itself
_ADDED = ("hook_mlp_out", "mlp.hook_out", "hook_attn_out", "hook_resid_pre", "hook_resid_mid", "hook_resid_post")


@dataclass(frozen=True)
class DirectPath:
    """The way to the logits at each position; linear where the final norm's scale is held at what it is on the prompt.

    Attributes:
        unembed: [d, vocabulary], the norm's gain within. mean: [d], its mean over the vocabulary, which no softmax sees.
        scale: [positions] of the final norm. centred: the norm takes the mean over d out.
        stream, eps: [positions, d] what enters the final norm, and what the norm adds to the mean square; None without a norm.
    """

    unembed: Float[Tensor, "d vocabulary"]
    mean: Float[Tensor, " d"]
    scale: Float[Tensor, " positions"]
    centred: bool
    stream: Float[Tensor, "positions d"] | None = None
    eps: float = 0.0

    def logits(self, position: int, steps: Float[Tensor, "k d"]) -> Float[Tensor, "k vocabulary"]:
        """What each step adds to the logits at a position, their mean over the vocabulary taken out."""
        steps = self._centre(steps.to(self.unembed)) / self.scale[position]
        return steps @ self.unembed - (steps @ self.mean)[:, None]

    def change(self, position: int, step: Float[Tensor, " d"], token: int) -> float:
        """What a step changes in a token's logit with the final norm taken anew: the whole of it where no block lies between."""
        column = (self.unembed[:, token] - self.mean).double()
        if self.stream is None:
            return float(step.double() @ column)
        before, after = (self._centre(x.double()) for x in (self.stream[position], self.stream[position] + step.cpu()))
        scales = [(x.square().mean() + self.eps).sqrt() for x in (before, after)]
        return float((after / scales[1] - before / scales[0]) @ column)

    def readers(self, tokens: Int[Tensor, " positions"]) -> Float[Tensor, "positions d"]:
        """[position] the vector whose product with a step there is what the step adds to the logit of its token."""
        columns = self.unembed[:, tokens].T - self.mean
        return self._centre(columns) / self.scale[:, None]

    def _centre(self, rows: Tensor) -> Tensor:
        return rows - rows.mean(-1, keepdim=True) if self.centred else rows


def last_stream(model: Any) -> str | None:
    """The hook point behind the last block of a transformer; None for another model."""
    name = f"blocks.{len(model.blocks) - 1}.hook_resid_post" if hasattr(model, "blocks") else ""
    return name if name in model.hook_dict else None


def direct_path(model: Any, hook: str, cache: Mapping[str, Tensor]) -> DirectPath | None:
    """From `hook` to the logits; None where there is no linear way.

    Args:
        cache: of a clean run, with `last_stream(model)` in it where the model has one: [positions, d].
    """
    stream, unembed = last_stream(model), unembedding(model)
    if stream is not None and unembed is not None and hook.endswith(_ADDED):
        return _through_norm(model, unembed.cpu().float(), cache[stream])
    weight = class_weights(model, hook)
    if weight is None:
        return None
    weight = weight.cpu().float()
    return DirectPath(weight, weight.mean(1), torch.ones(len(cache[hook])), centred=False)


def _through_norm(model: Any, unembed: Tensor, stream: Float[Tensor, "positions d"]) -> DirectPath:
    kind = str(model.cfg.normalization_type or "")
    if not kind:
        return DirectPath(unembed, unembed.mean(1), torch.ones(len(stream)), centred=False)
    if (gain := final_gain(model)) is not None:
        unembed = gain.cpu().float()[:, None] * unembed
    norm = Normalise("RMS" not in kind, float(model.cfg.eps))
    centred = stream - stream.mean(-1, keepdim=True) if norm.centre else stream
    scale = (centred.square().mean(-1) + norm.eps).sqrt()
    return DirectPath(unembed, unembed.mean(1), scale, norm.centre, stream, norm.eps)
