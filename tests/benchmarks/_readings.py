"""What the language benchmark prints of its readings: every rung of every layer, what the rules are worth, and the bars."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gatelens.bench import Figure
from gatelens.gates import Gate
from gatelens.ladder.measuring import CEILING, Ladder

FAN_IN = (8, 16)
GATES = "gates, fan-in {}"
OFTEN = f"{GATES.format(FAN_IN[-1])}, as often as the output"
DENSE, NEURONS = "dense ridge", "neurons, equal wires"
NULL, SHUFFLED = "null: other rows' inputs", "null: fitted to other rows' inputs"


@dataclass(frozen=True)
class Reading:
    """One layer through one pair of dictionaries: its ladder, and the gates of its sparsest connector."""

    ladder: Ladder
    gates: Sequence[Gate] = ()


def _median(ladders: Sequence[Ladder], rung: str, figure: str) -> float | None:
    values = [ladder[rung].get(figure) for ladder in ladders]
    known = [v for v in values if v is not None]
    return statistics.median(known) if known else None


def _column(ladders: Sequence[Ladder], figure: str) -> dict[str, float | None]:
    return {
        rung: _median(ladders, rung, figure) for rung in ladders[0].rungs if _median(ladders, rung, figure) is not None
    }


def layer_figures(name: str, readings: Sequence[Reading], firings: int) -> Iterator[Figure]:
    """Every rung and what was read, printed without a bar: the bars are for the best layer."""
    ladders = [r.ladder for r in readings]
    note = f"output features firing >= {firings} times in {ladders[0].rows} held-out rows; {len(readings)} seeds"
    gates = GATES.format(FAN_IN[-1])
    for figure, words, better in (
        ("over_half", "share of outputs with R2 > .5", "higher"),
        ("median_r2", "median R2 of outputs", "higher"),
        ("read", "share of outputs whose truth table has a held-out MCC > .5", "higher"),
        ("fvu", "FVU of the decoded output", "lower"),
        ("metric", "CE with the MLP replaced", "lower"),
        ("l0", "predicted L0", "lower"),
    ):
        column = _column(ladders, figure)
        if column:
            value = column.pop(gates, None)
            yield Figure(f"{name}: {words}, fan-in {FAN_IN[-1]}", value, None, better, column, note)  # type: ignore[arg-type]
    read = [r for r in readings if r.gates]
    if read:
        yield from _gate_figures(name, [gate for r in read for gate in r.gates], len(read))


def _gate_figures(name: str, gates: Sequence[Gate], seeds: int) -> Iterator[Figure]:
    """What the printed rules are worth: kinds, and quantiles of their held-out MCC, with that of random parents beside."""
    kinds = Counter(f"{g.kind}, {g.grade}" for g in gates)
    note = f"{len(gates)} outputs of {seeds} seeds, fan-in {FAN_IN[0]}, judged on held-out rows, no intervention"
    read = sum(g.read for g in gates)
    shares = {kind: count / len(gates) for kind, count in kinds.most_common()}
    yield Figure(f"{name}: share of outputs whose rule holds", read / len(gates), baselines=shares, note=note)
    for what, found in (
        ("rules of all outputs that have one", [g.mcc for g in gates if g.mcc is not None]),
        (
            "rules that hold",
            [g.mcc for g in gates if g.mcc is not None and g.read],
        ),
        ("random parents", [g.control_mcc for g in gates if g.control_mcc is not None]),
    ):
        if len(found) > 1:
            tenths = statistics.quantiles(found, n=20)
            quantiles = {"5 %": tenths[0], "25 %": tenths[4], "75 %": tenths[14], "95 %": tenths[18]}
            yield Figure(
                f"{name}: median held-out MCC, {what}", tenths[9], baselines=quantiles, note=f"{len(found)} rules"
            )


def best_layer(ladders: Mapping[int, Sequence[Ladder]], firings: int) -> Iterator[Figure]:
    for k, bar in zip(FAN_IN, (0.30, 0.35), strict=True):
        gates = GATES.format(k)
        shares = {layer: _median(found, gates, "over_half") or 0.0 for layer, found in ladders.items()}
        layer = max(shares, key=lambda i: shares[i])
        beside = {f"layer {i}": v for i, v in shares.items()}
        beside |= {
            f"{rung}, layer {layer}": v for rung, v in _column(ladders[layer], "over_half").items() if rung != gates
        }
        yield Figure(
            f"outputs with held-out R2 > .5 at fan-in <= {k}, best layer",
            shares[layer],
            bar,
            baselines=beside,
            note=f"layer {layer}; output features firing >= {firings} times in the held-out rows",
        )
    gates = GATES.format(FAN_IN[-1])
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
    margins = {
        i: (_median(f, gates, "median_r2") or 0.0) - (_median(f, NEURONS, "median_r2") or 0.0)
        for i, f in ladders.items()
    }
    yield Figure(
        f"median R2 at fan-in {FAN_IN[-1]} minus that of as many neurons of its input, layer {layer}",
        margins[layer],
        0.0,
        baselines={rung: _median(found, rung, "median_r2") for rung in (gates, NEURONS, DENSE)}
        | {f"layer {i}": v for i, v in margins.items()},
    )
    yield Figure(
        "median R2 of the shuffled null, worst layer",
        max(_median(f, SHUFFLED, "median_r2") or 0.0 for f in ladders.values()),
        0.02,
        "lower",
        {f"layer {i}": _median(f, SHUFFLED, "median_r2") for i, f in ladders.items()}
        | {
            f"layer {i}, fitted to its own rows, read on others": _median(f, NULL, "median_r2")
            for i, f in ladders.items()
        },
        "connectors fitted to the inputs of other rows",
    )


def _ratio(value: float | None, ceiling: float | None) -> float:
    return value / ceiling if value is not None and ceiling else 0.0
