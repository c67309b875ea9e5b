"""SAEs that normalise every row, made free of state: the row's scale and mean travel as three more features.

Published top-k SAEs of GPT-2 small are of this kind ("normalize_activations": "layer_norm" in the cfg.json of those that were
looked at). sae-lens keeps the scale of the last encoded rows on the module and needs it to decode, so features that a connector
predicts could not be decoded at all. Here

    x ~ s (f W_dec + b_dec) + m        is written as        x ~ [s f, s, m+, m-] [W_dec; b_dec; 1; -1],

which is a linear map of features that are never negative. The same values come out as where sae-lens decodes what it has
just encoded, and every feature is in units of x.
"""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import BasisError

LN_EPS = 1e-5  # sae-lens' own, added to the standard deviation
EXTRA = 3
KINDS = ("layer_norm", "constant_norm_rescale")


class RowNormalised:
    """A sae-lens SAE of `normalize_activations` "layer_norm" or "constant_norm_rescale", with `EXTRA` features more.

    Feature d_sae is the row's scale, which is dense; d_sae + 1 and d_sae + 2 are its mean where that is positive and where it
    is negative (zero for "constant_norm_rescale").

    Args:
        sae: the SAE, whose settings say how it normalises; `save_model` writes it.
        inner: what it computes apart from that, with a `W_dec` that is its decode's (see `basis.trial`).

    Raises:
        BasisError: for an SAE that normalises otherwise.
    """

    def __init__(self, sae: Any, inner: Any):
        self.kind = str(sae.cfg.normalize_activations)
        if self.kind not in KINDS:
            raise BasisError(f"expected an SAE that normalises its rows ({' or '.join(KINDS)}), got {self.kind!r}")
        self.source, self.plain = sae, inner
        d_sae, d_in = inner.W_dec.shape
        with torch.no_grad():
            start = inner.decode(inner.W_dec.new_zeros(1, d_sae))[0]
        ones = torch.ones_like(start)
        tail = torch.stack([start, ones, -ones])
        self.W_dec: Float[Tensor, "f d"] = torch.cat([inner.W_dec.detach(), tail])
        self.cfg = SimpleNamespace(
            d_in=d_in,
            d_sae=d_sae + EXTRA,
            metadata=sae.cfg.metadata,
            normalize_activations="none",
            apply_b_dec_to_input=False,
        )

    def encode(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows f"]:
        if self.kind == "layer_norm":
            mean = x.mean(-1, keepdim=True)
            scale = (x - mean).std(-1, keepdim=True)
            z = (x - mean) / (scale + LN_EPS)
        else:
            mean = torch.zeros_like(x[..., :1])
            scale = x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5
            z = x / scale.clamp_min(torch.finfo(x.dtype).tiny)
        return torch.cat([self.plain.encode(z) * scale, scale, mean.relu(), (-mean).relu()], dim=-1)

    def decode(self, f: Float[Tensor, "rows f"]) -> Float[Tensor, "rows d"]:
        return f @ self.W_dec

    def save_model(self, folder: str) -> None:
        """The SAE itself, as sae-lens writes it; whoever loads it makes this of it again."""
        self.source.save_model(folder)

    def __repr__(self) -> str:
        return f"RowNormalised({self.kind}: {self.cfg.d_in} -> {self.cfg.d_sae - EXTRA} + scale and mean)"


def bare(sae: Any) -> Any:
    """The same SAE, sharing its weights, without its normalisation and without taking heads apart."""
    made = copy.copy(sae)
    made.run_time_activation_norm_fn_in = made.run_time_activation_norm_fn_out = _same
    made.reshape_fn_in, made.reshape_fn_out, made.d_head, made.hook_z_reshaping_mode = _same, _same, None, False
    return made


def _same(x: Tensor, d_head: Any = None) -> Tensor:
    return x
