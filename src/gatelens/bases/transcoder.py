"""Transcoders: sparse dictionaries that read a segment's input and write its output (Dunefsky et al. 2024), in sae-lens' format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..connectors import Connector
from ..errors import BasisError
from ..segments import Segment
from .linear import Basis, directions
from .pair_training import PairTraining, PairWeights, train_pair
from .transcoder_basis import TranscoderBasis as TranscoderBasis
from .transcoder_basis import read_transcoder as read_transcoder


@dataclass(frozen=True)
class Transcoder(PairTraining):
    """Train a transcoder for each segment; or take one that is there already.

    Attributes:
        path, sae_id: a folder in sae-lens' format, or the name of a release and an id in it: then nothing is trained.
        activation, l1, bypass, ...: see `PairTraining`. "batchtopk" and "topk" are exported as JumpReLU: sae-lens has no other
            transcoder with a sparsity rule.
    """

    path: str | None = None
    sae_id: str | None = None

    def fit(self, segments: Sequence[Segment], acts: Mapping[str, Tensor]) -> dict[str, Basis]:
        """hook_out -> transcoder. The input's dictionary is chosen apart: any basis at hook_in will do."""
        if self.path is not None:
            return {s.hook_out: read_transcoder(self.path, s, self.sae_id) for s in segments}
        return {s.hook_out: self.train(acts[s.hook_in], acts[s.hook_out], s.hook_in, s.hook_out) for s in segments}

    def train(
        self, x: Float[Tensor, "rows_x d_in"], y: Float[Tensor, "rows_y d_out"], hook_in: str = "", hook_out: str = ""
    ) -> TranscoderBasis:
        """A transcoder from the rows of x to those of y."""
        found = train_pair(x, y, self)
        return TranscoderBasis(
            sae_lens_transcoder(found, hook_in, hook_out, jump=self.activation != "relu"), hook_in, hook_out
        )


def sae_lens_transcoder(found: PairWeights, hook_in: str, hook_out: str, jump: bool) -> Any:
    """What training found as a sae-lens Transcoder, SkipTranscoder or their JumpReLU variants."""
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


@dataclass(frozen=True)
class EncoderWires:
    """A connector that needs no fit: what a transcoder's encoder reads from each direction of the input dictionary.

    With all wires it is the transcoder on decoded inputs, exactly, for a dictionary whose decode is affine. With `fan_in`, the
    wires with the largest |weight| times the feature's deviation are kept, and the mean of the others goes into the bias.
    """

    fan_in: int | None = None
    basis_in: Any = None
    transcoder: Any = None

    def at(self, segment: Segment, basis_in: Basis, basis_out: Any) -> EncoderWires:
        if not isinstance(basis_out, TranscoderBasis):
            raise BasisError(
                f"EncoderWires needs a transcoder at {segment.hook_out}, got {type(basis_out).__name__}. "
                "Use a fitted solver instead"
            )
        basis_out.check(segment)
        return EncoderWires(self.fan_in, basis_in, basis_out.transcoder)

    def fit(self, f_in: Tensor, f_out: Tensor) -> Connector:
        if self.transcoder is None:
            raise BasisError(
                "EncoderWires reads weights, not rows: call at(segment, basis_in, basis_out) first, as build_circuit does"
            )
        with torch.no_grad():
            start = self.basis_in.decode(torch.zeros(1, f_in.shape[1]))
            weight = (directions(self.basis_in, f_in.shape[1]) @ self.transcoder.W_enc).T
            bias = (start @ self.transcoder.W_enc + self.transcoder.b_enc).squeeze(0)
            if self.fan_in is not None:
                x = f_in.to_dense() if f_in.layout == torch.sparse_csr else f_in
                weight, bias = keep_largest(weight, bias, x.mean(0), x.std(0), self.fan_in)
        threshold = getattr(self.transcoder, "threshold", None)
        # a JumpReLU passes where pre > threshold, and its base activation removes what is negative
        threshold = None if threshold is None else threshold.detach().clamp_min(0)
        return Connector.from_dense(weight, bias, threshold=threshold, solver="the transcoder's encoder")


def keep_largest(
    weight: Float[Tensor, "n m"],
    bias: Float[Tensor, " n"],
    mean: Float[Tensor, " m"],
    deviation: Float[Tensor, " m"],
    fan_in: int,
) -> tuple[Float[Tensor, "n m"], Float[Tensor, " n"]]:
    """The `fan_in` wires of each output that move it most; the others are held at their mean."""
    kept = torch.zeros_like(weight, dtype=torch.bool)
    kept.scatter_(1, (weight.abs() * deviation).topk(min(fan_in, weight.shape[1]), dim=1).indices, True)
    dropped = weight.masked_fill(kept, 0.0)
    return weight.masked_fill(~kept, 0.0), bias + dropped @ mean
