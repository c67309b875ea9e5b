"""Published SAEs: from the hub, its cache, a folder on disk, or those of our own making."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ... import store
from ...activations.collecting import hook_names
from ...basis.linear import Basis, basis_width, check_width
from ...basis.recipe import RecipeDefaults, check_there
from ...errors import BasisError, unknown
from ...segments import Segment
from .admission import admitted
from .files import CONFIG, WEIGHTS, from_folder, from_hub, shipped_folder
from .fitness import check_fit, warn_made_for
from .trained import TrainedSAE

#: features of a published dictionary that are taken to be active in a row where nothing says how many
ACTIVE = 64.0
#: rows that a dictionary is trained on which stands in for a published one on a model of random weights
NULL_SAMPLES = 50_000
#: samples times width times features of the largest one that is trained for a report: seconds, not hours
MOST = 2**35
_ROWS = 2048  # to measure the fit on


@dataclass(frozen=True)
class PretrainedSAE(RecipeDefaults):
    """An SAE that others trained, as a basis.

    Attributes:
        release: a release of sae-lens' list ("gpt2-small-resid-mid-v5-32k"), an owner/name on the hub, a folder or its weights
            file on disk, "gpt2-mini" for the SAEs inside this package, "smollm2" for those of `dictionaries/smollm2`; also
            the pair (release, sae_id), or a sae-lens object at hand.
        sae_id: which of the release; None for the one named like the hook point. For a folder: a folder in it.
        expected_variance, expected_l0: as published; a warning says when the measured ones disagree.
        device: where its weights go.

    Raises:
        BasisError: from `fit`, a release or an SAE that is not there (with the nearest names), or one that does not fit the hook point.
        HubError: a release that is neither cached nor in reach.

    Examples:
        >>> lm = gl.load_model("gpt2-mini")
        >>> layer = gl.mlp_segments(lm, layers=[3])
        >>> saes = gl.PretrainedSAE("gpt2-mini").fit(layer, gl.collect(lm, "It was late.", layer))
        >>> {hook: sae.cfg.d_sae for hook, sae in saes.items()}
        {'blocks.3.ln2.hook_normalized': 1024, 'blocks.3.hook_mlp_out': 1024}
    """

    release: Any
    sae_id: str | None = None
    expected_variance: float | None = None
    expected_l0: float | None = None
    device: str = "cpu"

    def load(self, hook: str | None = None) -> Any:
        """The SAE, checked (see `bases.admission`): a sae-lens object as it is, or the form in which its weights say what it does.

        Raises:
            BasisError: an unknown release or id (with the nearest), a file that is not whole, a transcoder, a normalisation
                that cannot be undone.
            HubError: neither cached nor in reach.
        """
        return admitted(self.raw(hook), hook or "")

    def raw(self, hook: str | None = None) -> Any:
        """The object as it was found, an SAE or a transcoder; not checked."""
        release, sae_id = (self.release, self.sae_id) if not _is_pair(self.release) else self.release
        if not isinstance(release, str | Path):
            return release  # an object at hand; what it is, is found out where it is checked
        sae_id = sae_id or hook
        folder = _folder(release, sae_id)
        if folder is not None:
            return from_folder(folder, self.device)
        if sae_id is None:
            raise BasisError(f"PretrainedSAE({self.release!r}) needs sae_id: which SAE of the release")
        return from_hub(str(release), sae_id, self.device)

    apart = True

    def fit_at(self, hook: str, segments: Sequence[Segment], acts: Mapping[str, Tensor]) -> Basis:
        check_there(acts, [hook])
        return self.load_for(hook, acts[hook])

    def shape_at(self, hook: str, width: int) -> tuple[int, float]:
        return basis_width(self.load(hook), width), self.expected_l0 or ACTIVE

    def for_null(self, hook: str, width: int, features: int, active: float, seed: int) -> TrainedSAE | None:
        """Published dictionaries are of another model: one as wide, with as many features active, is trained instead."""
        if NULL_SAMPLES * width * features > MOST:
            return None
        k = max(1, round(active))
        return TrainedSAE(d_sae=features, k=k, samples=NULL_SAMPLES, seed=seed)

    def preflight(self, hook: str, width: int) -> None:
        """Refuse, before the model is run, an SAE that cannot be had or has another width than the hook point."""
        check_width(self.load(hook), hook, width)

    def load_for(self, hook: str, x: Tensor | None = None) -> Any:
        """The SAE for a hook point; its width, its hook name and how much of the rows it explains are checked.

        Raises:
            BasisError: as `load`; another width; explains less than the mean.
        """
        basis = self.load(hook)
        said = self.release if isinstance(self.release, str | Path | tuple | list) else ""
        warn_made_for(basis, hook, f"{said} {self.sae_id or ''}".strip())
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
        check_there(acts, hooks)
        return {hook: self.load_for(hook, acts[hook]) for hook in hooks}

    @staticmethod
    def from_disk(folder: str | Path, device: str = "cpu") -> Any:
        """An SAE that sae-lens saved (cfg.json, sae_weights.safetensors), also in the flat form before version 6."""
        return admitted(from_folder(Path(folder), device))


def _is_pair(release: Any) -> bool:
    return isinstance(release, tuple | list) and len(release) == 2 and all(isinstance(part, str) for part in release)


def _folder(release: str | Path, sae_id: str | None) -> Path | None:
    """Where the SAE lies when the release is a folder, a file in it, or of our own making."""
    root = shipped_folder(str(release)) or Path(release).expanduser()
    if root.is_file():
        if root.name not in (CONFIG, WEIGHTS):
            store.refuse_pickle(root, BasisError)
            raise BasisError(
                f"{root} is no SAE: expected a folder that holds {CONFIG} and {WEIGHTS}, or one of these files"
            )
        root = root.parent
    if not root.is_dir():
        if isinstance(release, Path) or release.startswith((".", "/", "~")):
            raise BasisError(f"there is no folder {root}: give a folder that holds {CONFIG} and {WEIGHTS}")
        return None
    if (root / CONFIG).is_file():
        return root
    known = sorted(p.parent.name for p in root.glob(f"*/{CONFIG}"))
    if sae_id not in known:
        raise BasisError(f"{root}: {unknown('sae_id', str(sae_id), known)}")
    return root / str(sae_id)
