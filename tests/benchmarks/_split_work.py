"""One piece of work that processes share, in a process of its own: `python -P _split_work.py WORK FOLDER SEED split|whole`.

What is measured begins after start-up: libraries are imported, the work's inputs are made, and the processes have met.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")

import sae_lens  # noqa: E402, F401
import scipy.sparse  # noqa: E402, F401
import torch  # noqa: E402
import transformer_lens  # noqa: E402, F401

import gatelens as gl  # noqa: E402
from gatelens.data import Batches  # noqa: E402
from gatelens.distributed import meet, team, this_worker, together  # noqa: E402
from gatelens.planted import PlantedFeatures  # noqa: E402

Act = Callable[[], Any]


def collecting(folder: Path, seed: int) -> Act:
    rows = 8 * 2_048
    model, places = gl.HookedMLP((784, 1_024, 1_024, 1_024, 10), seed=seed), torch.arange(rows)
    pixels = torch.rand(rows, 784, generator=torch.Generator().manual_seed(seed))
    data = Batches(pixels, places % 10, torch.ones(rows, dtype=torch.bool), places, 512)
    hooks = ["hook_post.0", "hook_post.1"]
    gl.collect(model, data.take(512), hooks)  # the first pass of a process is slower than all others
    return lambda: gl.collect(model, data, hooks, store=folder / "acts", shard_rows=2_048)


def fitting(solver: Any, rows: int, width: int) -> Callable[[Path, int], Act]:
    """Wires between features of which a twentieth is on, as many on both sides."""

    def work(folder: Path, seed: int) -> Act:
        generator = torch.Generator().manual_seed(seed)
        on = torch.rand(rows, width, generator=generator) < 0.05
        f_in = torch.rand(rows, width, generator=generator) * on
        mix = (torch.rand(width, width, generator=generator) < 3 / width).float()
        both = f_in.to_sparse_csr(), (f_in @ mix - 0.3).relu().to_sparse_csr()
        return lambda: solver.fit(*both)

    return work


def fitting_planted(solver: Any, rows: int, width: int) -> Callable[[Path, int], Act]:
    """Wires of planted gates, sparse as dictionaries are, as in `gatelens bench speed`."""

    def work(folder: Path, seed: int) -> Act:
        both = PlantedFeatures(width_in=width, seed=seed).plant().sample(rows, seed=seed + 1)
        return lambda: solver.fit(*both)

    return work


def gpt2_mini(seed: int) -> tuple[Any, ...]:
    model = gl.load_model("gpt2-mini")
    fit, held_out = gl.text_batches(model, "gpt2-mini-sample", rows=(240, 120), length=64, seed=seed)
    segments = gl.mlp_segments(model, layers=[3])
    return model, held_out, segments, gl.collect(model, fit, segments)


def smollm2(seed: int) -> tuple[Any, ...]:
    model = gl.load_model("smollm2")
    fit, held_out = gl.text_batches(model, "smollm2-sample", rows=(160, 40), length=64, seed=seed)
    segments = gl.mlp_segments(model, layers=[1])
    return model, held_out, segments, gl.collect(model, fit, segments)


def dictionaries(folder: Path, seed: int) -> Act:
    *_, segments, acts = gpt2_mini(seed)
    recipes = [gl.TrainedSAE(d_sae=1_024, k=16, samples=120_000, batch_size=512, seed=i) for i in range(4)]
    rows = acts[segments[0].hook_in]
    return lambda: [recipes[i].train(rows) for i in team().owned(len(recipes))]


def gates(folder: Path, seed: int) -> Act:
    model, _, segments, acts = gpt2_mini(seed)
    bases = gl.PretrainedSAE("gpt2-mini").fit(segments, acts)
    found = gl.build_circuit(model, segments, bases, acts, gates=False)
    codes = [bases[hook].encode(acts[hook]) for hook in (segments[0].hook_in, segments[0].hook_out)]
    return lambda: gl.type_gates(found.connectors[segments[0].name], *codes)


def evaluation(named: str, tokens: int) -> Callable[[Path, int], Act]:
    """A circuit's own figures in its model."""

    def work(folder: Path, seed: int) -> Act:
        model, held_out, segments, acts = gpt2_mini(seed) if named == "gpt2-mini" else smollm2(seed)
        bases = gl.PretrainedSAE(named).fit(segments, acts)
        solver = gl.GramLasso(mean_wires=4)
        circuit = gl.build_circuit(model, segments, bases, acts, solver=solver, gates=False)
        unseen = gl.collect(model, held_out, segments)
        means = {hook: unseen[hook].mean(0) for hook in unseen}
        return lambda: gl.evaluate(model, circuit, held_out, acts=unseen, means=means, tokens=tokens)

    return work


#: the works by their names: what makes the inputs and returns what is timed
WORKS: dict[str, Callable[[Path, int], Act]] = {
    "collect": collecting,
    "dictionaries": dictionaries,
    "GramLasso": fitting(gl.GramLasso(mean_wires=4), 40_000, 1_024),
    "GramLasso-4k": fitting_planted(gl.GramLasso(mean_wires=4, cap=8), 100_000, 4_096),
    "ReluOMP": fitting(gl.ReluOMP(max_fan_in=6, block=32), 20_000, 256),
    "ReluOMP-4k": fitting_planted(gl.ReluOMP(), 100_000, 4_096),
    "gates": gates,
    "evaluation": evaluation("gpt2-mini", 4_096),
    "evaluation-smollm2": evaluation("smollm2", 2_048),
}


def main(work: str, folder: Path, seed: int, how: str) -> None:
    """Do the work, with the others or (whole) all of it beside them, and print what it took."""
    worker = this_worker()
    torch.set_num_threads(1)
    act = WORKS[work](folder / str(worker.rank) if how == "whole" else folder, seed)
    with together(worker):
        meet()
        began, cpu = time.perf_counter(), time.process_time()
        if how == "split":
            act()
            meet()
    if how == "whole":
        for name in ("RANK", "WORLD_SIZE"):
            os.environ.pop(name, None)
        act()
    print(json.dumps({"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
