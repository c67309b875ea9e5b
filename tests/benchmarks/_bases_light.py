"""The same recipe on other models in a light form, one seed: MNIST's hidden maps, every layer of gpt2-mini, stories260K.

No bars: dictionaries are small and see 150,000 rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import _texts
from _dictionaries import FEW, GATES, NATURAL, SHUFFLED, Found, Plan, Study, column, entry, median
from _logit_tuning import LogitTuning, mean_divergence

import gatelens as gl
from gatelens.bases.sae import SegmentSAE
from gatelens.bases.sae.trained import TrainedSAE
from gatelens.bench import Figure
from gatelens.data import Batches
from gatelens.edits.counterfactual import Counterfactual
from gatelens.evaluation.passes import metric
from gatelens.gate_dictionaries.gate_first import GateDictionary
from gatelens.gate_dictionaries.input_tuning import InputTuning
from gatelens.ladder.measuring import Rows, replaced_metric
from gatelens.models.training import Training

WINDOWS, HELD, CE_WINDOWS, LENGTH = 600, 120, 16, 128
PAIRS = Counterfactual(pairs=50_000)
SAE = TrainedSAE(expansion=4, k=32, samples=150_000, trainer="sparse")
AIMED = SegmentSAE(expansion=4, k=32, samples=150_000, batch_size=512, lr=3e-3)
TUNED_WINDOWS = 128


def measure(data: Path, seed: int) -> Iterator[Figure]:
    yield from _mnist(data, seed)
    model = gl.load_model("gpt2-mini")
    texts, held = _texts.fitting(data), _texts.held_out(data)
    parts = gl.text_batches(
        model, texts, (WINDOWS, HELD), LENGTH, seed, held_out=held["passages"] + held["novel"], batch_size=32
    )
    yield from _language("gpt2-mini", model, parts, range(4), seed, tuned=3)
    stories = gl.load_model(data / "models" / "stories260K")
    tales = (data / "text" / "tinystories_1000.txt").read_text(encoding="utf-8").split(_texts.PARTED)
    parts = gl.text_batches(stories, tales, (WINDOWS, HELD), LENGTH, seed, batch_size=32)
    yield from _language("stories260K", stories, parts, (1, 3), seed)


def _mnist(data: Path, seed: int) -> Iterator[Figure]:
    fit, held = gl.image_batches("mnist", path=data / "mnist")
    model = Training(epochs=5).fit(gl.HookedMLP((784, 128, 128, 128, 10), seed), fit, seed)
    segments = gl.mlp_segments(model)
    yield from _each("MNIST", model, segments, fit, held, held, seed, _plan(16))


def _language(
    name: str, model: Any, parts: tuple[Batches, Batches], layers: Sequence[int], seed: int, tuned: int | None = None
) -> Iterator[Figure]:
    fit, held = parts
    segments = gl.mlp_segments(model, list(layers))
    k = 32 if segments[0].d_in >= 128 else 12
    plan = _plan(k, min_firings=50)
    at = segments[list(layers).index(tuned)] if tuned is not None else None
    yield from _each(name, model, segments, fit, held, held.take(CE_WINDOWS), seed, plan, at)


def _plan(k: int, min_firings: int = 20) -> Plan:
    tuning = InputTuning(samples=PAIRS.pairs)
    gates = GateDictionary(l0=k, counterfactual=PAIRS, refit_rows=30_000, tune_inputs=tuning)
    return Plan(replace(AIMED, k=k), replace(SAE, k=k), replace(SAE, k=k), gates, min_firings)


def _each(
    name: str, model: Any, segments: Sequence[Any], fit: Batches, held: Batches, judged: Batches, seed: int, plan: Plan,
    tuned: Any = None,
) -> Iterator[Figure]:  # fmt: skip
    acts, test = (gl.collect(model, part, segments) for part in (fit, held))
    clean = metric(model, judged)
    for segment in segments:
        rows = [Rows(part[segment.hook_in], part[segment.hook_out]) for part in (acts, test)]
        study = Study(segment, *rows, replace(plan, replaced=replaced_metric(model, judged, segment)).with_seed(seed))
        natural, few, groups = study.natural(), study.learn(fan_in=4), study.copies()
        rungs = {GATES: study.gates, NATURAL: natural, FEW: few, SHUFFLED: study.shuffled()}
        ladder = study.ladder({n: entry(g) for n, g in rungs.items()})
        for code, other in study.on_other_codes().items():
            ladder = ladder.beside(other, code)
        found = Found(ladder, study.relations(study.gates, groups), groups, study.rules_over(few, 0.7))
        yield from _figures(f"{name}, {segment.name}", found, clean, judged.metric, f"one seed ({seed}), light")
        if segment is tuned:
            yield _on_logits(name, model, segment, study.gates, fit, judged)


def _figures(where: str, found: Found, clean: float, kind: str, note: str) -> Iterator[Figure]:
    """The ladder, figure by figure, every rung beside the gates."""
    words = {
        "fvu": "FVU of y",
        "metric": f"{'CE' if kind == 'ce' else 'accuracy'} with the MLP replaced",
        "removals": "R2 of the predicted change, removals",
        "subsets": "R2 of the predicted change, subsets",
        "additions": "R2 of the predicted change, additions",
        "on_off": "predicted on -> off flips that happen",
        "off_on": "predicted off -> on flips that happen",
    }
    for key, label in words.items():
        beside = column([found], key, without=GATES)
        if key == "metric":
            beside["clean"] = clean
        if key in ("removals", "subsets", "additions"):
            beside["local Jacobian"] = median([found], GATES, f"{key}_jacobian")
        lower = "lower" if key == "fvu" or (key == "metric" and kind == "ce") else "higher"
        yield Figure(f"{where}: gate-first k = 8, {label}", median([found], GATES, key), None, lower, beside, note)
    r = found.relations
    yield Figure(
        f"{where}: gates that need several groups of copies",
        r.share,
        baselines={"copies counted apart": r.apart, "random groups of the same sizes": r.shuffled},
        note=f"{note}; {found.groups!r}",
    )
    yield Figure(f"{where}: gate-first k = 4, truth tables with MCC > .7", found.rules_over_07, note=note)


def _on_logits(name: str, model: Any, segment: Any, gates: Any, fit: Batches, judged: Batches) -> Figure:
    few = fit.take(TUNED_WINDOWS)
    after = LogitTuning(model, few, passes=2).tune(gates, segment)
    return Figure(
        f"{name}, {segment.name}: KL of the predictions with the gates in the MLP's place, tuned on logits (nats a token)",
        mean_divergence(model, judged, segment, after),
        None,
        "lower",
        {"before": mean_divergence(model, judged, segment, gates)},
        f"held-out windows; two passes over {TUNED_WINDOWS} fitting windows, wires kept",
    )
