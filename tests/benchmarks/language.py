"""Real language models, held out: how much of an MLP its features' wires carry, beside every ceiling, rival and null.

gpt2-mini on books and passages that it never saw: a fresh pair of SAEs for each of its four layers and each seed, and the
pair that ships for the demonstration's layer. stories260K (RMSNorm, gated MLP) on its own stories. About five CPU minutes
a seed; figures come as they are measured, the demonstration's first.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
import _texts

import gatelens as gl
from gatelens.bench import Figure
from gatelens.data import Batches
from gatelens.errors import DataError
from gatelens.evaluation.figures import fvu, metric
from gatelens.evaluation.ladder import Entry, Ladder, Measure, Rows, measure_ladder, replaced_metric

SEEDS = (7,)
DEMO_LAYER = 3
LAYERS = (3, 1, 2, 0)
FAN_IN = (8, 16)
WINDOWS, HELD, CE_WINDOWS = 800, 200, 16
MIN_FIRINGS = 100
SAMPLES = 200_000
RIDGE, DENSE, NEURONS, NULL = "gate-free ridge", "dense ridge", "neurons, equal edges", "null: other rows' inputs"
CEILING = "exact MLP on decoded inputs"


def measure(seeds: Sequence[int], data: Path | None) -> Iterator[Figure]:
    if data is None:
        raise DataError("this benchmark needs real texts: set GATELENS_DATA to a folder with text/ and models/ in it")
    model = gl.load_model("gpt2-mini")
    held = _texts.held_out(data)
    texts = _texts.fitting(data), held["passages"] + held["novel"]
    yield from _demo_pair(model, _batches(model, texts, seeds[0], 2, HELD)[1])
    runs = [Run(model, LAYERS, *_batches(model, texts, seed, WINDOWS, HELD), seed) for seed in seeds]
    ladders: dict[int, list[Ladder]] = {}
    for layer in LAYERS:
        ladders[layer] = [run.ladder(layer) for run in runs]
        yield from _layer_figures(f"gpt2-mini layer {layer}", ladders[layer])
    yield from _best_layer(ladders)
    stories = gl.load_model(data / "models" / "stories260K")
    tales = (data / "text" / "tinystories_1000.txt").read_text(encoding="utf-8").split(_texts.PARTED)
    runs = [
        Run(stories, (1, 3), *gl.text_batches(stories, tales, (WINDOWS, HELD), 128, seed, batch_size=32), seed)
        for seed in seeds
    ]
    for layer in (1, 3):
        yield from _layer_figures(f"stories260K layer {layer}", [run.ladder(layer) for run in runs])


def _batches(model: Any, texts: tuple[list[str], list[str]], seed: int, fit: int, held: int) -> tuple[Batches, Batches]:
    return gl.text_batches(model, texts[0], (fit, held), 128, seed, held_out=texts[1], batch_size=32)


def _demo_pair(model: Any, held: Batches) -> Iterator[Figure]:
    """What the shipped SAEs cost the model, spliced in at both ends of their MLP."""
    segment = gl.mlp_segments(model, [DEMO_LAYER])[0]
    acts = gl.collect(model, held, [segment])
    bases = {hook: gl.PretrainedSAE("gpt2-mini").load_for(hook, acts[hook]) for hook in acts}
    circuit = gl.Circuit([segment], bases, {})
    means = {segment.hook_out: acts[segment.hook_out].mean(0)}
    clean = metric(model, held)

    def above(**how: Any) -> float:
        return metric(model, held, lambda keep: gl.splice(circuit, keep=keep, **how)) - clean

    yield Figure(
        f"CE above clean, both shipped SAEs spliced in, layer {DEMO_LAYER} (nats a token)",
        above(how="dictionaries"),
        0.15,
        "lower",
        {
            "input SAE alone": above(how="dictionaries", hooks=[segment.hook_in]),
            "output SAE alone": above(how="dictionaries", hooks=[segment.hook_out]),
            "MLP output at its mean": above(how="mean", means=means),
            "clean CE": clean,
        },
        f"{held.rows} held-out tokens of passages and a novel",
    )


class Run:
    """One seed: the activations of all layers in one pass, then an SAE pair and a ladder for each."""

    def __init__(self, model: Any, layers: Sequence[int], fit: Batches, held: Batches, seed: int):
        self.model, self.held, self.seed = model, held, seed
        self.segments = dict(zip(layers, gl.mlp_segments(model, layers), strict=True))
        self.acts, self.test = (gl.collect(model, part, self.segments.values()) for part in (fit, held))

    def ladder(self, layer: int) -> Ladder:
        segment = self.segments[layer]
        k = 32 if segment.d_in >= 128 else 12
        recipe = gl.TrainedSAE("batchtopk", expansion=4, k=k, samples=SAMPLES, seed=self.seed)
        saes = recipe.fit([segment], self.acts)
        out = saes[segment.hook_out]
        entries = {f"gates, fan-in {k}": Entry(out, gl.GramLasso(mean_edges=k, cap=k)) for k in reversed(FAN_IN)}
        rows = [Rows(part[segment.hook_in], part[segment.hook_out]) for part in (self.acts, self.test)]
        few = self.held.take(CE_WINDOWS)
        replaced = replaced_metric(self.model, few, segment)
        settings = Measure(
            causal_rows=0, min_firings=MIN_FIRINGS, replaced=replaced, seed=self.seed, solver_rows=40_000
        )
        ladder = measure_ladder(segment, saes[segment.hook_in], entries, *rows, settings)
        mean = rows[0].y.mean(0)
        rungs = {
            "clean": {"metric": metric(self.model, few)},
            "output SAE itself": {
                "fvu": fvu(rows[1].y, _through(out, rows[1].y)),
                "metric": replaced(lambda x: _through(out, segment.forward(x))),
            },
            "mean-ablated": {"metric": replaced(lambda x: mean.expand(len(x), -1))},
        }
        return Ladder(ladder.segment, {**rungs, **ladder.rungs}, ladder.rows)


def _through(sae: Any, y: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return sae.decode(sae.encode(y))


def _median(ladders: Sequence[Ladder], rung: str, figure: str) -> float | None:
    values = [ladder[rung].get(figure) for ladder in ladders]
    known = [v for v in values if v is not None]
    return statistics.median(known) if known else None


def _column(ladders: Sequence[Ladder], figure: str) -> dict[str, float | None]:
    return {
        rung: _median(ladders, rung, figure) for rung in ladders[0].rungs if _median(ladders, rung, figure) is not None
    }


def _layer_figures(name: str, ladders: Sequence[Ladder]) -> Iterator[Figure]:
    """Every rung, printed without a bar: the bars are for the best layer."""
    note = f"output features firing >= {MIN_FIRINGS} times in {ladders[0].rows} held-out rows"
    gates = f"gates, fan-in {max(FAN_IN)}"
    for figure, words in (
        ("over_half", "share of outputs with R2 > .5"),
        ("median_r2", "median R2 of outputs"),
        ("read", "share of outputs whose truth table has a held-out MCC > .5"),
    ):
        column = _column(ladders, figure)
        yield Figure(f"{name}: {words}, fan-in {max(FAN_IN)}", column.pop(gates, None), baselines=column, note=note)
    for figure, words in (
        ("fvu", "FVU of the decoded output"),
        ("metric", "CE with the MLP replaced"),
        ("l0", "predicted L0"),
    ):
        column = _column(ladders, figure)
        yield Figure(f"{name}: {words}, fan-in {max(FAN_IN)}", column.pop(gates, None), None, "lower", column)


def _best_layer(ladders: Mapping[int, Sequence[Ladder]]) -> Iterator[Figure]:
    for k, bar in zip(FAN_IN, (0.30, 0.35), strict=True):
        gates = f"gates, fan-in {k}"
        shares = {layer: _median(found, gates, "over_half") or 0.0 for layer, found in ladders.items()}
        layer = max(shares, key=lambda i: shares[i])
        yield Figure(
            f"outputs with held-out R2 > .5 at fan-in <= {k}, best layer",
            shares[layer],
            bar,
            baselines={f"layer {i}": v for i, v in shares.items()}
            | {
                f"{rung}, layer {layer}": v for rung, v in _column(ladders[layer], "over_half").items() if rung != gates
            },
            note=f"layer {layer}; output features firing >= {MIN_FIRINGS} times in the held-out rows",
        )
    gates = f"gates, fan-in {FAN_IN[-1]}"
    ratios = {i: _ratio(_median(f, gates, "median_r2"), _median(f, CEILING, "median_r2")) for i, f in ladders.items()}
    layer = max(ratios, key=lambda i: ratios[i])
    found = ladders[layer]
    yield Figure(
        f"median R2 at fan-in {FAN_IN[-1]} over the ceiling's, best layer",
        ratios[layer],
        0.70,
        baselines={f"layer {i}": v for i, v in ratios.items()},
        note="the ceiling is the model's own MLP on the decoded input features, read by the same output SAE",
    )
    yield Figure(
        f"median R2 at fan-in {FAN_IN[-1]} minus that of as many neurons of its input, layer {layer}",
        (_median(found, gates, "median_r2") or 0.0) - (_median(found, NEURONS, "median_r2") or 0.0),
        0.0,
        baselines={rung: _median(found, rung, "median_r2") for rung in (gates, NEURONS, DENSE)},
    )
    yield Figure(
        "median R2 of the shuffled null, worst layer",
        max(_median(f, NULL, "median_r2") or 0.0 for f in ladders.values()),
        0.02,
        "lower",
        {f"layer {i}": _median(f, NULL, "median_r2") for i, f in ladders.items()},
    )


def _ratio(value: float | None, ceiling: float | None) -> float:
    return value / ceiling if value is not None and ceiling else 0.0
