"""The model of a run: trained here, from a user's weights, or loaded by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import safetensors.torch

from .. import store
from ..distributed import from_first, meet, team, this_worker
from ..errors import ConfigError, ModelError, StoreError, shown
from ..models import device_named
from .building import build, keywords
from .config import Config
from .provenance import say

if TYPE_CHECKING:
    from ..models.training import Training


def model_from(config: Config, folder: Path, progress: bool | None = None) -> Any:
    """The model that the config describes; one that is trained here is kept in `folder`.

    A HookedMLP is trained on the data's fitting part unless `weights` names a safetensors file with its state dict.
    """
    device = device_named(config.device)
    section = dict(config.model)
    training, weights = section.pop("train", {}), section.pop("weights", None)
    if section.get("use") != "HookedMLP":
        if weights is not None or training:
            raise ConfigError(
                "model: `weights` and `train` belong to `use: HookedMLP`; for other models give `load_model` a path"
            )
        return build(section, "model", seed=config.seed, device=config.device)
    model = build(section, "model", seed=config.seed)
    if weights is not None:
        return with_weights(model, Path(weights)).to(device)
    return _trained(model, training, config, folder, progress).to(device)


def with_weights(model: Any, path: Path) -> Any:
    """The model with a user's weights.

    Raises:
        ModelError: no such file, a pickle, or a state dict of other names or shapes.
    """
    store.refuse_pickle(path, ModelError)
    if not path.is_file():
        raise ModelError(f"there is no weights file {path}")
    try:
        state = safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise ModelError(f"{path} is not a whole safetensors file ({error})") from error
    _load_state(model, state, str(path))
    return model.eval().requires_grad_(False)


def _load_state(model: Any, state: Mapping[str, Any], source: str) -> None:
    wanted = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    found = {k: tuple(v.shape) for k, v in state.items()}
    for name in sorted({*wanted, *found}):
        if wanted.get(name) != found.get(name):
            raise ModelError(
                f"{source}: {name} has shape {found.get(name, 'nothing')}, this model expects {wanted.get(name, 'nothing')}. "
                f"A HookedMLP of sizes {list(model.sizes)} has {', '.join(wanted)}"
            )
    model.load_state_dict(dict(state))


def training_of(section: Any) -> Training:
    """The training that `model.train` asks for.

    Raises:
        ConfigError: no mapping, unknown keywords, or values that train nothing.
    """
    from ..models.training import Training

    if not isinstance(section, Mapping):
        raise ConfigError(f"model.train: expected keywords of Training, epochs: 20 for instance; got {shown(section)}")
    return Training(**keywords(Training, section, "model.train"))


def _trained(model: Any, training: Mapping[str, Any], config: Config, folder: Path, progress: bool | None) -> Any:
    recipe = training_of(training)
    problems: list[str] = []

    def load() -> Any:
        try:
            _load_state(model, store.reading(folder, "model").tensors("model.safetensors"), str(folder))
        except StoreError as error:  # damaged, unless it was not trained yet
            problems.extend([str(error)] if folder.exists() else [])
            return None
        return model.eval().requires_grad_(False)

    def train() -> None:
        for problem in problems:
            say(f"the model is trained again: {problem}")
        fit, _ = build({"use": "image_batches"} | config.data, "data", seed=config.seed)
        recipe.fit(model, fit, config.seed, progress)
        if not this_worker().first:  # of processes that never meet, all train and one writes
            return
        with store.writing(folder, "model") as out:
            out.tensors("model.safetensors", model.state_dict())
            out.json("model.json", {"class": "HookedMLP", "sizes": list(model.sizes)})

    if from_first(lambda: load() is None):
        if team().first:
            train()
        meet()
    return load() or model.eval().requires_grad_(False)
