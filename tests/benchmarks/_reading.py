"""Figures of rules read from natural rows: shares by MCC beside their controls, tables of tokens, nulls, the optimum."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
from _layers import Layer, by_name, columns_of, csr, no_wires

from gatelens.bench import Figure
from gatelens.codes.csr import stack_csr, to_csr
from gatelens.gates import type_gates
from gatelens.gates.levels import Levels
from gatelens.gates.literals import Literals
from gatelens.gates.patterns import Terms, best_by_size
from gatelens.gates.search import Search, Target
from gatelens.gates.stage import sparse_rows
from gatelens.gates.tables import Columns

BARS = (0.5, 0.7, 0.8)
#: of the issue: layer -> what -> shares over `BARS`
WANTED: dict[tuple[str, str], tuple[float, ...]] = {
    ("1", "chosen"): (0.62, 0.33, 0.18),
    ("1", "median"): (0.47, 0.19, 0.09),
    ("1-transcoder", "median"): (0.78, 0.44, 0.23),
    ("12", "median"): (0.45,),
}
CONTROLS = ("random_parents", "shuffled", "single", "token", "token_pair", "ceiling")
#: outputs on which the search is run on shuffled rows; with neurons as parents, and rows of these
SOME, NEURONS, NEURON_ROWS = 100, 60, 20_000


def shares(at: Layer, levels: str) -> Iterator[Figure]:
    """Outputs with a rule, by its MCC, at one choice of levels."""
    began = time.process_time()
    gates = at.read(levels)
    seconds = time.process_time() - began
    kept = [g.evidence.kept for g in gates if g.evidence is not None and g.evidence.kept is not None]
    note = (
        f"{len(gates)} of {len(at.eligible)} eligible outputs of {at.features[0][1].shape[1]}; {len(at.parts[0].x):,} fitting and "
        f"{len(at.parts[1].x):,} held-out rows; share of firings kept, median {median(kept) if kept else 0:.2f}; {seconds:.0f} CPU s"
    )
    bars, where = WANTED.get((at.name, levels), ()), f"layer {at.name}, level {levels}"
    for place, bar in enumerate(BARS):
        beside = {name: over([by_name(g, name) for g in gates], bar) for name in CONTROLS}
        beside["of all outputs"] = (
            None
            if not gates
            else ((over([g.mcc for g in gates], bar) or 0) * len(at.eligible) / at.features[0][1].shape[1])
        )
        if place == 0:
            beside["grade holds"] = fmean(g.read for g in gates)
        yield Figure(
            f"{where}: outputs with a rule, MCC > {bar}", over([g.mcc for g in gates], bar),
            bars[place] if place < len(bars) else None, baselines=beside, note=note if place == 0 else "",
        )  # fmt: skip
    for name in ("random_parents", "shuffled"):
        share = over([by_name(g, name) for g in gates], 0.5)
        yield Figure(f"{where}: {name.replace('_', ' ')}, MCC > .5", share, 0.01, "lower")
    curves = [g.evidence.f1_by_literals for g in gates if g.evidence is not None]
    by_size = [mean([c[n] for c in curves if len(c) > n]) for n in range(4)]
    yield Figure(f"{where}: F1 of the best rule of 4 literals", by_size[3],
                 baselines={f"{n + 1} literals": by_size[n] for n in range(3)}, note="mean, held out")  # fmt: skip


def beyond_lookup(at: Layer) -> Iterator[Figure]:
    """Rules against the best table of tokens."""
    gates = at.read("median")
    pairs = [(g.mcc or 0.0, g.controls.lookup or 0.0) for g in gates if g.controls is not None]
    ahead, behind = ([d > 0.05 for d in (s * (m - k) for m, k in pairs)] for s in (1, -1))
    beats = [bool(g.controls.beats_lookup) for g in gates if g.controls is not None]
    bars = (0.36, 0.20) if at.name == "12" else (None, None)
    n = max(len(gates), 1)
    yield Figure(f"layer {at.name}: outputs whose rule beats token + previous lookup by > .05", sum(ahead) / n, bars[0],
                 baselines={"the lookup by > .05": sum(behind) / n}, note="median level")  # fmt: skip
    yield Figure(f"layer {at.name}: outputs whose rule beats the lookup over documents", sum(beats) / n,
                 bars[1], note="97.5 % of 200 resamples of documents; no margin")  # fmt: skip


def nulls(at: Layer) -> Iterator[Figure]:
    """The whole search on shuffled rows, and neurons as parents, on some outputs."""
    some = spread(at.sample, SOME)
    (f_in, f_out), (h_in, h_out) = at.features
    y, z = (columns_of(f, some) for f in (f_out, h_out))
    order = np.random.default_rng(at.seed)
    mixed = [csr(sparse_rows(f)[order.permutation(f.shape[0])]) for f in (y, z)]
    null = type_gates(no_wires(f_in, y), f_in, mixed[0], held_out=(h_in, mixed[1]), levels="median")
    yield Figure(f"layer {at.name}: the whole search on shuffled rows, MCC > .5", over([g.mcc for g in null], 0.5), 0.01,
                 "lower", note=f"{len(some)} outputs, median level")  # fmt: skip
    fit, held = at.parts
    step = max(1, len(fit.x) // NEURON_ROWS)
    units = [_neurons(at.segment, r.x[::s]) for r, s in ((fit, step), (held, 1))]
    few = spread(list(range(len(some))), NEURONS)
    y = csr(sparse_rows(y)[::step])
    found = type_gates(no_wires(units[0], columns_of(y, few)), units[0], columns_of(y, few),
                       held_out=(units[1], columns_of(z, few)), levels="median")  # fmt: skip
    yield Figure(f"layer {at.name}: neurons as parents, MCC > .5", over([g.mcc for g in found], 0.5),
                 note=f"{len(few)} outputs, {y.shape[0]:,} fitting rows, median level")  # fmt: skip


def optimum(at: Layer) -> Iterator[Figure]:
    """How far the search is from the best rule over the candidates, on fitting rows."""
    f_in, f_out = (Columns.of(f, "f") for f in at.features[0])
    levels, gaps, missed = Levels.of("median"), [], 0
    search = Search(Literals(f_in, levels.inputs), Terms())
    began = time.process_time()
    for out in spread(at.sample, at.sizes.few):
        row, value = f_out.on(out)
        found = search.rule([Target.at(row, value, float(np.quantile(value, levels.outputs[0])))])
        if found is None or found.table is None or found.best is None:
            continue
        best = max(r.mcc for r in best_by_size(found.table, Terms(), None).values())
        gaps.append(best - max(r.mcc for r in found.by_size.values()))
        missed += gaps[-1] > 1e-6
    note = f"{len(gaps)} outputs, every rule of at most 4 of their 16 best candidates; {time.process_time() - began:.0f} CPU s"
    yield Figure(f"layer {at.name}: fitting MCC by which the search misses the optimum, mean", mean(gaps),
                 baselines={"largest": max(gaps, default=None), "share missed": missed / max(len(gaps), 1)},
                 note=note)  # fmt: skip


def over(values: Sequence[float | None], bar: float) -> float | None:
    """The share above the bar, of all; what could not be had is not above it. None where nothing could."""
    if all(v is None for v in values):
        return None
    return fmean(v is not None and v > bar for v in values)


def mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return fmean(known) if known else None


def spread(values: list[int], most: int) -> list[int]:
    return [values[i] for i in np.linspace(0, len(values) - 1, min(most, len(values))).astype(int)]


def _neurons(segment: Any, x: torch.Tensor) -> torch.Tensor:
    """Both signs of each hidden unit of a gated or plain MLP, each a feature of its own."""
    upto = replace(segment.mlp, W_out=None)  # the segment behind the nonlinearity
    with torch.no_grad():
        parts = []
        for rows in x.split(4_096):
            hidden = upto(rows)
            parts.append(to_csr(torch.cat([hidden.clamp_min(0), (-hidden).clamp_min(0)], 1)))
        return stack_csr(parts)
