"""Scaling: the speed of two processes against one, and what a billion tokens of GPT-2 small would take.

Each process works for itself on its own shards, so the efficiency is T1 / (2 T2) with T1 the time of all shards in one
process and T2 the time until the later of two has done its share. Beside it stands what the machine itself allows: T1 / T with
T the time of two processes that each do all of the work, side by side and knowing nothing of each other. What two cores lose there
(memory, caches, clock) no split of the work can win back. Start-up (importing torch and transformer-lens) is left out: the
processes wait for one another before the clock starts. An idle machine is needed: the load is in the notes.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from gatelens.bench import Figure
from support.processes import ended, launch

SEEDS = (0, 1, 2)
SHARDS, LAYERS, WIDTH, TOKENS = 8, 12, 768, 1_000_000_000

WORKER = textwrap.dedent("""
    import json, os, sys, time, warnings
    from pathlib import Path
    warnings.simplefilter("ignore")
    import numpy as np, torch
    import gatelens as gl
    from gatelens import GramLasso, HookedMLP, ReluOMP, collect
    from gatelens.data import Batches
    from gatelens.distributed import meet, team, this_worker, together

    work, folder, seed, split = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "split"
    worker = this_worker()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(seed)

    def collecting():
        rows = 8 * 2048
        model, places = HookedMLP((784, 1024, 1024, 1024, 10), seed=seed), torch.arange(rows)
        data = Batches(torch.rand(rows, 784, generator=generator), places % 10, torch.ones(rows, dtype=torch.bool), places, 512)
        hooks = ["hook_post.0", "hook_post.1"]
        collect(model, data.take(512), hooks)  # the first pass of a process is slower than all others
        return lambda: collect(model, data, hooks, store=folder / "acts", shard_rows=2048)

    def features(rows, width):
        on = torch.rand(rows, width, generator=generator) < 0.05
        f_in = torch.rand(rows, width, generator=generator) * on
        mix = (torch.rand(width, width, generator=generator) < 3 / width).float()
        return f_in.to_sparse_csr(), (f_in @ mix - 0.3).relu().to_sparse_csr()

    def fitting():
        solver, (f_in, f_out) = ReluOMP(max_fan_in=6, block=32, seed=seed), features(20_000, 256)
        return lambda: solver.fit(f_in, f_out)

    def gram():
        solver, (f_in, f_out) = GramLasso(mean_wires=4), features(40_000, 1_024)
        return lambda: solver.fit(f_in, f_out)

    def small_gpt():
        model = gl.load_model("gpt2-mini")
        fit, held_out = gl.text_batches(model, "gpt2-mini-sample", rows=(240, 120), length=64, seed=seed)
        segments = gl.mlp_segments(model, layers=[3])
        return model, fit, held_out, segments, gl.collect(model, fit, segments)

    def dictionaries():
        *_, segments, acts = small_gpt()
        recipes = [gl.TrainedSAE(d_sae=1_024, k=16, samples=120_000, batch_size=512, seed=i) for i in range(4)]
        rows = acts[segments[0].hook_in]
        return lambda: [recipes[i].train(rows) for i in team().owned(len(recipes))]

    def circuit():
        model, fit, held_out, segments, acts = small_gpt()
        basis = gl.PretrainedSAE("gpt2-mini")
        both = {hook: basis.load(hook) for hook in (segments[0].hook_in, segments[0].hook_out)}
        return model, held_out, segments, both, acts, gl.build_circuit(model, segments, both, acts, gates=False)

    def gates():
        *_, segments, both, acts, found = circuit()
        codes = [both[hook].encode(acts[hook]) for hook in (segments[0].hook_in, segments[0].hook_out)]
        return lambda: gl.type_gates(found.connectors[segments[0].name], *codes)

    def evaluation():
        model, held_out, *_, found = circuit()
        unseen = gl.collect(model, held_out, found.segments)
        return lambda: gl.evaluate(model, found, held_out, acts=unseen, means={hook: unseen[hook].mean(0) for hook in unseen})

    works = {"collect": collecting, "dictionaries": dictionaries, "GramLasso": gram, "ReluOMP": fitting}
    act = (works | {"gates": gates, "evaluation": evaluation})[work]()
    with together(worker):
        meet()
        began, cpu = time.perf_counter(), time.process_time()
        if split:
            act()
            meet()
    if not split:
        folder = folder / str(worker.rank)
        for name in ("RANK", "WORLD_SIZE"):
            os.environ.pop(name, None)
        act()
    print(json.dumps({"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}))
""")


def run(work: str, world: int, seed: int, split: bool = True) -> tuple[float, float]:
    """Seconds until the last of `world` processes is done, and their processor seconds together.

    Args:
        split: among them; else each does all of it.
    """
    with tempfile.TemporaryDirectory() as folder:
        how = "split" if split else "whole"
        found = [json.loads(said) for said in ended(launch(world, "-c", WORKER, work, folder, str(seed), how))]
    return max(f["seconds"] for f in found), sum(f["cpu"] for f in found)


def measure(seeds: Sequence[int], data: Path | None) -> Iterator[Figure]:
    """Efficiency at two processes, then the table of a billion tokens."""
    for work in ("collect", "dictionaries", "GramLasso", "ReluOMP", "gates", "evaluation"):
        efficiency, by_cpu, allowed = [], [], []
        for seed in seeds:
            (one, cpu_one), (two, cpu_two) = run(work, 1, seed), run(work, 2, seed)
            efficiency.append(one / (2 * two))
            by_cpu.append(cpu_one / cpu_two)
            allowed.append(one / run(work, 2, seed, split=False)[0])
        yield Figure(
            f"efficiency of {work} at 2 processes",
            statistics.median(efficiency),
            bar=0.85,
            baselines={
                "what two processes that share nothing reach": statistics.median(allowed),
                "processor seconds of one / of two together": statistics.median(by_cpu),
            },
            note=f"T1 / (2 T2) on {os.cpu_count()} cores at a load of {os.getloadavg()[0]:.1f}: other work on the machine lowers "
            "it; processor seconds depend on it less, and say what the split itself costs",
        )
    yield along(seeds)
    yield crashes(100)
    yield from billion_tokens(seeds)


ALONG = textwrap.dedent("""
    import json, sys, time, warnings
    warnings.simplefilter("ignore")
    import torch
    import gatelens as gl
    from gatelens.distributed import meet, this_worker, together
    from gatelens.evaluation.figures import fvu

    seed, worker = int(sys.argv[1]), this_worker()
    torch.set_num_threads(1)
    model = gl.load_model("gpt2-mini")
    fit, held_out = gl.text_batches(model, "gpt2-mini-sample", rows=(240, 120), length=64, seed=0)
    (segment,) = gl.mlp_segments(model, layers=[3])
    rows, unseen = (gl.collect(model, part, [segment])[segment.hook_in] for part in (fit, held_out))
    recipe = gl.TrainedSAE(d_sae=2_048, k=24, samples=400_000, batch_size=1_024, seed=seed, data_parallel=True)
    with together(worker):
        meet()
        began = time.perf_counter()
        sae = recipe.train(rows)
        meet()
        seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "fvu": fvu(unseen, sae.decode(sae.encode(unseen))), "sum": sae.W_enc.double().sum().item()}))
""")


def along(seeds: Sequence[int]) -> Figure:
    """One dictionary that two processes train together, beside one process."""
    efficiency, apart, alike = [], [], True
    for seed in seeds:
        (one,), two, again = ([json.loads(s) for s in ended(launch(n, "-c", ALONG, str(seed)))] for n in (1, 2, 2))
        efficiency.append(one["seconds"] / (2 * max(f["seconds"] for f in two)))
        apart.append(two[0]["fvu"] / one["fvu"] - 1)
        alike &= len({f["sum"] for f in (*two, *again)}) == 1
    beside = {"FVU over one process's, less one": max(apart, key=abs), "the same bits in both runs": float(alike)}
    note = "2,048 features of gpt2-mini's layer 3, held-out rows; gradients are added up at every step"
    return Figure(
        "efficiency of one dictionary trained by 2 processes",
        statistics.median(efficiency),
        baselines=beside,
        note=note,
    )


WALKS = """
import json, sys
from gatelens.pipeline import run
from gatelens.pipeline.config import check_config
settings, folders = json.loads(sys.argv[1])
for folder in folders:
    run(check_config(settings), folder, until="connect")
"""
TINY = {
    "name": "tiny",
    "model": {"use": "HookedMLP", "sizes": [64, 12, 10, 10], "train": {"epochs": 1}},
    "data": {"use": "image_batches", "source": "digits", "rows": [400, 100], "batch_size": 64},
    "bases": {"use": "TrainedSAE", "expansion": 2, "k": 4, "samples": 1000, "batch_size": 100},
    "solver": {"use": "ReluOMP", "max_fan_in": 3, "block": 4},
}


def crashes(runs: int, at_once: int = 10) -> Figure:
    """Runs of two processes that one did not end well, of so many; each pair of processes walks through several."""
    failed, said = 0, ""
    for _ in range(runs // at_once):
        with tempfile.TemporaryDirectory() as folder:
            walks = json.dumps([TINY, [f"{folder}/{i}" for i in range(at_once)]])
            try:
                ended(launch(2, "-c", WALKS, walks, GATELENS_PATIENCE="300"))
                bad = 0
            except AssertionError as error:
                bad, said = 1, said or str(error)[-300:]
            done = sum((Path(folder) / str(i) / "connectors" / "manifest.json").exists() for i in range(at_once))
            failed += (at_once - done) or bad
    return Figure(
        f"runs of two processes that did not end well, of {runs}", failed, bar=0, better="lower",
        note=f"digits, up to the wires, {at_once} runs one after the other in each pair of processes. {said}".strip(),
    )  # fmt: skip


def billion_tokens(seeds: Sequence[int]) -> Iterator[Figure]:
    """One shard of GPT-2 small's shapes is collected here (random weights: the time is that of the real ones)."""
    cost = statistics.median(one_shard(seed) for seed in seeds[:1])
    rows = 4 * 128
    per_token = cost / rows
    disk = TOKENS * (2 * LAYERS * WIDTH * 2 + 24)  # both ends of twelve MLPs, float16
    memory = 4 * 32_768 * (2 * LAYERS * WIDTH * 2 + 24) + 4 * 124_000_000
    for workers in (8, 64):
        hours = TOKENS * per_token / workers / 3600
        yield Figure(
            f"1B tokens of GPT-2 small, all 12 MLPs, {workers} CPU workers: hours to collect",
            hours,
            better="lower",
            baselines={
                "disk, TB (float16, both ends of each MLP)": disk / 1e12,
                "memory a worker, GB": memory / 1e9,
                "disk a worker, TB": disk / workers / 1e12,
            },
            note=f"computed from one measured shard: {per_token * 1e3:.2f} ms a token on one core, and from sizes; collecting "
            "has no communication between workers, so time is divided by their number",
        )


def one_shard(seed: int) -> float:
    """Seconds to collect and store both ends of all MLPs over 4 windows of 128 tokens, on one thread."""
    import torch
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    from gatelens import collect
    from gatelens.data import Batches

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    config = HookedTransformerConfig(
        n_layers=LAYERS,
        d_model=WIDTH,
        n_ctx=128,
        d_head=64,
        n_heads=12,
        d_mlp=3072,
        d_vocab=50257,
        act_fn="gelu_new",
        seed=seed,
    )
    model = HookedTransformer(config).eval()
    tokens = torch.randint(0, 50257, (4, 128), generator=torch.Generator().manual_seed(seed))
    where = torch.arange(4)[:, None].expand(4, 128)
    batches = Batches(tokens, tokens, torch.ones(4, 128, dtype=torch.bool), where, 4, "ce", "random tokens")
    hooks = [f"blocks.{i}.{end}" for i in range(LAYERS) for end in ("ln2.hook_normalized", "hook_mlp_out")]
    collect(model, batches.take(1), hooks)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        collect(model, batches, hooks, store=folder, dtype="float16")
        seconds = time.perf_counter() - began
    torch.set_num_threads(threads)
    return seconds
