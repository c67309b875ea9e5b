"""Transcoders: sparse dictionaries that read a segment's input and write its output, in sae-lens' format."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..bases.sae.admission import checked_transcoder
from ..bases.sae.files import CONFIG, WEIGHTS, from_folder, from_hub, from_stored, in_sae_lens_form, shipped_folder
from ..bases.sae.pair_training import PairTraining, train_pair
from ..basis.linear import Basis
from ..basis.pair import PairBasis
from ..basis.recipe import AtWork
from ..errors import BasisError, unknown
from ..models import host
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
        return cls(from_stored(stored), **stored.json("pair.json"))


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


@dataclass(frozen=True)
class Transcoder(PairTraining):
    """Train a transcoder for each segment; or take one that is there already.

    Attributes:
        path, sae_id: a folder in sae-lens' format, or the name of a release and an id in it: then nothing is trained.
        activation, l1, bypass, orthogonality: see `PairTraining`; expansion, d_sae, k, samples, batch_size, lr, seed, progress,
            data_parallel: see `DictionaryTraining`. "batchtopk" and "topk" are exported as JumpReLU: sae-lens has no other
            transcoder with a sparsity rule.

    Raises:
        BasisError: settings out of range; from `fit`, no rows, ends of different rows, an output that never varies.

    Source: "Transcoders Find Interpretable LLM Feature Circuits".

    Examples:
        >>> made = gl.Transcoder(d_sae=64, k=4, samples=10_000).fit(segments, acts)
        >>> made["hook_mlp_out"].features_from(unseen["hook_resid"]).shape  # read from the segment's input
        torch.Size([2000, 64])
    """

    path: str | None = None
    sae_id: str | None = None

    def fit(self, segments: Sequence[Segment], acts: Mapping[str, Tensor]) -> dict[str, Basis]:
        """hook_out -> transcoder. The input's dictionary is chosen apart: any basis at hook_in will do."""
        if self.path is not None:
            return {s.hook_out: read_transcoder(self.path, s, self.sae_id) for s in segments}
        rows = AtWork(segments, acts)
        return {
            s.hook_out: self.train(rows[s.hook_in], rows[s.hook_out], s.hook_in, s.hook_out, rows.device)
            for s in segments
        }

    ends = 2

    def for_null(self, hook: str, width: int, features: int, active: float, seed: int) -> Transcoder | None:
        return None if self.path is not None else self  # a folder's is the other model's

    def train(
        self,
        x: Float[Tensor, "rows_x d_in"],
        y: Float[Tensor, "rows_y d_out"],
        hook_in: str = "",
        hook_out: str = "",
        device: torch.device | None = None,
    ) -> TranscoderBasis:
        """A transcoder from the rows of x to those of y; `device`: where to train, if not where the rows lie."""
        found, jump = host(train_pair(x, y, self, device=device)), self.activation != "relu"
        kind = "jumprelu_" * jump + "skip_" * self.bypass + "transcoder"
        metadata = {"hook_name": hook_in, "hook_name_out": hook_out}
        return TranscoderBasis(in_sae_lens_form(kind, found.tensors(jump), metadata), hook_in, hook_out)
