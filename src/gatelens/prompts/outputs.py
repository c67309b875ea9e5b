"""One output feature as a segment's output shows it, and its drive: what an encoder reads before its threshold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..basis.output import at_output

Read = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Output:
    """How an output feature is read from rows.

    Attributes:
        read: (x, y) -> its value a row. A dictionary of a pair of hook points computes its features from x, whatever the model
            does; here they are read off y.
        drive: [d_out] a direction whose product with y moves the feature; None where none is known.
    """

    read: Read
    drive: Float[Tensor, " d_out"] | None


def output_of(basis: Any, out: int) -> Output:
    """The reader of output feature `out`."""
    dictionary = at_output(basis)
    return Output(lambda x, y: dictionary.shown(x, y)[:, out], dictionary.drive(out))


def slope(forward: Callable[[Tensor], Tensor], output: Output, x: Float[Tensor, " d_in"]) -> Float[Tensor, " d_in"]:
    """The derivative of an output feature by the segment's input at one row; of its drive where the feature is off there."""
    at = x.detach()[None].clone().requires_grad_(True)
    with torch.enable_grad():
        y = forward(at)
        value = output.read(at, y).sum()
        if not value > 0 and output.drive is not None:
            value = (y @ output.drive.to(y)).sum()
        if not value.requires_grad:
            return torch.zeros_like(x)
        (found,) = torch.autograd.grad(value, at, allow_unused=True)
    return torch.zeros_like(x) if found is None else found[0]
