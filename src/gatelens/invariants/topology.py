"""Persistent homology of an activation cloud, beside Gaussian clouds of the same mean and covariance.

Needs the optional library ripser (`pip install gatelens[topology]`). A long bar means little by itself: a Gaussian cloud
has long bars too, so each figure stands beside what such clouds give.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ConfigError, DataError, TooLargeError

MAX_POINTS = 1000


@dataclass(frozen=True)
class Homology:
    """The longest bars of a cloud, lengths in units of the cloud's median pairwise distance.

    Attributes:
        points: how many were used. bars: dimension -> lengths of the longest bars, descending (the endless one of
            dimension 0 left out). random: dimension -> [draws] longest bar of each Gaussian cloud.
    """

    points: int
    bars: dict[int, tuple[float, ...]]
    random: dict[int, tuple[float, ...]]

    def p_value(self, dimension: int) -> float:
        """Share of Gaussian clouds (counting this one) whose longest bar is at least as long; small is unusual."""
        ours = max(self.bars[dimension], default=0.0)
        null = self.random[dimension]
        return (1 + sum(x >= ours for x in null)) / (1 + len(null))

    def __repr__(self) -> str:
        lines = [
            f"  H{k}: longest {', '.join(f'{b:.2f}' for b in bars[:3]) or 'none'}; Gaussian clouds up to "
            f"{max(self.random[k], default=0.0):.2f} (p = {self.p_value(k):.2f})"
            for k, bars in self.bars.items()
        ]
        return "\n".join([f"Homology({self.points} points, in median distances)", *lines])


def persistent_homology(
    x: Float[Tensor, "rows d"], points: int = 200, dimensions: int = 1, draws: int = 19, seed: int = 0
) -> Homology:
    """Bars of the Vietoris-Rips filtration of a random sample of rows, up to homology in `dimensions`.

    Raises:
        ConfigError: ripser is not installed.
        DataError: fewer than four different rows.
        TooLargeError: more points than the filtration can take in memory.
    """
    if points > MAX_POINTS:
        raise TooLargeError(f"expected at most {MAX_POINTS} points (memory grows with their cube), got {points}")
    generator = torch.Generator().manual_seed(seed)
    cloud = x[torch.randperm(len(x), generator=generator)[:points]].double()
    if len(torch.unique(cloud, dim=0)) < 4:
        raise DataError(
            "the activations are constant, or nearly: a cloud needs at least four different rows. Give varied inputs"
        )
    centred = cloud - cloud.mean(0)
    bars = _bars(centred, dimensions)
    random: dict[int, list[float]] = {k: [] for k in bars}
    for _ in range(draws):
        # rows mixed by Gaussian weights: mean zero and, in expectation, exactly the cloud's covariance
        mixed = (
            torch.randn(len(cloud), len(cloud), generator=generator, dtype=torch.float64) @ centred / len(cloud) ** 0.5
        )
        for k, lengths in _bars(mixed, dimensions).items():
            random[k].append(max(lengths, default=0.0))
    return Homology(len(cloud), bars, {k: tuple(v) for k, v in random.items()})


def _bars(cloud: Float[Tensor, "n d"], dimensions: int) -> dict[int, tuple[float, ...]]:
    distances = torch.cdist(cloud, cloud)
    scale = float(distances[distances > 0].median())
    diagrams = _rips((distances / scale).numpy(), dimensions)
    return {k: _lengths(diagram) for k, diagram in enumerate(diagrams)}


def _lengths(diagram: np.ndarray) -> tuple[float, ...]:
    finite = diagram[np.isfinite(diagram[:, 1])]
    return tuple(sorted((float(b - a) for a, b in finite), reverse=True)[:20])


def _rips(distances: np.ndarray, dimensions: int) -> list[np.ndarray]:
    try:
        from ripser import ripser
    except ImportError as error:
        raise ConfigError(
            "persistent homology needs the library ripser, which is not installed. Run `pip install gatelens[topology]`"
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ripser warns of square inputs, which distance matrices always are
        return ripser(distances, maxdim=dimensions, distance_matrix=True)["dgms"]
