"""What does not depend on coordinates, what survives a change, how much is explained; every figure with its nulls.

Networks: MNIST 784-128-128-128-10, the digits 64-48-48-48-10, and a one-layer ReLU transformer trained on addition modulo 31
(saved as tl_config.json and safetensors under runs/, loaded as any user's). Held-out figures, medians over the seeds. About
six CPU minutes a seed, the most of it training.
"""

from __future__ import annotations

import importlib.util
import statistics
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import gatelens as gl
from gatelens import invariants, stability
from gatelens.bases.rotation import fit_rotation
from gatelens.bench import Figure
from gatelens.data import Batches
from gatelens.errors import DataError, GateLensWarning
from gatelens.evaluation import measure_coverage
from gatelens.evaluation.baselines import baseline_circuits, random_weights
from gatelens.evaluation.passes import metric
from gatelens.invariants.lsrdr import cosine
from gatelens.models.training import Training
from gatelens.segments import MLPWeights

SEEDS = (0, 1, 2)


def measure(seeds: Sequence[int], data: Path | None) -> Iterator[Figure]:
    if data is None:
        raise DataError("this benchmark needs real MNIST: set GATELENS_DATA to a folder with mnist/ in it")
    yield from planted_blocks(seeds)
    yield from modular_addition(seeds)
    mnist = gl.image_batches("mnist", path=data / "mnist")
    nets = {seed: _mnist_net(seed, mnist[0]) for seed in seeds}
    yield from subspaces(seeds, nets, *mnist)
    yield from rotations(seeds, nets, *mnist)
    digits = gl.image_batches("digits")
    small = {
        s: Training(epochs=60, lr=3e-3).fit(gl.HookedMLP((64, 48, 48, 48, 10), seed=s), digits[0], seed=s)
        for s in seeds
    }
    yield from planted_gates(seeds)
    yield from gates("digits", seeds, small, *digits, _Walk(k=6, samples=150_000, mean_edges=6, cap=16, expansion=2))
    yield from gates("MNIST", seeds[:1], nets, *mnist, _Walk(k=32, samples=400_000, mean_edges=16, cap=64))


def _median(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [row[name] for row in rows if row.get(name) is not None]
    return statistics.median(values) if values else None


# ------------------------------------------------------------------------------------------------ LSRDR


def planted_blocks(seeds: Sequence[int]) -> Iterator[Figure]:
    rows = [_blocks(seed) for seed in seeds]
    yield Figure(
        "LSRDR, planted blocks: neurons put in their block (adjusted Rand index)",
        _median(rows, "rand"),
        0.99,
        baselines={"entries shuffled (null)": _median(rows, "rand_null")},
        note="24 neurons in 3 blocks of 8 (strength 1, .8, .6), 12 matrices, Gaussian noise of .1 everywhere",
    )
    yield Figure(
        "LSRDR, planted blocks: cosine of the projections of two fits from other starts",
        _median(rows, "agree"),
        0.99,
        baselines={
            "Gaussian matrices, no blocks (null)": _median(rows, "agree_null"),
            "share of single starts that end at the best optimum": _median(rows, "single"),
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


# ------------------------------------------------------------------------------------------------ modular addition


def modular_addition(seeds: Sequence[int], p: int = 31) -> Iterator[Figure]:
    rows = [_modular(seed, p) for seed in seeds]
    yield Figure(
        "addition mod 31: held-out accuracy of the transformer",
        _median(rows, "accuracy"),
        baselines={"random weights": _median(rows, "random/accuracy"), "chance": 1 / p},
        note="one layer, 4 heads, 128 ReLU neurons; a fifth of the pairs held out; loaded by load_model",
    )
    for name in ("energy95", "participation", "exact", "active_units"):
        yield Figure(
            f"addition mod 31: the MLP's Jacobian, {name}, median over inputs",
            _median(rows, name),
            baselines={"random weights": _median(rows, f"random/{name}")},
            note="raw metric, width 64; active units bound the exact rank",
        )
    for k in (4, 8, 16):
        yield Figure(
            f"addition mod 31: accuracy with {k} of 64 dimensions of mlp_out kept",
            _median(rows, f"active/{k}"),
            baselines={
                "oblique": _median(rows, f"oblique/{k}"),
                "principal components": _median(rows, f"pca/{k}"),
                "random directions (null)": _median(rows, f"random directions/{k}"),
                "untouched": _median(rows, "accuracy"),
            },
            note="active subspace of E[J^T J] to the logits' prediction (Fisher); on held-out pairs",
        )
    yield Figure(
        "addition mod 31: variance of a rotated coordinate of mlp_out at its one best frequency",
        _median(rows, "rotation"),
        baselines={
            "coordinates as they are": _median(rows, "residual"),
            "principal components": _median(rows, "principal"),
            "random rotation (null)": _median(rows, "random rotation"),
            "hidden neurons": _median(rows, "neurons"),
            "random weights, rotated": _median(rows, "random/rotation"),
            "random weights, random rotation": _median(rows, "random/random rotation"),
        },
        note="share of a coordinate's variance over all pairs (a, b) at one frequency of the 2-D Fourier basis, weighted by "
        "variance; rotation fitted to the MLP's Jacobians alone (L1)",
    )


def _modular(seed: int, p: int) -> dict[str, float]:
    task = _task()
    folder = task.train(Path("runs") / f"addition-mod-{p}-seed-{seed}", p, seed)
    model = gl.load_model(folder)
    found = _modular_figures(model, *task.pairs(p, seed), p, seed)
    null = _modular_figures(random_weights(model, seed), *task.pairs(p, seed), p, seed)
    return found | {f"random/{name}": value for name, value in null.items()}


def _task() -> Any:
    spec = importlib.util.spec_from_file_location("gatelens_benchmark_modular", Path(__file__).with_name("_modular.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _modular_figures(model: Any, fit: Batches, held_out: Batches, p: int, seed: int) -> dict[str, float]:
    (segment,) = gl.mlp_segments(model)
    acts = gl.collect(model, fit, [segment])
    x, y = acts[segment.hook_in], acts[segment.hook_out]
    found: dict[str, Any] = {"accuracy": metric(model, held_out)}
    found |= invariants.segment_ranks(segment, x[:256]).to_dict()
    sensitivity = invariants.output_sensitivity(model, fit, segment.hook_out, "fisher", probes=8, seed=seed)
    curve = _curve(model, held_out, segment.hook_out, sensitivity, y, (4, 8, 16), seed)
    found |= {f"{name}/{k}": v for name, values in curve.items() for k, v in zip((4, 8, 16), values, strict=True)}
    pairs = _grid(p)
    grid = gl.collect(model, pairs, [segment])
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


# ------------------------------------------------------------------------------------------------ MNIST: subspaces, rotations


def _mnist_net(seed: int, fit: Batches) -> Any:
    return Training(epochs=8).fit(gl.HookedMLP((784, 128, 128, 128, 10), seed=seed), fit, seed=seed)


def _curve(
    model: Any, held_out: Batches, hook: str, sensitivity: torch.Tensor, x: torch.Tensor, ks: tuple[int, ...], seed: int
) -> dict[str, tuple[float, ...]]:
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


def subspaces(seeds: Sequence[int], nets: Mapping[int, Any], fit: Batches, held_out: Batches) -> Iterator[Figure]:
    rows = [_subspaces(seed, nets[seed], fit.take(4096), held_out) for seed in seeds]

    def lost(name: str) -> float | None:
        return _median(rows, name)

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
    curve = _curve(net, held_out, hook, invariants.output_sensitivity(net, fit, hook), x, (8,), seed)
    found: dict[str, Any] = {name: 100 * (clean - values[0]) for name, values in curve.items()}
    null = random_weights(net, seed)
    null_segment = gl.mlp_segments(null, [0])[0]
    null_x = gl.collect(null, fit, [null_segment])[hook]
    null_curve = _curve(null, held_out, hook, invariants.output_sensitivity(null, fit, hook), null_x, (8,), seed)
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


def rotations(seeds: Sequence[int], nets: Mapping[int, Any], fit: Batches, held_out: Batches) -> Iterator[Figure]:
    rows = [_rotation(seed, nets[seed], fit, held_out) for seed in seeds]
    changes = ("weight noise 5%", "weight noise 20%", "loss +0.1%", "loss +1%", "fine-tuned 100 steps")
    for change in changes:
        yield Figure(
            f"MNIST h1 -> h2 rotation: share of its gain that it keeps, {change}",
            _median(rows, change),
            0.93 if change == "weight noise 5%" else None,
            baselines={
                "random rotation (null)": _median(rows, f"{change}/random"),
                "random-weight net's rotation on this net (null)": _median(rows, "foreign"),
                "energy-weighted |cos| with the refit": _median(rows, f"{change}/cos"),
                "|cos| of a random counterpart": _median(rows, f"{change}/cos random"),
            },
            note="gain in mean |entry| over the neurons, on Jacobians at held-out images; 1 is the refitted rotation's",
        )


def _rotation(seed: int, net: Any, fit: Batches, held_out: Batches) -> dict[str, float]:
    def columns(model: Any, part: Batches) -> torch.Tensor:
        segment = gl.mlp_segments(model, [1])[0]
        return gl.jacobian_columns(segment, gl.collect(model, part, [segment])[segment.hook_in], 128, seed=seed)

    few, unseen = fit.take(64), held_out.take(128)
    sample = fit.take(4096)
    old = fit_rotation(columns(net, few), seed=seed).matrix
    changed = {
        "weight noise 5%": stability.noisy_model(net, 0.05, seed),
        "weight noise 20%": stability.noisy_model(net, 0.2, seed),
        "loss +0.1%": stability.noise_for_rise(net, sample, 0.001, seed)[2],
        "loss +1%": stability.noise_for_rise(net, sample, 0.01, seed)[2],
        "fine-tuned 100 steps": stability.fine_tuned(net, fit, 100, seed=seed),
    }
    found: dict[str, float] = {}
    for name, model in changed.items():
        kept = stability.gain_kept(old, columns(model, few), columns(model, unseen), seed=seed)
        found |= {
            name: kept.share,
            f"{name}/random": kept.random_share,
            f"{name}/cos": kept.matching.weighted,
            f"{name}/cos random": kept.matching.random,
        }
    foreign = fit_rotation(columns(random_weights(net, seed), few), seed=seed).matrix
    found["foreign"] = stability.gain_kept(foreign, columns(net, few), columns(net, unseen), seed=seed).share
    return found


# ------------------------------------------------------------------------------------------------ gates


class _Walk:
    """Finds a circuit: dictionaries, wires, gates; these are judged, and tested by intervention, on rows of their own."""

    def __init__(self, k: int, samples: int, mean_edges: int, cap: int, expansion: int = 4):
        self.sae = gl.TrainedSAE("batchtopk", expansion=expansion, k=k, samples=samples)
        self.solver = gl.GramLasso(mean_edges=mean_edges, cap=cap)

    def __call__(self, model: Any, fit: Batches, judge: Batches, seed: int, bases: Any = None) -> Any:
        segments = gl.mlp_segments(model, [0])
        acts = gl.collect(model, fit, segments)
        if bases is None:
            bases = replace(self.sae, seed=seed).fit(segments, acts)
        return gl.build_circuit(
            model, segments, bases, acts, self.solver, held_out=gl.collect(model, judge, segments), seed=seed
        )


def planted_gates(seeds: Sequence[int]) -> Iterator[Figure]:
    rows = [_planted(seed) for seed in seeds]
    for change in ("other inputs", "weight noise 5%", "weight noise 20%"):
        yield Figure(
            f"planted network, verified gates found again, {change}: same kind and half of the inputs",
            _median(rows, f"{change}/verified"),
            0.6 if change == "other inputs" else None,
            baselines={
                "random counterparts (null)": _median(rows, f"{change}/verified random"),
                "a network of random weights (null)": _median(rows, "random weights/verified"),
                "edge Jaccard": _median(rows, f"{change}/edges"),
                "edge Jaccard, random features": _median(rows, f"{change}/edges random"),
                "verified gates, count": _median(rows, f"{change}/count"),
            },
            note="32 known gates computed by a two-layer ReLU MLP, features in superposition; the true dictionaries are kept, wires "
            "and gates are found again",
        )
    yield Figure(
        "planted network, output variance that verified gates explain",
        _median(rows, "variance"),
        baselines={
            "neurons at equal edges": _median(rows, "neurons variance"),
            "shuffled inputs (null)": _median(rows, "shuffled variance"),
            "random weights": _median(rows, "random variance"),
            "firings that verified rules say": _median(rows, "firings"),
            "all wires, verified or not": _median(rows, "all variance"),
        },
    )


def _planted(seed: int) -> dict[str, Any]:
    network = gl.planted.plant_network(seed=seed)
    name_in, name_out = network.segment.hook_in, network.segment.hook_out
    fit, other, judge, unseen = (network.batches(8000, seed=number) for number in range(1, 5))
    solver = gl.GramLasso(mean_edges=4, cap=12)

    def refit(model: Any, part: Batches, number: int, bases: Any) -> Any:
        weights = (model.W_in.detach(), model.b_in.detach(), model.W_out.detach(), model.b_out.detach())
        mlp = MLPWeights(*weights, act="relu")
        segments = [gl.Segment(name_in, name_out, mlp, network.segment.d_in, network.segment.d_out, mlp)]
        acts = gl.collect(model, part, segments)
        judged = gl.collect(model, judge, segments)
        return gl.build_circuit(
            model, segments, bases or dict(network.dictionaries), acts, solver, held_out=judged, seed=number
        )

    null = random_weights(network.model, seed)
    conditions = [
        stability.Condition("other inputs", network.model, other, seed, keep_bases=True),
        stability.Condition(
            "weight noise 5%", stability.noisy_model(network.model, 0.05, seed), fit, seed, keep_bases=True
        ),
        stability.Condition(
            "weight noise 20%", stability.noisy_model(network.model, 0.2, seed), fit, seed, keep_bases=True
        ),
        stability.Condition("random weights", null, fit, seed, keep_bases=True, control=True),
    ]
    found: dict[str, Any] = {}
    for row in stability.stability(network.model, refit, fit, unseen, conditions, seed).rows:
        found |= {
            f"{row.change}/verified": row.verified.whole,
            f"{row.change}/verified random": row.verified.random_whole,
            f"{row.change}/count": row.verified.gates,
            f"{row.change}/edges": row.edges,
            f"{row.change}/edges random": row.random_edges,
        }
    circuit = refit(network.model, fit, seed, None)
    acts, judged = (gl.collect(network.model, part, circuit.segments) for part in (fit, judge))
    beside: dict[str, Any] = dict(baseline_circuits(network.model, circuit, acts, solver, judged, seed=seed))
    beside.pop("virtual_weights", None)
    beside["random_weights"] = (null, refit(null, fit, seed, None))
    report = measure_coverage(network.model, circuit, unseen, beside, seed=seed)
    for name, label in (("neurons", "neurons "), ("shuffled", "shuffled "), ("random_weights", "random ")):
        (one,) = report.beside[name].values()
        found[f"{label}variance"] = one.variance
    (one,) = report.circuit.values()
    return found | {"variance": one.variance, "firings": one.firings, "all variance": one.all_variance}


def gates(
    name: str, seeds: Sequence[int], nets: Mapping[int, Any], fit: Batches, held_out: Batches, walk: _Walk
) -> Iterator[Figure]:
    rows = [_gates(seed, nets[seed], fit, held_out, walk) for seed in seeds]
    for change, bar in (
        ("other inputs, bases kept", 0.6),
        ("other inputs", None),
        ("other seed", None),
        ("random weights", None),
    ):
        if _median(rows, f"{change}/verified count") is None:
            continue
        yield Figure(
            f"{name}, verified gates found again, {change}: same kind and half of the inputs",
            _median(rows, f"{change}/verified"),
            bar,
            baselines={
                "random counterparts (null)": _median(rows, f"{change}/verified random"),
                "same kind": _median(rows, f"{change}/kind"),
                "same kind, random counterparts": _median(rows, f"{change}/kind random"),
                "all read gates": _median(rows, f"{change}/gates"),
                "edge Jaccard": _median(rows, f"{change}/edges"),
                "edge Jaccard, random features": _median(rows, f"{change}/edges random"),
                "matched features": _median(rows, f"{change}/features"),
                "matched features, random counterpart": _median(rows, f"{change}/features random"),
            },
            note=f"h1 -> h2, two halves of the fitting part; {_median(rows, f'{change}/verified count'):.0f} verified gates"
            + (
                ""
                if _median(rows, f"{change}/verified count")
                else ": interventions confirm none, so there is nothing to find again"
            ),
        )
    for share in ("variance", "firings", "gap"):
        yield Figure(
            f"{name} h1 -> h2, share that verified gates explain: {share}",
            _median(rows, f"coverage/{share}"),
            baselines={
                "neurons at equal edges": _median(rows, f"neurons/{share}"),
                "shuffled inputs (null)": _median(rows, f"shuffled/{share}"),
                "random weights": _median(rows, f"random_weights/{share}"),
                "all gates that were read, adders too": _median(rows, f"read/{share}"),
                "all wires, read or not": _median(rows, f"all/{share}"),
                "verified gates, count": _median(rows, "coverage/verified"),
                "outputs, count": _median(rows, "coverage/outputs"),
            },
            note="; ".join(str(row["sentence"]) for row in rows[:1]),
        )


def _gates(seed: int, net: Any, fit: Batches, held_out: Batches, walk: _Walk) -> dict[str, Any]:
    first, second = stability.halves(fit, seed)
    null = random_weights(net, seed)
    conditions = [
        stability.Condition("other inputs, bases kept", net, second, seed, keep_bases=True),
        stability.Condition("other inputs", net, second, seed),
        stability.Condition("other seed", net, first, seed + 1),
        stability.Condition("random weights", null, first, seed, same_coordinates=False, control=True),
    ]
    kept: dict[str, Any] = {}

    def refit(model: Any, part: Batches, number: int, bases: Any) -> Any:
        circuit = walk(model, part, held_out, number, bases)
        kept.setdefault("random" if model is null else "first", circuit)
        return circuit

    found: dict[str, Any] = {}
    for row in stability.stability(net, refit, first, held_out, conditions, seed).rows:
        found |= {
            f"{row.change}/verified": row.verified.whole,
            f"{row.change}/verified random": row.verified.random_whole,
            f"{row.change}/verified count": row.verified.gates,
            f"{row.change}/kind": row.verified.kind,
            f"{row.change}/kind random": row.verified.random_kind,
            f"{row.change}/gates": row.gates.whole,
            f"{row.change}/edges": row.edges,
            f"{row.change}/edges random": row.random_edges,
            f"{row.change}/features": row.matched_out,
            f"{row.change}/features random": row.random_out,
        }
    circuit = kept["first"]
    acts = gl.collect(net, first, circuit.segments)
    judged = gl.collect(net, held_out, circuit.segments)
    beside: dict[str, Any] = dict(baseline_circuits(net, circuit, acts, walk.solver, judged, seed=seed))
    beside.pop("virtual_weights", None)
    # the second half of the fitting part: neither this circuit nor the choice of its verified gates has seen it
    report = measure_coverage(
        net, circuit, second.take(5000), beside | {"random_weights": (null, kept["random"])}, seed=seed
    )
    for name, covered in {"coverage": report.circuit, **report.beside}.items():
        (one,) = covered.values()
        found |= {
            f"{name}/{share}": getattr(one, share) for share in ("variance", "firings", "gap", "verified", "outputs")
        }
    (one,) = report.circuit.values()
    return found | {
        "all/variance": one.all_variance,
        "all/gap": one.all_gap,
        "read/variance": one.read_variance,
        "sentence": report.sentence,
    }
