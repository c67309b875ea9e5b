"""Transcoders: sparse dictionaries that read a segment's input and write its output, in sae-lens' format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..bases.sae.files import sae_lens_works
from ..bases.sae.pair_training import PairTraining, PairWeights, train_pair
from ..bases.sae.plain import PlainSAE
from ..bases.sae.training import LARGEST
from ..basis.linear import Basis
from ..basis.recipe import AtWork
from ..models import host
from ..segments import Segment
from ..store.estimate import Estimate, training
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

    def estimate(self, hook: str, rows: int, width: int) -> Estimate:
        """The rows of both ends, taken to be of one width, and weights, gradients and moments."""
        features, active = self.shape_at(hook, width)
        return training(rows, width, features, self.batch_size or LARGEST, active, ends=2)

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
        found = host(train_pair(x, y, self, device=device))
        return TranscoderBasis(
            sae_lens_transcoder(found, hook_in, hook_out, jump=self.activation != "relu"), hook_in, hook_out
        )


def sae_lens_transcoder(found: PairWeights, hook_in: str, hook_out: str, jump: bool) -> Any:
    """What training found as a sae-lens Transcoder, SkipTranscoder or their JumpReLU variants; their plain form without sae-lens."""
    if not sae_lens_works():
        tensors = {"W_enc": found.encoder.T, "b_enc": found.bias, "W_dec": found.dictionary, "b_dec": found.offset}
        tensors |= {"threshold": torch.full_like(found.bias, found.threshold)} if jump else {}
        tensors |= {"W_skip": found.bypass.T} if found.bypass is not None else {}
        kind = ("jumprelu_" if jump else "") + ("skip_" if found.bypass is not None else "") + "transcoder"
        return PlainSAE({"architecture": kind, "metadata": {"hook_name": hook_in, "hook_name_out": hook_out}}, tensors)
    from sae_lens.saes import transcoder as formats
    from sae_lens.saes.sae import SAEMetadata

    name = ("JumpReLU" if jump else "") + ("Skip" if found.bypass is not None else "") + "Transcoder"
    f, d_in = found.encoder.shape
    config = getattr(formats, name + "Config")(
        d_in=d_in,
        d_sae=f,
        d_out=found.dictionary.shape[1],
        device=str(found.encoder.device),
        apply_b_dec_to_input=False,
        metadata=SAEMetadata(hook_name=hook_in, hook_name_out=hook_out),
    )
    module = getattr(formats, name)(config)
    module.W_enc.data, module.b_enc.data = found.encoder.T.contiguous(), found.bias
    module.W_dec.data, module.b_dec.data = found.dictionary, found.offset
    if jump:
        module.threshold.data = torch.full_like(found.bias, found.threshold)
    if found.bypass is not None:
        module.W_skip.data = found.bypass.T.contiguous()
    return module
