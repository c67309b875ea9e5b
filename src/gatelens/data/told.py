"""What a model says of itself, by TransformerLens' names: the one place that asks, with an answer for a model that does not say."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Tokenizer(Protocol):
    """As far as pages ask: the text of token ids."""

    def decode(self, ids: Any, /) -> str: ...


def tokenizer_of(model: Any) -> Any:
    """Its tokenizer; None without one, or without a model."""
    return getattr(model, "tokenizer", None)


def setting(model: Any, name: str, otherwise: Any = None) -> Any:
    """An entry of its `cfg` (d_vocab, n_ctx, model_name, ...); `otherwise` where it has none."""
    return getattr(getattr(model, "cfg", None), name, otherwise)


def layer_sizes(model: Any) -> tuple[int, ...]:
    """The widths of a plain network's layers, its inputs first; none for another model."""
    found = getattr(model, "sizes", ())
    return tuple(found) if isinstance(found, tuple | list) else ()


def pads_left(model: Any) -> bool:
    """Whether its tokenizer pads in front, where TransformerLens takes a guess at the padding from the ids."""
    return getattr(tokenizer_of(model), "padding_side", "right") == "left"


def unembedding(model: Any, width: int | None = None) -> Float[Tensor, "d vocabulary"] | None:
    """What turns its residual stream into logits; None for a model without one, or of another width."""
    found = getattr(model, "W_U", None)
    fits = isinstance(found, Tensor) and width in (None, found.shape[0])
    return found.detach() if fits else None


def final_gain(model: Any) -> Float[Tensor, " d"] | None:
    """What its last norm multiplies by before the unembedding; None where that is folded in, or there is no norm."""
    found = getattr(getattr(model, "ln_final", None), "w", None)
    return found.detach() if isinstance(found, Tensor) else None


def class_weights(model: Any, hook: str) -> Float[Tensor, "d classes"] | None:
    """What turns a plain network's last hidden layer into its outputs; None at any other hook point."""
    layers = getattr(model, "layers", None)
    last = layers is not None and hook == f"hook_post.{len(layer_sizes(model)) - 3}"
    return layers[-1].weight.detach().T if last else None
