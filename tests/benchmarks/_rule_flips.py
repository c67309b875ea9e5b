"""Printed rules under intervention: rows are edited so that the rule changes its mind; does the model change its?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from gatelens.gates import Gate
from gatelens.gates.rule import Literal, Rule
from gatelens.gates.stage import Stage


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


def levels_of(gates: Sequence[Gate], outputs: int) -> Float[np.ndarray, " outputs"]:
    """The level above which each output is on; 0 where there is no gate."""
    levels = np.zeros(outputs)
    levels[[g.out for g in gates]] = [g.level for g in gates]
    return levels


def rule_flips(stage: Stage, gates: Sequence[Gate], rows: int = 32, most: int = 200, seed: int = 0) -> RuleFlips:
    """For each gate that was read (or that only the model contradicted), `rows` rows each way; at most `most` gates,
    spread evenly over the outputs.

    On to off: rows where the rule is open and the output is on; the fewest literals are switched that close the rule. Off to on:
    rows where the rule is closed and the output is silent; the fewest are switched that open it, those switched on to their mean
    above their level. Beside it: as many random active features removed, as many random ones added.
    Whether the output fires is read off what the model gives, also for dictionaries whose features are functions of the
    input: these would agree with themselves.

    Args:
        stage: real rows, with the gates' levels.
    """
    random, found = np.random.default_rng(seed), RuleFlips()
    ever = np.flatnonzero(stage.typical > 0)
    ruled = [(g, g.rule) for g in gates if g.rule is not None and (g.read or g.verified is not None)]
    for gate, rule in ruled[:: max(1, -(-len(ruled) // most))]:
        found.gates += 1
        on = np.stack([stage.on(i) for i in rule.literals], 1)
        is_open = rule.evaluate(on)
        fires, silent = stage.states(gate.out)
        for name, chosen in (("on_off", fires[is_open[fires]]), ("off_on", silent[~is_open[silent]])):
            chosen = random.choice(chosen, min(rows, len(chosen)), replace=False)
            if not len(chosen):
                continue
            wanted = _other_way(on[chosen], rule, random)
            change = _change(stage, chosen, rule, on[chosen], wanted)
            step = change @ stage.directions[list(rule.features)]
            made = _fires(stage, gate, stage.moved(chosen, step)) != (name == "on_off")
            others = _random_edit(stage, chosen, rule.features, on[chosen], wanted, ever, random)
            chance = _fires(stage, gate, others) != (name == "on_off")
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


def _change(stage: Stage, rows: np.ndarray, rule: Rule, on: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """[rows, literals] the change in value that switches literals that are not as wanted."""
    value = stage.values(rule.features, rows)
    above = [_mean_above(stage, literal) for literal in rule.literals]
    target = np.where(wanted, np.where(on, value, above), np.minimum(value, 0))
    return target - value


def _mean_above(stage: Stage, literal: Literal) -> float:
    value = stage.values([literal.feature], np.flatnonzero(stage.on(literal)))
    return float(value.mean()) if len(value) else literal.level


def _random_edit(
    stage: Stage,
    rows: np.ndarray,
    parents: Sequence[int],
    on: np.ndarray,
    wanted: np.ndarray,
    ever: np.ndarray,
    random: np.random.Generator,
) -> torch.Tensor:
    """The rows after as many other features were removed (active ones) and added (inactive ones) on each."""
    steps = np.zeros((len(rows), stage.directions.shape[1]), np.float32)
    for place, row in enumerate(rows):
        own = stage.f_in[row].indices
        free = np.setdiff1d(own, parents)
        idle = np.setdiff1d(ever, np.union1d(own, parents))
        removed = random.permutation(free)[: int((on[place] & ~wanted[place]).sum())]
        added = random.permutation(idle)[: int((wanted[place] & ~on[place]).sum())]
        steps[place] = stage.typical[added] @ stage.directions[added]
        steps[place] -= stage.values(removed.tolist(), rows[place : place + 1])[0] @ stage.directions[removed]
    return stage.moved(rows, steps)


def _fires(stage: Stage, gate: Gate, x: torch.Tensor) -> np.ndarray:
    return stage.shown(x, np.full(len(x), gate.out)) > gate.level
