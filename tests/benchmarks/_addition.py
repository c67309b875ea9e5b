"""What the invariants say of a one-layer ReLU transformer that adds modulo p, beside the same model with permuted weights.

Its MLP computes with a few frequencies of the two summands (Nanda et al. 2023): the one case here where it is known
which coordinates a rotation should find.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
import _modular as task
from _tables import keeping, median

import gatelens as gl
from gatelens import invariants
from gatelens.bases.rotation import fit_rotation
from gatelens.bench import Figure
from gatelens.data import Batches
from gatelens.errors import GateLensWarning
from gatelens.evaluation.baselines import random_weights
from gatelens.evaluation.passes import metric


def modular_addition(seeds: Sequence[int], p: int = 31) -> Iterator[Figure]:
    rows = [_modular(seed, p) for seed in seeds]
    yield Figure(
        "addition mod 31: held-out accuracy of the transformer",
        median(rows, "accuracy"),
        baselines={"random weights": median(rows, "random/accuracy"), "chance": 1 / p},
        note="one layer, 4 heads, 128 ReLU neurons; a fifth of the pairs held out; loaded by load_model",
    )
    for name in ("energy95", "participation", "exact", "active_units"):
        yield Figure(
            f"addition mod 31: the MLP's Jacobian, {name}, median over inputs",
            median(rows, name),
            baselines={"random weights": median(rows, f"random/{name}")},
            note="raw metric, width 64; active units bound the exact rank",
        )
    for k in (4, 8, 16):
        yield Figure(
            f"addition mod 31: accuracy with {k} of 64 dimensions of mlp_out kept",
            median(rows, f"active/{k}"),
            baselines={
                "oblique": median(rows, f"oblique/{k}"),
                "principal components": median(rows, f"pca/{k}"),
                "random directions (null)": median(rows, f"random directions/{k}"),
                "untouched": median(rows, "accuracy"),
            },
            note="active subspace of E[J^T J] to the logits' prediction (Fisher); on held-out pairs",
        )
    yield Figure(
        "addition mod 31: variance of a rotated coordinate of mlp_out at its one best frequency",
        median(rows, "rotation"),
        baselines={
            "coordinates as they are": median(rows, "residual"),
            "principal components": median(rows, "principal"),
            "random rotation (null)": median(rows, "random rotation"),
            "hidden neurons": median(rows, "neurons"),
            "random weights, rotated": median(rows, "random/rotation"),
            "random weights, random rotation": median(rows, "random/random rotation"),
        },
        note="share of a coordinate's variance over all pairs (a, b) at one frequency of the 2-D Fourier basis, weighted by "
        "variance; rotation fitted to the MLP's Jacobians alone (L1)",
    )


def _modular(seed: int, p: int) -> dict[str, float]:
    folder = task.train(Path("runs") / f"addition-mod-{p}-seed-{seed}-to-the-end", p, seed)
    model = gl.load_model(folder)
    found = _modular_figures(model, *task.pairs(p, seed), p, seed)
    null = _modular_figures(random_weights(model, seed), *task.pairs(p, seed), p, seed)
    return found | {f"random/{name}": value for name, value in null.items()}


def _modular_figures(model: Any, fit: Batches, held_out: Batches, p: int, seed: int) -> dict[str, float]:
    (segment,) = gl.mlp_segments(model)
    acts = gl.collect(model, fit, [segment])
    x, y = acts[segment.hook_in], acts[segment.hook_out]
    found: dict[str, Any] = {"accuracy": metric(model, held_out)}
    found |= invariants.segment_ranks(segment, x[:256]).to_dict()
    sensitivity = invariants.output_sensitivity(model, fit, segment.hook_out, "fisher", probes=8, seed=seed)
    curve = keeping(model, held_out, segment.hook_out, sensitivity, y, (4, 8, 16), seed)
    found |= {f"{name}/{k}": v for name, values in curve.items() for k, v in zip((4, 8, 16), values, strict=True)}
    grid = gl.collect(model, _grid(p), [segment])
    out = grid[segment.hook_out]
    columns = gl.jacobian_columns(segment, x[:256], 64 * segment.d_out // 256 + 1, seed=seed)
    centred = out - out.mean(0)
    assert segment.mlp is not None
    hidden = torch.relu(grid[segment.hook_in] @ segment.mlp.W_in + segment.mlp.b_in)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GateLensWarning)
        rotation = fit_rotation(columns, seed=seed).matrix
        chance = fit_rotation(columns, "random", seed=seed).matrix
    principal = torch.linalg.svd(centred, full_matrices=False).Vh
    return found | {
        "rotation": one_frequency(out @ rotation.T, p),
        "random rotation": one_frequency(out @ chance.T, p),
        "principal": one_frequency(centred @ principal.T, p),
        "residual": one_frequency(out, p),
        "neurons": one_frequency(hidden, p),
    }


def _grid(p: int) -> Batches:
    """All pairs in order, [a, b, =]; the last position counts."""
    a, b = torch.meshgrid(torch.arange(p), torch.arange(p), indexing="ij")
    tokens = torch.stack([a.flatten(), b.flatten(), torch.full((p * p,), p)], 1)
    targets = torch.full_like(tokens, -100)
    targets[:, 2] = (tokens[:, 0] + tokens[:, 1]) % p
    return Batches(
        tokens, targets, targets >= 0, torch.arange(p * p)[:, None].expand_as(tokens), 512, "accuracy", "all pairs"
    )


def one_frequency(values: torch.Tensor, p: int) -> float:
    """Columns over the p x p grid: the share of their variance at their best frequency k, i.e. at (+-k, +-k), (+-k, 0), (0, +-k)."""
    power = torch.fft.fft2(values.double().T.reshape(-1, p, p)).abs().square()
    power[:, 0, 0] = 0
    total = power.sum((1, 2))
    best = torch.zeros_like(total)
    for k in range(1, (p + 1) // 2):
        places = [(k, k), (-k, -k), (k, -k), (-k, k), (k, 0), (-k, 0), (0, k), (0, -k)]
        best = torch.maximum(best, sum((power[:, i, j] for i, j in places), torch.zeros_like(total)))
    return float(best.sum() / total.sum())
