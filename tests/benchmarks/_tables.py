"""What the benchmarks share: medians over seeds, the MNIST network, and its metric with few dimensions of a hook point kept."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch

import gatelens as gl
from gatelens import invariants
from gatelens.data import Batches
from gatelens.errors import GateLensWarning
from gatelens.models.training import Training


def median(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """Over the rows that have the figure; None where none has."""
    values = [row[name] for row in rows if row.get(name) is not None]
    return statistics.median(values) if values else None


def mnist_net(seed: int, fit: Batches) -> Any:
    return Training(epochs=8).fit(gl.HookedMLP((784, 128, 128, 128, 10), seed=seed), fit, seed=seed)


def keeping(
    model: Any, held_out: Batches, hook: str, sensitivity: torch.Tensor, x: torch.Tensor, ks: tuple[int, ...], seed: int
) -> dict[str, tuple[float, ...]]:
    """name of the subspace -> the metric at each k; random directions are the null."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GateLensWarning)  # dead units: the covariance is singular, as the note says
        made = {
            "active": invariants.active_subspace(sensitivity, x),
            "oblique": invariants.oblique_subspace(sensitivity, x),
            "pca": invariants.principal_subspace(x),
            "random directions": invariants.random_subspace(x, seed),
        }
    curve = invariants.summary_curve(model, held_out, hook, list(made.values()), ks)
    return {name: curve.values[subspace.label] for name, subspace in made.items()}
