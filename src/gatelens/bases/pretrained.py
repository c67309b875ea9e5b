"""Published SAEs: from the hub, its cache, a folder on disk, or the pair that ships with this package."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import store
from ..activations import hook_names
from ..errors import BasisError, GateLensWarning, HubError, unknown
from ..segments import Segment
from .fitness import check_fit
from .linear import Basis, check_width
from .normalised import usable

#: the SAEs of the demonstration's model, inside the package
SHIPPED = "gpt2-mini"
CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
_ROWS = 2048  # to measure the fit on


@dataclass(frozen=True)
class PretrainedSAE:
    """An SAE that others trained, as a basis.

    Attributes:
        release: a release of sae-lens' list ("gpt2-small-resid-mid-v5-32k"), an owner/name on the hub, a folder on
            disk, or "gpt2-mini" for the SAEs inside this package.
        sae_id: which of the release; None for the one named like the hook point. For a folder: a folder in it.
        expected_variance, expected_l0: as published; a warning says when the measured ones disagree.
        device: where its weights go.
    """

    release: str
    sae_id: str | None = None
    expected_variance: float | None = None
    expected_l0: float | None = None
    device: str = "cpu"

    def load(self, hook: str | None = None) -> Any:
        """The SAE, a sae-lens object as it is, or `RowNormalised` for one that normalises every row.

        Raises:
            BasisError: an unknown release or id (with the nearest), a file that is not whole, a normalisation that
                cannot be undone.
            HubError: neither cached nor in reach.
        """
        sae_id = self.sae_id or hook
        folder = self._folder(sae_id)
        if folder is not None:
            return self.from_disk(folder, self.device)
        if sae_id is None:
            raise BasisError(f"PretrainedSAE({self.release!r}) needs sae_id: which SAE of the release")
        return usable(_from_hub(self.release, sae_id, self.device))

    def preflight(self, hook: str, width: int) -> None:
        """Refuse, before the model is run, an SAE that cannot be had or has another width than the hook point."""
        check_width(self.load(hook), hook, width)

    def load_for(self, hook: str, x: Tensor | None = None) -> Any:
        """The SAE for a hook point; its width, its hook name and how much of the rows it explains are checked.

        Raises:
            BasisError: as `load`; another width; explains less than the mean.
        """
        basis = self.load(hook)
        made_for = getattr(getattr(basis.cfg, "metadata", None), "hook_name", None)
        if made_for and made_for != hook:
            message = f"the SAE {self.release} {self.sae_id or ''} was trained at {made_for}, it is used at {hook}"
            warnings.warn(message, GateLensWarning, stacklevel=2)
        if x is not None:
            check_width(basis, hook, x.shape[1])
            check_fit(basis, hook, x[:_ROWS], self.expected_variance, self.expected_l0)
        return basis

    def fit(self, segments: Sequence[Segment], acts: Mapping[str, Tensor]) -> dict[str, Basis]:
        """One SAE for each hook point of the segments, named like it, checked on the activations."""
        hooks = hook_names(segments)
        if self.sae_id is not None and len(hooks) > 1:
            raise BasisError(
                f"sae_id {self.sae_id!r} names one SAE, the segments have {len(hooks)} hook points: "
                "give a recipe for each (bases: {hook name: {use: PretrainedSAE, ...}}), or leave sae_id out"
            )
        return {hook: self.load_for(hook, acts[hook]) for hook in hooks}

    @staticmethod
    def from_disk(folder: str | Path, device: str = "cpu") -> Any:
        """An SAE that sae-lens saved (cfg.json, sae_weights.safetensors), also in the flat form before version 6."""
        folder = Path(folder)
        _check_folder(folder)
        from sae_lens import SAE

        try:
            sae = SAE.load_from_disk(folder, device=device)
        except Exception as error:  # whatever sae-lens makes of files that somebody else wrote
            raise BasisError(
                f"{folder} is not an SAE for inference ({type(error).__name__}: {error}). "
                "Expected what sae-lens' save_inference_model writes"
            ) from error
        return usable(sae.to(torch.float32).eval().requires_grad_(False))

    def _folder(self, sae_id: str | None) -> Path | None:
        """Where the SAE lies when the release is a folder or ships with the package."""
        root = _shipped() if self.release == SHIPPED else Path(self.release).expanduser()
        if not root.is_dir():
            if self.release.startswith((".", "/", "~")):
                raise BasisError(f"there is no folder {root}: give a folder that holds {CONFIG} and {WEIGHTS}")
            return None
        if (root / CONFIG).is_file():
            return root
        known = sorted(p.parent.name for p in root.glob(f"*/{CONFIG}"))
        if sae_id not in known:
            raise BasisError(f"{root}: {unknown('sae_id', str(sae_id), known)}")
        return root / sae_id


def _shipped() -> Path:
    return Path(__file__).resolve().parents[1] / "demo" / "saes"


def _check_folder(folder: Path) -> None:
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
    expected = config.get("d_sae"), config.get("d_in")
    if None not in expected and shapes.get("W_dec", expected) != expected:
        raise BasisError(
            f"{folder}: W_dec has shape {list(shapes['W_dec'])}, {CONFIG} says {list(expected)}. "
            "Download or save the SAE again"
        )


def _from_hub(release: str, sae_id: str, device: str) -> Any:
    from sae_lens import SAE
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    from ..data.hub import cache_folder, hub_in_reach

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
