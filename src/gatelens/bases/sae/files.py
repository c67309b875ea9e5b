"""Modules in sae-lens' format, from a folder or from the hub: what they need is there before sae-lens is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ... import store
from ...errors import BasisError, HubError, unknown

#: the SAEs of the demonstration's model, inside the package
SHIPPED = "gpt2-mini"
CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"


def from_folder(folder: Path, device: str = "cpu") -> Any:
    """An SAE or a transcoder that sae-lens saved, also in the flat form before version 6.

    Raises:
        BasisError: nothing there, a pickle, or files that are damaged or do not fit together.
    """
    check_folder(folder)
    from sae_lens import SAE

    try:
        module = SAE.load_from_disk(folder, device=device)
    except Exception as error:  # whatever sae-lens makes of files that somebody else wrote
        raise BasisError(
            f"{folder} is not an SAE for inference ({type(error).__name__}: {error}). "
            "Expected what sae-lens' save_inference_model writes"
        ) from error
    return module.eval().requires_grad_(False)


def check_folder(folder: Path) -> None:
    """What sae-lens needs is there and is what it says, before sae-lens is asked."""
    from safetensors import SafetensorError, safe_open

    store.refuse_pickle(folder, BasisError)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise BasisError(
                f"{folder} holds no {name}: expected a folder that sae-lens saved ({CONFIG} and {WEIGHTS})"
            )
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (ValueError, SafetensorError) as error:
        raise BasisError(f"{folder} is damaged ({error}). Download or save the SAE again") from error
    if not isinstance(config, dict):
        raise BasisError(f"{folder / CONFIG} should hold a mapping of settings. Download or save the SAE again")
    expected = config.get("d_sae"), config.get("d_out", config.get("d_in"))
    if None not in expected and shapes.get("W_dec", expected) != expected:
        raise BasisError(
            f"{folder}: W_dec has shape {list(shapes['W_dec'])}, {CONFIG} says {list(expected)}. "
            "Download or save the SAE again"
        )


def from_hub(release: str, sae_id: str, device: str = "cpu") -> Any:
    """An SAE or a transcoder of a published release, from the hub or its cache.

    Raises:
        BasisError: an unknown release or sae_id, with the nearest ones.
        HubError: not in the cache, and the hub is out of reach.
    """
    from sae_lens import SAE
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    from ...data.hub import cache_folder, hub_in_reach

    releases = get_pretrained_saes_directory()
    if release in releases:
        known = releases[release].saes_map
        if sae_id not in known:
            raise BasisError(f"{release}: {unknown('sae_id', sae_id, known)}")
        repository = releases[release].repo_id
    elif "/" in release:
        repository = release
    else:
        raise BasisError(
            f"{unknown('release', release, [*releases, SHIPPED])}. "
            f"A folder is given by its path, ./{release} for instance"
        )
    advice = "Download it where there is a network, or give a local folder as the release"
    cached = cache_folder() / f"models--{repository.replace('/', '--')}"
    if not (cached / "snapshots").is_dir() and not hub_in_reach():
        raise HubError(f"{repository} is not in the cache ({cached}) and the hub is out of reach. {advice}")
    try:
        sae = SAE.from_pretrained(release, sae_id, device=device)
    except OSError as error:
        raise HubError(f"{repository} {sae_id} could not be loaded ({error}). {advice}") from error
    return sae.eval().requires_grad_(False)
