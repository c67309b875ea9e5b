"""Transcoders: sparse dictionaries that read a segment's input and write its output, in sae-lens' format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..bases.sae.files import in_sae_lens_form
from ..bases.sae.pair_training import PairTraining, train_pair
from ..basis.linear import Basis
from ..basis.recipe import AtWork
from ..models import host
from ..segments import Segment
from .transcoder_basis import TranscoderBasis as TranscoderBasis
from .transcoder_basis import read_transcoder as read_transcoder


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
