"""How a segment's output features are read: from its output, as an SAE does, or from its input, as a transcoder does.

Everything that asks for output features goes through `at_output(basis)`, which answers for both sorts. A plain basis of anybody's
(`encode`, `decode`) is given the answers that follow from reading y; an object of one's own with `features_from` those of a
dictionary of a pair of hook points.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..models import blockwise, place_of
from ..segments import Segment
from .features import encode_rows
from .linear import Basis, directions, encoder_weights

_ROWS = 4_096


class OutputDictionary:
    """What every room may ask of the dictionary at a segment's output, with the answers of a basis that reads features from y.

    Attributes:
        reads_output: whether its features are read from y, so that it can be spliced in by itself.
        by_construction: what is true of its figures by construction; "" for nothing.
        bypassed: how many inputs a linear map carries past the features.
        connector: the wires that its features are made of; None where they are not made of wires.
        seconds: what its training took, where it says so.
    """

    reads_output = True
    by_construction: str
    connector: Any = None

    def __init__(self, basis: Any):
        self.basis, self.by_construction = basis, str(getattr(basis, "by_construction", ""))

    @property
    def bypassed(self) -> int:
        return 0

    @property
    def seconds(self) -> float | None:
        return None

    def source(self, segment: Segment) -> str:
        """The hook point whose rows its features are computed from."""
        return segment.hook_out

    def features(self, x: Float[Tensor, "rows d_in"], y: Float[Tensor, "rows d_out"]) -> Tensor:
        """[rows, f] the features, dense or CSR."""
        return encode_rows(self.basis, y)

    def read(self, rows: Float[Tensor, "rows d"]) -> Float[Tensor, "rows f"]:
        """The features from rows at `source`."""
        return self.basis.encode(rows)

    def shown(self, x: Float[Tensor, "rows d_in"], y: Float[Tensor, "rows d_out"]) -> Float[Tensor, "rows f"]:
        """The features as y shows them, whatever the dictionary says of x; with derivatives."""
        return self.basis.encode(y)

    def drive(self, out: int) -> Float[Tensor, " d_out"] | None:
        """A direction whose product with y moves the feature, below its threshold too; None where none is known."""
        weights = encoder_weights(self.basis)
        return None if weights is None else weights[:, out]

    def decoded(self, f: Float[Tensor, "rows f"], x: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows d_out"]:
        """The output that the features stand for, with what goes past them."""
        return self.basis.decode(f)

    def bypass_change(self, change: Float[Tensor, "rows m"], step: Float[Tensor, "rows d_in"]) -> Tensor | float:
        """What an edit changes past the features: of the input's features by `change`, of the input itself by `step`."""
        return 0.0

    def check(self, segment: Segment) -> None:
        """Refuse a segment that it was not made for; a basis of one hook point goes with any that ends there."""


class ReadsInput(OutputDictionary):
    """The same of an object with `features_from(x)` and `decode(f)`: a dictionary of a pair of hook points."""

    reads_output = False

    def source(self, segment: Segment) -> str:
        return segment.hook_in

    def features(self, x: Float[Tensor, "rows d_in"], y: Float[Tensor, "rows d_out"]) -> Tensor:
        with torch.no_grad():
            return blockwise(self.basis.features_from, place_of(self.basis, x.device), x, size=_ROWS)

    def read(self, rows: Float[Tensor, "rows d"]) -> Float[Tensor, "rows f"]:
        return self.basis.features_from(rows)

    def shown(self, x: Float[Tensor, "rows d_in"], y: Float[Tensor, "rows d_out"]) -> Float[Tensor, "rows f"]:
        """What y shows of features that were computed from x, every other feature taken at its word: f + left D / |D|^2.

        Where the output is what the dictionary says, nothing is left and these are the features. Where the model does otherwise, it
        is what the model does: interventions read this, since features of the input agree with themselves whatever the model did.
        """
        f = self.basis.features_from(x)
        decoder = directions(self.basis, f.shape[1])
        left = y - self.decoded(f, x)
        return f + left @ decoder.T / decoder.square().sum(1).clamp_min(1e-24)

    def drive(self, out: int) -> Float[Tensor, " d_out"] | None:
        return None


def at_output(basis: Any) -> OutputDictionary:
    """The dictionary at a segment's output, with all that may be asked of it."""
    if isinstance(basis, OutputDictionary):
        return basis
    return ReadsInput(basis) if callable(getattr(basis, "features_from", None)) else OutputDictionary(basis)


def output_features(basis_out: Any, x: Float[Tensor, "rows d_in"], y: Float[Tensor, "rows d_out"]) -> Tensor:
    """The features that a connector is to predict: read from y, or computed from x by a dictionary of a pair."""
    return at_output(basis_out).features(x, y)


def decoded_output(
    basis_out: Basis, f: Float[Tensor, "rows f"], x: Float[Tensor, "rows d_in"]
) -> Float[Tensor, "rows d"]:
    """The output that features stand for, with what a linear bypass carries beside them, a few thousand rows at a time.

    Args:
        x: the rows at the segment's input, which a bypass reads.
    """
    dictionary, device = at_output(basis_out), place_of(basis_out, f.device)
    return blockwise(dictionary.decoded, device, f, x, size=_ROWS)
