"""Loading a transformer: by hub name, from a Hugging Face folder, or from a safetensors state dict and its config.

How the weights were processed (LayerNorm folded, centred, ...) is chosen here and recorded, because an SAE that was
trained on a model loaded one way does not fit the same model loaded another way.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from .. import store
from ..errors import GateLensError, HubError, ModelError, unknown
from .huggingface import hooked_config, hooked_state_dict, read_json, tokenizer_of

TL_CONFIG, TL_WEIGHTS = "tl_config.json", "tl_state_dict.safetensors"
#: buffers that transformer-lens makes itself
_OWN_BUFFERS = ("mask", "IGNORE", "rotary_sin", "rotary_cos", "rotary_cos_local", "rotary_sin_local")

_LOCAL = (
    "Download it where there is a network, or give the path of a folder with config.json, model.safetensors "
    "and the tokenizer's files"
)


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


def load_model(
    name: str | Path,
    *,
    fold_ln: bool = True,
    center_writing_weights: bool = True,
    center_unembed: bool = True,
    fold_value_biases: bool = True,
    bridge: bool = False,
    device: str = "cpu",
    dtype: str = "float32",
) -> Any:
    """A transformer with hook points, in evaluation mode, its weights frozen.

    Args:
        name: a hub name that transformer-lens knows ("gpt2"), "gpt2-mini" (ships with this package), a Hugging Face
            folder (config.json and *.safetensors; GPT-2 and Llama architectures, any with `bridge`), a folder with
            tl_config.json and tl_state_dict.safetensors, or a .safetensors state dict with tl_config.json beside it.
            Local folders never touch the network.
        fold_ln, center_writing_weights, center_unembed, fold_value_biases: see `Processing`. Models with RMSNorm are
            not centred.
        bridge: a `TransformerBridge` instead of a `HookedTransformer`; with all four options on it runs in
            compatibility mode, with all four off it keeps the weights as they are.

    Returns:
        a HookedTransformer or TransformerBridge; `gatelens.models.model_record` says how it was loaded.

    Raises:
        ModelError: nothing there, pickle, an unknown architecture, weights that do not fit the config.
        HubError: a hub name whose files are neither cached nor in reach.
    """
    wanted = Processing(fold_ln, center_writing_weights, center_unembed, fold_value_biases)
    type_ = getattr(torch, dtype, None)
    if not isinstance(type_, torch.dtype):
        raise ModelError(f'dtype must be the name of a torch type such as "float32" or "bfloat16", got {dtype!r}')
    source = find_local(name)
    if source is not None:
        store.refuse_pickle(source, ModelError)
    if bridge or not has_hooked_transformer():
        model, done = _bridge(str(source or name), wanted, device, type_), wanted
    elif source is None:
        model, done = _from_hub(str(name), wanted, device, type_), wanted
    else:
        model, done = _from_folder(source, wanted, device, type_)
    model.eval()
    model.requires_grad_(False)
    model.loaded = {"name": str(name), "form": type(model).__name__, "dtype": dtype, **asdict(done)}
    return model


def has_hooked_transformer() -> bool:
    """Whether transformer-lens still has HookedTransformer (3.x); 4.x raises on its import."""
    return int(metadata.version("transformer-lens").split(".")[0]) < 4


def find_local(name: str | Path) -> Path | None:
    """The local folder or file that `name` means, "gpt2-mini" included; None for a hub name.

    Raises:
        ModelError: for what looks like a path but is not there.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    if str(name) == "gpt2-mini":
        return Path(__file__).resolve().parents[1] / "demo" / "gpt2-mini"
    if (
        isinstance(name, Path)
        or str(name).startswith((".", "/", "~"))
        or path.suffix in (".safetensors", *store.PICKLES)
    ):
        raise ModelError(
            f"there is no model at {path}: expected a folder with config.json and *.safetensors, or a .safetensors file"
        )
    return None


def _from_folder(path: Path, wanted: Processing, device: str, dtype: torch.dtype) -> tuple[Any, Processing]:
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    folder = path if path.is_dir() else path.parent
    hugging_face = path.is_dir() and (folder / "config.json").is_file() and any(folder.glob("model*.safetensors"))
    if hugging_face:
        settings = hooked_config(folder)
    elif (folder / TL_CONFIG).is_file():
        settings = read_json(folder / TL_CONFIG)
    else:
        raise ModelError(
            f"{path} is no model: expected config.json with model.safetensors (Hugging Face), "
            f"or {TL_CONFIG} with {TL_WEIGHTS} (transformer-lens)"
        )
    try:
        cfg = HookedTransformerConfig(**settings | {"device": device, "dtype": dtype, "init_weights": False})
        model = HookedTransformer(cfg, tokenizer=tokenizer_of(folder))
    except GateLensError:
        raise
    except Exception as error:  # whatever transformer-lens makes of a config that somebody else wrote
        raise ModelError(
            f"{folder}: the config does not fit transformer-lens ({error!r}). Compare it with the model's own"
        ) from error
    file = path if path.is_file() else folder / TL_WEIGHTS
    weights = hooked_state_dict(folder, cfg) if hugging_face else _tl_weights(file, dtype)
    _check_weights(model, weights, path)
    done = _possible(wanted, cfg.normalization_type)
    model.load_and_process_state_dict(dict(weights), **asdict(done))
    return model, done


def _possible(wanted: Processing, normalization: str | None) -> Processing:
    """What can be done: only LayerNorm lets the residual stream be centred, and what is folded stays folded."""
    return Processing(
        fold_ln=wanted.fold_ln and normalization in ("LN", "RMS"),
        center_writing_weights=wanted.center_writing_weights and normalization in ("LN", "LNPre"),
        center_unembed=wanted.center_unembed,
        fold_value_biases=wanted.fold_value_biases,
    )


def _tl_weights(path: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise ModelError(f"{path} is missing: {TL_CONFIG} is there, expected the weights beside it")
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise ModelError(f"{path} is not a whole safetensors file ({error}). Copy or convert it again") from error
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in weights.items()}


def _check_weights(model: Any, weights: dict[str, torch.Tensor], path: Path) -> None:
    """Names, shapes and finiteness of a state dict against the model that it is for."""
    expected = {k: v for k, v in model.state_dict().items() if not k.endswith(_OWN_BUFFERS)}
    missing = [k for k in expected if k not in weights]
    foreign = [k for k in weights if k not in expected and not k.endswith(_OWN_BUFFERS)]
    if missing or foreign:
        raise ModelError(
            f"{path} does not fit its config: {len(missing)} weights are missing ({', '.join(missing[:3]) or '-'}), "
            f"{len(foreign)} are unknown ({', '.join(foreign[:3]) or '-'}). "
            "Give the config that the weights were saved with"
        )
    for name, value in expected.items():
        if weights[name].shape != value.shape:
            raise ModelError(
                f"{path}: {name} has shape {tuple(weights[name].shape)}, the config asks for {tuple(value.shape)}. "
                "Give the config that the weights were saved with"
            )
        if not torch.isfinite(weights[name]).all():
            raise ModelError(f"{path}: {name} holds NaN or infinity. Save the model again in float32")


def _from_hub(name: str, wanted: Processing, device: str, dtype: torch.dtype) -> Any:
    from transformer_lens import HookedTransformer
    from transformer_lens.loading_from_pretrained import get_official_model_name
    from transformer_lens.supported_models import MODEL_ALIASES

    try:
        official = get_official_model_name(name)
    except ValueError as error:
        known = [*MODEL_ALIASES, *(alias for aliases in MODEL_ALIASES.values() for alias in aliases), "gpt2-mini"]
        hint = f"A local folder is given by its path, ./{name} for instance"
        raise ModelError(f"{unknown('model', name, known)}. {hint}") from error
    _check_in_reach(official)
    try:
        return HookedTransformer.from_pretrained(
            name, device=device, dtype=str(dtype).removeprefix("torch."), use_safetensors=True, **asdict(wanted)
        )
    except OSError as error:
        raise HubError(f"{official} could not be loaded from the hub or its cache ({error}). {_LOCAL}") from error


def _check_in_reach(repository: str) -> None:
    """Say at once when the hub is needed and out of reach; huggingface_hub itself retries for some 20 seconds."""
    from ..data.hub import cache_folder, hub_in_reach

    snapshots = cache_folder() / f"models--{repository.replace('/', '--')}" / "snapshots"
    if not snapshots.is_dir() and not hub_in_reach():
        raise HubError(f"{repository} is not in the cache ({snapshots.parent}) and the hub is out of reach. {_LOCAL}")


def _bridge(name: str, wanted: Processing, device: str, dtype: torch.dtype) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    chosen = set(asdict(wanted).values())
    if len(chosen) > 1:
        raise ModelError(
            "a bridge takes fold_ln, center_writing_weights, center_unembed and fold_value_biases all on or all off"
        )
    if not Path(name).exists():
        _check_in_reach(name)
    model = TransformerBridge.boot_transformers(name, device=device, dtype=dtype)
    if chosen == {True}:
        model.enable_compatibility_mode()
    return model
