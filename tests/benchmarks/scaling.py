"""Scaling: the speed of two processes against one, and what a billion tokens of GPT-2 small would take.

The efficiency of two processes is one process's processor seconds over twice the seconds until the later of two has done its share.
Beside it stands what the machine itself allows: T1 / T with T the time of two processes that each do all of the work, side by side
and knowing nothing of each other. What two cores lose there (memory, caches, clock) no split of the work can win back. Start-up
(importing libraries, making the inputs) is left out: the processes wait for one another before the clock starts. An idle machine is
needed: the load before and after is in the notes, and processor seconds, which depend on it less, stand beside.

A split is for work of minutes and hours. The works of a few seconds (three seeds) show what the split itself costs where it costs
most; those of `4k` features and of SmolLM2 (one seed, for the time they take) are nearer to what somebody would split.

A part is one work (`--only GramLasso gates`); finished parts are kept on the disk for a day. `tools/collect_parts.py scaling` writes
what is there, and what is not, to docs/results/scaling.json.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _kept import finished, kept

from gatelens.bench import Figure
from support.processes import ended, launch

SEEDS = (0, 1, 2)
SHARDS, LAYERS, WIDTH, TOKENS = 8, 12, 768, 1_000_000_000
WORKER = Path(__file__).with_name("_split_work.py")
#: what is split, and at what size; works that take minutes are measured with the first seed alone
SIZES = {
    "collect": "two hook points of an MLP of 1,024 neurons a layer, 16,384 images, kept on the disk",
    "dictionaries": "four of 1,024 features on gpt2-mini's layer 3, 120,000 samples each, one to a process at a time",
    "GramLasso": "1,024 features of which a twentieth is on, 40,000 rows: seconds",
    "GramLasso-4k": "planted gates, 4,096 features, 100,000 rows",
    "ReluOMP": "256 features of which a twentieth is on, 20,000 rows: seconds",
    "ReluOMP-4k": "planted gates, 4,096 features, 100,000 rows",
    "gates": "1,024 outputs of gpt2-mini's layer 3, without interventions",
    "evaluation": "the own figures of a circuit in gpt2-mini, 4,096 tokens: seconds",
    "evaluation-smollm2": "the own figures of a circuit of SmolLM2's layer 1 with its shipped dictionaries, 2,048 tokens",
}
LONG = ("GramLasso-4k", "ReluOMP-4k", "evaluation-smollm2")
BAR = 0.85
#: names for `--only`, in the order in which they are measured
PARTS = (*SIZES, "along", "crashes", "tokens")


def measure(seeds: Sequence[int], data: Path | None, only: Sequence[str] = ()) -> Iterator[Figure]:
    for name in only or PARTS:
        yield from kept(_tag(seeds, name), _parts(seeds)[name])


def so_far(seeds: Sequence[int]) -> dict[str, tuple[list[Figure], dict[str, Any]] | None]:
    """Each part's figures, with date and commit; None for those that were not measured with these seeds."""
    return {name: finished(_tag(seeds, name)) for name in PARTS}


def absent(part: str) -> Figure:
    """What stands in the place of a part that was not run."""
    return Figure(_named(part) if part in SIZES else f"scaling, part {part}", None)


def _tag(seeds: Sequence[int], part: str) -> str:
    return f"scaling-{'-'.join(map(str, seeds))}-{part}"


def _parts(seeds: Sequence[int]) -> dict[str, Callable[[], Iterable[Figure]]]:
    works = {name: partial(efficiency, name, seeds[:1] if name in LONG else seeds) for name in SIZES}
    return works | {
        "along": lambda: [along(seeds)],
        "crashes": lambda: [crashes(100)],
        "tokens": partial(billion_tokens, seeds),
    }


def _named(work: str) -> str:
    return f"efficiency of {work} at 2 processes"


def run(work: str, world: int, seed: int, split: bool = True) -> tuple[float, list[float]]:
    """Seconds until the last of `world` processes is done, and the processor seconds of each.

    Args:
        split: among them; else each does all of it.
    """
    with tempfile.TemporaryDirectory() as folder:
        how = "split" if split else "whole"
        found = [json.loads(said) for said in ended(launch(world, "-P", str(WORKER), work, folder, str(seed), how))]
    return max(f["seconds"] for f in found), [f["cpu"] for f in found]


def efficiency(work: str, seeds: Sequence[int]) -> Iterator[Figure]:
    """One process against two, beside two that share nothing."""
    rows, before = [], os.getloadavg()[0]
    for seed in seeds:
        (one, (cpu,)), (two, cpus) = run(work, 1, seed), run(work, 2, seed)
        both, _ = run(work, 2, seed, split=False)
        rows.append((cpu / (2 * two), one / both, cpu / sum(cpus), 2 * max(cpus) / sum(cpus), one, two, cpu))
    value, allowed, by_cpu, slowest, one, two, cpu = map(statistics.median, zip(*rows, strict=True))
    yield Figure(
        _named(work),
        value,
        bar=BAR,
        baselines={
            "what two processes that share nothing reach": allowed,
            "processor seconds of one / of two together": by_cpu,
            "processor seconds of the slower of two / their mean": slowest,
            "seconds of one": one,
            "seconds of two": two,
            "processor seconds of one": cpu,
        },
        note=f"{SIZES[work]}; processor seconds of one / (2 x seconds of two) on {os.cpu_count()} cores, {len(rows)} "
        f"seed{'s' if len(rows) > 1 else ''}, load {before:.1f} before and {os.getloadavg()[0]:.1f} after (two processes make 2)",
    )


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
