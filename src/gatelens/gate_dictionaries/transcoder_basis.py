"""TranscoderBasis: a sae-lens transcoder as an output dictionary, and how one is read from disk or from a release."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ..bases.sae.admission import checked_transcoder
from ..bases.sae.files import CONFIG, WEIGHTS, from_folder, from_hub
from ..bases.sae.shipped import shipped_folder
from ..basis.pair import PairBasis
from ..errors import BasisError, unknown
from ..segments import Segment


class TranscoderBasis(PairBasis):
    """A sae-lens transcoder as an output dictionary.

    Attributes:
        transcoder: the sae-lens module, untouched; `transcoder.save_model(folder)` writes sae-lens' format.
    """

    by_construction = "output features are thresholded linear functions of the segment's input: the MLP's nonlinearity is in the dictionary"

    def __init__(self, transcoder: Any, hook_in: str = "", hook_out: str = ""):
        architecture = str(transcoder.cfg.architecture())
        if "transcoder" not in architecture or not hasattr(transcoder.cfg, "d_out"):
            raise BasisError(
                f"expected a sae-lens transcoder, got architecture {architecture!r}. "
                "An SAE is given as it is, without a wrapper"
            )
        transcoder = checked_transcoder(transcoder, f" for {hook_out}" if hook_out else "")
        self.transcoder = transcoder.eval().requires_grad_(False)
        super().__init__(hook_in, hook_out, int(transcoder.cfg.d_in), transcoder.W_dec, transcoder.b_dec)
        self.label = architecture

    def features_from(self, x: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows f"]:
        return self.transcoder.encode(x)

    @property
    def bypassed(self) -> int:
        return self.d_in if getattr(self.transcoder, "W_skip", None) is not None else 0

    def bypass(self, x: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows d_out"] | None:
        skip = getattr(self.transcoder, "W_skip", None)
        return None if skip is None else x @ skip.T

    def bypass_change(self, change: Float[Tensor, "rows m"], step: Float[Tensor, "rows d_in"]) -> Tensor | float:
        beside = self.bypass(step)
        return 0.0 if beside is None else beside

    def save_into(self, out: Any) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            self.transcoder.save_model(temporary)
            for name in (CONFIG, WEIGHTS):
                out.bytes(name, (Path(temporary) / name).read_bytes())
        out.json("pair.json", {"hook_in": self.hook_in, "hook_out": self.hook_out})

    @classmethod
    def load_from(cls, stored: Any, parts: Mapping[str, Any]) -> TranscoderBasis:
        with tempfile.TemporaryDirectory() as temporary:
            for name in (CONFIG, WEIGHTS):
                (Path(temporary) / name).write_bytes(stored.bytes(name))
            return cls(from_folder(Path(temporary)), **stored.json("pair.json"))


def read_transcoder(source: str | Path, segment: Segment, sae_id: str | None = None) -> TranscoderBasis:
    """A transcoder from a folder in sae-lens' format, of our own making ("smollm2"), or from a published release when `sae_id` is given.

    Raises:
        BasisError: nothing there, damaged files, an unknown release, no transcoder, or one of another segment's widths.
        HubError: not in the cache, and the hub is out of reach.
    """
    ours = shipped_folder(str(source))
    if ours is not None:
        source, sae_id = _ours(ours, sae_id or f"{segment.hook_out}.transcoder"), None
    module = from_folder(Path(source)) if sae_id is None else from_hub(str(source), sae_id)
    basis = TranscoderBasis(module, segment.hook_in, segment.hook_out)
    basis.check(segment)
    return basis


def _ours(root: Path, sae_id: str) -> Path:
    known = sorted(path.parent.name for path in root.glob(f"*transcoder*/{CONFIG}"))
    if sae_id not in known:
        raise BasisError(f"{root}: {unknown('transcoder', sae_id, known)}")
    return root / sae_id
