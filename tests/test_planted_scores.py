"""Scores counted by hand on a small example, and the conformance checks against good and bad plugins."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from _signs import read_signs

from gatelens.basis.linear import Rotation
from gatelens.connectors import Connector
from gatelens.errors import BasisError, DataError, SolverError
from gatelens.gates import GateKind, Grade
from gatelens.gates.gate import Evidence
from gatelens.planted import PlantedGate, check_basis, check_solver, score_gates, score_wires, true_connector
from gatelens.solvers import ReluOMP
from support.gates import ruled

TRUTH = (
    PlantedGate(0, "copy", (0,), (1.0,), (1,), 1),
    PlantedGate(1, "or", (1, 2), (1.0, 1.0), (1, 1), 1),
    PlantedGate(2, "and_not", (3, 4), (1.0, -2.0), (1, 64), 1),
    PlantedGate(3, "xor", (0, 1), (1.0, 1.0), (1, 1), 1, 1),
)


def _connector() -> Connector:
    weight = torch.zeros(4, 6)
    weight[0, 0] = 1.0  # right
    weight[1, 1], weight[1, 5] = 1.0, 0.5  # one right, one false, one missed
    weight[2, 3], weight[2, 4] = 1.0, 0.3  # right parents, one wrong sign
    return Connector.from_dense(weight, torch.zeros(4))


def test_wires_are_counted_as_by_hand():
    scores = score_wires(TRUTH, _connector(), firings=torch.tensor([50, 150, 400, 2000]))
    total = scores.total
    assert (total.right, total.signed, total.found, total.true, total.exact, total.outputs) == (4, 3, 5, 7, 2, 4)
    assert total.precision == pytest.approx(4 / 5)
    assert total.recall == pytest.approx(4 / 7)
    assert total.f1 == pytest.approx(8 / 12)
    assert total.sign_accuracy == pytest.approx(3 / 4)
    assert scores.by_kind["or"].precision == pytest.approx(0.5)
    assert scores.by_kind["xor"].precision is None
    assert {k: c.outputs for k, c in scores.by_firings.items()} == {
        "under 100": 1, "100-300": 1, "300-1000": 1, "1000 and more": 1,
    }  # fmt: skip
    assert score_wires(TRUTH, _connector(), torch.tensor([50, 150, 400, 2000]), min_firings=100).total.outputs == 3
    assert score_wires(TRUTH, _connector(), same={5: 2}).by_kind["or"].exact == 1
    with pytest.raises(DataError, match="firings"):
        score_wires(TRUTH, _connector(), min_firings=10)


def test_readings_are_counted_as_by_hand():
    read = {0: GateKind.COPY, 1: GateKind.NOT_READ, 2: GateKind.MIXED, 3: GateKind.OR}
    scores = score_gates(TRUTH, read)
    assert (scores.in_class, scores.right, scores.abstained, scores.out_of_class, scores.wrong_definite) == (
        3,
        1,
        1,
        1,
        1,
    )
    assert scores.confusion["xor"][GateKind.OR] == 1
    assert "xor" in repr(scores)
    assert score_gates(TRUTH, {3: GateKind.NOT_READ}).wrong_definite == 0
    holds = ruled(3, (0, 1), mcc=0.8)
    assert score_gates(TRUTH, [holds]).wrong_definite == 1
    for abstains in (replace(holds, grade=Grade.WEAK), replace(holds, evidence=Evidence(cut_mcc=0.95))):
        assert score_gates(TRUTH, [abstains]).wrong_definite == 0


def test_signs_alone():
    connector = true_connector(TRUTH, 6)
    assert score_wires(TRUTH, connector).total.exact == 4
    assert read_signs(connector) == {0: GateKind.COPY, 1: GateKind.OR, 2: GateKind.AND_NOT, 3: GateKind.OR}


def test_relu_omp_passes_the_checks():
    assert len(check_solver(ReluOMP())) == 10


@dataclass(frozen=True)
class _Spoiled:
    """ReluOMP with one fault."""

    fault: str

    def fit(self, f_in, f_out):
        connector = ReluOMP().fit(f_in, f_out)
        dense = connector.weight.to_dense()
        if self.fault == "transposed":
            return Connector.from_dense(dense.T, torch.zeros(dense.shape[1]))
        if self.fault == "no wires":
            return Connector.from_dense(torch.zeros_like(dense), connector.bias)
        if self.fault == "in place":
            f_in.mul_(2.0)
        if self.fault == "random":
            return replace(connector, bias=torch.rand(len(connector.bias)))
        return connector


@pytest.mark.parametrize(
    ("fault", "check"),
    [("transposed", "outputs, inputs"), ("no wires", "finds"), ("in place", "alone"), ("random", "same for the same")],
)
def test_a_solver_with_a_fault_is_caught(fault, check):
    with pytest.raises(SolverError, match=check):
        check_solver(_Spoiled(fault))


class _BadBasis:
    def __init__(self, fault):
        self.fault = fault

    def encode(self, x):
        if self.fault == "in place":
            x.abs_()
        return x - x.mean(0) if self.fault == "batch" else x.clamp_min(0)

    def decode(self, f):
        return f**2 if self.fault == "square" else f[:, :-1] if self.fault == "narrow" else f


def test_bases_are_checked():
    assert "decodes linearly" in check_basis(Rotation(torch.eye(8)), 8)
    for fault, check in (("in place", "alone"), ("batch", "by itself"), ("square", "linearly"), ("narrow", "width")):
        with pytest.raises(BasisError, match=check):
            check_basis(_BadBasis(fault), 8)
