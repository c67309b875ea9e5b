"""Outside: how a forward pass itself shows where BOS, EOS and padding stand, for hooks that are given nothing but values.

`evaluate` knows the positions that count from the data. A prompt under `splice(circuit)` comes without them; but what the
model embeds of a special token is the same numbers every time.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..data.specials import Specials
from ..models import device_of

_EMBEDDINGS = ("hook_embed", "embed.hook_out")


@dataclass(frozen=True, eq=False)
class Outside:
    """The embeddings of a model's special tokens.

    Attributes:
        hook: the hook point through which embeddings pass.
        rows: one row a special token.
    """

    hook: str
    rows: Float[Tensor, "k d"]

    @classmethod
    def of(cls, model: Any) -> Outside | None:
        """Of a language model with a tokenizer; None where nothing is special, or no hook point shows embeddings."""
        specials = Specials.of(model)
        ids = [i for i in specials.left_out if specials.d_vocab is not None and i < specials.d_vocab]
        hook = next((name for name in _EMBEDDINGS if name in getattr(model, "hook_dict", ())), None)
        if not ids or hook is None:
            return None
        # nothing behind the embedding is needed, and of a model that was cut off nothing more can be had
        deep = {"stop_at_layer": 0} if "stop_at_layer" in inspect.signature(model.forward).parameters else {}
        parts = []
        for some in torch.tensor(ids, device=device_of(model)).split(16):  # no row that is too long for the model
            with torch.no_grad():
                _, cache = model.run_with_cache(some[:, None], names_filter=[hook], **deep)
            parts.append(cache[hook][:, 0])
        return cls(hook, torch.cat(parts).detach().cpu())

    def inside(self, embedded: Float[Tensor, "n T d"]) -> Bool[Tensor, "n T"]:
        """True where a word was embedded."""
        special = torch.zeros(embedded.shape[:2], dtype=torch.bool, device=embedded.device)
        for row in self.rows.to(embedded):
            special |= (embedded == row).all(-1)
        return ~special
