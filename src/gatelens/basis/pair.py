"""Dictionaries of a pair of hook points: features computed at a segment's input that explain its output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import SimpleNamespace
from typing import Any, NoReturn

from jaxtyping import Float
from torch import Tensor

from ..errors import BasisError
from ..segments import Segment
from .features import coded
from .output import ReadsInput


class PairBasis(ReadsInput, ABC):
    """An output dictionary whose features are functions of the segment's input.

    It stands at `hook_out`: `decode(f)` gives y. It cannot encode y, since its features are not read from y:
    `features_from(x)` computes them from the segment's input. A subclass gives `features_from`, `bypass` where it has
    one, and `save_into`.

    Attributes:
        hook_in, hook_out: the ends of the segment that it was made for.
        W_dec, b_dec: [f, d_out], [d_out].
        d_in: the width at `hook_in`.
        label: what it is called in reports.
        by_construction: what is true of its figures by construction, for pages and reports.
    """

    label = "pair dictionary"
    by_construction = "the features are functions of the segment's input, not readings of its output"

    def __init__(
        self, hook_in: str, hook_out: str, d_in: int, W_dec: Float[Tensor, "f d_out"], b_dec: Float[Tensor, " d_out"]
    ):
        self.hook_in, self.hook_out, self.d_in = hook_in, hook_out, d_in
        self.W_dec, self.b_dec = W_dec.detach(), b_dec.detach()

    @property
    def cfg(self) -> SimpleNamespace:
        """What other rooms ask: the width of the hook point at which the basis stands, and its features."""
        return SimpleNamespace(d_in=self.W_dec.shape[1], d_sae=self.W_dec.shape[0])

    @abstractmethod
    def features_from(self, x: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows f"]:
        """The output features, from the activations at `hook_in`."""

    @property
    def basis(self) -> PairBasis:
        """What output dictionaries ask is asked of itself."""
        return self

    def features(self, x: Float[Tensor, "rows d_in"], y: Float[Tensor, "rows d_out"]) -> Tensor:
        """The features, held as `encode_rows` holds them."""
        return coded(self.features_from, self.W_dec.device, x, len(self.W_dec))

    def decoded(self, f: Float[Tensor, "rows f"], x: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows d_out"]:
        """The output that the features stand for, with what a linear bypass carries beside them."""
        y, beside = self.decode(f), self.bypass(x)
        return y if beside is None else y + beside

    def parts(self) -> dict[str, Any]:
        """What the dictionary is composed of and is saved as itself: name -> basis or connector."""
        return {}

    @abstractmethod
    def save_into(self, out: Any) -> None:
        """Add the dictionary's own files, its parts left out, to an artefact that is being written."""

    def encode(self, x: Tensor) -> NoReturn:
        """Refused: what y alone says about these features is not defined.

        Raises:
            BasisError: always.
        """
        raise BasisError(
            f"a {self.label} has no encoder for {self.hook_out or 'the output'}: its features are computed from the "
            f"segment's input. Call features_from with the activations at {self.hook_in or 'hook_in'}"
        )

    def decode(self, f: Float[Tensor, "rows f"]) -> Float[Tensor, "rows d_out"]:
        """The output that the features stand for, without what a linear bypass carries."""
        return f @ self.W_dec + self.b_dec

    def bypass(self, x: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows d_out"] | None:
        """What a dense linear map carries beside the features; None for a dictionary without one."""
        return None

    def reconstruct(self, x: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows d_out"]:
        """The whole of what this dictionary says about y: features and bypass."""
        return self.decoded(self.features_from(x), x)

    def drive(self, out: int) -> Float[Tensor, " d_out"]:
        """A direction of y along which the feature is shown."""
        return self.W_dec[out] / self.W_dec[out].square().sum().clamp_min(1e-24)

    def check(self, segment: Segment) -> None:
        """Refuse a segment that this dictionary was not made for, before any forward pass.

        Raises:
            BasisError: other widths, or other hook points where both are known.
        """
        if (self.d_in, self.cfg.d_in) != (segment.d_in, segment.d_out):
            raise BasisError(
                f"this {self.label} maps width {self.d_in} to {self.cfg.d_in}, segment {segment.name} maps {segment.d_in} to "
                f"{segment.d_out}. Choose a dictionary that was made for this segment"
            )
        for mine, wanted in ((self.hook_in, segment.hook_in), (self.hook_out, segment.hook_out)):
            if mine and mine != wanted:
                raise BasisError(
                    f"this {self.label} was made for {self.hook_in} -> {self.hook_out}, the segment is {segment.name}. "
                    "Choose a dictionary that was made for this segment"
                )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.label}, {self.d_in} -> {self.cfg.d_sae} features -> {self.cfg.d_in})"
