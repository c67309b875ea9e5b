"""Printed rules under intervention: rows are edited so that the rule changes its mind; does the model change its?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import torch

from ..gates import Gate
from ..gates.interventions import Workbench
from ..gates.rule import Literal, Rule


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

    On to off: rows where the rule is open and the output is on; the fewest literals are switched that close the rule. Off to on:
    rows where the rule is closed and the output is silent; the fewest are switched that open it, those switched on to their mean
    above their level. Beside it: as many random active features removed, as many random ones added.
    Whether the output fires is read off what the model gives, also for dictionaries whose features are functions of the
    input: these would agree with themselves.
    """
    random, found = np.random.default_rng(seed), RuleFlips()
    ever = np.flatnonzero(bench.on_value > 0)
    ruled = [(g, g.rule) for g in gates if g.rule is not None and (g.read or g.verified is not None)]
    for gate, rule in ruled[:: max(1, -(-len(ruled) // most))]:
        found.gates += 1
        on = np.stack([bench.f_in.dense(i.feature) > i.level for i in rule.literals], 1)
        is_open = rule.evaluate(on)
        fires = bench.f_out.dense(gate.out) > gate.level
        positive, silent = bench.states(gate.out)
        for name, start in (("on_off", is_open & positive & fires), ("off_on", ~is_open & silent)):
            chosen = np.flatnonzero(start)
            chosen = random.choice(chosen, min(rows, len(chosen)), replace=False)
            if not len(chosen):
                continue
            wanted = _other_way(on[chosen], rule, random)
            change = _change(bench, chosen, rule, on[chosen], wanted)
            made = _fires(bench, gate, bench.moved(chosen, rule.features, change)) != (name == "on_off")
            others = _random_edit(bench, chosen, rule.features, on[chosen], wanted, ever, random)
            chance = _fires(bench, gate, others) != (name == "on_off")
            for place, count in enumerate((len(chosen), int(made.sum()), int(chance.sum()))):
                found.counts[name][place] += count
    return found


def _other_way(on: np.ndarray, rule: Rule, random: np.random.Generator) -> np.ndarray:
    """[rows, literals] which are to be on: the fewest changes, drawn at random, after which the rule says the opposite."""
    patterns = np.array(list(product([False, True], repeat=on.shape[1])))
    says = rule.evaluate(patterns)
    wanted = on.copy()
    for place, now in enumerate(rule.evaluate(on)):
        other = random.permutation(np.flatnonzero(says != now))
        wanted[place] = patterns[other[np.argmin((patterns[other] != on[place]).sum(1))]]
    return wanted


def _change(bench: Workbench, rows: np.ndarray, rule: Rule, on: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """[rows, literals] the change in value that switches literals that are not as wanted."""
    value = bench.values(rows, rule.features)
    above = [_mean_above(bench, literal) for literal in rule.literals]
    target = np.where(wanted, np.where(on, value, above), np.minimum(value, 0))
    return target - value


def _mean_above(bench: Workbench, literal: Literal) -> float:
    value = bench.f_in.on(literal.feature)[1]
    return float(value[value > literal.level].mean()) if (value > literal.level).any() else literal.level


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


def _fires(bench: Workbench, gate: Gate, x: torch.Tensor) -> np.ndarray:
    return (bench.features(x, torch.tensor([gate.out]))[:, 0] > gate.level).numpy()
