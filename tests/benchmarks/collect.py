"""What collecting costs: time against the bare forward pass on the same tokens, memory against the size of a shard."""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

import gatelens as gl
from gatelens.activations.capture import forward_kwargs
from gatelens.bench import Figure

SEEDS = (0, 1, 2)
LAYER = 1


def measure(seeds: Sequence[int], data: Path | None) -> Iterator[Figure]:
    """Each seed is one paired run: other tokens, bare and collecting in turn."""
    model = gl.load_model("gpt2-mini")
    segments, every = gl.mlp_segments(model, [LAYER]), gl.mlp_segments(model)
    names = [segments[0].hook_in, segments[0].hook_out]
    deep = forward_kwargs(model, names)
    ratios: dict[str, list[float]] = {"memory": [], "disk": [], "whole": [], "all four layers": []}
    for seed in seeds:
        tokens = torch.randint(1, 4000, (32, 128), generator=torch.Generator().manual_seed(seed))
        batches, _ = gl.text_batches(None, torch.cat([tokens, tokens[:2]]), rows=(32, 2), seed=seed, batch_size=16)

        same_depth = partial(bare, model, batches, **deep)
        bare_s, collect_s = paired(same_depth, partial(gl.collect, model, batches, segments))
        whole_s, every_s = paired(partial(bare, model, batches), partial(gl.collect, model, batches, every))
        ratios["memory"].append(collect_s / bare_s)
        ratios["disk"].append(seconds(partial(stored, model, batches, segments)) / bare_s)
        ratios["whole"].append(collect_s / whole_s)
        ratios["all four layers"].append(every_s / whole_s)
    yield Figure(
        "collect over the bare forward pass of the same depth, time",
        statistics.median(ratios["memory"]),
        1.10,
        "lower",
        {
            "over the whole model's forward pass": statistics.median(ratios["whole"]),
            "all four layers (8 hook points), over the whole model's": statistics.median(ratios["all four layers"]),
            "to disk, shards hashed and synced": statistics.median(ratios["disk"]),
        },
        f"gpt2-mini, both ends of layer {LAYER}'s MLP, 32 windows of 128 tokens, best of three each; CPU time",
    )
    yield Figure(
        "a store's tensors in memory at once, over the whole's size",
        _share_in_memory(model, segments),
        0.5,
        "lower",
        note="8 shards: the largest number of bytes in activation tensors while collecting, sampled at every forward pass",
    )


def bare(model, batches, **how) -> None:
    with torch.no_grad():
        for batch in batches:
            model(batch.inputs, **how)


def stored(model, batches, segments) -> None:
    with tempfile.TemporaryDirectory() as folder:
        gl.collect(model, batches, segments, store=Path(folder) / "acts", shard_rows=4096)


def seconds(work: Callable[[], object]) -> float:
    """CPU time of the best of three runs; wall time on a shared machine measures the neighbours."""
    times = []
    for _ in range(3):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


def paired(first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float]:
    """Best of three of each, taken in turn so that both see the same machine."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(3):
        for work, into in zip((first, second), times, strict=True):
            began = time.process_time()
            work()
            into.append(time.process_time() - began)
    return min(times[0]), min(times[1])


def _share_in_memory(model, segments) -> float:
    """Largest bytes of activation tensors held between two forward passes, over the bytes of the whole store."""
    tokens = torch.randint(1, 4000, (66, 64), generator=torch.Generator().manual_seed(0))
    batches, _ = gl.text_batches(None, tokens, rows=(64, 2), batch_size=8)
    width, peak = segments[0].d_in, 0
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def watch(value, hook=None) -> None:
        nonlocal peak
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            live = [
                t.untyped_storage() for t in gc.get_objects() if type(t) is torch.Tensor and t.shape[-1:] == (width,)
            ]
        peak = max(peak, sum({s.data_ptr(): s.nbytes() for s in live if s.data_ptr() not in weights}.values()))

    with tempfile.TemporaryDirectory() as folder, model.hooks([("blocks.0.hook_resid_pre", watch)]):
        gl.collect(model, batches, segments, store=Path(folder) / "acts", shard_rows=8 * 64)
    return peak / (batches.rows * 2 * width * 4)
