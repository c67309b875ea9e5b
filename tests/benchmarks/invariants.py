"""What does not depend on coordinates; every figure with its nulls.

LSRDR on planted blocks, a one-layer ReLU transformer trained on addition modulo 31 (saved as tl_config.json and safetensors
under runs/, loaded as any user's), and the first hidden layer of MNIST 784-128-128-128-10. Held-out figures, medians over the
seeds. What survives a change is the benchmark `stability`.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from _addition import modular_addition
from _tables import keeping, median, mnist_net

import gatelens as gl
from gatelens import invariants
from gatelens.bench import Figure
from gatelens.data import Batches
from gatelens.errors import DataError, GateLensWarning
from gatelens.evaluation.baselines import random_weights
from gatelens.evaluation.passes import metric
from gatelens.invariants.lsrdr import cosine

SEEDS = (0, 1, 2)


def measure(seeds: Sequence[int], data: Path | None) -> Iterator[Figure]:
    if data is None:
        raise DataError("this benchmark needs real MNIST: set GATELENS_DATA to a folder with mnist/ in it")
    yield from planted_blocks(seeds)
    yield from modular_addition(seeds)
    mnist = gl.image_batches("mnist", path=data / "mnist")
    yield from subspaces(seeds, {seed: mnist_net(seed, mnist[0]) for seed in seeds}, *mnist)


def planted_blocks(seeds: Sequence[int]) -> Iterator[Figure]:
    rows = [_blocks(seed) for seed in seeds]
    yield Figure(
        "LSRDR, planted blocks: neurons put in their block (adjusted Rand index)",
        median(rows, "rand"),
        0.99,
        baselines={"entries shuffled (null)": median(rows, "rand_null")},
        note="24 neurons in 3 blocks of 8 (strength 1, .8, .6), 12 matrices, Gaussian noise of .1 everywhere",
    )
    yield Figure(
        "LSRDR, planted blocks: cosine of the projections of two fits from other starts",
        median(rows, "agree"),
        0.99,
        baselines={
            "Gaussian matrices, no blocks (null)": median(rows, "agree_null"),
            "share of single starts that end at the best optimum": median(rows, "single"),
        },
        note="each fit is the best of 6 starts; a single start can end in a weaker block. Where matrices without blocks agree as "
        "well, agreement over starts is a property of the method and no evidence of structure",
    )


def _blocks(seed: int) -> dict[str, float]:
    from sklearn.metrics import adjusted_rand_score

    generator = torch.Generator().manual_seed(seed)
    stack = 0.1 * torch.randn(12, 24, 24, generator=generator, dtype=torch.float64)
    for b in range(3):
        part = slice(8 * b, 8 * b + 8)
        stack[:, part, part] += (1 - 0.2 * b) * torch.randn(12, 8, 8, generator=generator, dtype=torch.float64)
    order = torch.randperm(24, generator=generator)
    stack, label = stack[:, order][:, :, order], order // 8
    shuffled = stack.flatten()[torch.randperm(stack.numel(), generator=generator)].view_as(stack)
    gaussian = torch.randn(stack.shape, generator=generator, dtype=torch.float64)

    def fits(a: torch.Tensor) -> list[Any]:
        return [invariants.LSRDR(8, starts=6, seed=s).fit(a) for s in (seed, seed + 1000)]

    real, null = fits(stack), fits(gaussian)
    singles = [s for fit in real for s in fit.restarts]
    best = max(singles)
    recipe = invariants.LSRDR(8, starts=6, seed=seed)
    return {
        "rand": adjusted_rand_score(label, invariants.neuron_clusters(stack, recipe, 3).label),
        "rand_null": adjusted_rand_score(label, invariants.neuron_clusters(shuffled, recipe, 3).label),
        "agree": cosine(real[0].projection, real[1].projection),
        "agree_null": cosine(null[0].projection, null[1].projection),
        "single": sum(s > best - 1e-3 for s in singles) / len(singles),
    }


def subspaces(seeds: Sequence[int], nets: Mapping[int, Any], fit: Batches, held_out: Batches) -> Iterator[Figure]:
    rows = [_subspaces(seed, nets[seed], fit.take(4096), held_out) for seed in seeds]

    def lost(name: str) -> float | None:
        return median(rows, name)

    yield Figure(
        "MNIST h1, 8 of 128 dimensions kept: accuracy lost, points, active subspace",
        lost("active"),
        1.0,
        "lower",
        baselines={
            "oblique": lost("oblique"),
            "principal components": lost("pca"),
            "random directions (null)": lost("random directions"),
            "random-weight net, active subspace": lost("random net"),
        },
        note="E[J^T J] to the logits, on 4,096 training images; accuracy on the 10,000 test images",
    )
    yield Figure("MNIST h1, 8 of 128 dimensions kept: accuracy lost, points, principal components", lost("pca"), 5.0)
    for name, what in (("energy95", "energy-95 rank"), ("participation", "participation ratio")):
        yield Figure(
            f"MNIST h1 -> h2 Jacobian: {what}, median over inputs",
            lost(name),
            baselines={
                "whitened": lost(f"whitened {name}"),
                "random-weight net": lost(f"random {name}"),
                "active units (bound on the exact rank)": lost("active_units"),
            },
        )
    yield Figure(
        "MNIST h1 -> h2: overlap of the top-8 input subspaces of two inputs",
        lost("overlap"),
        baselines={"Haar-random": lost("random overlap"), "random-weight net": lost("random net overlap")},
        note="mean squared cosine of the principal angles",
    )
    yield Figure(
        "MNIST h1 -> h2 through 8 trained numbers: held-out FVU",
        lost("witness"),
        better="lower",
        baselines={
            "random encoder (null)": lost("witness random"),
            "linear of rank 8": lost("witness linear"),
            "decoder on all of h1": lost("witness all"),
        },
    )


def _subspaces(seed: int, net: Any, fit: Batches, held_out: Batches) -> dict[str, Any]:
    hook = "hook_post.0"
    segment = gl.mlp_segments(net, [0])[0]
    acts = gl.collect(net, fit, [segment])
    x = acts[hook]
    clean = metric(net, held_out)
    curve = keeping(net, held_out, hook, invariants.output_sensitivity(net, fit, hook), x, (8,), seed)
    found: dict[str, Any] = {name: 100 * (clean - values[0]) for name, values in curve.items()}
    null = random_weights(net, seed)
    null_segment = gl.mlp_segments(null, [0])[0]
    null_x = gl.collect(null, fit, [null_segment])[hook]
    null_curve = keeping(null, held_out, hook, invariants.output_sensitivity(null, fit, hook), null_x, (8,), seed)
    found["random net"] = 100 * (metric(null, held_out) - null_curve["active"][0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GateLensWarning)
        whitened = invariants.segment_ranks(segment, x[:256], "whitened", x).to_dict()
    raw, random = (invariants.segment_ranks(s, a[:256]).to_dict() for s, a in ((segment, x), (null_segment, null_x)))
    for name in ("energy95", "participation", "active_units"):
        found |= {name: raw[name], f"whitened {name}": whitened[name], f"random {name}": random[name]}
    ours = invariants.consistency(invariants.segment_jacobians(segment, x[:128]), 8)
    theirs = invariants.consistency(invariants.segment_jacobians(null_segment, null_x[:128]), 8)
    witness = invariants.Bottleneck(8, steps=600, seed=seed).fit(x, acts[segment.hook_out])
    return found | {
        "overlap": ours.overlap,
        "random overlap": ours.random_overlap,
        "random net overlap": theirs.overlap,
        "witness": witness.fvu,
        "witness random": witness.random_encoder,
        "witness linear": witness.linear,
        "witness all": witness.unlimited,
    }
