"""Plain dictionaries: two matrices and a rule, in sae-lens' file format, which they read and write without sae-lens.

Three kinds of SAEs compute something else than their stored matrices say, and are the same function in this form:

    top-k with `rescale_acts_by_decoder_norm`   f_i = |d_i| (x . e_i + b_i), decoded by d_i / |d_i|: unit rows, longer encoders
    gated                                       on where x . e_i + g_i > 0, with value e^r_i x . e_i + m_i: a JumpReLU of
                                                encoder e^r_i e_i, bias m_i and threshold m_i - e^r_i g_i
    a scaling factor s_i from finetuning        decoded by s_i d_i
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn

from ...errors import BasisError

#: sae-lens' names of what is an encoder matrix, a rule on each row and a decoder matrix
ARCHITECTURES = ("standard", "jumprelu", "topk", "gated")
TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")


class PlainSAE(nn.Module):
    """f = rule((x - b_dec) W_enc + b_enc), y = f W_dec + b_dec; for a transcoder y is another hook point's.

    Args:
        settings: as sae-lens' cfg.json holds them; `k` is the number of a "topk", and `apply_b_dec_to_input` says whether
            b_dec is taken off before the encoder.
        tensors: W_enc [d_in, f], b_enc, W_dec [f, d_out], b_dec; `threshold` of a JumpReLU, `W_skip` [d_out, d_in] of a
            transcoder with a bypass (which decode leaves out).
    """

    def __init__(self, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]):
        super().__init__()
        self.settings, kind = dict(settings), str(settings["architecture"])
        wanted = ["W_enc", "b_enc", "W_dec", "b_dec"]
        wanted += ["threshold"] * ("jumprelu" in kind) + ["W_skip"] * ("skip" in kind)
        if kind not in (*ARCHITECTURES[:3], *TRANSCODERS) or any(name not in tensors for name in wanted):
            raise BasisError(
                f"an SAE of architecture {kind!r} needs {', '.join(wanted)}; its file holds {', '.join(sorted(tensors))}. "
                "Download or save it again"
            )
        for name in wanted:
            setattr(self, name, nn.Parameter(tensors[name].detach().float().contiguous(), requires_grad=False))
        transcoder = {"d_out": self.W_dec.shape[1]} if kind in TRANSCODERS else {}
        self.cfg = SimpleNamespace(
            d_in=self.W_enc.shape[0],
            d_sae=self.W_dec.shape[0],
            architecture=lambda: kind,
            apply_b_dec_to_input=kind not in TRANSCODERS and bool(settings.get("apply_b_dec_to_input", True)),
            normalize_activations=str(settings.get("normalize_activations") or "none"),
            metadata=SimpleNamespace(**{"hook_name": None} | dict(settings.get("metadata") or {})),
            **transcoder,
        )
        self.eval()

    def encode(self, x: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows f"]:
        pre = (x - self.b_dec if self.cfg.apply_b_dec_to_input else x) @ self.W_enc + self.b_enc
        if self.settings["architecture"] == "topk":
            value, place = pre.topk(int(self.settings["k"]), dim=-1, sorted=False)
            return torch.zeros_like(pre).scatter_(-1, place, value.relu())
        f = pre.relu()
        return f * (pre > self.threshold) if "jumprelu" in self.settings["architecture"] else f

    def decode(self, f: Float[Tensor, "rows f"]) -> Float[Tensor, "rows d_out"]:
        return f @ self.W_dec + self.b_dec

    def save_model(self, folder: str) -> None:
        """cfg.json and sae_weights.safetensors, as sae-lens reads them."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        save_file(
            {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}, place / "sae_weights.safetensors"
        )
        written = self.settings | {
            **{name: value for name, value in vars(self.cfg).items() if name != "architecture"},
            "dtype": "float32",
            "device": "cpu",
            "reshape_activations": "none",
            "metadata": vars(self.cfg.metadata),
        }
        (place / "cfg.json").write_text(json.dumps(written), encoding="utf-8")

    def __repr__(self) -> str:
        return f"PlainSAE({self.settings['architecture']}: {self.cfg.d_in} -> {self.cfg.d_sae})"


def plain(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> PlainSAE:
    """Settings and weights in sae-lens' form as a `PlainSAE`, with what they do beyond their matrices folded into these.

    Raises:
        BasisError: an architecture that is no encoder matrix, rule and decoder matrix.
    """
    kind = str(settings.get("architecture", "standard"))
    if kind not in (*ARCHITECTURES, *TRANSCODERS):
        raise BasisError(
            f"an SAE of architecture {kind!r} is no encoder matrix, rule and decoder matrix; known are "
            f"{', '.join((*ARCHITECTURES, *TRANSCODERS))}. Give an object of your own with encode and decode"
        )
    settings, tensors = dict(settings) | {"architecture": kind}, dict(tensors)
    if "log_threshold" in tensors:  # how training keeps it
        tensors["threshold"] = tensors.pop("log_threshold").exp()
    if kind == "gated" and {"r_mag", "b_gate", "b_mag"} <= {*tensors}:
        scale, gate, tensors["b_enc"] = tensors.pop("r_mag").exp(), tensors.pop("b_gate"), tensors.pop("b_mag")
        tensors["threshold"] = tensors["b_enc"] - scale * gate
        tensors["W_enc"] = tensors["W_enc"] * scale
        settings["architecture"] = "jumprelu"
    if settings.pop("rescale_acts_by_decoder_norm", False):
        norms = tensors["W_dec"].norm(dim=1)
        tensors["W_enc"], tensors["b_enc"] = tensors["W_enc"] * norms, tensors["b_enc"] * norms
        tensors["W_dec"] = tensors["W_dec"] / norms.clamp_min(torch.finfo(norms.dtype).tiny)[:, None]
    for name in ("scaling_factor", "finetuning_scaling_factor"):
        if name in tensors:
            tensors["W_dec"] = tensors["W_dec"] * tensors.pop(name)[:, None]
    return PlainSAE(settings, tensors)
