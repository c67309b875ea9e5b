"""Gates read from tables: planted kinds found again, others refused with the reason."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gatelens.connectors import Connector
from gatelens.errors import DataError, NonFiniteError, SolverError
from gatelens.gates import GateKind, Grade, type_gates

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
    "xor": (
        lambda f: (f[:, 0] > 0) ^ (f[:, 1] > 0),
        [0, 1],
        [1.0, 1.0],
        r"predicted on, but fired in only 0 of \d+ rows",
    ),
    "graded": (
        lambda f: f[:, :4].sum(1) > 1.5,
        [0, 1, 2, 3],
        [1.0] * 4,
        "amounts decide: a cut .* has an MCC of (0.9|1)",
    ),
    "a sum of many": (lambda f: f[:, :12].sum(1) > 3, list(range(12)), [1.0] * 12, "amounts decide|under 0.5"),
}


@pytest.mark.parametrize("kind", OUTSIDE)
def test_what_is_outside_the_family_does_not_hold_and_says_why(kind):
    f = inputs()
    truth, parents, weights, why = OUTSIDE[kind]
    gate = gates_of(f, truth(f), parents, weights)
    assert gate.grade == Grade.WEAK
    assert re.search(why, gate.why)


def test_a_and_b_or_c_is_read_as_it_is():
    f = inputs()
    on = f[:, :3] > 0
    gate = gates_of(f, on[:, 0] & (on[:, 1] | on[:, 2]), [0, 1, 2], [2.0, 1.0, 1.0])
    assert (gate.kind, gate.grade, gate.mcc) == (GateKind.MIXED, Grade.HOLDS, 1.0)
    cases = np.array([[bool(c >> j & 1) for j in range(3)] for c in range(8)])
    order = [gate.rule.features.index(j) for j in range(3)]
    says = gate.rule.evaluate(cases[:, np.argsort(order)])
    assert says.tolist() == (cases[:, 0] & (cases[:, 1] | cases[:, 2])).tolist()


def test_one_parent_of_a_xor_that_is_on_in_half_of_the_rows_does_not_hold():
    """It agrees with most rows, and does the opposite wherever the rare one is on."""
    f = inputs()
    f[:, 5] = np.random.default_rng(5).random(ROWS) < 0.5
    gate = gates_of(f, (f[:, 5] > 0) ^ (f[:, 0] > 0), [5, 0], [1.0, 1.0])
    assert gate.mcc > 0.8
    assert gate.grade == Grade.WEAK
    assert "predicted off, but fired in" in gate.why


def test_arms_that_never_meet_are_an_or_all_the_same():
    f = inputs()
    f[:, 1] *= f[:, 0] == 0
    f[:, 2] *= f[:, :2].max(1) == 0
    gate = gates_of(f, f[:, :3].max(1) > 0, [0, 1, 2], [1.0, 1.0, 1.0])
    assert (gate.kind, gate.grade) == (GateKind.OR, Grade.HOLDS)


def test_a_split_feature_is_an_or_of_its_parts():
    """One cause, in the dictionary as two features that take turns: both are needed, and neither is a copy."""
    f = inputs()
    cause = f[:, 0] > 0
    first = np.random.default_rng(2).random(ROWS) < 0.5
    f[:, 1], f[:, 0] = cause & ~first, f[:, 0] * first
    gate = gates_of(f, cause, [0, 1], [1.0, 1.0])
    assert (gate.kind, set(gate.rule.features)) == (GateKind.OR, {0, 1})
    assert gate.mcc == 1.0


def test_counts_and_scores_are_those_of_the_second_half():
    f = inputs()
    y = (f[:, 0] > 0) | (f[:, 1] > 0)
    gate = gates_of(f, y, [0, 1], [1.0, 2.0])
    half = f[ROWS // 2 :] > 0
    assert set(gate.inputs) == {0, 1}
    for pattern, count, fired in zip(gate.table.patterns, gate.table.count, gate.table.fired, strict=True):
        rows = (half[:, gate.inputs[0]] == bool(pattern[0])) & (half[:, gate.inputs[1]] == bool(pattern[1]))
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


def test_a_pattern_that_never_occurs_is_not_claimed():
    f = inputs()
    f[:, 1] *= f[:, 0] > 0  # B inside A: with B on, whether A matters cannot be seen
    gate = gates_of(f, f[:, 1] > 0, [0, 1], [1.0, 1.0])
    assert str(gate.rule) == "IF_1"
    assert [row.tolist() for row in gate.table.patterns] == [[False], [True]]


@pytest.mark.parametrize(("together", "words"), [(3, "IF_0"), (60, "IF_0 and not IF_1")])
def test_an_inhibitor_that_is_hardly_ever_on_beside_its_exciter_is_left_out_and_named(together, words):
    """Its wire alone is no evidence: the rule does without it, and the card says how few rows it would decide."""
    f = inputs()
    f[:, 1] *= f[:, 0] == 0
    for part in (slice(0, ROWS // 2), slice(ROWS // 2, ROWS)):
        both = np.flatnonzero(f[part, 0] > 0)
        f[part, 1][both[:: len(both) // together][:together]] = 1.0
    gate = gates_of(f, (f[:, 0] > 0) & ~(f[:, 1] > 0), [0, 1], [1.0, -1.0])
    assert str(gate.rule) == words
    left_out = [text for text in gate.evidence.left_out if text.startswith("IF_1:")]
    assert left_out == (["IF_1: would decide 3 rows of 20"] if together == 3 else [])


def test_bad_rows_are_refused_by_name():
    f = inputs()
    y = f[:, 0].copy()
    f[5, 3] = np.nan
    with pytest.raises(NonFiniteError, match="row 5, feature 3"):
        gates_of(f, y, [0], [1.0])
    connector = Connector.from_rows([(torch.tensor([0]), torch.ones(1))], torch.zeros(1), 40)
    with pytest.raises(DataError, match="maps 40 features to 1"):
        type_gates(connector, torch.zeros(9, 7), torch.zeros(9, 1))
    for option, value, part in (
        ("max_literals", 40, "max_literals must be between"),
        ("levels", (0.2, 1.5), "quantiles"),
        ("levels", "high", "chosen, median, zero"),
        ("mcc_bar", 3.0, "mcc_bar"),
    ):
        with pytest.raises(SolverError, match=part):
            gates_of(inputs(), y, [0], [1.0], **{option: value})


def test_signed_features_are_read_by_sign_and_say_so():
    rng = np.random.default_rng(0)
    f = rng.normal(size=(ROWS, 4)).astype(np.float32)
    gate = gates_of(f, (f[:, 0] > 0) & (f[:, 1] > 0), [0, 1], [1.0, 1.0])
    assert gate.kind == GateKind.AND
    assert "values of both signs" in gate.note
    assert "over 20% of rows" in gate.note


def test_outputs_and_inputs_that_never_or_always_fire_have_no_rule():
    f = inputs()
    f[:, 5], f[:, 6] = 0.0, 1.0
    never = gates_of(f, np.zeros(ROWS), [0], [1.0])
    assert (never.kind, never.grade, never.mcc, never.r2) == (GateKind.NOT_READ, Grade.NONE, None, None)
    assert "never on" in never.why
    always = gates_of(f, f[:, 6], [6], [1.0])
    assert always.grade == Grade.NONE
    dead = gates_of(f, f[:, 0], [5], [1.0])
    assert "left out, never on: IF_5" in dead.note
    assert str(dead.rule) == "IF_0"  # its rows show what no wire does
    assert dead.equation() == "OF_0 = ReLU(0)" if not dead.bias else True
    nothing = gates_of(np.zeros_like(f), f[:, 0], [0], [1.0])
    assert (nothing.grade, nothing.rule) == (Grade.NONE, None)


def test_wires_beyond_the_rule_are_named_with_what_they_would_add():
    f = inputs()
    parents = list(range(10))
    gate = gates_of(f, (f[:, parents] > 0).any(1), parents, [2.0] * 4 + [1.0] * 6)
    assert gate.table.patterns.shape[1] == 4
    assert set(gate.inputs) == set(parents)
    assert gate.inputs[:4] == gate.rule.features
    assert all("as literal 5" in text for text in gate.evidence.left_out)
    assert gate.evidence.f1_by_literals == tuple(sorted(gate.evidence.f1_by_literals))


def test_inputs_shuffled_over_the_rows_give_no_gate():
    """The null: real wires, but each input's rows belong to other outputs."""
    f = inputs(features=60)
    rng = np.random.default_rng(3)
    rows = [rng.choice(60, 3, replace=False) for _ in range(30)]
    y = np.stack([(f[:, p] > 0).any(1) for p in rows], 1).astype(np.float32)
    connector = Connector.from_rows([(torch.from_numpy(p), torch.ones(3)) for p in rows], torch.zeros(30), 60)
    real = type_gates(connector, torch.from_numpy(f), torch.from_numpy(y))
    null = type_gates(connector, torch.from_numpy(rng.permutation(f)), torch.from_numpy(y))
    assert {(g.kind, g.grade) for g in real} == {(GateKind.OR, Grade.HOLDS)}
    assert not any(g.read for g in null)
    assert max(g.controls.shuffled for g in real) < 0.1
    assert max(g.controls.random_parents for g in real) < 0.3


def test_the_same_seed_gives_the_same_gates():
    f = inputs()
    y = (f[:, 0] > 0) | (f[:, 1] > 0)
    assert repr(gates_of(f, y, [0, 1], [1.0, 1.0])) == repr(gates_of(f, y, [0, 1], [1.0, 1.0]))


def test_levels_are_said_with_the_share_of_firings_that_they_keep():
    """Weak noise below strong firings: above a level of its own the output obeys its rule."""
    rng = np.random.default_rng(4)
    f = inputs(rate=0.1)
    strong, noise = (f[:, 0] > 0) | (f[:, 1] > 0), rng.random(ROWS) < 0.5
    y = np.where(strong, 1 + rng.random(ROWS), noise * 0.3 * rng.random(ROWS))
    gate, at_zero = (gates_of(f, y, [0, 1], [1.0, 1.0], levels=levels) for levels in ("chosen", "zero"))
    assert gate.mcc > 0.99 > 0.8 > at_zero.mcc
    here = y[ROWS // 2 :].astype(np.float32)
    assert gate.evidence.kept == pytest.approx((here > gate.level).sum() / (here > 0).sum())
    assert gate.evidence.between == pytest.approx(((here > 0) & (here <= gate.level)).mean())
    assert int(gate.table.count.sum()) == ROWS // 2 - ((here > 0) & (here <= gate.level)).sum()
    assert (at_zero.level, at_zero.evidence.kept, at_zero.evidence.between) == (0.0, 1.0, 0.0)
    said = strong[ROWS // 2 :] & (here > 0)
    assert gate.evidence.covered == pytest.approx(said.sum() / (here > 0).sum(), abs=0.02)


def origins(document: np.ndarray, token: np.ndarray) -> SimpleNamespace:
    """Windows of one document each, a token a row."""
    first = np.r_[True, document[1:] != document[:-1]]
    start = np.maximum.accumulate(np.where(first, np.arange(len(document)), 0))
    return SimpleNamespace(document=document, position=np.arange(len(document)) - start, token=token)


def test_a_table_of_tokens_stands_beside_the_rule():
    """One output is a token and another a pair of them, in features; a third depends on what no table of two tokens knows."""
    rng = np.random.default_rng(6)
    token, document = rng.integers(0, 12, ROWS), np.arange(ROWS) // 130
    before = np.where(np.r_[True, document[1:] != document[:-1]], -1, np.roll(token, 1))
    mood = rng.random(ROWS) < 0.3
    f = np.stack([token == 3, before == 5, mood], 1).astype(np.float32)
    y = np.stack([f[:, 0], f[:, 0] * f[:, 1], f[:, 0] * mood], 1).astype(np.float32)
    half, connector = ROWS // 2, Connector.from_dense(torch.ones(3, 3), torch.zeros(3))
    x, z = torch.from_numpy(f), torch.from_numpy(y)
    token[0] = 40  # a token that only the fitting rows hold: pairs are the same pairs in both parts all the same
    where = tuple(origins(document[part], token[part]) for part in (slice(half), slice(half, None)))
    token_gate, pair, beyond = type_gates(connector, x[:half], z[:half], held_out=(x[half:], z[half:]), origins=where)
    assert token_gate.controls.token == 1.0
    assert token_gate.table_does_as_well
    assert token_gate.controls.beats_lookup is False
    assert pair.controls.token < 0.5 < 0.95 < pair.controls.token_pair
    assert pair.table_does_as_well
    assert beyond.controls.lookup < 0.8 < 0.99 < beyond.mcc
    assert beyond.controls.beats_lookup is True
    assert not beyond.table_does_as_well
    few = type_gates(connector, x[:half], z[:half], held_out=(x[half:], z[half:]),
                     origins=tuple(origins(np.zeros(half, int), token[:half]) for _ in range(2)))[0]  # fmt: skip
    assert few.controls.beats_lookup is None
    assert "1 held-out documents" in few.controls.missing["beats_lookup"]
    none = type_gates(connector, x[:half], z[:half], held_out=(x[half:], z[half:]))[0]
    assert none.controls.token is None
    assert "was not given" in none.controls.missing["token"]
    with pytest.raises(DataError, match="their origins"):
        type_gates(
            connector, x[:half], z[:half], held_out=(x[half:], z[half:]), origins=(where[0], origins(document, token))
        )
    with pytest.raises(DataError, match="give held_out too"):
        type_gates(connector, x, z, origins=where)


def test_the_class_of_an_image_is_looked_up():
    label = np.random.default_rng(8).integers(0, 4, 2000)
    f = torch.from_numpy(np.stack([label == 1, label == 2], 1).astype(np.float32))
    where = SimpleNamespace(document=np.arange(2000), position=np.zeros(2000, int), token=label)
    gate = type_gates(
        Connector.from_dense(torch.ones(1, 2), torch.zeros(1)),
        f,
        f[:, :1],
        held_out=(f, f[:, :1]),
        origins=(where, where),
    )[0]
    assert (gate.controls.label, gate.controls.token) == (1.0, None)
