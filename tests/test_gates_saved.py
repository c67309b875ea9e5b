"""Gates on disk: all of a reading comes back, and gates of older versions get the rule that they spelled."""

from __future__ import annotations

import json

import pytest

from gatelens.gates.gate import Controls, Evidence, Gate
from gatelens.gates.grade import Grade
from gatelens.gates.rule import GateKind, Literal, Op, Rule
from gatelens.gates.saving import gate_from_dict, gate_to_dict


def through_json(gate: Gate) -> Gate:
    return gate_from_dict(json.loads(json.dumps(gate_to_dict(gate), allow_nan=False)))


def test_everything_comes_back():
    rule = Rule((Literal(3, 0.5),), 1, ((Op.OR, Literal(7)), (Op.AND_NOT, Literal(1, 0.25))))
    gate = Gate(
        5, rule.kind(), (3, 7, 1, 9), (0.5, 0.25, -1.0, 0.125), -0.1, rule=rule, grade=Grade.HOLDS, level=0.3, mcc=0.8,
        evidence=Evidence(0.85, 0.8, 0.7, None, 0.75, 0.55, 0.45, 0.01, 0.4, (0.5, None, 0.8), ("IF_9: hardly helps",)),
        controls=Controls(0.1, 0.0, 0.6, token=0.7, beats_lookup=True, missing={"neurons": "not given"}),
    )  # fmt: skip
    again = through_json(gate)
    assert again == gate
    assert again.controls.lookup == 0.7
    assert again.table_does_as_well is False


OLD = {"out": 4, "inputs": [0, 1, 2], "weights": [1.0, 1.0, -1.0], "bias": -0.5, "mcc": 0.8, "control_mcc": 0.1}


@pytest.mark.parametrize(
    ("kind", "excite", "inhibit", "at_least", "words"),
    [
        ("copy", [0], [], 1, "IF_0"),
        ("or", [0, 1], [], 1, "IF_0 or IF_1"),
        ("and", [0, 1], [], 2, "IF_0 and IF_1"),
        ("and_not", [0], [2], 1, "IF_0 and not IF_2"),
        ("k_of_n", [0, 1, 2], [], 2, "at least 2 of IF_0, IF_1, IF_2"),
        ("mixed", [0, 1], [2], 1, "(IF_0 or IF_1) and not IF_2"),
    ],
)
def test_a_gate_of_an_older_version_spells_its_rule(kind, excite, inhibit, at_least, words):
    values = OLD | {"kind": kind, "excite": excite, "inhibit": inhibit, "at_least": at_least}
    gate = gate_from_dict(values | {"verified": True})
    assert str(gate.rule) == words
    assert gate.rule.kind() == gate.kind == GateKind(kind)
    assert gate.grade == Grade.VERIFIED
    assert gate_from_dict(values | {"verified": False}).grade == Grade.HOLDS
    assert gate_from_dict(values | {"mcc": 0.45}).grade == Grade.WEAK


@pytest.mark.parametrize("kind", ["not_read", "adder"])
def test_what_was_not_read_then_has_no_grade_now(kind):
    gate = gate_from_dict(OLD | {"kind": kind, "excite": [0], "inhibit": [], "at_least": 1, "verified": False})
    assert gate.rule is None
    assert gate.grade == Grade.NONE
    assert not gate.read
