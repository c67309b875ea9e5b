"""Memory: what is stated before a fit over what the process held at its peak, for six recipes and solvers at real widths.

Each case runs in a process of its own, for a few steps: what a fit holds does not grow with their number. At 1 the statement is exact;
below it a fit that was let through may not fit. Linux only: the highest point is read from /proc.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from gatelens.bench import Figure

SEEDS = (0,)
ROWS, WIDTH = 20_000, 384

PROGRAM = textwrap.dedent("""
    import json, sys, warnings
    warnings.simplefilter("ignore")
    import torch
    import gatelens as gl
    from gatelens.segments import MLPWeights

    case, rows, d, seed = sys.argv[1], *map(int, sys.argv[2:])
    torch.manual_seed(seed)

    def most():
        return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

    W, V = torch.randn(d, 2 * d) / d**0.5, torch.randn(2 * d, d) / d**0.5
    mlp = MLPWeights(W, torch.zeros(2 * d), V, torch.zeros(d), act="relu")
    segment = gl.Segment("in", "out", mlp, d, d, mlp)
    few = {"samples": 1_024, "batch_size": 512, "k": 32}

    def trained(recipe):
        return recipe.estimate("in", rows, d), lambda: recipe.fit_at("in", [segment], {"in": torch.rand(rows, d)})

    def transcoder():
        recipe = gl.Transcoder(d_sae=2_048, **few)
        return recipe.estimate("out", rows, d), lambda: recipe.fit([segment], both())

    def both():
        x = torch.rand(rows, d)
        return {"in": x, "out": segment.forward(x)}

    def gates():
        made = {hook: gl.TrainedSAE(d_sae=2_048, **few).train(x) for hook, x in both().items()}
        edits = gl.Counterfactual(pairs=2_048)
        recipe = gl.GateDictionary(l0=32, inputs=made, outputs=made, counterfactual=edits, rounds=1, refit_rows=2_048)
        return recipe.estimate("out", rows, d), lambda: recipe.fit([segment], both())

    def greedy():
        active = 32
        columns = torch.randint(0, 2_048, (rows, active)).sort(1).values.flatten()
        x = torch.sparse_csr_tensor(torch.arange(rows + 1) * active, columns, torch.rand(rows * active), (rows, 2_048))
        solver = gl.ReluOMP(max_fan_in=1, min_firings=10**6)
        return solver.estimate(rows, 2_048, 2_048, active, active), lambda: solver.fit(x, x)

    def rotation():
        recipe = gl.JacobianRotation(iterations=1)
        return recipe.estimate("out", rows, d), lambda: recipe.fit([segment], both())

    cases = {
        "trained SAE, 2,048 features": lambda: trained(gl.TrainedSAE(d_sae=2_048, **few)),
        "trained SAE, 6,144 features": lambda: trained(gl.TrainedSAE(d_sae=6_144, **few)),
        "transcoder, 2,048 features": transcoder,
        "gate dictionary, 2,048 gates": gates,
        "ReluOMP, 2,048 features": greedy,
        "rotation": rotation,
    }
    if case == "names":
        print(json.dumps(list(cases)))
        raise SystemExit
    said, work = cases[case]()
    gl.TrainedSAE(d_sae=16, k=2, samples=64).train(torch.rand(64, 8))  # what libraries hold once they are imported
    open("/proc/self/clear_refs", "w").write("5")  # the highest point begins anew
    before = most()
    work()
    print(json.dumps([said.memory, most() - before]))
""")


def measure(seeds: Sequence[int], data: Path | None) -> Iterator[Figure]:
    """Stated over peak, a case at a time; on top of what the process held before."""
    for case in _told("names", seeds[0]):
        said, taken = _told(case, seeds[0])
        yield Figure(
            f"{case}: stated memory over measured peak",
            said / taken,
            1.0,
            baselines={"stated, MiB": said / 2**20, "peak, MiB": taken / 2**20, "at most": 1.5},
            note=f"{ROWS:,} rows of width {WIDTH}, a few steps; the process' own highest point, what it held before taken off",
        )


def _told(case: str, seed: int) -> list:
    gives_back = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_TOP_PAD_": "0"}
    command = [sys.executable, "-c", PROGRAM, case, str(ROWS), str(WIDTH), str(seed)]
    done = subprocess.run(
        command, env={**os.environ, **gives_back, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2_000:])
    return json.loads(done.stdout)
