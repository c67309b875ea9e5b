"""Rules chosen by what the model obeys: literals that only come with what matters go, and what cannot be told by rows is told by setting."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gatelens.basis import Rotation
from gatelens.connectors import Connector
from gatelens.errors import DataError
from gatelens.gates import Grade, type_gates
from gatelens.gates.obeyed import Suggested, obeyed, parts_of, proposals
from gatelens.gates.outside import Outside
from gatelens.gates.patterns import Patterns, Ranked, Terms, best_by_size, chosen
from gatelens.gates.rule import Literal, Op, Rule
from gatelens.gates.stage import Stage, sparse_rows
from gatelens.gates.verification import verify
from gatelens.planted.chains import FORMS, plant_chains
from gatelens.segments import MLPWeights, Segment

A, B, C, NEAR, WIDTH, ROWS = 0, 1, 2, 3, 10, 8_000


def rule(first: int, *steps: tuple[Op, int]) -> Rule:
    return Rule((Literal(first),), steps=tuple((op, Literal(i)) for op, i in steps))


@pytest.mark.parametrize(
    ("whole", "place", "left"),
    [
        (rule(A, (Op.OR, B), (Op.AND_NOT, C)), 0, rule(B, (Op.AND_NOT, C))),
        (rule(A, (Op.OR, B), (Op.AND_NOT, C)), 1, rule(A, (Op.AND_NOT, C))),
        (rule(A, (Op.AND_NOT, C)), 0, None),
        (rule(A), 0, None),
        (Rule((Literal(A), Literal(B), Literal(C)), 2), 2, rule(A, (Op.AND, B))),
        (
            Rule(tuple(map(Literal, (A, B, C, NEAR))), 2, ((Op.AND_NOT, Literal(7)),)),
            0,
            Rule(tuple(map(Literal, (B, C, NEAR))), 2, ((Op.AND_NOT, Literal(7)),)),
        ),
    ],
    ids=str,
)
def test_a_rule_less_a_literal(whole, place, left):
    assert whole.without(place) == left


def test_the_parts_of_a_rule_are_all_that_is_left_when_literals_go():
    parts = parts_of(rule(A, (Op.OR, B), (Op.AND_NOT, C)))
    assert parts == {
        rule(A), rule(B), rule(A, (Op.OR, B)), rule(A, (Op.AND_NOT, C)), rule(B, (Op.AND_NOT, C)),
    }  # fmt: skip


def test_a_table_over_some_literals_has_the_same_rows():
    rng = np.random.default_rng(0)
    on, fires = rng.random((500, 4)) < 0.4, rng.random(500) < 0.5
    columns = [np.flatnonzero(on[:, j]) for j in range(4)]
    table = Patterns.counted(
        [Literal(j) for j in range(4)], columns, np.flatnonzero(fires), np.zeros(0, int), np.zeros(500, np.uint32)
    )
    part = table.over([2, 0])
    assert part.literals == (Literal(2), Literal(0))
    assert len(part.on) == 4
    for pattern, count, fired in zip(part.on, part.count, part.fired, strict=True):
        here = (on[:, [2, 0]] == pattern).all(1)
        assert (count, fired) == (here.sum(), (here & fires).sum())
    claim = rule(2, (Op.AND_NOT, 0))
    assert table.mcc(claim) == pytest.approx(np.corrcoef(on[:, 2] & ~on[:, 0], fires)[0, 1])


class Cut(Rotation):
    """Reads features along orthogonal directions, but for those after the first `seen`; what is nearly zero is."""

    seen = 9

    def encode(self, x):
        f = (x @ self.matrix.T).clamp_min(1e-3) - 1e-3
        f[:, self.seen :] = 0
        return f


@pytest.fixture(scope="module")
def world():
    """Output 0 is A where something is on that the dictionary does not see and that NEAR mostly comes with; output 1 is A and
    B, and not C. x in features' own coordinates."""
    rng = np.random.default_rng(0)
    f = (rng.random((2 * ROWS, WIDTH)) < 0.15) * rng.uniform(0.9, 1.1, (2 * ROWS, WIDTH))
    f[:, B] = (rng.random(2 * ROWS) < 0.5) * 1.0
    unseen = rng.random(2 * ROWS) < 0.75
    f[:, WIDTH - 1] = unseen
    f[:, NEAR] = rng.random(2 * ROWS) < np.where(unseen, 0.95, 0.1)
    x = torch.from_numpy(f.astype(np.float32))
    weight = torch.zeros(WIDTH, 2)
    weight[A, 0] = weight[WIDTH - 1, 0] = 1.0
    weight[A, 1] = weight[B, 1] = 1.0
    weight[C, 1] = -2.0
    mlp = MLPWeights(weight, torch.tensor([-1.5, -1.5]), torch.eye(2), torch.zeros(2))
    segment = Segment("in", "out", mlp, WIDTH, 2, mlp)
    return segment, Cut(torch.eye(WIDTH)), Cut(torch.eye(2)), x[:ROWS], x[ROWS:]


def suggested(stage: Stage, out: int, literals: list[Literal]) -> Suggested:
    columns = [np.flatnonzero(stage.on(literal)) for literal in literals]
    on = np.flatnonzero(stage.f_out[:, out].toarray()[:, 0] > 0)
    table = Patterns.counted(literals, columns, on, np.zeros(0, int), np.zeros(len(stage.x), np.uint32))
    by_size = best_by_size(table, Terms())
    best = chosen(by_size, Terms().price)
    assert best is not None
    return Suggested(best, table, by_size)


def test_a_literal_that_the_model_does_not_read_goes(world):
    segment, basis_in, basis_out, x, _ = world
    stage = Stage.of(segment, basis_in, basis_out, x)
    found = suggested(stage, 0, [Literal(A), Literal(NEAR), Literal(B), Literal(C)])
    assert Literal(NEAR) in found.best.rule.literals  # what predicts best names it
    done = obeyed(stage, {0: found}, Outside.of(stage.f_in, stage.f_out, stage.levels), Terms(), 0.3)
    assert done[0].rule == rule(A)


def test_a_rule_that_the_model_obeys_is_kept(world):
    segment, basis_in, basis_out, x, _ = world
    stage = Stage.of(segment, basis_in, basis_out, x)
    literals = [Literal(A, 0.6), Literal(B), Literal(C), Literal(5)]
    found = suggested(stage, 1, literals)
    done = obeyed(stage, {1: found}, Outside.of(stage.f_in, stage.f_out, stage.levels), Terms(), 0.5)
    assert done[1] == found.best
    assert set(done[1].rule.positive) == {Literal(A, 0.6), Literal(B)}
    assert done[1].rule.negative == (Literal(C),)


def test_nothing_is_chosen_where_nothing_obeys(world):
    segment, basis_in, basis_out, x, _ = world
    stage = Stage.of(segment, basis_in, basis_out, x)
    found = suggested(stage, 0, [Literal(NEAR), Literal(5)])
    assert obeyed(stage, {0: found}, Outside.of(stage.f_in, stage.f_out, stage.levels), Terms(), 0.3) == {}
    assert obeyed(stage, {}, Outside.of(stage.f_in, stage.f_out, stage.levels), Terms(), 0.3) == {}


def test_what_is_proposed_is_ordered_by_its_worth_and_names_only_what_moves_the_output(world):
    segment, basis_in, basis_out, x, _ = world
    found = suggested(Stage.of(segment, basis_in, basis_out, x), 0, [Literal(A), Literal(NEAR), Literal(B)])
    terms = Terms(price=0.02)
    rules = proposals(found, ([0], []), terms, 0.1)
    worth = [r.mcc - terms.price * len(r.rule.literals) for r in rules]
    assert worth == sorted(worth, reverse=True)
    assert {r.rule for r in rules} <= {found.best.rule, *parts_of(found.best.rule), rule(A)}
    assert proposals(found, ([], []), terms, 1.1) == []


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("together", [0.2, 0.7])
def test_of_two_mechanisms_that_agree_on_every_row_the_models_own_is_chosen(form, together):
    planted = plant_chains(form, together, chains=8)
    fit, held = (Stage.of(planted.segment, planted.basis_in, planted.transcoder, x) for x in (planted.x_fit, planted.x))
    given = {}
    for out, wrong in planted.wrong.items():
        literals = list(dict.fromkeys([*wrong.literals, *planted.right[out].literals]))
        found = suggested(fit, out, literals)
        given[out] = Suggested(Ranked(wrong, found.table.mcc(wrong)), found.table, found.by_size)
    done = obeyed(fit, given, Outside.of(fit.f_in, fit.f_out, fit.levels), Terms(), 0.5)
    rules = {out: done[out].rule if out in done else given[out].best.rule for out in given}
    verdicts = verify(held, rules, (fit.f_in, fit.f_out))
    for out, found in verdicts.items():
        right = planted.right[out]
        found_it = (set(rules[out].literals), rules[out].kind()) == (set(right.literals), right.kind())
        assert found_it or not found.verified
    assert sum(found.verified is True for found in verdicts.values()) >= 7


def test_gates_name_what_the_model_obeys_and_say_what_predicts_better(world):
    segment, basis_in, basis_out, x_fit, x = world
    nothing = [(torch.zeros(0, dtype=torch.long), torch.zeros(0))] * 2
    connector = Connector.from_rows(nothing, torch.zeros(2), WIDTH)
    parts = [(basis_in.encode(part), basis_out.encode(segment.forward(part))) for part in (x_fit, x)]
    given = {"segment": segment, "basis_in": basis_in, "basis_out": basis_out, "x": x, "levels": "zero"}
    plain = type_gates(connector, *parts[0], held_out=parts[1], **given)
    gates = type_gates(connector, *parts[0], held_out=parts[1], x_fit=x_fit, **given)
    assert plain[0].grade == Grade.WEAK
    assert gates[0].rule == rule(A)
    assert gates[0].grade == Grade.VERIFIED
    assert str(plain[0].rule) in gates[0].note
    assert (gates[0].mcc or 0) < (plain[0].mcc or 0)
    with pytest.raises(DataError, match="same rows"):
        type_gates(connector, *parts[0], held_out=parts[1], x_fit=x_fit[:50], **given)
    assert sparse_rows(parts[0][0]).shape == (ROWS, WIDTH)


def test_above_a_lower_level_where_the_highest_values_need_more_than_the_rule_names():
    """A alone brings the output to .5; to 2.5 only with something that the dictionary does not see."""
    rng, rows = np.random.default_rng(1), 2 * ROWS
    a = rng.random(rows) < 0.15
    f = np.zeros((rows, WIDTH), np.float32)
    f[:, A] = a * rng.uniform(0.9, 1.1, rows)
    f[:, B] = rng.random(rows) < 0.2
    f[:, WIDTH - 1], f[:, WIDTH - 2] = a & (rng.random(rows) < 0.4), ~a & (rng.random(rows) < 0.1)
    x_fit, x = torch.from_numpy(f).chunk(2)
    weight = torch.zeros(WIDTH, 2)
    weight[[A, WIDTH - 1, WIDTH - 2], 0] = torch.tensor([1.0, 2.0, 0.8])
    mlp = MLPWeights(weight, torch.tensor([-0.5, -0.5]), torch.eye(2), torch.zeros(2))
    segment, basis_in, basis_out = Segment("in", "out", mlp, WIDTH, 2, mlp), Cut(torch.eye(WIDTH)), Cut(torch.eye(2))
    basis_in.seen = WIDTH - 2
    nothing = [(torch.zeros(0, dtype=torch.long), torch.zeros(0))] * 2
    connector = Connector.from_rows(nothing, torch.zeros(2), WIDTH)
    parts = [(basis_in.encode(part), basis_out.encode(segment.forward(part))) for part in (x_fit, x)]
    given = {"segment": segment, "basis_in": basis_in, "basis_out": basis_out, "x": x, "levels": (0, 0.75)}
    plain = type_gates(connector, *parts[0], held_out=parts[1], **given)[0]
    gate = type_gates(connector, *parts[0], held_out=parts[1], x_fit=x_fit, **given)[0]
    assert plain.level > 1
    assert plain.grade == Grade.WEAK
    assert (gate.rule, gate.level, gate.grade) == (rule(A), 0, Grade.VERIFIED)
    assert f"of its values above {plain.level:.3g}" in gate.note
