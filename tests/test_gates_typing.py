"""Gates read from tables: planted kinds found again, others refused with the reason."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gatelens.connectors import Connector
from gatelens.errors import DataError, NonFiniteError, SolverError
from gatelens.gates import GateKind, type_gates

ROWS = 8000


def inputs(seed: int = 0, features: int = 40, rate: float = 0.15) -> np.ndarray:
    """[rows, features] independent features with log-normal sizes."""
    rng = np.random.default_rng(seed)
    on = rng.random((ROWS, features)) < rate
    return (on * np.exp(rng.normal(0, 0.5, on.shape))).astype(np.float32)


def gates_of(f: np.ndarray, y: np.ndarray, parents: list[int], weights: list[float], **options):
    """The gate read for one output."""
    connector = Connector.from_rows([(torch.tensor(parents), torch.tensor(weights))], torch.zeros(1), f.shape[1])
    return type_gates(connector, torch.from_numpy(f), torch.from_numpy(y.astype(np.float32))[:, None], **options)[0]


LOGIC = {
    "copy": (lambda a, b, c: a, [0], [1.0]),
    "or": (lambda a, b, c: a | b | c, [0, 1, 2], [1.0, 1.0, 1.0]),
    "and": (lambda a, b, c: a & b, [0, 1], [1.0, 1.0]),
    "and_not": (lambda a, b, c: a & ~b, [0, 1], [1.0, -1.0]),
    "k_of_n": (lambda a, b, c: (a.astype(int) + b + c) >= 2, [0, 1, 2], [1.0, 1.0, 1.0]),
    "mixed": (lambda a, b, c: (a | b) & ~c, [0, 1, 2], [1.0, 1.0, -1.0]),
}


@pytest.mark.parametrize("kind", LOGIC)
@pytest.mark.parametrize("drop", [0.0, 0.2])
def test_each_kind_is_read_from_the_signs_of_its_wires_and_its_table(kind, drop):
    f = inputs()
    rule, parents, weights = LOGIC[kind]
    y = rule(*(f[:, j] > 0 for j in range(3))) & (np.random.default_rng(1).random(ROWS) >= drop)
    gate = gates_of(f, y, parents, weights)
    assert str(gate.kind) == kind, gate.why
    assert gate.mcc > (0.99 if drop == 0 else 0.8)
    assert abs(gate.control_mcc) < 0.1
    assert set(gate.excite) | set(gate.inhibit) == set(parents)


OUTSIDE = {
    "xor": (lambda f: (f[:, 0] > 0) ^ (f[:, 1] > 0), [0, 1], [1.0, 1.0]),
    "a and (b or c)": (lambda f: (f[:, 0] > 0) & ((f[:, 1] > 0) | (f[:, 2] > 0)), [0, 1, 2], [2.0, 1.0, 1.0]),
    "graded": (lambda f: f[:, :4].sum(1) > 1.5, [0, 1, 2, 3], [1.0, 1.0, 1.0, 1.0]),
}


@pytest.mark.parametrize("kind", OUTSIDE)
def test_what_is_outside_the_family_is_not_read_and_says_why(kind):
    f = inputs()
    rule, parents, weights = OUTSIDE[kind]
    gate = gates_of(f, rule(f), parents, weights)
    assert gate.kind in (GateKind.NOT_READ, GateKind.ADDER)
    assert gate.why


def test_counts_and_scores_are_those_of_the_second_half():
    f = inputs()
    y = (f[:, 0] > 0) | (f[:, 1] > 0)
    gate = gates_of(f, y, [0, 1], [1.0, 2.0])
    half = f[ROWS // 2 :] > 0
    assert gate.inputs == (1, 0)
    for pattern, count, fired in zip(gate.table.patterns, gate.table.count, gate.table.fired, strict=True):
        rows = (half[:, 1] == bool(pattern[0])) & (half[:, 0] == bool(pattern[1]))
        assert (count, fired) == (rows.sum(), rows.sum() * bool(pattern.any()))
    assert gate.firings == (half[:, 0] | half[:, 1]).sum()
    assert (gate.precision, gate.recall, gate.mcc) == (1.0, 1.0, 1.0)


def test_sparse_rows_give_the_same_gates():
    f = inputs()
    y = torch.from_numpy(((f[:, 0] > 0) & (f[:, 1] > 0)).astype(np.float32))[:, None]
    connector = Connector.from_rows([(torch.tensor([0, 1]), torch.ones(2))], torch.zeros(1), f.shape[1])
    dense = type_gates(connector, torch.from_numpy(f), y)[0]
    sparse = type_gates(connector, torch.from_numpy(f).to_sparse_csr(), y.to_sparse_csr())[0]
    assert repr(dense) == repr(sparse)


def test_a_pattern_that_hardly_occurs_is_not_claimed():
    f = inputs()
    f[:, 1] *= f[:, 0] > 0  # B inside A: whether B alone would fire it cannot be seen
    both = (f[:, 0] > 0) & (f[:, 1] > 0)
    gate = gates_of(f, both, [0, 1], [1.0, 1.0])
    assert gate.kind in (GateKind.NOT_READ, GateKind.COPY)
    if gate.kind == GateKind.NOT_READ:
        assert "seen 0 times" in gate.why


@pytest.mark.parametrize(("together", "kind"), [(3, "copy"), (60, "and_not")])
def test_an_inhibitor_that_is_hardly_ever_on_beside_its_exciter_is_left_open(together, kind):
    """Its wire alone is no evidence: the gate is read without it, and the card says what was not seen."""
    f = inputs()
    f[:, 1] *= f[:, 0] == 0
    both = np.flatnonzero(f[:, 0] > 0)[:: (f[:, 0] > 0).sum() // together][:together]
    f[both, 1] = 1.0
    gate = gates_of(f, (f[:, 0] > 0) & ~(f[:, 1] > 0), [0, 1], [1.0, -1.0])
    assert str(gate.kind) == kind, gate.why
    assert gate.inhibit == ((1,) if kind == "and_not" else ())
    assert ("whether IF_1 holds it back is not seen: on beside it in 3 rows" in gate.note) == (kind == "copy")


def test_bad_rows_are_refused_by_name():
    f = inputs()
    y = f[:, 0].copy()
    f[5, 3] = np.nan
    with pytest.raises(NonFiniteError, match="row 5, feature 3"):
        gates_of(f, y, [0], [1.0])
    connector = Connector.from_rows([(torch.tensor([0]), torch.ones(1))], torch.zeros(1), 40)
    with pytest.raises(DataError, match="maps 40 features to 1"):
        type_gates(connector, torch.zeros(9, 7), torch.zeros(9, 1))
    with pytest.raises(SolverError, match="max_inputs"):
        gates_of(inputs(), y, [0], [1.0], max_inputs=40)


def test_signed_features_are_read_by_sign_and_say_so():
    rng = np.random.default_rng(0)
    f = rng.normal(size=(ROWS, 4)).astype(np.float32)
    gate = gates_of(f, (f[:, 0] > 0) & (f[:, 1] > 0), [0, 1], [1.0, 1.0])
    assert gate.kind == GateKind.AND
    assert "values of both signs" in gate.note
    assert "over 20% of rows" in gate.note


def test_outputs_and_inputs_that_never_or_always_fire_are_not_read():
    f = inputs()
    f[:, 5], f[:, 6] = 0.0, 1.0
    never = gates_of(f, np.zeros(ROWS), [0], [1.0])
    assert (never.kind, never.mcc, never.r2) == (GateKind.NOT_READ, None, None)
    dead = gates_of(f, f[:, 0], [5], [1.0])
    assert dead.kind == GateKind.NOT_READ
    assert "no wire from a feature that fires" in dead.why
    constant = gates_of(f, f[:, 0] > 0, [6], [1.0])
    assert constant.kind == GateKind.NOT_READ
    assert constant.why


def test_inputs_beyond_the_table_are_pooled_and_said():
    f = inputs()
    parents = list(range(10))
    gate = gates_of(f, (f[:, parents] > 0).any(1), parents, [2.0] * 4 + [1.0] * 6, max_inputs=4)
    assert gate.table.patterns.shape[1] == 4
    assert len(gate.inputs) == 10
    assert "pooled over 6 weaker" in gate.note


def test_inputs_shuffled_over_the_rows_give_no_gate():
    """The null: real wires, but each input's rows belong to other outputs."""
    f = inputs(features=60)
    rng = np.random.default_rng(3)
    rows = [rng.choice(60, 3, replace=False) for _ in range(30)]
    y = np.stack([(f[:, p] > 0).any(1) for p in rows], 1).astype(np.float32)
    connector = Connector.from_rows([(torch.from_numpy(p), torch.ones(3)) for p in rows], torch.zeros(30), 60)
    real = type_gates(connector, torch.from_numpy(f), torch.from_numpy(y))
    null = type_gates(connector, torch.from_numpy(rng.permutation(f)), torch.from_numpy(y))
    assert {g.kind for g in real} == {GateKind.OR}
    assert {g.kind for g in null} == {GateKind.NOT_READ}


def test_the_same_seed_gives_the_same_gates():
    f = inputs()
    y = (f[:, 0] > 0) | (f[:, 1] > 0)
    assert repr(gates_of(f, y, [0, 1], [1.0, 1.0])) == repr(gates_of(f, y, [0, 1], [1.0, 1.0]))
