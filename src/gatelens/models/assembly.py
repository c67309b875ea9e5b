"""A `HookedTransformer` put together block by block: a block is read, checked, folded and copied before the next one is.

transformer-lens folds a whole state dict at once, in several copies. A block's folding looks at that block alone, so
here every block is folded as a model of one block whose vocabulary has one token; the embedding and the head likewise.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..errors import GateLensError, ModelError
from ..errors.progress import bar

#: buffers that transformer-lens makes itself
_OWN_BUFFERS = ("mask", "IGNORE", "rotary_sin", "rotary_cos", "rotary_cos_local", "rotary_sin_local")
_EMBEDDING = ("embed.", "pos_embed.")


@dataclass(frozen=True)
class Processing:
    """What is done to the weights on loading; the function that the model computes stays the same.

    Attributes:
        fold_ln: LayerNorm's gain and bias go into the next weights.
        center_writing_weights: what writes to the residual stream has mean zero over the residual dimensions.
        center_unembed: the logits have mean zero over the vocabulary.
        fold_value_biases: the value biases go into the output bias of the attention.
    """

    fold_ln: bool = True
    center_writing_weights: bool = True
    center_unembed: bool = True
    fold_value_biases: bool = True

    def possible(self, normalization: str | None) -> Processing:
        """What can be done: only LayerNorm lets the residual stream be centred, and what is folded stays folded."""
        return Processing(
            fold_ln=self.fold_ln and normalization in ("LN", "RMS"),
            center_writing_weights=self.center_writing_weights and normalization in ("LN", "LNPre"),
            center_unembed=self.center_unembed,
            fold_value_biases=self.fold_value_biases,
        )


@runtime_checkable
class Source(Protocol):
    """Where the weights come from, under transformer-lens' names and before any folding."""

    path: Path
    #: of `HookedTransformerConfig`
    settings: Mapping[str, Any]

    def tokenizer(self) -> Any | None: ...

    def outer(self, cfg: Any) -> Mapping[str, Tensor]:
        """What lies before and behind the blocks."""
        ...

    def block(self, index: int, cfg: Any) -> Mapping[str, Tensor]: ...

    def foreign(self) -> list[str]:
        """Weights that are there and that a whole model has not asked for."""
        ...


def assemble(
    source: Source, wanted: Processing, device: str, dtype: torch.dtype, first_layers: int | None
) -> tuple[Any, Processing]:
    """The model, and what could be done to its weights.

    Raises:
        ModelError: a config or weights that do not fit one another, or fewer blocks than were asked for.
    """
    settings = dict(source.settings)
    whole = settings.get("n_layers")
    if first_layers is not None:
        settings |= _first(settings, first_layers, source.path)
    model, shapes, raw_cfg = _empty(settings, source, wanted, device, dtype)
    done = wanted.possible(raw_cfg.normalization_type)
    own = dict(model.named_parameters())
    left = set(own)
    n_layers = model.cfg.n_layers
    with torch.no_grad():
        for part in bar(range(-1, n_layers), f"load {model.cfg.model_name}"):
            weights = source.outer(raw_cfg) if part < 0 else source.block(part, raw_cfg)
            of_part = {k: v for k, v in shapes.items() if k.startswith("blocks.") == (part >= 0)}
            if part >= 0:
                of_part = {k: v for k, v in of_part.items() if k.startswith(f"blocks.{part}.")}
            weights = {k: v for k, v in weights.items() if not k.endswith(_OWN_BUFFERS)}
            _check(weights, of_part, source.path)
            for name, value in _folded(weights, raw_cfg, done, part):
                if name in own:
                    own[name].copy_(value)
                    left.discard(name)
            del weights
    if whole == n_layers and (foreign := source.foreign()):
        raise ModelError(_misfit(source.path, [], foreign))
    if left:
        raise ModelError(_misfit(source.path, sorted(left), []))
    return model, done


def _first(settings: Mapping[str, Any], first_layers: int, path: Path) -> dict[str, Any]:
    whole = settings.get("n_layers")
    if not isinstance(whole, int) or not 1 <= first_layers <= whole:
        raise ModelError(f"first_layers = {first_layers}: {path} has {whole} blocks. Give a number from 1 to {whole}")
    types = settings.get("attn_types")
    return {"n_layers": first_layers} | ({"attn_types": types[:first_layers]} if types else {})


def _empty(
    settings: Mapping[str, Any], source: Source, wanted: Processing, device: str, dtype: torch.dtype
) -> tuple[Any, dict[str, tuple[int, ...]], Any]:
    """A model whose weights are still to be filled in; the shapes and the config before folding."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    tokenizer = source.tokenizer()
    try:
        cfg = HookedTransformerConfig(**dict(settings) | {"device": device, "dtype": dtype, "init_weights": False})
        raw = copy.copy(cfg)
        if wanted.possible(cfg.normalization_type).fold_ln:
            cfg.normalization_type = f"{cfg.normalization_type}Pre"
        model = HookedTransformer(cfg, tokenizer=tokenizer)
        raw.d_vocab, raw.d_vocab_out = model.cfg.d_vocab, model.cfg.d_vocab_out  # the tokenizer may have said it
        with torch.device("meta"):
            pattern = HookedTransformer(copy.copy(raw), move_to_device=False)
    except GateLensError:
        raise
    except Exception as error:  # whatever transformer-lens makes of a config that somebody else wrote
        raise ModelError(
            f"{source.path}: the config does not fit transformer-lens ({error!r}). Compare it with the model's own"
        ) from error
    return model, {name: tuple(value.shape) for name, value in pattern.named_parameters()}, raw


def _folded(weights: dict[str, Tensor], cfg: Any, done: Processing, part: int) -> Iterable[tuple[str, Tensor]]:
    """The weights of a part after folding; the embedding and the head one after the other."""
    if part >= 0:
        here, first = f"blocks.{part}.", "blocks.0."
        folded = _process({k.replace(here, first, 1): v for k, v in weights.items()}, cfg, done, blocks=1)
        return ((k.replace(first, here, 1), v) for k, v in folded.items())
    head = {k: weights.pop(k) for k in list(weights) if not k.startswith(_EMBEDDING)}
    return (pair for half in (head, weights) for pair in _process(half, cfg, done, blocks=0).items())


def _process(weights: dict[str, Tensor], cfg: Any, done: Processing, blocks: int) -> dict[str, Tensor]:
    from transformer_lens.weight_processing import ProcessWeights

    small = copy.copy(cfg)
    small.n_layers = blocks
    filler = {name: torch.zeros(1, cfg.d_model) for name in ("embed.W_E", "pos_embed.W_pos") if name not in weights}
    options = asdict(done) | {"center_unembed": done.center_unembed and "unembed.W_U" in weights}
    out = ProcessWeights.process_weights({**weights, **filler}, small, **options)
    return {name: value for name, value in out.items() if name not in filler}


def _check(weights: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Names, shapes and finiteness of a part's weights against the model that they are for."""
    missing = [name for name in shapes if name not in weights]
    foreign = [name for name in weights if name not in shapes]
    if missing or foreign:
        raise ModelError(_misfit(path, missing, foreign))
    for name, shape in shapes.items():
        if tuple(weights[name].shape) != shape:
            raise ModelError(
                f"{path}: {name} has shape {tuple(weights[name].shape)}, the config asks for {shape}. "
                "Give the config that the weights were saved with"
            )
        if not torch.isfinite(weights[name]).all():
            raise ModelError(f"{path}: {name} holds NaN or infinity. Save the model again in float32")


def _misfit(path: Path, missing: list[str], foreign: list[str]) -> str:
    return (
        f"{path} does not fit its config: {len(missing)} weights are missing ({', '.join(missing[:3]) or '-'}), "
        f"{len(foreign)} are unknown ({', '.join(foreign[:3]) or '-'}). "
        "Give the config that the weights were saved with"
    )
