"""Rotations by size: planted ones of 64 to 1,600 dimensions, and the MLPs of transformers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import torch
from _rotation_rivals import match_stretch_project

import gatelens as gl
from gatelens.bases.rotation import baseline_table, fit_rotation
from gatelens.bases.rotation.starts import qr_rotation, random_rotation, svd_rotation
from gatelens.bench import Figure
from gatelens.jacobians import jacobian_columns, sparsity
from gatelens.segments import MLPWeights, Segment, mlp_segments

SECONDS = {256: 10.0, 1600: 360.0}  # dimensions -> bar on the CPU time of the fit


def planted(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Columns Q S, S 10 % dense with 2 % noise, and Q^T, whose rows are to be found."""
    g = torch.Generator().manual_seed(seed)
    s = torch.randn(n, 16 * n, generator=g) * (torch.rand(n, 16 * n, generator=g) < 0.1)
    s = s / s.square().mean().sqrt() + 0.02 * torch.randn(n, 16 * n, generator=g)
    q = random_rotation(n, seed + 1000)
    return q.T @ s, q


def found(rotation: torch.Tensor, q: torch.Tensor) -> float:
    return 100 * float(((rotation @ q.T).abs().max(1).values > 0.95).float().mean())


def planted_figures(seeds: Sequence[int]) -> Iterator[Figure]:
    for n in (64, 128, 256, 512, 768, 1600):
        used = seeds if n < 1600 else seeds[:1]
        runs = [_planted_run(n, seed) for seed in used]
        beside = {name: median(run[name] for run in runs) for name in runs[0] if name != "rows"}
        note = f"10 % dense, 2 % noise; {len(used)} seed{'s' * (len(used) > 1)}" + (
            "" if n <= 256 else "; MSP and the fit to noise only up to 256"
        )
        name = f"planted rotation, n = {n}, 16 n columns"
        yield Figure(
            f"{name}: rows found at |cos| > .95, %", median(r["rows"] for r in runs), 95.0, "higher", beside, note
        )
        if n in SECONDS:
            yield Figure(f"{name}: CPU seconds", beside["seconds"], SECONDS[n], "lower")


def _planted_run(n: int, seed: int) -> dict[str, float]:
    """Rows found by the default chain, its CPU seconds and mean |y|, and the rows that nulls find."""
    columns, q = planted(n, seed)
    began = time.process_time()
    fitted = fit_rotation(columns, iterations=300).matrix
    run = {"rows": found(fitted, q), "seconds": time.process_time() - began}
    run |= {"L1": _l1(fitted @ columns), "L1, planted": _l1(q @ columns)}
    no_fit = {
        "identity": torch.eye(n),
        "random rotation": random_rotation(n, seed),
        "svd": svd_rotation(columns),
        "qr": qr_rotation(columns),
    }
    for name, matrix in no_fit.items():
        run |= {name: found(matrix, q), f"L1, {name}": _l1(matrix @ columns)}
    if n <= 256:
        gaussian = torch.randn(columns.shape, generator=torch.Generator().manual_seed(seed))
        run["msp"] = found(match_stretch_project(columns), q)
        run["fitted to noise"] = found(fit_rotation(gaussian).matrix, q)
    return run


def _l1(y: torch.Tensor) -> float:
    return float(y.abs().mean() / y.square().mean().sqrt())


def gpt2_shape() -> Iterator[Figure]:
    g = torch.Generator().manual_seed(0)
    weights = MLPWeights(
        torch.randn(768, 3072, generator=g) * 0.02,
        torch.zeros(3072),
        torch.randn(3072, 768, generator=g) * 0.02,
        act="gelu_new",
    )
    segment = Segment("mlp_in", "mlp_out", weights, 768, 768, weights)
    x = torch.randn(64, 768, generator=g)
    began = time.process_time()
    basis = gl.JacobianRotation().fit([segment], {"mlp_in": x})["mlp_out"]
    seconds = time.process_time() - began
    held = jacobian_columns(segment, torch.randn(32, 768, generator=g), 64)
    beside = {"seconds": seconds, "L1, neurons": sparsity(held).l1, "L1, rotation": sparsity(basis.encode(held.T)).l1}
    yield Figure(
        "768 -> 3072 -> 768 MLP, 64 inputs, whole fit: CPU seconds",
        seconds,
        300.0,
        "lower",
        beside,
        "random weights, in which nothing is to be found: the time alone counts",
    )


def mini(data: Path) -> Iterator[Figure]:
    folder = data / "models" / "gpt2-mini"
    if not folder.is_dir():
        yield Figure("gpt2-mini MLPs, held-out L1 under the neuron basis, %", None, note=f"{folder} is not there")
        return
    segments, acts, held = _mini_activations(data, folder)
    changes, tables = [], []
    for i, segment in enumerate(segments):
        recipe = gl.JacobianRotation(iterations=100)
        basis = recipe.fit([segment], acts)[segment.hook_out]
        columns = jacobian_columns(segment, acts[segment.hook_in][:64], 256)
        table = baseline_table(columns, jacobian_columns(segment, held[segment.hook_in][:64], 128), basis, noise=i == 0)
        changes.append(100 * (1 - table["rotation"].l1 / table["neurons"].l1))
        tables.append(table)
    yield Figure(
        "gpt2-mini MLPs (256), held-out L1 under the residual basis, %",
        median(changes),
        baselines={f"{segments[i].hook_out}, {k}": v.l1 for i, t in enumerate(tables) for k, v in t.items()},
        note="output side, median over the layers; the outputs of a transformer's MLP have no neurons of their own",
    )


def _mini_activations(
    data: Path, folder: Path
) -> tuple[list[Segment], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    model = gl.load_model(str(folder))
    fit, test = gl.text_batches(
        model, str(data / "text" / "gutenberg_frankenstein.txt"), rows=(16, 16), length=64, seed=0, separator="\n\n\n"
    )
    segments = mlp_segments(model, mlp_in="resid_mid")
    a, b = gl.collect(model, fit, segments), gl.collect(model, test, segments)
    g = torch.Generator().manual_seed(0)
    pick = torch.randperm(min(a.rows, b.rows), generator=g)
    return segments, {h: a[h][pick] for h in a}, {h: b[h][pick] for h in b}
