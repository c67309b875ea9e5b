"""What users wait for, against the peers that do the same: CPU seconds on one thread, all of a figure's sides in one run.

A part is one of `dictionaries`, `gram`, `omp` (`--only gram`); finished parts are kept on the disk for a day, and
`tools/collect_parts.py speed` writes what is there, and what is not, to docs/results/speed.json.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _kept import finished, kept

import gatelens as gl
from gatelens.bench import Figure
from gatelens.codes.csr import spread
from gatelens.connectors import Connector
from gatelens.planted import PlantedFeatures, true_connector

SEEDS = (0, 1, 2)
WIDTH, K, STEPS, BATCH = 2_304, 32, 300, 512
#: the learning rates that each trainer is tried with; the better one counts
RATES = {"sparse": (4e-3,), "sae-lens": (1.5e-3, 3e-3)}
GRAM = (8_192, 100_000)
OMP = (4_096, 200_000)
MIN_FIRINGS = 100


#: names for `--only`, in the order in which they are measured; the wires take one seed
PARTS = ("dictionaries", "gram", "omp")


def measure(seeds: Sequence[int], data: Path | None, only: Sequence[str] = ()) -> Iterator[Figure]:
    parts = {
        "dictionaries": partial(dictionaries, seeds),
        "gram": partial(gram, seeds[0]),
        "omp": partial(omp, seeds[0]),
    }
    for name in only or PARTS:
        yield from kept(_tag(seeds, name), _loaded(parts[name]))


def so_far(seeds: Sequence[int]) -> dict[str, tuple[list[Figure], dict[str, Any]] | None]:
    """Each part's figures, with date and commit; None for those that were not measured with these seeds."""
    return {name: finished(_tag(seeds, name)) for name in PARTS}


def absent(part: str) -> Figure:
    """What stands in the place of a part that was not run."""
    return Figure(f"speed, part {part}", None)


def _tag(seeds: Sequence[int], part: str) -> str:
    return f"speed-{'-'.join(map(str, seeds))}-{part}"


def _loaded(part: Callable[[], Iterator[Figure]]) -> Callable[[], Iterator[Figure]]:
    """The figures of a part, with the load that the machine was under when it began."""

    def figures() -> Iterator[Figure]:
        load = os.getloadavg()[0]
        for figure in part():
            yield replace(figure, note=f"{figure.note}; load {load:.1f} when it began (itself adds 1)")

    return figures


# ---- dictionaries at equal steps


def dictionaries(seeds: Sequence[int]) -> Iterator[Figure]:
    """The sparse trainer and sae-lens' on the MLP inputs of gpt2-mini's layer 1, at equal steps."""
    model = gl.load_model("gpt2-mini")
    fit, held_out = gl.text_batches(model, "gpt2-mini-sample", rows=(320, 120), length=96, seed=0)
    segments = gl.mlp_segments(model, layers=[1])
    hook = segments[0].hook_in
    x, unseen = (gl.collect(model, part, segments)[hook] for part in (fit, held_out))
    found = {name: [_best(name, x, unseen, seed) for seed in seeds] for name in RATES}
    ours, theirs = found["sparse"], found["sae-lens"]
    where = f"gpt2-mini, {hook}, {len(x):,} rows, d {x.shape[1]} -> {WIDTH}, k {K}, {STEPS} steps of {BATCH}; sae-lens at the better of its rates"
    yield Figure(
        "sparse trainer: CPU time over sae-lens, equal steps",
        statistics.median(a["cpu"] / b["cpu"] for a, b in zip(ours, theirs, strict=True)),
        0.25,
        "lower",
        {"its CPU s": statistics.median(a["cpu"] for a in ours)},
        where,
    )
    yield Figure(
        "sparse trainer: held-out FVU over sae-lens, equal steps",
        statistics.median(a["fvu"] / b["fvu"] for a, b in zip(ours, theirs, strict=True)),
        1.03,
        "lower",
        {
            f"{name}: {key}": statistics.median(r[key] for r in rows)
            for name, rows in found.items()
            for key in ("fvu", "l0", "exported l0", "dead")
        },
        where
        + "; l0 on held-out rows, sae-lens with a threshold set on rows (its own: exported l0); dead: share of features never on in fitting and held-out rows",
    )


def _best(trainer: Any, x: torch.Tensor, unseen: torch.Tensor, seed: int) -> dict[str, float]:
    tried = []
    for lr in RATES[trainer]:
        recipe = gl.TrainedSAE(
            d_sae=WIDTH, k=K, samples=STEPS * BATCH, batch_size=BATCH, lr=lr, trainer=trainer, seed=seed
        )
        began = time.process_time()
        sae = recipe.train(x)
        cpu, exported = time.process_time() - began, _judged(sae, x, unseen)["l0"]
        if trainer == "sae-lens":
            _give_it_k(sae, x)
        tried.append({"cpu": cpu, "exported l0": exported} | _judged(sae, x, unseen))
    return min(tried, key=lambda r: r["fvu"])


@torch.no_grad()
def _give_it_k(sae: Any, x: torch.Tensor) -> None:
    """One threshold at which k features are on, as the sparse trainer sets it: else its FVU would be that of another L0."""
    rows = x[spread(len(x), 8_192)]
    if sae.cfg.apply_b_dec_to_input:
        rows = rows - sae.b_dec
    sums = (rows @ sae.W_enc + sae.b_enc).flatten()
    sae.threshold.fill_(float(sums.topk(K * len(rows) + 1).values[-1].clamp_min(0)))


def _judged(sae: Any, x: torch.Tensor, unseen: torch.Tensor) -> dict[str, float]:
    f = sae.encode(unseen)
    error = (sae.decode(f) - unseen).square().sum() / (unseen - unseen.mean(0)).square().sum()
    on = (f > 0).any(0)
    for part in x.split(4_096):
        on |= (sae.encode(part) > 0).any(0)
    return {"fvu": float(error), "l0": float((f > 0).sum()) / len(f), "dead": float((~on).float().mean())}


# ---- wires between wide dictionaries


def gram(seed: int) -> Iterator[Figure]:
    seconds, peak, recall, where = _wires(gl.GramLasso(mean_wires=4, cap=8), *GRAM, seed)
    yield Figure(f"GramLasso, {GRAM[0]:,} features: CPU s", seconds, 20, "lower", note=where)
    yield Figure(
        f"GramLasso, {GRAM[0]:,} features: peak GB over its input", peak, 1.5, "lower", {"recall": recall}, where
    )


def omp(seed: int) -> Iterator[Figure]:
    seconds, peak, recall, where = _wires(gl.ReluOMP(), *OMP, seed)
    yield Figure(f"ReluOMP, {OMP[0]:,} features: CPU s", seconds, 40, "lower", {"peak GB": peak}, where)
    yield Figure(f"ReluOMP, {OMP[0]:,} features: recall", recall, 0.97, note=where)


def _wires(solver: Any, width: int, rows: int, seed: int) -> tuple[float, float, float, str]:
    planted = PlantedFeatures(width_in=width, seed=seed).plant()
    f_in, f_out = planted.sample(rows, seed=1)
    began = time.process_time()
    found, peak = _with_peak(lambda: solver.fit(f_in, f_out))
    seconds = time.process_time() - began
    fires = torch.bincount(f_out.col_indices(), minlength=width) >= MIN_FIRINGS
    true, said = (_places(c, fires) for c in (true_connector(planted.gates, width), found))
    where = f"planted gates, {rows:,} rows, one seed; wires of outputs that fire {MIN_FIRINGS} times or more"
    return seconds, peak, len(true & said) / len(true), where


def _places(connector: Connector, fires: torch.Tensor) -> set[tuple[int, int]]:
    weight = connector.weight
    out = torch.repeat_interleave(connector.fan_in())
    kept = fires[out] & (weight.values() != 0)
    return set(zip(out[kept].tolist(), weight.col_indices()[kept].tolist(), strict=True))


def _with_peak(work: Callable[[], Connector]) -> tuple[Connector, float]:
    """What the work gives, and the most memory that the process held meanwhile above where it began, in GB (Linux)."""
    over, most, start = threading.Event(), 0, _resident()

    def watch() -> None:
        nonlocal most
        while not over.wait(0.02):
            most = max(most, _resident() - start)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        found = work()
    finally:
        over.set()
        watcher.join()
    return found, most / 1e9


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4_096
