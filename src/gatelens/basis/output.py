"""How a segment's output features are read: from its output, as an SAE does, or from its input, as a transcoder does.

Everything that asks for output features goes through `at_output(basis)`, which answers for both sorts. A plain basis of anybody's
(`encode`, `decode`) is given the answers that follow from reading y; an object of one's own with `features_from` those of a
dictionary of a pair of hook points.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import BasisError
from ..models import blockwise, place_of
from ..segments import Segment
from .features import encode_rows
from .linear import directions, encoder_directions
from .pair import PairBasis, read_off
from .protocol import Basis

_ROWS = 4_096


@runtime_checkable
class OutputDictionary(Protocol):
    """What every room may ask of the dictionary at a segment's output.

    Attributes:
        reads_output: whether its features are read from y, so that it can be spliced in by itself.
        by_construction: what is true of its figures by construction; "" for nothing.
        bypassed: how many inputs a linear map carries past the features.
        connector: the wires that its features are made of; None where they are not made of wires.
        seconds: what its training took, where it says so.
    """

    reads_output: bool
    by_construction: str
    bypassed: int
    connector: Any
    seconds: float | None

    def source(self, segment: Segment) -> str:
        """The hook point whose rows its features are computed from."""
        ...

    def features(self, x: Float[Tensor, "rows d_in"], y: Float[Tensor, "rows d_out"]) -> Tensor:
        """[rows, f] the features, dense or CSR."""
        ...

    def read(self, rows: Float[Tensor, "rows d"]) -> Float[Tensor, "rows f"]:
        """The features from rows at `source`."""
        ...

    def shown(self, x: Float[Tensor, "rows d_in"], y: Float[Tensor, "rows d_out"]) -> Float[Tensor, "rows f"]:
        """The features as y shows them, whatever the dictionary says of x; with derivatives."""
        ...

    def drive(self, out: int) -> Float[Tensor, " d_out"] | None:
        """A direction whose product with y moves the feature, below its threshold too; None where none is known."""
        ...

    def decoded(self, f: Float[Tensor, "rows f"], x: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows d_out"]:
        """The output that the features stand for, with what goes past them."""
        ...

    def bypass_change(self, change: Float[Tensor, "rows m"], step: Float[Tensor, "rows d_in"]) -> Tensor | float:
        """What an edit of the input changes past the features."""
        ...

    def check(self, segment: Segment) -> None:
        """Refuse a segment that it was not made for."""
        ...


class ReadsOutput:
    """A basis of one hook point as an output dictionary: its features are what it encodes of y."""

    reads_output = True
    bypassed = 0
    connector = None
    seconds = None

    def __init__(self, basis: Any):
        self.basis = basis

    @property
    def by_construction(self) -> str:
        return str(getattr(self.basis, "by_construction", ""))

    def source(self, segment: Segment) -> str:
        return segment.hook_out

    def features(self, x: Float[Tensor, "rows d_in"], y: Float[Tensor, "rows d_out"]) -> Tensor:
        return encode_rows(self.basis, y)

    def read(self, rows: Float[Tensor, "rows d"]) -> Float[Tensor, "rows f"]:
        return self.basis.encode(rows)

    def shown(self, x: Float[Tensor, "rows d_in"], y: Float[Tensor, "rows d_out"]) -> Float[Tensor, "rows f"]:
        return self.basis.encode(y)

    def drive(self, out: int) -> Float[Tensor, " d_out"] | None:
        try:
            return encoder_directions(self.basis)[:, out]
        except BasisError:
            return None

    def decoded(self, f: Float[Tensor, "rows f"], x: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows d_out"]:
        return self.basis.decode(f)

    def bypass_change(self, change: Float[Tensor, "rows m"], step: Float[Tensor, "rows d_in"]) -> Tensor | float:
        return 0.0

    def check(self, segment: Segment) -> None:
        """A basis of one hook point goes with any segment that ends there."""


class ReadsInput(ReadsOutput):
    """An object of a user's with `features_from(x)` and `decode(f)`."""

    reads_output = False

    def source(self, segment: Segment) -> str:
        return segment.hook_in

    def features(self, x: Float[Tensor, "rows d_in"], y: Float[Tensor, "rows d_out"]) -> Tensor:
        with torch.no_grad():
            return blockwise(self.basis.features_from, place_of(self.basis, x.device), x, size=_ROWS)

    def read(self, rows: Float[Tensor, "rows d"]) -> Float[Tensor, "rows f"]:
        return self.basis.features_from(rows)

    def shown(self, x: Float[Tensor, "rows d_in"], y: Float[Tensor, "rows d_out"]) -> Float[Tensor, "rows f"]:
        f = self.basis.features_from(x)
        return read_off(f, y - self.decoded(f, x), directions(self.basis, f.shape[1]))

    def drive(self, out: int) -> Float[Tensor, " d_out"] | None:
        return None


def at_output(basis: Any) -> OutputDictionary:
    """The dictionary at a segment's output, with all that the protocol asks for."""
    if isinstance(basis, PairBasis):
        return basis  # pyright: ignore[reportReturnType]  # its attributes are class attributes and properties
    return ReadsInput(basis) if callable(getattr(basis, "features_from", None)) else ReadsOutput(basis)  # pyright: ignore[reportReturnType]


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
