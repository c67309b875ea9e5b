"""Rules on a real language model, held out by document, beside their controls; then rules whose truth is known.

For SmolLM2's layers whose dictionaries are there: the share of outputs that obey a rule of at most four literals, by its MCC, at
levels chosen an output and at the median level; random parents, shuffled rows, single literals, neurons, tables of tokens, the
exact MLP on the decoded code; how far the search is from the optimum; rules verified in the model; agreement with the tokens that
come next. Eligible outputs are on in 200 of 120k fitting rows, in 60 held-out rows, and in less than a fifth of the rows.
Activations are kept on the disk: a stopped run goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
from _smollm import Rows, collected
from _tried import misleading, sample, tried

import gatelens as gl
from gatelens.bench import Figure
from gatelens.codes.csr import stack_csr, to_csr
from gatelens.connectors import Connector
from gatelens.errors import GateLensError
from gatelens.gates import Gate, type_gates
from gatelens.gates.levels import Levels
from gatelens.gates.literals import Literals
from gatelens.gates.patterns import Terms, best_by_size
from gatelens.gates.search import Search, Target
from gatelens.gates.stage import Stage, sparse_rows
from gatelens.gates.tables import Columns
from gatelens.gates.verification import verify
from gatelens.planted import OUT_OF_CLASS, Noise, PlantedFeatures, score_gates, true_connector

SEEDS = (0,)
ROWS = (120_000, 26_000)
LAYERS = (1, 12, 22)
#: eligible: on in so many rows of 120k fitted on, in so many held out, and in at most this share
FITTED, HELD, DENSE = 200, 60, 0.2
BARS = (0.5, 0.7, 0.8)
#: of the issue: layer -> what -> shares over `BARS`
WANTED: dict[tuple[int, str], tuple[float, ...]] = {
    (1, "chosen"): (0.62, 0.33, 0.18),
    (1, "median"): (0.47, 0.19, 0.09),
    (12, "median"): (0.45,),
}
#: layer -> share verified of the rules that hold
VERIFIED = {1: 0.38, 12: 0.42}
#: outputs on which the search is held against the optimum, and on which slow nulls are taken
FEW, SOME = 24, 100


def measure(seeds: Sequence[int], data: Path | None) -> Iterator[Figure]:
    yield from planted(seeds)
    yield from misleading(seeds)
    if data is None:
        yield Figure("rules of SmolLM2", None, note="no texts: give --data, or set GATELENS_DATA")
        return
    try:
        model = gl.load_model("smollm2")
        dictionaries = {layer: _dictionaries(model, layer) for layer in LAYERS}
    except GateLensError as error:
        yield Figure("rules of SmolLM2", None, note=str(error))
        return
    known = {layer: found for layer, found in dictionaries.items() if found is not None}
    for layer in LAYERS:
        if layer not in known:
            yield Figure(f"layer {layer}: rules", None, note="no dictionaries of this layer are installed")
    for layer, bases in known.items():  # a pass a layer: one that stops early is not held up by the deepest
        yield from Layer(model, layer, bases, data, seeds[0]).figures()


def _dictionaries(model: Any, layer: int) -> Mapping[str, Any] | None:
    """The layer's dictionaries of our own making; None where there are none."""
    segment = gl.mlp_segments(model, layers=[layer])[0]
    try:
        return {hook: gl.PretrainedSAE("smollm2").load(hook) for hook in (segment.hook_in, segment.hook_out)}
    except GateLensError:
        return None


# ---- one layer


class Layer:
    """Rows, features and rules of one MLP."""

    def __init__(self, model: Any, layer: int, bases: Mapping[str, Any], data: Path, seed: int):
        self.model, self.layer, self.seed = model, layer, seed
        self.segment = gl.mlp_segments(model, layers=[layer])[0]
        self.acts = collected(model, data, [layer], ROWS, seed)
        self.fit, self.held = (Rows.of(a, self.segment) for a in self.acts)
        self.basis_in, self.basis_out = bases[self.segment.hook_in], bases[self.segment.hook_out]
        self.features = tuple((_coded(self.basis_in, r.x), _coded(self.basis_out, r.y)) for r in (self.fit, self.held))
        self.where = f"layer {layer}"

    def figures(self) -> Iterator[Figure]:
        (f_in, f_out), (h_in, h_out) = self.features
        eligible = self._eligible()
        gates: dict[str, list[Gate]] = {}
        for levels in ("median", "chosen"):
            began = time.process_time()
            gates[levels] = type_gates(
                _no_wires(f_in, f_out), f_in, f_out, held_out=(h_in, h_out), origins=(self.fit, self.held), levels=levels,
                segment=self.segment, basis_in=self.basis_in, basis_out=self.basis_out, seed=self.seed,
            )  # fmt: skip
            seconds = time.process_time() - began
            yield from self._shares(gates[levels], eligible, levels, seconds)
        yield from self._beyond_lookup([gates["median"][o] for o in eligible])
        yield from self._nulls(eligible)
        yield from self._optimum(eligible)
        yield from self._verified([gates["chosen"][o] for o in eligible])

    def _eligible(self) -> list[int]:
        fitted, held = (Columns.of(f[1], "f_out") for f in self.features)
        enough = (fitted.firings() >= FITTED * fitted.rows / ROWS[0]) & (held.firings() >= HELD)
        return np.flatnonzero(enough & (fitted.firings() < DENSE * fitted.rows)).tolist()

    def _shares(self, gates: list[Gate], eligible: list[int], levels: str, seconds: float) -> Iterator[Figure]:
        some = [gates[o] for o in eligible]
        kept = median(g.evidence.kept for g in some if g.evidence is not None and g.evidence.kept is not None)
        note = (
            f"{len(eligible)} eligible of {len(gates)} outputs; {self.fit.x.shape[0]:,} fitting and {self.held.x.shape[0]:,} held-out "
            f"rows; share of firings kept, median {kept:.2f}; {seconds:.0f} CPU s for all outputs and controls"
        )
        bars = WANTED.get((self.layer, levels), ())
        for place, bar in enumerate(BARS):
            beside = {name: _over([_control(g, name) for g in some], bar) for name in _CONTROLS}
            beside["of all outputs"] = _over([g.mcc for g in gates], bar)
            beside["grade holds"] = fmean(g.read for g in some)
            yield Figure(
                f"{self.where}, level {levels}: outputs with a rule, MCC > {bar}", _over([g.mcc for g in some], bar),
                bars[place] if place < len(bars) else None, baselines=beside, note=note if place == 0 else "",
            )  # fmt: skip
        for name in ("random_parents", "shuffled"):
            share = _over([_control(g, name) for g in some], 0.5)
            yield Figure(f"{self.where}, level {levels}: {name.replace('_', ' ')}, MCC > .5", share, 0.01, "lower")
        curves = [g.evidence.f1_by_literals for g in some if g.evidence is not None]
        by_size = [_mean([c[n] for c in curves if len(c) > n]) for n in range(4)]
        yield Figure(f"{self.where}, level {levels}: F1 of the best rule of 4 literals", by_size[3],
                     baselines={f"{n + 1} literals": by_size[n] for n in range(3)}, note="mean, held out")  # fmt: skip

    def _beyond_lookup(self, some: list[Gate]) -> Iterator[Figure]:
        """Rules against the best table of tokens."""
        pairs = [(g.mcc or 0.0, g.controls.lookup or 0.0) for g in some if g.controls is not None]
        ahead, behind = ([d > 0.05 for d in (s * (m - k) for m, k in pairs)] for s in (1, -1))
        beats = [bool(g.controls.beats_lookup) for g in some if g.controls is not None]
        bars = (0.36, 0.20) if 10 <= self.layer <= 15 else (None, None)
        share = sum(ahead) / max(len(some), 1)
        yield Figure(f"{self.where}: outputs whose rule beats token + previous lookup by > .05", share, bars[0],
                     baselines={"the lookup by > .05": sum(behind) / max(len(some), 1)}, note="median level")  # fmt: skip
        yield Figure(f"{self.where}: outputs whose rule beats the lookup over documents", sum(beats) / max(len(some), 1),
                     bars[1], note="97.5 % of 200 resamples of documents; no margin")  # fmt: skip

    def _nulls(self, eligible: list[int]) -> Iterator[Figure]:
        """The whole search on shuffled rows, and neurons as parents, on some outputs."""
        some = _spread(eligible, SOME)
        (f_in, f_out), (h_in, h_out) = self.features
        y, z = (_columns_of(f, some) for f in (f_out, h_out))
        order = np.random.default_rng(self.seed)
        mixed = [_shuffled(f, order) for f in (y, z)]
        null = type_gates(_no_wires(f_in, y), f_in, mixed[0], held_out=(h_in, mixed[1]), levels="median")
        yield Figure(f"{self.where}: the whole search on shuffled rows, MCC > .5", _over([g.mcc for g in null], 0.5), 0.01,
                     "lower", note=f"{len(some)} outputs, median level")  # fmt: skip
        step = max(1, len(self.fit.x) // 20_000)
        neurons = [_neurons(self.segment, r.x[::s]) for r, s in ((self.fit, step), (self.held, 1))]
        kept = torch.arange(0, len(self.fit.x), step)
        few = _spread(list(range(len(some))), 60)
        found = type_gates(_no_wires(neurons[0], _columns_of(y, few)), neurons[0], _columns_of(_rows(y, kept), few),
                           held_out=(neurons[1], _columns_of(z, few)), levels="median")  # fmt: skip
        yield Figure(f"{self.where}: neurons as parents, MCC > .5", _over([g.mcc for g in found], 0.5),
                     note=f"{len(few)} outputs, {len(neurons[0]):,} fitting rows, median level")  # fmt: skip

    def _optimum(self, eligible: list[int]) -> Iterator[Figure]:
        """How far the search is from the best rule over the candidates, on fitting rows."""
        f_in, f_out = (Columns.of(f, "f") for f in self.features[0])
        levels, gaps, missed = Levels.of("median"), [], 0
        search = Search(Literals(f_in, levels.inputs), Terms())
        began = time.process_time()
        for out in _spread(eligible, FEW):
            row, value = f_out.on(out)
            found = search.rule([Target.at(row, value, float(np.quantile(value, levels.outputs[0])))])
            if found is None or found.table is None or found.best is None:
                continue
            best = max(r.mcc for r in best_by_size(found.table, Terms(), None).values())
            gaps.append(best - max(r.mcc for r in found.by_size.values()))
            missed += gaps[-1] > 1e-6
        note = f"{len(gaps)} outputs, every rule of at most 4 of their 16 best candidates; {time.process_time() - began:.0f} CPU s"
        yield Figure(f"{self.where}: fitting MCC by which the search misses the optimum, mean", _mean(gaps),
                     baselines={"largest": max(gaps, default=None), "share missed": missed / max(len(gaps), 1)},
                     note=note)  # fmt: skip

    def _verified(self, some: list[Gate]) -> Iterator[Figure]:
        """A uniform sample of rules that hold, tried in the model."""
        holds = {g.out: g for g in some if g.read and g.rule is not None}
        rules = sample({o: g.rule for o, g in holds.items()}, seed=self.seed)
        levels = np.zeros(len(self.basis_out.W_dec))
        levels[list(holds)] = [g.level for g in holds.values()]
        stage = Stage.of(self.segment, self.basis_in, self.basis_out, self.held.x, levels, self.features[1])
        fitting = tuple(sparse_rows(f) for f in self.features[0])
        found = verify(stage, rules, fitting, self.seed)
        yield from tried(found, rules, self.where, VERIFIED.get(self.layer, 0.38))


_CONTROLS = ("random_parents", "shuffled", "single", "token", "token_pair", "ceiling")


def _control(gate: Gate, name: str) -> float | None:
    return None if gate.controls is None else getattr(gate.controls, name)


def _over(values: Sequence[float | None], bar: float) -> float | None:
    """The share above the bar, of all; what could not be had is not above it. None where nothing could."""
    if all(v is None for v in values):
        return None
    return fmean(v is not None and v > bar for v in values)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return fmean(known) if known else None


def _spread(values: list[int], most: int) -> list[int]:
    return [values[i] for i in np.linspace(0, len(values) - 1, min(most, len(values))).astype(int)]


def _coded(basis: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return stack_csr([to_csr(basis.encode(part)) for part in x.split(4_096)])


def _no_wires(f_in: torch.Tensor, f_out: torch.Tensor) -> Connector:
    """Rules are learned over all inputs here: no wire is favoured."""
    rows = [(torch.zeros(0, dtype=torch.long), torch.zeros(0))] * f_out.shape[1]
    return Connector.from_rows(rows, torch.zeros(f_out.shape[1]), f_in.shape[1])


def _columns_of(f: torch.Tensor, some: Sequence[int]) -> torch.Tensor:
    return _torch(_scipy(f)[:, list(some)])


def _rows(f: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    return _torch(_scipy(f)[kept.numpy()])


def _shuffled(f: torch.Tensor, random: np.random.Generator) -> torch.Tensor:
    return _torch(_scipy(f)[random.permutation(f.shape[0])])


def _scipy(f: torch.Tensor) -> Any:
    return sparse_rows(f)


def _torch(f: Any) -> torch.Tensor:
    f = f.tocsr()
    f.sort_indices()
    parts = (torch.from_numpy(f.indptr).long(), torch.from_numpy(f.indices).long(), torch.from_numpy(f.data))
    return torch.sparse_csr_tensor(*parts, size=f.shape, check_invariants=False)


def _neurons(segment: Any, x: torch.Tensor) -> torch.Tensor:
    """Both signs of each hidden unit of a gated or plain MLP, each a feature of its own."""
    upto = replace(segment.mlp, W_out=None)  # the segment behind the nonlinearity
    with torch.no_grad():
        parts = []
        for rows in x.split(4_096):
            hidden = upto(rows)
            parts.append(to_csr(torch.cat([hidden.clamp_min(0), (-hidden).clamp_min(0)], 1)))
        return stack_csr(parts)


# ---- planted rules


def planted(seeds: Sequence[int]) -> Iterator[Figure]:
    """Kinds of planted gates at the default levels and at zero, where the truth is; gates that are no rule of the family."""
    right, at_zero, wrong, spoiled = [], [], [], []
    for seed in seeds:
        features = PlantedFeatures(width_in=1024, width_out=400, seed=seed).plant()
        f_in, f_out = features.sample(100_000, seed)
        wires, firings = true_connector(features.gates, 1024), torch.bincount(f_out.col_indices(), minlength=400)
        for levels, found in (("zero", at_zero), ("chosen", right)):
            gates = type_gates(wires, f_in, f_out, levels=levels)
            found.append(score_gates(features.gates, gates, firings, 200).accuracy)
        outside = PlantedFeatures(
            width_in=1024, width_out=200, mix=OUT_OF_CLASS, noise=Noise(spurious=0.3), seed=seed
        ).plant()
        f_in, f_out = outside.sample(100_000, seed)
        firings = torch.bincount(f_out.col_indices(), minlength=200)
        for levels, found in (("zero", wrong), ("chosen", spoiled)):
            gates = type_gates(true_connector(outside.gates, 1024), f_in, f_out, levels=levels)
            found.append(score_gates(outside.gates, gates, firings, 200).wrong_definite_share)
    note = "1,024 inputs, 100k rows, low noise; outputs that fire 200 times; rules that hold"
    yield Figure("planted gates: right kind", median(at_zero), 0.97, baselines={"levels chosen": median(right)},
                 note=f"{note}; levels zero, where the truth is planted")  # fmt: skip
    yield Figure("planted gates that are no rule, read as one all the same", median(wrong), 0.03, "lower",
                 baselines={"levels chosen": median(spoiled)}, note="XOR and graded sums; beside A and (B or C), which is one")  # fmt: skip
