"""What a gate says of rows: the one place in this room that knows how a gate keeps its rule, its levels and its grade."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..gates import Gate
from ..gates.rule import Rule


def rule_of(gate: Gate | None) -> Rule | None:
    """The gate's rule, however good; None where there is none."""
    return None if gate is None else gate.rule


def says_on(rule: Rule, f: Float[Tensor, "rows m"]) -> Bool[Tensor, " rows"]:
    """On which rows of input features a rule says that its output is on."""
    return torch.from_numpy(rule.evaluate(literals_on(rule, f).numpy()))


def literals_on(rule: Rule, f: Float[Tensor, "rows m"]) -> Bool[Tensor, "rows literals"]:
    """Which literals of a rule are on in rows of input features."""
    levels = torch.tensor([literal.level for literal in rule.literals])
    return f[:, list(rule.features)] > levels


def output_level(gate: Gate | None) -> float:
    """The level above which the gate's output counts as on."""
    return 0.0 if gate is None else gate.level


def grade_of(gate: Gate | None) -> str:
    """verified, holds, weak or none."""
    return "none" if gate is None else str(gate.grade)


def typical_of(gate: Gate) -> float | None:
    """The mean of the gate's output where it fires, from the table of observed rows; None where there is none."""
    if gate.table is None or not int(gate.table.fired.sum()):
        return None
    return float((gate.table.magnitude * gate.table.count).sum() / gate.table.fired.sum())
