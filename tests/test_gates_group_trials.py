"""Rules set in a real segment by groups: true ones are verified, wrong ones are not, whatever they score on natural rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

from gatelens.activations import Activations
from gatelens.basis import Rotation
from gatelens.connectors import Connector
from gatelens.errors import DataError
from gatelens.gates import type_gates
from gatelens.gates.companions import Group, Together
from gatelens.gates.group_trials import Subject, Sway, group_trials
from gatelens.gates.interchange import interchanges
from gatelens.gates.left_out import left_out
from gatelens.gates.outside import Outside
from gatelens.gates.rates import Rate
from gatelens.gates.rule import Literal, Op, Rule
from gatelens.gates.setting import Setter, control_steps
from gatelens.gates.stage import Stage, sparse_rows
from gatelens.gates.subsets import worst_subsets
from gatelens.gates.tried import Tried
from gatelens.gates.verification import verify
from gatelens.gates.verified import verified
from gatelens.planted.chains import FORMS, plant_chains
from gatelens.segments import MLPWeights, Segment

WIDTH, ROWS = 24, 8_000
A, B, C, D, HALF, ECHO = 0, 1, 2, 3, 4, 5
#: each output: the hidden units that add up to it, as (weights of features, bias)
UNITS = {
    "copy": [({A: 1.0}, 0.0)],
    "or": [({A: 1.0, B: 1.0}, 0.0)],
    "and": [({A: 1.0, B: 1.0}, -1.4)],
    "and_not": [({A: 1.0, C: -2.0}, 0.0)],
    "two_of_three": [({A: 1.0, B: 1.0, C: 1.0}, -1.5)],
    "mixed": [({A: 1.0, B: 1.0, D: -3.0}, 0.0)],
    "xor": [({A: 1.0, HALF: -1.0}, -0.3), ({HALF: 1.0, A: -1.0}, -0.3)],
    "a or (b and c)": [({A: 1.0}, 0.0), ({B: 1.0, C: 1.0}, -1.4)],
    "quiet": [({A: 1.0}, -5.0)],
}


def rule(first: int, *steps: tuple[Op, int]) -> Rule:
    return Rule((Literal(first),), steps=tuple((op, Literal(i)) for op, i in steps))


TRUE = {
    "copy": rule(A),
    "or": rule(A, (Op.OR, B)),
    "and": rule(A, (Op.AND, B)),
    "and_not": rule(A, (Op.AND_NOT, C)),
    "two_of_three": Rule((Literal(A), Literal(B), Literal(C)), at_least=2),
    "mixed": rule(A, (Op.OR, B), (Op.AND_NOT, D)),
    "a or (b and c)": rule(B, (Op.AND, C), (Op.OR, A)),
}
#: rules that are wrong, most of them with a good score on natural rows
WRONG = [
    ("xor", rule(A)),
    ("xor", rule(HALF)),
    ("xor", rule(HALF, (Op.OR, A))),
    ("a or (b and c)", rule(A)),
    ("a or (b and c)", rule(A, (Op.OR, B))),
    ("a or (b and c)", rule(A, (Op.OR, D))),
    ("or", rule(A)),
    ("and", rule(A)),
    ("and_not", rule(A)),
    ("mixed", rule(A, (Op.OR, B))),
    ("two_of_three", rule(A, (Op.AND, B))),
    ("copy", rule(B)),
    ("copy", rule(A, (Op.OR, B))),
    ("quiet", rule(A)),
]


class Cut(Rotation):
    """Reads features along orthogonal directions; what is nearly zero is."""

    def encode(self, x):
        return (x @ self.matrix.T).clamp_min(1e-3) - 1e-3


@dataclass(frozen=True)
class World:
    stage: Stage
    outside: Outside
    f_fit: scipy.sparse.csr_matrix

    def subject(self, name: str, claim: Rule) -> Subject:
        return Subject.of(list(UNITS).index(name), claim, Together(self.f_fit))


@pytest.fixture(scope="module")
def world() -> World:
    """Features near 1 where on, A to D in a fifth of the rows, HALF in half of them, ECHO wherever A is; two sets of rows."""
    rng = np.random.default_rng(0)
    rate = np.full(WIDTH, 0.05)
    rate[: ECHO + 1] = [0.08, 0.2, 0.3, 0.2, 0.5, 0]
    f = ((rng.random((2 * ROWS, WIDTH)) < rate) * rng.uniform(0.9, 1.1, (2 * ROWS, WIDTH))).astype(np.float32)
    f[:, ECHO] = f[:, A]
    rotation = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(0)))[0]
    units = [(out, wires, bias) for out, parts in enumerate(UNITS.values()) for wires, bias in parts]
    weight, b_in, W_out = torch.zeros(WIDTH, len(units)), torch.zeros(len(units)), torch.zeros(len(units), len(UNITS))
    for unit, (out, wires, bias) in enumerate(units):
        b_in[unit], W_out[unit, out] = bias - 0.05, 1.0
        for parent, w in wires.items():
            weight[parent, unit] = w
    mlp = MLPWeights(rotation.T @ weight, b_in, W_out, torch.zeros(len(UNITS)))
    segment = Segment("in", "out", mlp, WIDTH, len(UNITS), mlp)
    basis_in, basis_out = Cut(rotation), Cut(torch.eye(len(UNITS)))
    x_fit, x = (torch.from_numpy(part) @ rotation for part in (f[:ROWS], f[ROWS:]))
    stage = Stage.of(segment, basis_in, basis_out, x)
    f_fit, out_fit = sparse_rows(basis_in.encode(x_fit)), sparse_rows(basis_out.encode(segment.forward(x_fit)))
    return World(stage, Outside.of(f_fit, out_fit, stage.levels), f_fit)


def judged(world: World, name: str, claim: Rule):
    subject = world.subject(name, claim)
    trial = next(group_trials(world.stage, [subject]))
    against = next(left_out(world.stage, world.outside, [subject]))
    return verified(claim, trial, against), trial, against


@pytest.mark.parametrize("name", TRUE)
def test_rules_that_the_model_computes_are_verified(world, name):
    (holds, why), trial, against = judged(world, name, TRUE[name])
    assert holds, why
    assert not any(found.overturns for found in against)
    assert trial.rates["on_off"].share > 0.9
    assert trial.rates["off_on"].share > 0.9
    assert trial.control["off_on"].share < 0.1
    assert trial.on_rows == trial.off_rows == 48


@pytest.mark.parametrize("on", [True, False])
def test_a_rule_whose_output_is_always_in_one_state_is_not_tried(world, on):
    """Nothing to swap, nothing to switch: no figure, and no crash."""
    name, claim = next(iter(TRUE.items()))
    states = world.stage.states(world.subject(name, claim).out)
    rows = torch.from_numpy(np.sort(states[0 if on else 1])[:200])
    stage = Stage.of(world.stage.segment, world.stage.basis_in, world.stage.basis_out, world.stage.x[rows])
    found = verify(stage, {world.subject(name, claim).out: claim}, (world.f_fit, world.outside.f_out.tocsr()))
    (only,) = found.values()
    assert only.verified is None
    assert "not tried in the model" in only.why
    assert only.interchange.less_placebo is None


@pytest.mark.parametrize(("name", "claim"), WRONG, ids=lambda x: str(x))
def test_wrong_rules_are_never_verified(world, name, claim):
    (holds, why), _, _ = judged(world, name, claim)
    assert not holds
    assert why


def test_the_other_parent_of_a_xor_overturns_a_copy_that_flips_as_it_should(world):
    """Its natural score is good and every flip is made: only what the rule leaves out gives it away."""
    (holds, why), trial, against = judged(world, "xor", rule(HALF))
    assert trial.rates["off_on"].share > 0.9
    assert trial.rates["on_off"].share > 0.9
    assert holds is False
    assert f"IF_{A}" in why
    assert any(found.overturns and found.against.was_open and found.against.on for found in against)


def test_a_pair_that_fires_only_together_is_found(world):
    (holds, _), _, against = judged(world, "a or (b and c)", rule(A, (Op.OR, D)))
    assert not holds
    pairs = [f for f in against if {x.feature for x in f.against.literals} == {B, C}]
    assert len(pairs) == 1
    assert pairs[0].overturns
    assert pairs[0].flipped.share == 1.0


def test_one_more_arm_does_not_overturn_an_or(world):
    """`mixed` without its first arm is incomplete, not wrong: IF_1 or nothing; `or` of three read as an OR of two neither."""
    subject = world.subject("two_of_three", rule(A, (Op.AND, B), (Op.OR, D)))
    assert [f for f in next(left_out(world.stage, world.outside, [subject])) if f.overturns]
    (holds, _), _, against = judged(world, "or", rule(A, (Op.OR, D)))
    assert all(not f.overturns for f in against if len(f.against.literals) == 1 and not f.against.was_open)
    assert not holds  # D is no arm


def test_a_literal_is_set_with_what_always_comes_with_it(world):
    """ECHO fires wherever A does: named in its place it opens the gate with its companion, and never alone."""
    (_, _), trial, _ = judged(world, "copy", rule(ECHO))
    assert trial.rates["off_on"].share == 1.0
    assert trial.alone["off_on"].share == 0.0
    assert trial.alone["on_off"].share == 0.0


def test_companions_are_counted_by_hand():
    """IF_0 is on in rows 0 to 3; IF_1 in three of these and nowhere else; IF_2 in two of them; IF_3 everywhere."""
    f = np.zeros((40, 4), np.float32)
    f[:4, 0] = [1, 1, 1, 5]
    f[1:4, 1] = [2, 3, 4]
    f[:2, 2] = 1
    f[:, 3] = 1
    f = scipy.sparse.csr_matrix(f)
    low, high = Literal(0), Literal(0, 2.0)
    groups = Together(f).groups([low, high])
    assert groups[low].members.tolist() == [0, 1]
    assert groups[low].means.tolist() == [2.0, 3.0]
    assert groups[high].members.tolist() == [0, 1]
    assert groups[high].means.tolist() == [5.0, 4.0]
    assert groups[low].companions == (1,)
    assert groups[low].alone().members.tolist() == [0]
    assert groups[low].without([0, 1]).members.tolist() == [0]
    with pytest.raises(DataError, match="IF_0 > 9 is on in none of the 40"):
        Together(f).groups([Literal(0, 9.0)])


def test_in_a_rule_a_literal_is_set_as_it_is_where_it_decides():
    """IF_0 is 1 alone, 3 with IF_1 and 5 with IF_2, 20 rows of each; IF_3 comes with IF_0 at twice its value."""
    f = np.zeros((800, 4), np.float32)
    f[:60, 0] = np.repeat([1, 3, 5], 20)
    f[20:40, 1] = f[40:60, 2] = 1
    f[100:120, 2] = 9
    f[:60, 3] = 2 * f[:60, 0]
    together = Together(scipy.sparse.csr_matrix(f))

    def means(*rule: Any) -> list[list[float]]:
        return [group.means.tolist() for group in together.of_rule(Rule((Literal(rule[0]),), 1, rule[1:]))]

    assert means(0) == [[3, 6]]
    assert means(0, (Op.AND, Literal(1))) == [[3, 6], [1, 3, 6]]
    assert means(0, (Op.AND_NOT, Literal(2))) == [
        [2, 4],
        [1],
    ]  # IF_2 is 1 where the rule would be open without it, else 9
    assert means(1, (Op.AND_NOT, Literal(2)))[1] == [5]  # they never meet: as it usually is


@pytest.fixture
def small() -> Stage:
    """Four features that are the input's own dimensions; y = x."""
    x = torch.tensor([[2.0, 1.0, 0.5, 0.0], [0.0, 0.0, 3.0, 0.0], [0.0, 4.0, 0.0, 1.0]])
    eye = Rotation(torch.eye(4))
    return Stage.of(Segment("in", "out", lambda x: x, 4, 4), eye, eye, x)


def test_literals_are_set_as_worked_by_hand(small):
    """Groups {0: mean 2, 1: mean 1} and {1: mean 5, 2: mean 3}; the own feature of the second is 1, at level 0.6."""
    groups = [
        Group(Literal(0), np.array([0, 1]), np.array([2.0, 1.0])),
        Group(Literal(1, 0.6), np.array([1, 2]), np.array([5.0, 3.0])),
    ]
    setter = Setter(small, groups, np.arange(3))
    assert setter.have.tolist() == [[True, True], [False, False], [False, True]]
    want = np.array([[False, False], [True, False], [False, True], [True, True]])
    after = setter.value + setter.change(want)
    assert after[0].tolist() == [[0, 0, 0], [0, 0, 3], [0, 0, 0]]  # what belongs to no group that goes off stays
    assert after[1].tolist() == [[2, 0, 0], [2, 0, 3], [2, 0, 0]]  # IF_1 is raised for neither: it is to be off
    assert after[2].tolist() == [[0, 1, 0.5], [0, 5, 3], [0, 4, 0]]
    assert after[3].tolist() == [[2, 1, 0.5], [2, 5, 3], [2, 4, 0]]
    step = setter.step(setter.change(want))
    assert step.shape == (4, 3, 4)
    assert np.allclose(step[..., :3], after - setter.value)


def test_the_control_is_as_long_and_touches_nothing_of_the_rule(small):
    groups = [Group(Literal(0), np.array([0]), np.array([2.0]))]
    other = [Group(Literal(3), np.array([3]), np.array([7.0]))]
    setter = Setter(small, groups, np.arange(3))
    want = np.array([[False], [True]])
    change = setter.change(want)
    steps = control_steps(setter, change, want, other, np.random.default_rng(0))
    assert np.allclose(np.linalg.norm(steps, axis=-1), np.linalg.norm(setter.step(change), axis=-1))
    assert not steps[..., 0].any()
    assert np.count_nonzero(steps[0, 0]) == 1  # one feature was removed: one other is
    assert np.allclose(steps[1, 1], [0, 0, 0, 2])  # another literal's feature is switched on


def test_interchange_beside_placebo_and_shuffled_labels(world):
    for name in ("or", "and", "and_not"):
        found = next(interchanges(world.stage, [world.subject(name, TRUE[name])]))
        assert found.accuracy.share > 0.95
        assert found.placebo.share < 0.1
        assert 0.3 < found.shuffled.share < 0.7
        low, high = found.interval
        assert 0.3 < low < found.less_placebo <= high <= 1
    wrong = next(interchanges(world.stage, [world.subject("copy", rule(B))]))
    assert wrong.accuracy.share < 0.1


def test_the_worst_of_random_subsets(world):
    """Nothing outside `and` matters; outside a rule that has nothing to do with its output, what really fires it does."""
    same = next(worst_subsets(world.stage, [world.subject("and", TRUE["and"])]))
    assert same.worst.share == same.every.share == 1.0
    assert same.every.tried == 64 * same.worst.tried
    wrong = next(worst_subsets(world.stage, [world.subject("copy", rule(B))]))
    assert wrong.worst.share <= 0.75


def test_rates_by_hand():
    made = np.array([[True, False, True], [True, True, False]])
    tried = np.array([[True, True, False], [True, False, False]])
    rate = Rate.of(made, tried)
    assert (rate.made, rate.tried, rate.rows) == (2, 3, 2)
    low, high = Rate(8, 10, 10).interval  # (p + z2/2n -+ z sqrt(pq/n + z2/4n2)) / (1 + z2/n)
    assert low == pytest.approx(0.4902, abs=1e-4)
    assert high == pytest.approx(0.9433, abs=1e-4)
    assert Rate().interval == (0.0, 1.0)


def test_the_sway_of_a_literal_by_hand():
    """Two pairs of patterns over four rows: the output follows the literal in 1, 1, .5 and 0 of the pairs."""
    sway = Sway.of(np.array([[1.0, 1, 1, 0], [1, 1, 0, 0]]))
    assert sway.mean == 0.625
    assert sway.low == pytest.approx(0.625 - 2 * np.std([1, 1, 0.5, 0], ddof=1) / 2)
    assert Sway.of(np.zeros((0, 4))) == Sway(0.0, 0.0)


@pytest.mark.parametrize("together", [0.2, 0.7], ids=["m apart from a and b", "m a companion of a and b"])
@pytest.mark.parametrize("form", FORMS)
def test_a_two_hop_chain_that_a_transcoder_writes_as_one_hop(together, form):
    """40 chains in each of six forms: a rule over a and b, which natural rows never contradict, is not verified; that over m is."""
    planted = plant_chains(form, together)
    stage = Stage.of(planted.segment, planted.basis_in, planted.transcoder, planted.x)
    fitting = sparse_rows(planted.x_fit), sparse_rows(planted.transcoder.features_from(planted.x_fit))
    shares = []
    for rules in (planted.wrong, planted.right):
        assert all(
            np.array_equal(claim.evaluate(stage.literals_on(claim.literals, np.arange(1500))), stage.f_out[:, out].toarray()[:, 0] > 0)
            for out, claim in rules.items()
        )  # fmt: skip
        subjects = [Subject.of(o, r, Together(fitting[0])) for o, r in rules.items()]
        tried = zip(subjects, group_trials(stage, subjects), strict=True)
        shares.append(np.mean([verified(subject.rule, trial)[0] is True for subject, trial in tried]))
    assert shares[0] <= 0.01
    assert shares[1] > 0.9


def test_verify_is_the_parts_together_and_counts_its_cost(world):
    rules = {list(UNITS).index(name): claim for name, claim in (*TRUE.items(), WRONG[0])}
    before = world.stage.passes
    found = verify(world.stage, rules, (world.f_fit, world.outside.f_out.tocsr()))
    assert list(found) == list(rules)
    assert {list(UNITS)[out] for out, v in found.items() if v.verified} == set(TRUE)
    assert sum(v.passes for v in found.values()) == world.stage.passes - before
    assert found[0].companions == ((ECHO,),)
    assert all(v.subsets.worst.share == 1 for v in found.values() if v.verified)
    assert verify(world.stage, {}, (world.f_fit, world.outside.f_out.tocsr())) == {}


def test_gates_that_are_tried_carry_it_and_are_scored_as_labels(world):
    """`type_gates` with the model: what was tried is kept with the gate, and the rule is a label beside the top tokens."""
    stage = world.stage
    names = ("or", "and_not")
    outs = [list(UNITS).index(name) for name in names]
    wires = [
        (torch.tensor(r.features), torch.ones(len(r.features)))
        for r in (TRUE.get(name, rule(A)) for name in UNITS)
    ]  # fmt: skip
    connector = Connector.from_rows(wires, torch.zeros(len(UNITS)), WIDTH)
    dense = [torch.from_numpy(f.toarray()) for f in (world.f_fit, world.outside.f_out, stage.f_in, stage.f_out)]
    where = torch.arange(ROWS)
    text = Activations({}, where // 100, where % 100, where % 7)
    gates = type_gates(
        connector, *dense[:2], held_out=(dense[2], dense[3]), segment=stage.segment, basis_in=stage.basis_in,
        basis_out=stage.basis_out, x=stage.x, origins=(text, text), levels="zero",
    )  # fmt: skip
    for out in outs:
        tried = gates[out].tried
        assert gates[out].verified, gates[out]
        assert tried.interchange > 0.9
        assert tried.detection == 1.0
        assert 0.3 < tried.detection_tokens < 0.7
        assert Tried.from_json(tried.to_json()) == tried
