"""Printed rules under intervention: rows are edited so that the rule changes its mind; does the model change its?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..gates import Gate, GateKind
from ..gates.interventions import Workbench

UNREAD = (GateKind.NOT_READ, GateKind.ADDER)


@dataclass
class RuleFlips:
    """Flips that rules require, and how many the model makes; the same edits on random features beside it.

    Attributes:
        counts: direction -> [required, made, made with random features of the row in the parents' place].
    """

    gates: int = 0
    counts: dict[str, list[int]] = field(default_factory=lambda: {"on_off": [0, 0, 0], "off_on": [0, 0, 0]})

    def figures(self) -> dict[str, Any]:
        found: dict[str, Any] = {"gates": self.gates}
        for name, (required, made, random) in self.counts.items():
            found[name] = {
                "required": required,
                "made": made / required if required else None,
                "random_features": random / required if required else None,
            }
        return found


def rule_flips(bench: Workbench, gates: Sequence[Gate], rows: int = 32, most: int = 200, seed: int = 0) -> RuleFlips:
    """For each gate that was read (or that only the model contradicted), `rows` rows each way; at most `most` gates,
    spread evenly over the outputs.

    On to off: rows where the rule is open and the output fires; enough exciters are removed to close the rule.
    Off to on: rows where the rule is closed and the output is silent; inhibitors are removed and enough exciters added,
    at their mean value, to open it. Beside it: as many random active features removed, as many random ones added.
    Whether the output fires is read off what the model gives, also for dictionaries whose features are functions of the
    input: these would agree with themselves.
    """
    random, found = np.random.default_rng(seed), RuleFlips()
    ever = np.flatnonzero(bench.on_value > 0)
    ruled = [g for g in gates if g.excite and (g.kind not in UNREAD or g.verified is not None)]
    for gate in ruled[:: max(1, -(-len(ruled) // most))]:
        found.gates += 1
        parents = [*gate.excite, *gate.inhibit]
        on = np.stack([bench.f_in.dense(p) > 0 for p in parents], 1)
        is_open = (on[:, : len(gate.excite)].sum(1) >= gate.at_least) & ~on[:, len(gate.excite) :].any(1)
        fires, silent = bench.states(gate.out)
        for name, start in (("on_off", is_open & fires), ("off_on", ~is_open & silent)):
            chosen = np.flatnonzero(start)
            chosen = random.choice(chosen, min(rows, len(chosen)), replace=False)
            if not len(chosen):
                continue
            wanted = _closed(on[chosen], gate, random) if name == "on_off" else _opened(on[chosen], gate, random)
            change = _change(bench, chosen, parents, on[chosen], wanted)
            made = _fires(bench, gate.out, bench.moved(chosen, parents, change)) != (name == "on_off")
            others = _random_edit(bench, chosen, parents, on[chosen], wanted, ever, random)
            chance = _fires(bench, gate.out, others) != (name == "on_off")
            for place, count in enumerate((len(chosen), int(made.sum()), int(chance.sum()))):
                found.counts[name][place] += count
    return found


def _closed(on: np.ndarray, gate: Gate, random: np.random.Generator) -> np.ndarray:
    """[rows, parents] which are to be on: the fewest exciters removed that close the rule, drawn at random."""
    wanted = on.copy()
    for row in wanted:
        have = np.flatnonzero(row[: len(gate.excite)])
        row[random.permutation(have)[: len(have) - gate.at_least + 1]] = False
    return wanted


def _opened(on: np.ndarray, gate: Gate, random: np.random.Generator) -> np.ndarray:
    """[rows, parents] which are to be on: no inhibitor, and the fewest exciters added that open the rule."""
    wanted = on.copy()
    wanted[:, len(gate.excite) :] = False
    for row in wanted:
        lack = np.flatnonzero(~row[: len(gate.excite)])
        missing = gate.at_least - (len(gate.excite) - len(lack))
        row[random.permutation(lack)[: max(missing, 0)]] = True
    return wanted


def _change(
    bench: Workbench, rows: np.ndarray, parents: Sequence[int], on: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    """[rows, parents] the change in value that switches parents that are not as wanted."""
    value = bench.values(rows, parents)
    target = np.where(wanted, np.where(on, value, bench.on_value[list(parents)]), np.minimum(value, 0))
    return target - value


def _random_edit(
    bench: Workbench,
    rows: np.ndarray,
    parents: Sequence[int],
    on: np.ndarray,
    wanted: np.ndarray,
    ever: np.ndarray,
    random: np.random.Generator,
) -> torch.Tensor:
    """The rows after as many other features were removed (active ones) and added (inactive ones) on each."""
    x = bench.x[torch.from_numpy(rows)].clone()
    active = bench.active(rows)
    for place in range(len(rows)):
        own = active[place]
        free = np.setdiff1d(own, parents)
        idle = np.setdiff1d(ever, np.union1d(own, parents))
        removed = random.permutation(free)[: int((on[place] & ~wanted[place]).sum())].tolist()
        added = random.permutation(idle)[: int((wanted[place] & ~on[place]).sum())].tolist()
        where = rows[place : place + 1]
        change = np.concatenate([-bench.values(where, removed), bench.on_value[added][None]], 1)
        x[place] = bench.moved(where, [*removed, *added], change)[0]
    return x


def _fires(bench: Workbench, out: int, x: torch.Tensor) -> np.ndarray:
    return (bench.features(x, torch.tensor([out]))[:, 0] > 0).numpy()
