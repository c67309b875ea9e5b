"""Prompts: how much a local reading foresees of a real MLP, beside its nulls; whether gates and local rules agree; seconds.

gpt2-mini with the dictionaries that ship, stories260K with dictionaries trained here, and SmolLM2 at layers 1, 12 and 22
where the model's package and its dictionaries are at hand. All rows are held out by document. Figures come as they are measured.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
import _texts
from _kept import kept
from _prompt_rows import EDITS, LocalFigures, local_figures, shuffled_row_wise

import gatelens as gl
from gatelens.bench import Figure
from gatelens.data.seen import is_kept_apart
from gatelens.errors import DataError, GateLensError
from gatelens.prompts.literals import grade_of, rule_of

SEEDS = (0,)
WINDOWS, LENGTH = (160, 80), 128
#: switches of one input feature each, on prompts of so many tokens
SWITCHES, PROMPT = 500, 16
#: fired outputs of each grade whose local rule is read
OF_A_GRADE = 60
LAYERS = (1, 12, 22)
#: rows whose output is so many times the median's length are sinks
SINK = 6.0
#: the study's bars for SmolLM2: (layer, q) -> R2 of single removals, random subsets, additions
BARS = {(1, 8): (0.80, 0.60, 0.65), (1, 16): (0.90, 0.80, 0.80), (12, 16): (0.80, 0.70, 0.75)}


@dataclass(frozen=True)
class World:
    """A model at one layer with its dictionaries, and rows of text that none of them was made from."""

    name: str
    model: Any
    segment: gl.Segment
    bases: dict[str, Any]
    fit: gl.Activations
    held: gl.Activations
    batches: Any

    @cached_property
    def circuit(self) -> gl.Circuit:
        solver = gl.GramLasso(mean_wires=8, cap=8)
        return gl.build_circuit(
            self.model, [self.segment], self.bases, self.fit, solver, held_out=self.held, gates=True
        )

    def of_bases(self) -> str:
        """Eight letters that stand for the two dictionaries: retrained ones have others."""
        row = (x[:64] for x in (self.held[self.segment.hook_in], self.held[self.segment.hook_out]))
        codes = (
            self.bases[h].encode(x) for h, x in zip((self.segment.hook_in, self.segment.hook_out), row, strict=True)
        )
        return hashlib.sha256(b"".join(c.detach().float().numpy().tobytes() for c in codes)).hexdigest()[:8]


def measure(seeds: Sequence[int], data: Path | None) -> Iterator[Figure]:
    if data is None:
        raise DataError("this benchmark needs real texts: set GATELENS_DATA to a folder with text/ and models/ in it")
    for world in _worlds(data, seeds[0]):
        if isinstance(world, Figure):
            yield world
        else:
            yield from _of_world(world, seeds[0])


def _of_world(world: World, seed: int) -> Iterator[Figure]:
    """Its parts, each kept once it is finished: for these dictionaries, another seed or size is measured anew."""
    name = f"prompt-{world.name.replace(' ', '-')}-{world.of_bases()}-{seed}-{WINDOWS[0]}-{SWITCHES}"
    yield from kept(f"{name}-local", lambda: _local(world, seed))
    yield from kept(f"{name}-seconds", lambda: _seconds(world, world.circuit))
    yield from kept(f"{name}-switches", lambda: _switches(world, world.circuit, seed))
    yield from kept(f"{name}-grades", lambda: _grades(world, world.circuit, seed))


def _worlds(data: Path, seed: int) -> Iterator[World | Figure]:
    held = _texts.held_out(data)
    texts = _texts.fitting(data), held["passages"] + held["novel"]
    model = gl.load_model("gpt2-mini")
    yield from _of_layers("gpt2-mini", model, [3], gl.PretrainedSAE("gpt2-mini"), texts, seed)
    stories = gl.load_model(data / "models" / "stories260K")
    tales = (data / "text" / "tinystories_1000.txt").read_text(encoding="utf-8").split(_texts.PARTED)
    recipe = gl.TrainedSAE(expansion=4, k=12, trainer="sparse", samples=200_000, batch_size=1_024, lr=2e-3, seed=seed)
    yield from _of_layers("stories260K", stories, [2], recipe, (tales[:800], tales[800:]), seed)
    recipe, layers = gl.PretrainedSAE("smollm2"), []
    for layer in LAYERS:  # what is missing is said before the model is loaded
        try:
            recipe.load(f"blocks.{layer}.ln2.hook_normalized")
            layers.append(layer)
        except GateLensError as error:
            yield Figure(f"SmolLM2 layer {layer}", None, note=f"not measured: {error}")
    if layers:
        every = [*texts[0], *texts[1]]
        apart = [t for t in every if not is_kept_apart(t)], [t for t in every if is_kept_apart(t)]
        yield from _of_layers("SmolLM2", gl.load_model("smollm2"), layers, recipe, apart, seed)


def _of_layers(
    name: str, model: Any, layers: Sequence[int], recipe: Any, texts: tuple[list[str], list[str]], seed: int
) -> Iterator[World]:
    fit, held = gl.text_batches(model, texts[0], WINDOWS, LENGTH, seed, held_out=texts[1], batch_size=16)
    segments = gl.mlp_segments(model, layers)
    acts, unseen = (gl.collect(model, part, segments) for part in (fit, held))
    for layer, segment in zip(layers, segments, strict=True):
        bases = recipe.fit([segment], acts)
        yield World(f"{name} layer {layer}", model, segment, bases, acts, unseen, held)


# local readings over many rows


def _local(world: World, seed: int) -> Iterator[Figure]:
    basis, x, dropped = world.bases[world.segment.hook_in], *_without_sinks(world)
    real = local_figures(world.segment.forward, basis, x, seed=seed)
    null = local_figures(shuffled_row_wise(world.segment, seed).forward, basis, x, seed=seed)
    layer = int(world.name.split()[-1])
    for q in (8, 16):
        bars = BARS.get((layer, q)) if world.name.startswith("SmolLM2") else None
        for place, edit in enumerate(EDITS):
            yield Figure(
                f"{world.name}: R2 of the predicted change of y, {edit}, {q} strongest features",
                real.r2[f"{q} strongest", False][edit],
                None if bars is None else bars[place],
                baselines=_beside(real, null, q, edit),
                note="held-out rows; what no feature explains is in the model's row, and left out of the reading"
                + (f"; {dropped} rows with over {SINK:g} times the median output are left out" if dropped else ""),
            )
    yield Figure(
        f"{world.name}: strongest features that reach .9 of what the MLP makes of a row's code",
        real.needed,
        better="lower",
        baselines={"active features": real.active, "MLP shuffled row-wise": null.needed},
        note=f"mean over 300 rows; FVU of y from 16 strongest {real.fvu['16 strongest', False]:.3f}, "
        f"whole code {real.fvu['whole code', False]:.3f}",
    )


def _without_sinks(world: World) -> tuple[torch.Tensor, int]:
    """Held-out rows less those whose output is so long that they would rule every sum of squares."""
    x, size = world.held[world.segment.hook_in], world.held[world.segment.hook_out].norm(dim=1)
    kept = size <= SINK * size.median()
    return x[kept], int((~kept).sum())


def _beside(real: LocalFigures, null: LocalFigures, q: int, edit: str) -> dict[str, float | None]:
    return {
        "error kept": real.r2[f"{q} strongest", True][edit],
        f"{q} random active features": real.r2[f"{q} random", False][edit],
        "whole code": real.r2["whole code", False][edit],
        "MLP shuffled row-wise": null.r2[f"{q} strongest", False][edit],
    }


# seconds


def _seconds(world: World, circuit: gl.Circuit) -> Iterator[Figure]:
    tokens = world.batches.inputs[0, :64]
    circuit.on(world.model, tokens)  # once, so that nothing is imported or allocated for the first time
    began = time.process_time()
    reading = circuit.on(world.model, tokens)
    read = time.process_time() - began
    table = [f for f in reading.firings() if f.position]
    firings = [f for f in table if (reading.layer().f_in[f.position] > 0).sum() >= 10][:20]
    began = time.process_time()
    for firing in firings:
        firing.why()
    bars = (3.0, 0.3) if world.name.startswith("SmolLM2") else (None, None)
    note = "CPU seconds on one thread, after loading: what a clock shows where nobody else computes"
    yield Figure(f"{world.name}: seconds for a prompt of 64 tokens, all outputs", read, bars[0], "lower", note=note)
    each = (time.process_time() - began) / max(len(firings), 1)
    yield Figure(f"{world.name}: seconds for one why(), 10 features", each, bars[1], "lower", note=note)


# switching


def _prompts(world: World, count: int, seed: int) -> torch.Tensor:
    """Beginnings of held-out windows."""
    order = torch.randperm(len(world.batches.inputs), generator=torch.Generator().manual_seed(seed))
    return world.batches.inputs[order[:count], :PROMPT]


def _switches(world: World, circuit: gl.Circuit, seed: int) -> Iterator[Figure]:
    """One active input feature off at the last position, the stronger ones first; what was foreseen against what came."""
    prompts = _prompts(world, 50, seed)
    moved: dict[str, list[float]] = defaultdict(list)
    outputs: dict[str, list[float]] = defaultdict(list)
    for tokens in prompts:
        reading = circuit.on(world.model, tokens)
        f = reading.layer().f_in[-1]
        strongest = [i for i in f.argsort(descending=True).tolist() if f[i] > 0]
        for feature in strongest[: SWITCHES // len(prompts)]:
            found = reading.set({feature: "off"})
            moved["measured"].append(found.change)
            moved["unrelated"].append(found.control)
            for said in found.foreseen:
                moved[said.who].append(said.carried)
                moved[f"{said.who}, directly"].append(0.0 if said.direct is None else said.direct)
        for firing in reading.firings(-1, most=4):
            found = reading.switch(firing.out, "on" if firing.came == 0 else "off") if firing.came else None
            if found is not None:
                outputs["measured"].append(found.change)
                outputs["directly"].append(found.foreseen[0].direct or 0.0)
                outputs["unrelated"].append(found.control)
    name = f"{world.name}: R2 of the change of the first choice's logit, one input feature off"
    sizes = {k: sum(map(abs, moved[k])) / len(moved[k]) for k in ("measured", "unrelated")}
    mixed = torch.tensor(moved["local reading"])[torch.randperm(len(moved["measured"]), generator=_draw(seed))].tolist()
    yield Figure(
        f"{name}, foreseen by the local reading",
        _r2(moved["measured"], moved["local reading"]),
        baselines={
            "gates' wires": _r2(moved["measured"], moved["gates"]),
            "local reading, on the direct way alone": _r2(moved["measured"], moved["local reading, directly"]),
            "wires, on the direct way alone": _r2(moved["measured"], moved["gates, directly"]),
            "local readings handed to other switches": _r2(moved["measured"], mixed),
            "mean size of the change": sizes["measured"],
            "... of unrelated changes of equal norm": sizes["unrelated"],
        },
        note=f"{len(moved['measured'])} switches on {len(prompts)} held-out prompts; the foreseen change of y is carried on by the model",
    )
    yield Figure(
        f"{world.name}: R2 of the change of the first choice's logit, one output off, by its direct effect",
        _r2(outputs["measured"], outputs["directly"]),
        baselines={
            "mean size of the change": sum(map(abs, outputs["measured"])) / max(len(outputs["measured"]), 1),
            "... of unrelated changes of equal norm": sum(outputs["unrelated"]) / max(len(outputs["unrelated"]), 1),
        },
        note=f"{len(outputs['measured'])} outputs of the largest direct effect",
    )


def _draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _r2(true: Sequence[float], said: Sequence[float]) -> float | None:
    """1 - |error|^2 / |change|^2: against foreseeing no change at all."""
    a, b = torch.tensor(true, dtype=torch.float64), torch.tensor(said, dtype=torch.float64)
    size = float(a.square().sum())
    return 1 - float((a - b).square().sum()) / size if size > 0 and len(a) == len(b) else None


# agreement of local rules and gates


def _grades(world: World, circuit: gl.Circuit, seed: int) -> Iterator[Figure]:
    """Fired outputs of each grade: how often the gate's rule gives the local table's answer; beside another gate's rule."""
    found: dict[str, list[Any]] = defaultdict(list)
    for tokens in _prompts(world, 80, seed + 1):
        reading = circuit.on(world.model, tokens)
        for firing in reading.firings():
            grade = grade_of(firing.gate)
            if firing.on and rule_of(firing.gate) is not None and len(found[grade]) < OF_A_GRADE:
                found[grade].append(firing)
    for grade in ("verified", "holds", "weak"):
        firings = found[grade]
        if not firings:
            yield Figure(
                f"{world.name}: local rules that agree with the gate, {grade}", None, note="no such output fired"
            )
            continue
        read = [f.why() for f in firings]
        rules = [f.gate for f in firings]
        order = torch.randperm(len(firings), generator=_draw(seed)).tolist()
        others = [_against(f, rules[order[i]]) for i, f in enumerate(firings)]
        yield Figure(
            f"{world.name}: share of fired outputs whose local rule agrees with the gate, {grade}",
            sum(bool(w.agrees) for w in read) / len(read),
            baselines={
                "another output's gate of that grade": sum(bool(o) for o in others) / len(others),
                "mean agreement": sum(w.agreement or 0.0 for w in read) / len(read),
                "the rule says on": sum(bool(f.said) for f in firings) / len(firings),
                "open on every subset": sum(w.rule.share == 1 for w in read) / len(read),
            },
            note=f"{len(read)} fired outputs; agreement at .8, open and closed subsets weighed alike",
        )


def _against(firing: Any, gate: gl.Gate) -> bool | None:
    from dataclasses import replace

    other = replace(gate, level=firing.gate.level)
    return replace(firing, gate=other).why().agrees
