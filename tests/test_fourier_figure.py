"""The figure by which the benchmark says whether a rotation finds the Fourier pairs of modular addition, by hand."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
from _addition import one_frequency

P = 31
A, B = torch.meshgrid(torch.arange(P).double(), torch.arange(P).double(), indexing="ij")


def wave(k: int, x: torch.Tensor) -> torch.Tensor:
    return torch.cos(2 * math.pi * k * x / P)


@pytest.mark.parametrize(
    ("columns", "share"),
    [
        ([wave(3, A + B) + wave(3, A) + 2], 1.0),  # one frequency, whatever the constant
        ([wave(3, A + B) + wave(5, B)], 0.5),  # two of the same power
        ([wave(3, A + B), wave(5, A - B)], 1.0),  # each its own
        ([wave(3, A) * wave(5, B)], 0.0),  # a product of two is neither
        ([3 * wave(3, A), wave(3, A) + wave(5, A)], (9 + 1) / (9 + 2)),  # weighted by variance
    ],
)
def test_share_of_variance_at_one_frequency(columns, share):
    values = torch.stack([column.flatten() for column in columns], 1)
    assert one_frequency(values, P) == pytest.approx(share, abs=1e-9)


def test_noise_has_no_frequency():
    noise = torch.randn(P * P, 200, generator=torch.Generator().manual_seed(0))
    assert one_frequency(noise, P) < 3 * 8 / (P * P - 1)  # the best of 15 sets of 8 of the 960 coefficients
