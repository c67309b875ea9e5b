"""Verified gates on the hidden layers of small networks: how many there are, how many are found again, how much they explain.

Between two plain dictionaries almost everything that can be read is an adder. So the output's dictionary is made for gates:
each of its features is a function of at most `fan_in` input features, fitted on natural and counterfactual rows. What is
verified is read off the network's own output while the parents are set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from _tables import median

import gatelens as gl
from gatelens import stability
from gatelens.bench import Figure
from gatelens.data import Batches
from gatelens.evaluation import measure_coverage
from gatelens.evaluation.baselines import baseline_circuits, random_weights
from gatelens.solvers.built_in import BuiltInWires
from gatelens.stability.refits import compare_circuits

CHANGES = ("other inputs, dictionaries kept", "other inputs", "other seed", "random weights")


@dataclass(frozen=True)
class GateWalk:
    """Finds a circuit between the first two hidden layers: a dictionary at each, then gates of few inputs.

    Attributes:
        k, samples, expansion: of the dictionaries. fan_in, pairs: of the gates.
    """

    k: int
    samples: int
    expansion: int
    fan_in: int
    pairs: int

    def __call__(self, model: Any, fit: Batches, judge: Batches, seed: int, saes: Any = None) -> Any:
        """The circuit, its gates judged on `judge`; `saes`: the dictionaries to start from, where they are to be kept."""
        segments, acts, judged = self._rows(model, fit, judge)
        saes = self.saes(segments, acts, seed) if saes is None else saes
        edits = gl.Counterfactual(pairs=self.pairs)
        gates = gl.GateDictionary(self.fan_in, self.k, saes, saes, counterfactual=edits, dense_share=0.3, seed=seed)
        bases = gates.fit(segments, acts)
        return gl.build_circuit(model, segments, bases, acts, BuiltInWires(), held_out=judged, seed=seed)

    def plain(self, model: Any, fit: Batches, judge: Batches, seed: int, saes: Any) -> Any:
        """The rival: wires between the two plain dictionaries, as many an output."""
        segments, acts, judged = self._rows(model, fit, judge)
        return gl.build_circuit(model, segments, saes, acts, self.wires, held_out=judged, seed=seed)

    @property
    def wires(self) -> gl.GramLasso:
        return gl.GramLasso(mean_wires=self.fan_in, cap=self.fan_in)

    def _rows(self, model: Any, fit: Batches, judge: Batches) -> tuple[Any, Any, Any]:
        segments = gl.mlp_segments(model, [0])
        return segments, gl.collect(model, fit, segments), gl.collect(model, judge, segments)

    def saes(self, segments: Any, acts: Any, seed: int) -> dict[str, Any]:
        recipe = gl.TrainedSAE(expansion=self.expansion, k=self.k, samples=self.samples, trainer="sparse", seed=seed)
        return recipe.fit(segments, acts)


def gates(
    name: str,
    seeds: Sequence[int],
    nets: Mapping[int, Any],
    fit: Batches,
    held_out: Batches,
    walk: GateWalk,
    bar: float | None = 0.6,
    further: Mapping[int, Any] | None = None,
) -> Iterator[Figure]:
    """`bar`: of the share found again on other inputs; `further`: networks by seed that this share is measured on as well."""
    rows = [_measured(_Read.of(seed, nets[seed], fit, held_out, walk), walk) for seed in seeds]
    more = [_on_other_inputs(_Read.of(seed, net, fit, held_out, walk), walk) for seed, net in (further or {}).items()]
    yield _counts(name, rows, walk)
    yield _found_again(name, CHANGES[0], rows + more, bar)
    for change in CHANGES[1:]:
        yield _found_again(name, change, rows, None)
    for share, what in (
        ("variance", "output variance"),
        ("firings", "firings"),
        ("gap", "accuracy that ablation costs"),
    ):
        yield _explained(name, share, what, rows)


@dataclass(frozen=True)
class _Read:
    """One network and the circuit that was found on one half of the fitting part."""

    seed: int
    net: Any
    first_half: Batches
    second_half: Batches
    held_out: Batches
    saes: Any
    circuit: Any

    @classmethod
    def of(cls, seed: int, net: Any, fit: Batches, held_out: Batches, walk: GateWalk) -> _Read:
        first_half, second_half = stability.halves(fit, seed)
        segments = gl.mlp_segments(net, [0])
        saes = walk.saes(segments, gl.collect(net, first_half, segments), seed)
        circuit = walk(net, first_half, held_out, seed, saes)
        return cls(seed, net, first_half, second_half, held_out, saes, circuit)

    def again(self, change: str, model: Any, second: Any) -> dict[str, Any]:
        """How much of the circuit a second one holds."""
        same = model is self.net
        condition = stability.Condition(change, model, self.second_half, self.seed, same_coordinates=same)
        acts = gl.collect(self.net, self.held_out, self.circuit.segments)
        theirs = acts if same else gl.collect(model, self.held_out, second.segments)
        (row,) = compare_circuits(self.circuit, second, acts, theirs, condition)
        return _agreement(change, row)


def _on_other_inputs(read: _Read, walk: GateWalk) -> dict[str, Any]:
    second = walk(read.net, read.second_half, read.held_out, read.seed, read.saes)
    return read.again(CHANGES[0], read.net, second)


def _measured(read: _Read, walk: GateWalk) -> dict[str, Any]:
    net, seed, first, held_out = read.net, read.seed, read.circuit, read.held_out
    null = random_weights(net, seed)
    other = walk(null, read.first_half, held_out, seed)
    found = _on_other_inputs(read, walk)
    found |= read.again(CHANGES[1], net, walk(net, read.second_half, held_out, seed))
    found |= read.again(CHANGES[2], net, walk(net, read.first_half, held_out, seed + 1000))
    found |= read.again(CHANGES[3], null, other)
    fitted, judged = (gl.collect(net, part, first.segments) for part in (read.first_half, held_out))
    beside: dict[str, Any] = dict(baseline_circuits(net, first, fitted, walk.wires, judged, seed=seed))
    beside["plain"] = walk.plain(net, read.first_half, held_out, seed, read.saes)
    beside["random_weights"] = (null, other)
    # the second half of the fitting part: neither this circuit nor the choice of its verified gates has seen it
    report = measure_coverage(net, first, read.second_half.take(5000), beside, seed=seed)
    for label, covered in {"coverage": report.circuit, **report.beside}.items():
        (one,) = covered.values()
        found |= {f"{label}/{share}": getattr(one, share) for share in ("variance", "firings", "gap", "verified")}
    (one,) = report.circuit.values()
    return found | {
        "read/variance": one.read_variance,
        "all/variance": one.all_variance,
        "all/gap": one.all_gap,
        "outputs": one.outputs,
        "sentence": report.sentence,
        "kinds": _kinds(first.gates[first.segments[0].name]),
    }


def _agreement(change: str, row: stability.StabilityRow) -> dict[str, Any]:
    return {
        f"{change}/verified": row.verified.whole,
        f"{change}/verified random": row.verified.random_whole,
        f"{change}/count": row.verified.gates,
        f"{change}/inputs": row.verified.inputs,
        f"{change}/inputs random": row.verified.random_inputs,
        f"{change}/gates": row.gates.whole,
        f"{change}/wires": row.wires,
        f"{change}/wires random": row.random_wires,
        f"{change}/features": row.matched_out,
        f"{change}/features random": row.random_out,
    }


def _kinds(found: Sequence[gl.Gate]) -> str:
    """How the outputs were read, and what the verified ones are."""
    every, verified = (Counter(str(g.kind) for g in some) for some in (found, [g for g in found if g.verified]))
    said = ", ".join(f"{n} {kind}" for kind, n in every.most_common())
    return f"{said}; verified: {', '.join(f'{n} {kind}' for kind, n in verified.most_common()) or 'none'}"


def _counts(name: str, rows: Sequence[Mapping[str, Any]], walk: GateWalk) -> Figure:
    return Figure(
        f"{name}, gates of at most {walk.fan_in} inputs between the first two hidden layers: verified, count",
        median(rows, "coverage/verified"),
        baselines={
            "plain dictionaries, as many wires": median(rows, "plain/verified"),
            "neurons at equal wires": median(rows, "neurons/verified"),
            "shuffled inputs (null)": median(rows, "shuffled/verified"),
            "random weights": median(rows, "random_weights/verified"),
            "outputs": median(rows, "outputs"),
        },
        note=f"first seed: {rows[0]['kinds']}",
    )


def _found_again(name: str, change: str, rows: Sequence[Mapping[str, Any]], bar: float | None) -> Figure:
    labels = {
        "random counterparts (null)": "verified random",
        "inputs, mean Jaccard": "inputs",
        "inputs, random counterparts": "inputs random",
        "all whose rule holds": "gates",
        "wire Jaccard": "wires",
        "wire Jaccard, random features": "wires random",
        "matched features": "features",
        "matched features, random counterpart": "features random",
        "verified gates compared": "count",
    }
    return Figure(
        f"{name}, verified gates found again, {change}: same kind and half of the inputs",
        median(rows, f"{change}/verified"),
        bar,
        baselines={label: median(rows, f"{change}/{key}") for label, key in labels.items()},
        note="two halves of the fitting part; output features matched by directions (random weights: by activations). "
        + _each_network(change, rows),
    )


def _each_network(change: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The share of every network that has verified gates, and that of all their gates together."""
    shares = [(row[f"{change}/verified"], row[f"{change}/count"]) for row in rows if row[f"{change}/count"]]
    if not shares:
        return f"No verified gate in {len(rows)} networks"
    compared = sum(count for _, count in shares)
    pooled = sum(share * count for share, count in shares) / compared
    return (
        f"By network {', '.join(f'{share:.2f}' for share, _ in shares)}; of all {compared} gates together {pooled:.2f}"
    )


def _explained(name: str, share: str, what: str, rows: Sequence[Mapping[str, Any]]) -> Figure:
    labels = {
        "neurons at equal wires": "neurons",
        "shuffled inputs (null)": "shuffled",
        "random weights": "random_weights",
        "plain dictionaries, as many wires": "plain",
        "all whose rule holds": "read",
        "all wires, read or not": "all",
    }
    return Figure(
        f"{name}, share of the {what} that verified gates explain",
        median(rows, f"coverage/{share}"),
        baselines={label: median(rows, f"{key}/{share}") for label, key in labels.items()},
        note=str(rows[0]["sentence"]),
    )
