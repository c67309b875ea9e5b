"""The null of learned function: a segment whose MLP has its weights shuffled, and nothing else changed.

Shuffled row by row each input dimension keeps the sizes of its weights, so that what is loud stays loud; a shuffle of all entries
scrambles these too, and flatters the trained model. The real inputs go through it, and its outputs get a dictionary of their own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gatelens.errors import SegmentError
from gatelens.segments import Segment
from gatelens.segments.transformer import Chain


def shuffled_segment(segment: Segment, seed: int = 0, by_row: bool = True) -> Segment:
    """The segment with every weight matrix of its MLP shuffled; biases stay.

    Args:
        by_row: within each row, an input dimension; else all entries of a matrix.

    Raises:
        SegmentError: a segment whose weights are not known.
    """
    if segment.mlp is None:
        raise SegmentError(
            f"segment {segment.name} has no MLP weights to shuffle: the null needs a segment that is exactly one MLP"
        )
    generator = torch.Generator().manual_seed(seed)
    matrices = {
        name: None if matrix is None else _shuffled(matrix, generator, by_row)
        for name, matrix in (("W_in", segment.mlp.W_in), ("W_gate", segment.mlp.W_gate), ("W_out", segment.mlp.W_out))
    }
    mlp = replace(segment.mlp, **matrices)
    forward: Any = mlp if segment.prenorm is None else Chain(segment.prenorm, mlp)  # pyright: ignore[reportArgumentType]
    return replace(segment, forward=forward, mlp=mlp)


def _shuffled(matrix: Tensor, generator: torch.Generator, by_row: bool) -> Tensor:
    if by_row:
        order = torch.rand(matrix.shape, generator=generator).argsort(1).to(matrix.device)
        return matrix.gather(1, order)
    order = torch.randperm(matrix.numel(), generator=generator).to(matrix.device)
    return matrix.flatten()[order].view_as(matrix)
