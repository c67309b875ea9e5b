"""Wires and gates against planted ground truth, the cost of finding them, and what a null finds."""

from __future__ import annotations

import math
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from _named_circuits import circuits
from _signs import read_signs

from gatelens.bench import Figure
from gatelens.connectors import Connector
from gatelens.gates import GateKind, type_gates
from gatelens.planted import (
    OUT_OF_CLASS,
    Noise,
    Planted,
    PlantedFeatures,
    score_gates,
    score_wires,
    true_connector,
)  # fmt: skip
from gatelens.planted.scores import WireCounts, WireScores
from gatelens.solvers import ReluOMP
from gatelens.solvers.sparse_rows import SparseRows

SEEDS = (11, 12, 13)
MIN_FIRINGS = 100
SCORED = f"outputs that fired on {MIN_FIRINGS} rows or more"
#: spurious firings, drawn alike for all outputs, keep a rare gate's true rule from an MCC of .5 in high noise
MCC_BAR = 0.2
WIDE, WIDE_ROWS = 24_576, 1_000_000


def measure(seeds: Sequence[int], data: Path | None) -> Iterator[Figure]:
    yield from circuits(seeds)
    yield from narrow(seeds)
    yield from typing(seeds)
    yield from sweeps(seeds)
    yield from accumulation(seeds[0])
    yield from wide(seeds[0])


# ---- wires at 4,096


def narrow(seeds: Sequence[int]) -> Iterator[Figure]:
    """Wires at 4,096 features and 200k rows, low noise."""
    scores, everything, nulls, seconds = [], [], [], []
    for seed in seeds:
        planted = PlantedFeatures(width_in=4096, seed=seed).plant()
        f_in, f_out = planted.sample(200_000)
        began = time.process_time()
        connector = ReluOMP().fit(f_in, f_out)
        seconds.append(time.process_time() - began)
        scores.append(score_wires(planted.gates, connector, firings(f_out), MIN_FIRINGS))
        everything.append(score_wires(planted.gates, connector).total)
        nulls.append(chance_precision(planted, connector))
    totals = [s.total for s in scores]
    excluded = 1 - (middle(s.outputs for s in totals) or 0.0) / 4096
    note = f"{SCORED}, {excluded:.1%} excluded; {middle(seconds):.0f} CPU s a fit"
    over_all = {"all outputs, rare ones too": middle(s.f1 for s in everything)}
    yield Figure("wire F1, 4,096 wide, 200k rows", middle(s.f1 for s in totals), 0.97, baselines=over_all, note=note)
    yield Figure("wire precision, 4,096 wide, 200k rows", middle(s.precision for s in totals), 0.98,
                 baselines={"wires dealt to other outputs": middle(nulls)})  # fmt: skip
    yield from by_kind(scores, {"and": 0.88, "and_not": 0.97, "and_not_subset": 0.97}, "4,096 wide")
    for name in scores[0].by_firings:
        yield Figure(f"wire F1, 4,096 wide, fired {name}", middle(s.by_firings[name].f1 for s in scores))
    yield Figure("sign accuracy of true wires, 4,096 wide", middle(s.sign_accuracy for s in totals))
    yield Figure("outputs with exactly the planted parents, 4,096 wide", middle(s.exact_share for s in totals))


def by_kind(scores: Sequence[WireScores], bars: dict[str, float], where: str) -> Iterator[Figure]:
    for kind in scores[0].by_kind:
        yield Figure(f"wire F1 of {kind}, {where}", middle(s.by_kind[kind].f1 for s in scores), bars.get(kind))


def chance_precision(planted: Planted, connector: Connector) -> float:
    """Precision when each output is given its neighbour's wires."""
    n = planted.width_out
    rows = [connector.parents((i + 1) % n) for i in range(n)]
    rolled = Connector.from_rows(rows, connector.bias, planted.width_in)
    return score_wires(planted.gates, rolled).total.precision or 0.0


# ---- sweeps and nulls at 1,024


def sweeps(seeds: Sequence[int]) -> Iterator[Figure]:
    """What noise, density, correlation and copies do, and what shuffled inputs give."""
    settings: dict[str, dict] = {
        "noise clean": {"noise": Noise.level("clean")},
        "noise low": {},
        "noise mid": {"noise": Noise.level("mid")},
        "noise high": {"noise": Noise.level("high")},
        "noise severe": {"noise": Noise.level("severe")},
        "twice as dense": {"active_clusters": 5.0, "background_l0": 16.0},
        "30% shadows (co-firing, not parents)": {"shadows": 0.3},
        "20% exact copies (a copy's wire counts as right)": {"copies": 0.2},
    }
    for name, changed in settings.items():
        counts = [_sweep(seed, changed) for seed in seeds]
        yield Figure(f"wire F1, 1,024 wide, 60k rows, {name}", middle(c.f1 for c in counts),
                     note=f"precision {middle(c.precision for c in counts):.3f}; {SCORED}")  # fmt: skip
    wires, definite = zip(*(_shuffled(seed) for seed in seeds), strict=True)
    yield Figure("shuffled inputs: share of outputs that get any wire", middle(wires), 0.01, "lower")
    yield Figure("shuffled inputs: share of outputs given a definite gate", middle(definite), 0.005, "lower")


def _sweep(seed: int, changed: dict) -> WireCounts:
    planted = PlantedFeatures(width_in=1024, width_out=512, seed=seed, **changed).plant()
    f_in, f_out = planted.sample(60_000)
    world = planted.world
    base = (np.arange(world.clusters) * world.size)[:, None]
    copies = world.role == "copy"
    slots = (base + np.arange(world.size))[copies]
    same = dict(zip(slots.tolist(), (base + world.host)[copies].tolist(), strict=True))
    return score_wires(planted.gates, ReluOMP().fit(f_in, f_out), firings(f_out), MIN_FIRINGS, same).total


def _shuffled(seed: int) -> tuple[float, float]:
    planted = PlantedFeatures(width_in=1024, width_out=512, seed=seed).plant()
    f_in, f_out = planted.sample(60_000)
    rows = SparseRows.of(f_in, "inputs")
    order = np.random.default_rng(seed).permutation(len(f_in))
    _, column, value = rows.take(order)
    start = np.concatenate([[0], np.cumsum(np.diff(rows.row_start)[order])])
    shuffled = torch.sparse_csr_tensor(*map(torch.from_numpy, (start, column, value)), size=tuple(f_in.shape))
    connector = ReluOMP().fit(shuffled, f_out)
    gates = type_gates(connector, shuffled, f_out)
    definite = sum(g.read for g in gates)
    return float((connector.fan_in() > 0).float().mean()), definite / len(gates)


# ---- typing


def typing(seeds: Sequence[int]) -> Iterator[Figure]:
    """Readings from fitted wires and from true parents; gates outside the class."""
    for level in ("low", "mid", "high"):
        fitted, signs, true, strict = zip(*(_typed(seed, level) for seed in seeds), strict=True)
        accuracy, alone = middle(s.accuracy for s in fitted), middle(s.accuracy for s in signs)
        yield Figure(f"gates read right from fitted wires, {level} noise", accuracy, 0.92,
                     baselines={"signs alone": alone, "at the default MCC bar of .5": middle(s.accuracy for s in strict)},
                     note=f"2,048 wide, 150k rows, half of them held out; not read: {middle(s.abstention for s in fitted):.3f}; "
                          f"MCC bar {MCC_BAR}")  # fmt: skip
        yield Figure(f"lead over signs alone, {level} noise", None if accuracy is None else accuracy - alone, 0.12)
        yield Figure(f"gates read right with the true parents, {level} noise", middle(s.accuracy for s in true), 0.98)
    shares = [_out_of_class(seed) for seed in seeds]
    for i, name in enumerate(("fitted wires", "true parents")):
        yield Figure(f"out-of-class gates given a wrong definite label, {name}", middle(s[i] for s in shares), 0.1, "lower",
                     baselines={"signs alone": middle(s[2] for s in shares)})  # fmt: skip


def _typed(seed: int, level: str):
    planted = PlantedFeatures(width_in=2048, width_out=1000, noise=Noise.level(level), seed=seed).plant()
    f_in, f_out = planted.sample(150_000)
    count, connector = firings(f_out), ReluOMP().fit(f_in, f_out)
    at = {"mcc_bar": MCC_BAR, "levels": "zero"}  # where the truth is planted
    fitted = type_gates(connector, f_in, f_out, **at)
    true = type_gates(true_connector(planted.gates, planted.width_in), f_in, f_out, **at)
    strict = {g.out: g.kind if g.read and (g.mcc or 0.0) >= 0.5 else GateKind.NOT_READ for g in fitted}
    readings = (fitted, read_signs(connector), true, strict)
    return [score_gates(planted.gates, reading, count, MIN_FIRINGS) for reading in readings]


def _out_of_class(seed: int) -> list[float | None]:
    planted = PlantedFeatures(
        width_in=2048, width_out=300, mix=OUT_OF_CLASS, noise=Noise(spurious=0.3), seed=seed
    ).plant()
    f_in, f_out = planted.sample(150_000)
    count, connector = firings(f_out), ReluOMP().fit(f_in, f_out)
    true = true_connector(planted.gates, planted.width_in)
    fitted, exact = (type_gates(c, f_in, f_out, mcc_bar=MCC_BAR, levels="zero") for c in (connector, true))
    readings = (fitted, exact, read_signs(connector))
    return [score_gates(planted.gates, r, count, MIN_FIRINGS).wrong_definite_share for r in readings]


# ---- cost


def accumulation(seed: int) -> Iterator[Figure]:
    """Sums of products of all output and input features: output-stationary on sparse rows against a dense matmul."""
    for width, rows, bar in ((4096, 50_000, 8.0), (WIDE, 100_000, 50.0)):
        planted = PlantedFeatures(width_in=width, seed=seed).plant()
        f_in, f_out = (SparseRows.of(f, "features") for f in planted.sample(rows))
        chosen = np.random.default_rng(seed).choice(width, 1024, replace=False)
        firing = sum(len(f_out.column_of(out)[0]) for out in chosen)
        seconds = cpu(lambda: [f_in.product(*f_out.column_of(out)) for out in chosen])  # noqa: B023
        ours = rows / (seconds * float(f_out.row_start[-1]) / firing)
        some = min(width, 4096)
        x, y = torch.rand(512, width), torch.rand(512, some)
        dense = 512 / (min(cpu(lambda: y.T @ x) for _ in range(2)) * width / some)  # noqa: B023
        yield Figure(f"accumulation against dense matmul, {width:,} wide", ours / dense, bar,
                     baselines={"tokens a second, sparse": ours, "tokens a second, dense": dense},
                     note=f"CPU time, one thread; sparse timed on 1,024 outputs of {rows:,} rows and scaled by firings, "
                          f"dense on {some:,} outputs and scaled by width")  # fmt: skip


def wide(seed: int) -> Iterator[Figure]:
    """24,576 wide, 1M rows: one seed, two processes."""
    planted = PlantedFeatures(width_in=WIDE, seed=seed).plant()
    with tempfile.TemporaryDirectory() as folder:
        f_in, f_out = planted.sample(WIDE_ROWS)
        with PeakMemory() as peak:
            began, used = time.perf_counter(), cpu_total()
            connector = ReluOMP(workers=2, store=folder).fit(f_in, f_out)
            wall, used = time.perf_counter() - began, cpu_total() - used
    scores = score_wires(planted.gates, connector, firings(f_out), MIN_FIRINGS)
    everything = score_wires(planted.gates, connector).total
    one = f"one seed; {SCORED}, {1 - scores.total.outputs / WIDE:.1%} excluded"
    yield Figure("wire F1, 24,576 wide, 1M rows", scores.total.f1, 0.95,
                 baselines={"all outputs, rare ones too": everything.f1}, note=one)  # fmt: skip
    yield Figure("wire precision, 24,576 wide, 1M rows", scores.total.precision, 0.98,
                 baselines={"wires dealt to other outputs": chance_precision(planted, connector)}, note=one)  # fmt: skip
    yield from by_kind([scores], {}, "24,576 wide")
    yield Figure("whole fit, 24,576 wide, 1M rows, minutes on two processes", wall / 60, 15, "lower",
                 baselines={"CPU minutes of all processes": used / 60},
                 note=f"wall clock; load average of the machine at the end {os.getloadavg()[0]:.1f}, 2 is our own")  # fmt: skip
    yield Figure("peak memory of all processes during the fit, GiB", peak.gib, 4, "lower",
                 note="proportional set size, features in memory and their mapped files included")  # fmt: skip
    steps = {width: adam_step(width) for width in (2048, 4096)}
    adam = steps[4096] * (WIDE / 4096) ** 2 * WIDE_ROWS / 1024
    yield Figure("whole fit against one pass of dense Adam, CPU time", adam / used, 20,
                 baselines={"Adam, CPU hours, extrapolated": adam / 3600},
                 note=f"Adam extrapolated from steps of 1,024 rows at 4,096 wide ({steps[4096]:.2f} s; 2,048 wide: "
                      f"{steps[2048]:.2f} s) by the square of the width; never run")  # fmt: skip


def adam_step(width: int, rows: int = 1024) -> float:
    """CPU seconds of one step of a dense connector under Adam with an L1 penalty."""
    weight = torch.zeros(width, width, requires_grad=True)
    optimiser = torch.optim.Adam([weight], lr=1e-3)
    x, y = torch.rand(rows, width), torch.rand(rows, width)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        ((torch.relu(x @ weight.T) - y).square().mean() + 1e-3 * weight.abs().sum()).backward()
        optimiser.step()

    step()
    return min(cpu(step) for _ in range(2))


# ---- helpers


def firings(f_out: Tensor) -> Tensor:
    return torch.bincount(f_out.col_indices(), minlength=f_out.shape[1])


def middle(values) -> float | None:
    kept = [float(v) for v in values if v is not None and math.isfinite(v)]
    return median(kept) if kept else None


def cpu(call: Callable[[], object]) -> float:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    began = time.process_time()
    call()
    torch.set_num_threads(threads)
    return time.process_time() - began


def cpu_total() -> float:
    """CPU seconds of this process and of those it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


class PeakMemory:
    """The largest proportional set size of this process and its children while the block runs (Linux; else None)."""

    gib: float | None = None

    def __enter__(self) -> PeakMemory:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            kilobytes = sum(_pss(pid) for pid in _family(os.getpid()))
            if kilobytes:
                self.gib = max(self.gib or 0.0, kilobytes / 2**20)


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        children = []
    return [pid, *(member for child in children for member in _family(int(child)))]


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
