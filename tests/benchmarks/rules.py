"""Rules on a real language model, held out by document, beside their controls; then rules whose truth is known.

For SmolLM2's layers whose dictionaries are there: the share of outputs that obey a rule of at most four literals, by its MCC, at
levels chosen an output and at the median level; random parents, shuffled rows, single literals, neurons, tables of tokens, the
exact MLP on the decoded code; how far the search is from the optimum; rules verified in the model; agreement with the tokens that
come next; the same for an MLP of shuffled weights with a dictionary of its own; rules found again with another seed of the
dictionary. Eligible outputs are on in 200 of 120k fitting rows, in 60 held-out rows, and in less than a fifth of the rows.

A part is a layer and a group of figures (`--only 1-chosen 1-verified`). Finished parts, activations and dictionaries are kept on the
disk for a day: a run that was stopped goes on with the next part. `tools/collect_rules.py` writes what is there, and what is not, to
docs/results/rules.json.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from _agreement import agreements
from _kept import finished, kept
from _layers import Layer, Sizes, is_there
from _named_circuits import circuits
from _reading import beyond_lookup, nulls, optimum, shares
from _seeds import found_again
from _tried import misleading, removed, tried

import gatelens as gl
from gatelens.bench import Figure
from gatelens.errors import GateLensError
from gatelens.gates import type_gates
from gatelens.planted import OUT_OF_CLASS, Noise, PlantedFeatures, score_gates, true_connector

SEEDS = (11,)
#: rules of each network of shuffled weights that are set in it
NULL_RULES = 100


#: names for `--only`, in the order in which they are measured
PARTS = (
    "chains", "22-agreement", "12-shares", "12-lookup", "1-median", "1-lookup", "1-chosen", "1-verified", "1-nulls", "12-chosen",
    "12-verified", "12-agreement", "1-seeds", "1-optimum", "1-transcoder", "1-removed", "12-removed", "12-row", "1-row", "12-all",
    "planted", "named",
)  # fmt: skip


def measure(
    seeds: Sequence[int], data: Path | None, only: Sequence[str] = (), sizes: Sizes | None = None
) -> Iterator[Figure]:
    sizes = sizes or Sizes()
    for name, make in parts(seeds, data, sizes):
        if not only or name in only or name not in PARTS:
            yield from kept(_tag(seeds, sizes, name), make)


def so_far(seeds: Sequence[int], sizes: Sizes) -> dict[str, tuple[list[Figure], dict[str, Any]] | None]:
    """Each part's figures, with date and commit; None for those that were not measured at these sizes."""
    return {name: finished(_tag(seeds, sizes, name)) for name in PARTS}


def _tag(seeds: Sequence[int], sizes: Sizes, part: str) -> str:
    own = "" if sizes == Sizes() else f"-{'-'.join(map(str, (*sizes.rows, *astuple(sizes)[1:])))}"
    return f"{'-'.join(map(str, seeds))}{own}-{part}"


def parts(
    seeds: Sequence[int], data: Path | None, sizes: Sizes
) -> Iterator[tuple[str, Callable[[], Iterable[Figure]]]]:
    """The parts in the order in which they are measured, each by its name."""
    yield "chains", partial(misleading, seeds)
    try:
        model = None if data is None else gl.load_model("smollm2")
    except GateLensError as error:
        yield "smollm2", partial(_missing, str(error))
        model = None
    if data is None:
        yield "texts", partial(_missing, "no texts: give --data, or set GATELENS_DATA")
    elif model is not None:
        yield from _of_layers(model, data, seeds[0], sizes)
    yield "planted", partial(planted, seeds)
    yield "named", partial(circuits, seeds)


def _of_layers(model: Any, data: Path, seed: int, sizes: Sizes) -> Iterator[tuple[str, Callable[[], Iterable[Figure]]]]:
    there = {layer: is_there(model, layer) for layer in (1, 12, 22)}
    for layer in (n for n, known in there.items() if not known):
        yield f"layer-{layer}", partial(_missing, f"no dictionaries of layer {layer} are installed")
    at = {layer: Layer(model, layer, data, seed, sizes) for layer, known in there.items() if known}
    row = {layer: Layer(model, layer, data, seed, sizes, by_row=True) for layer in at}
    if 22 in at:
        yield "22-agreement", partial(agreements, at[22], row[22])
        at.pop(22), row.pop(22)  # what a layer holds is let go before the next
    if 12 in at:
        yield "12-shares", partial(shares, at[12], "median")
        yield "12-lookup", partial(beyond_lookup, at[12])
    if 1 in at:
        yield "1-median", partial(shares, at[1], "median")
        yield "1-lookup", partial(beyond_lookup, at[1])
        yield "1-chosen", partial(shares, at[1], "chosen")
        yield "1-verified", partial(tried, at[1])
        yield "1-nulls", partial(nulls, at[1])
        yield "1-transcoder", partial(shares, Layer(model, 1, data, seed, sizes, transcoder=True), "median")
    if 12 in at:
        yield "12-chosen", partial(shares, at[12], "chosen")
        yield "12-verified", partial(tried, at[12])
        yield "12-agreement", partial(agreements, at[12], row[12])
    if 1 in at:
        yield "1-seeds", partial(found_again, at[1], Layer(model, 1, data, seed, sizes, dictionary_seed=1))
        yield "1-optimum", partial(optimum, at[1])
    for layer, known in at.items():
        yield f"{layer}-removed", partial(removed, known)
    for layer in (12, 1):
        if layer in at:
            yield f"{layer}-row", partial(_null_network, row[layer])
    if 12 in at:
        yield "12-all", partial(_null_network, Layer(model, 12, data, seed, sizes, by_row=False))


def _null_network(at: Layer) -> Iterator[Figure]:
    """A layer whose weights are shuffled, with a dictionary of its own: what of it is as good."""
    yield from shares(at, "median")
    yield from beyond_lookup(at)
    yield from tried(at, "chosen", NULL_RULES)  # as those of the trained layer are


def _missing(why: str) -> Iterator[Figure]:
    yield Figure("rules of SmolLM2", None, note=why)


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
