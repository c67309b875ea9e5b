"""GateBasis: an output dictionary in which every feature is a gate of a few input features, by construction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .. import store
from ..basis.linear import Basis
from ..basis.pair import PairBasis
from ..codes.rows import Codes
from ..connectors import Connector
from ..errors import BasisError

_ROWS = 2_048


class GateBasis(PairBasis):
    """f_out = connector(basis_in.encode(x)), y ~ f_out D + b (+ f_in V).

    Attributes:
        basis_in: the input dictionary. connector: the wires, exact: with them the features are read with R2 = 1.
        bypass_in: V, [m, d_out], or None.
        info: how it was trained, and what was found: in-degree, dead outputs, parents kept out, seconds.
    """

    label = "gate dictionary"

    def __init__(
        self,
        basis_in: Basis,
        connector: Connector,
        W_dec: Float[Tensor, "f d_out"],
        b_dec: Float[Tensor, " d_out"],
        d_in: int,
        bypass_in: Float[Tensor, "m d_out"] | None = None,
        hook_in: str = "",
        hook_out: str = "",
        info: dict[str, Any] | None = None,
    ):
        super().__init__(hook_in, hook_out, d_in, W_dec, b_dec)
        self.basis_in, self.connector, self.bypass_in, self.info = basis_in, connector, bypass_in, dict(info or {})

    @property
    def by_construction(self) -> str:
        told = (
            "every output feature is computed from a few input features, so R² and wires against its own firing say nothing; "
            "what counts is how much of the MLP's output the gates explain"
        )
        past = f"{self.bypassed} input features go past the gates, straight to the output; FVU counts both"
        return f"{told}; {past}" if self.bypassed else told

    @property
    def seconds(self) -> float | None:
        return self.info.get("seconds")

    @property
    def bypassed(self) -> int:
        return 0 if self.bypass_in is None else int((self.bypass_in != 0).any(1).sum())

    def features_from(self, x: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows f"]:
        return self.connector(self.basis_in.encode(x))

    def bypass(self, x: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows d_out"] | None:
        return None if self.bypass_in is None else self.basis_in.encode(x) @ self.bypass_in

    def bypass_change(self, change: Float[Tensor, "rows m"], step: Float[Tensor, "rows d_in"]) -> Tensor | float:
        return 0.0 if self.bypass_in is None else change @ self.bypass_in

    def from_codes(self, codes: Codes) -> Float[Tensor, "rows d_out"]:
        """`reconstruct` of rows whose input features are at hand, a few thousand at a time."""
        said = []
        for part in torch.arange(len(codes), device=codes.col.device).split(_ROWS):
            f = codes.rows(part)
            y = Codes.of(self.connector(f.dense())).times(self.W_dec) + self.b_dec
            said.append(y if self.bypass_in is None else y + f.times(self.bypass_in))
        return torch.cat(said)

    def parts(self) -> dict[str, Any]:
        """The input dictionary and the wires, which are saved as what they are."""
        return {"input": self.basis_in, "connector": self.connector}

    def save_into(self, out: store.Writing) -> None:
        tensors = {"W_dec": self.W_dec, "b_dec": self.b_dec}
        out.tensors("gates.safetensors", tensors | ({} if self.bypass_in is None else {"bypass": self.bypass_in}))
        out.json(
            "pair.json", {"hook_in": self.hook_in, "hook_out": self.hook_out, "d_in": self.d_in, "info": self.info}
        )

    @classmethod
    def load_from(cls, stored: store.Reading, parts: Mapping[str, Any]) -> GateBasis:
        tensors, config = stored.tensors("gates.safetensors"), stored.json("pair.json")
        return cls(
            parts["input"],
            parts["connector"],
            tensors["W_dec"],
            tensors["b_dec"],
            bypass_in=tensors.get("bypass"),
            **config,
        )

    def __repr__(self) -> str:
        found = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in self.info.items())
        return f"GateBasis({self.connector!r}{': ' + found if found else ''})"


def check_finite_codes(f: Tensor) -> None:
    """Refuse NaN and infinity among input features before hours of training."""
    if not torch.isfinite(f).all():
        raise BasisError("the input features hold NaN or infinity. Look at the input dictionary and the activations")
