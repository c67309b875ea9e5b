"""Modules in sae-lens' format, from a folder, from the hub or of our own making: what they need is there before sae-lens is asked."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ... import store
from ...errors import BasisError, HubError, unknown
from ...store.packages import package_folder
from .plain import PlainSAE, plain

#: the SAEs inside the package, and those in a data package of our own
SHIPPED, SMOLLM2 = "gpt2-mini", "smollm2"
CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
#: names that are known without their package, and how it is had
PACKAGES = {SMOLLM2: "pip install ./dictionaries/smollm2 in a clone of gatelens"}


@cache
def sae_lens_works() -> bool:
    """Whether sae-lens can be imported: with transformer-lens 4 it cannot, and its files are read without it."""
    try:
        import_module("sae_lens")
    except Exception:  # ImportError, or whatever its modules make of another transformer-lens
        return False
    return True


@torch.random.fork_rng(devices=[])  # sae-lens draws weights before it fills them in
def in_sae_lens_form(
    architecture: str,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    apply_b_dec_to_input: bool = False,
) -> Any:
    """Weights as a sae-lens SAE or transcoder, frozen; without sae-lens as a `PlainSAE`: the same function, and the same files."""
    settings = {"architecture": architecture, "apply_b_dec_to_input": apply_b_dec_to_input, "metadata": dict(metadata)}
    if not sae_lens_works():
        return PlainSAE(settings, tensors)
    from sae_lens import SAE

    (d_sae, d_out), device = tensors["W_dec"].shape, str(tensors["W_dec"].device)
    widths = {"d_in": len(tensors["W_enc"]), "d_sae": d_sae, "d_out": d_out}
    module = SAE.from_dict(settings | widths | {"device": device})
    module.load_state_dict(dict(tensors))
    return module.eval().requires_grad_(False)


def shipped_folder(name: str) -> Path | None:
    """The folder of the dictionaries of that name; None for a name that is none of ours.

    Raises:
        BasisError: a name of ours whose package is not installed.
    """
    if name == SHIPPED:
        return Path(__file__).resolve().parents[2] / "demo" / "saes"
    if (folder := package_folder(name)) is not None:
        return folder
    if name in PACKAGES:
        raise BasisError(
            f"the dictionaries of {name} are a package of their own, which is not installed: {PACKAGES[name]}"
        )
    return None


@torch.random.fork_rng(devices=[])  # sae-lens draws weights before it fills them in
def from_folder(folder: Path, device: str = "cpu") -> Any:
    """An SAE or a transcoder that sae-lens saved, also in the flat form before version 6.

    Raises:
        BasisError: nothing there, a pickle, or files that are damaged or do not fit together.
    """
    from safetensors.torch import load_file

    settings = check_folder(folder)
    if not sae_lens_works() or settings.get("finetuning_scaling_factor"):
        return plain(settings, load_file(folder / WEIGHTS)).to(device)
    from sae_lens import SAE

    try:
        module = SAE.load_from_disk(folder, device=device)
    except Exception as error:  # whatever sae-lens makes of files that somebody else wrote
        raise BasisError(
            f"{folder} is not an SAE for inference ({type(error).__name__}: {error}). "
            "Expected what sae-lens' save_inference_model writes"
        ) from error
    return module.eval().requires_grad_(False)


def from_stored(stored: store.Reading) -> Any:
    """What was written into an artefact of ours as the files of sae-lens' format."""
    with tempfile.TemporaryDirectory() as temporary:
        for name in (CONFIG, WEIGHTS):
            stored.copy(name, Path(temporary) / name)
        return from_folder(Path(temporary))


def check_folder(folder: Path) -> dict[str, Any]:
    """What sae-lens needs is there and is what it says, before sae-lens is asked; the settings in its present form.

    Raises:
        BasisError: nothing there, a pickle, damaged files, or a setting that sae-lens would leave out without a word.
    """
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
    except (ValueError, RecursionError, SafetensorError) as error:
        raise BasisError(f"{folder} is damaged ({error}). Download or save the SAE again") from error
    if not isinstance(config, dict):
        raise BasisError(f"{folder / CONFIG} should hold a mapping of settings. Download or save the SAE again")
    expected = config.get("d_sae"), config.get("d_out", config.get("d_in"))
    if None not in expected and shapes.get("W_dec", expected) != expected:
        raise BasisError(
            f"{folder}: W_dec has shape {list(shapes['W_dec'])}, {CONFIG} says {list(expected)}. "
            "Download or save the SAE again"
        )
    return _present_form(config, folder)


def _present_form(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Settings as sae-lens 6 writes them; before, they were flat, and the rule was an `activation_fn`."""
    rule = config.get("activation_fn_str") or config.get("activation_fn") or "relu"
    if rule not in ("relu", "topk"):
        raise BasisError(
            f"{folder}: its activation_fn is {rule!r}, which sae-lens 6 would read as relu; expected relu or topk. "
            "Give an object of your own with encode and decode"
        )
    settings = {
        "architecture": "standard",
        "metadata": {"hook_name": config.get("hook_name", config.get("hook_point"))},
    } | config
    k = (config.get("activation_fn_kwargs") or {}).get("k")
    if rule == "topk" and k is not None:
        settings |= {"architecture": "topk", "k": k}
    if isinstance(settings.get("normalize_activations"), bool):
        settings["normalize_activations"] = "expected_average_only_in" if settings["normalize_activations"] else "none"
    return settings


@torch.random.fork_rng(devices=[])
def from_hub(release: str, sae_id: str, device: str = "cpu") -> Any:
    """An SAE or a transcoder of a published release, from the hub or its cache.

    Raises:
        BasisError: an unknown release or sae_id, with the nearest ones.
        HubError: not in the cache, and the hub is out of reach.
    """
    from ...data.hub import cache_folder, hub_in_reach

    repository = _repository(release, sae_id)
    advice = "Download it where there is a network, or give a local folder as the release"
    cached = cache_folder() / f"models--{repository.replace('/', '--')}"
    if not (cached / "snapshots").is_dir() and not hub_in_reach():
        raise HubError(f"{repository} is not in the cache ({cached}) and the hub is out of reach. {advice}")
    try:
        if not sae_lens_works():
            from huggingface_hub import hf_hub_download

            files = [hf_hub_download(repository, f"{sae_id}/{name}") for name in (CONFIG, WEIGHTS)]
            return from_folder(Path(files[0]).parent, device)
        from sae_lens import SAE

        sae = SAE.from_pretrained(release, sae_id, device=device)
    except OSError as error:
        raise HubError(f"{repository} {sae_id} could not be loaded ({error}). {advice}") from error
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise BasisError(
            f"{repository} {sae_id} is not an SAE that sae-lens can read ({type(error).__name__}: {error}). Check the sae_id"
        ) from error
    return sae.eval().requires_grad_(False)


def _repository(release: str, sae_id: str) -> str:
    """The hub's name for a release of sae-lens' list, or for owner/name.

    Raises:
        BasisError: an unknown release or sae_id, with the nearest ones; a release of the list where sae-lens does not work.
    """
    if not sae_lens_works():
        if "/" in release:
            return release
        raise BasisError(
            f"the list of releases ({release!r} is not owner/name) belongs to sae-lens, which does not work with this "
            "transformer-lens. Give owner/name and the folder in it as sae_id, or a local folder"
        )
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    releases = get_pretrained_saes_directory()
    if release in releases:
        known = releases[release].saes_map
        if sae_id not in known:
            raise BasisError(f"{release}: {unknown('sae_id', sae_id, known)}")
        return releases[release].repo_id
    if "/" in release:
        return release
    raise BasisError(
        f"{unknown('release', release, [*releases, SHIPPED, SMOLLM2])}. A folder is given by its path, ./{release} for instance"
    )
