"""Local readings: tables over all subsets, their terms and rules, on rows whose every effect is known."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch

from gatelens.basis import Rotation
from gatelens.errors import ConfigError
from gatelens.gates import Gate, GateKind
from gatelens.gates.rule import Literal, Op, Rule
from gatelens.prompts.local import local_reading
from gatelens.prompts.local_rule import LocalRule, agreement, nearest_rule
from gatelens.prompts.outputs import output_of, slope
from gatelens.prompts.rows import Row
from gatelens.prompts.subsets import Terms, every_subset, fit_pairs, on_subsets
from gatelens.segments import MLPWeights, Segment

WIDTH = 6
#: y0 = relu(f0 + f1 - .5): an OR; y1 = relu(f2 + f3 - 1.4): an AND; y2 = relu(f4 - 2 f5 - .1): an AND-NOT
WEIGHT = torch.zeros(WIDTH, 3)
WEIGHT[0, 0] = WEIGHT[1, 0] = WEIGHT[2, 1] = WEIGHT[3, 1] = WEIGHT[4, 2] = 1.0
WEIGHT[5, 2] = -2.0
MLP = MLPWeights(WEIGHT, torch.tensor([-0.5, -1.4, -0.1]))
IN, OUT = Rotation(torch.eye(WIDTH)), Rotation(torch.eye(3))


def read(f: list[float], out: int, gate: Gate | None = None, **how):
    x = torch.tensor(f, dtype=torch.float32)
    row = Row.of(MLP, x, IN.encode(x[None])[0], IN.matrix, torch.zeros(WIDTH), how.pop("keep_error", True))
    came = float(MLP(x[None])[0, out])
    return local_reading(row, x, output_of(OUT, out), out, came, gate=gate, width=WIDTH, **how)


# terms, by hand and against the definitions


def test_terms_of_two_features_by_hand():
    """v = 1, 3, 4, 10 for none, a, b, both: 1; +2, +3; 10 - 1 - 2 - 3 = 4. Shapley: 2 + 4/2 and 3 + 4/2."""
    terms = Terms.of(np.array([1.0, 3.0, 4.0, 10.0]))
    assert terms.harsanyi.tolist() == [1, 2, 3, 4]
    assert terms.shapley.tolist() == [4, 5]
    assert terms.strongest(1) == [((0, 1), 4.0)]


def test_terms_are_the_moebius_transform_and_shapley_the_mean_over_orders():
    k, random = 5, np.random.default_rng(0)
    values = random.normal(size=1 << k)
    terms = Terms.of(values)
    for code in range(1 << k):
        subsets = [c for c in range(1 << k) if c & code == c]
        by_definition = sum((-1) ** (code.bit_count() - c.bit_count()) * values[c] for c in subsets)
        assert terms.harsanyi[code] == pytest.approx(by_definition, abs=1e-12)
    shapley = np.zeros(k)
    for order in permutations(range(k)):
        seen = 0
        for j in order:
            shapley[j] += values[seen | 1 << j] - values[seen]
            seen |= 1 << j
    assert terms.shapley == pytest.approx(shapley / 120, abs=1e-12)
    assert terms.shapley.sum() == pytest.approx(values[-1] - values[0])


def test_pairs_are_found_where_there_is_nothing_else():
    members = every_subset(9).astype(float)
    values = 1 + members @ np.arange(9) + 3 * members[:, 2] * members[:, 7]
    fit = fit_pairs(values)
    assert fit.calls == 256
    assert fit.r2 == pytest.approx(1)
    assert fit.exact_r2 == pytest.approx(1)
    assert fit.terms_r2 == pytest.approx(1)
    assert fit.singles_r2 < 1
    triple = members[:, 0] * members[:, 1] * members[:, 2]
    assert fit_pairs(triple).r2 < 0.9
    assert fit_pairs(np.ones(4)).r2 is None


def test_subsets_are_the_models_own_answers_one_by_one():
    base, steps = torch.randn(WIDTH), torch.randn(3, WIDTH)
    values = on_subsets(lambda rows: MLP(rows)[:, 1], base, steps, every_subset(3))
    for code in range(8):
        x = base + sum((steps[j] for j in range(3) if code >> j & 1), torch.zeros(WIDTH))
        assert values[code] == pytest.approx(float(torch.relu(x[2] + x[3] - 1.4)), abs=1e-5)


# rules


def test_rules_of_known_gates():
    found = read([1, 1, 0, 0, 0, 0], 0)
    assert found.rule.kind == GateKind.OR
    assert "either alone is enough" in found.words
    found = read([0, 0, 1, 1, 0, 0], 1)
    assert found.rule.kind == GateKind.AND
    assert found.words == "open because of IF_2 and IF_3; either alone leaves it closed"
    assert found.values.tolist() == pytest.approx([0, 0, 0, 0.6])
    found = read([0, 0, 0, 0, 1, 1], 2)
    assert found.came == 0
    assert found.rule.kind == GateKind.AND_NOT
    assert found.words.startswith("closed here: IF_5 holds it off; IF_4 alone would open it")
    found = read([0, 0, 0, 0, 1, 0], 2)
    assert found.words == "open because of IF_4; without it, closed"


def test_rule_says_when_nothing_matters():
    assert "closed on every subset" in read([1, 0, 0, 0, 0, 0], 1).words
    assert "no feature" in read([0, 0, 0, 0, 0, 0], 1).words


def test_threshold_of_three_features():
    members = every_subset(3)
    rule = LocalRule.of(members.sum(1) >= 2)
    assert rule.kind == GateKind.K_OF_N
    assert rule.words(["a", "b", "c"]) == "open because of any 2 of a, b and c; fewer leave it closed"
    assert rule.needed == ()
    assert LocalRule.of(members.sum(1) >= 3).needed == (0, 1, 2)


def test_a_table_without_short_sets_is_said_nearly():
    members = every_subset(8)
    opened = members @ np.array([4, 3, 3, 1, 1, 1, 1, 1]) >= 7
    rule = LocalRule.of(opened)
    assert len(rule.sets) > 3
    assert "nearly" in rule.words("abcdefgh")
    short, right = nearest_rule(opened)
    assert right == pytest.approx(agreement(opened, short.evaluate(members[:, list(short.features)].astype(bool))))
    assert right > 0.8


def test_agreement_weighs_open_and_closed_alike():
    opened = np.array([True, False, False, False])
    assert agreement(opened, np.zeros(4, bool)) == 0.5
    assert agreement(opened, opened) == 1


def test_gate_beside_the_table():
    right, wrong = (
        Gate(1, kind, (2, 3), (1.0, 1.0), -1.4, rule=Rule((Literal(2),), steps=((op, Literal(3)),)))
        for kind, op in ((GateKind.AND, Op.AND), (GateKind.OR, Op.OR))
    )
    assert read([0, 0, 1, 1, 0, 0], 1, right).agrees
    found = read([0, 0, 1, 1, 0, 0], 1, wrong)
    assert found.agreement == pytest.approx((1 + 1 / 3) / 2)
    assert not found.agrees
    assert "they differ" in repr(found)
    assert read([0, 0, 1, 1, 0, 0], 1).agrees is None
    # above its level of 2 the literal is off in the row: the rule says closed on every subset
    high = Gate(1, GateKind.COPY, (2,), (1.0,), 0.0, rule=Rule((Literal(2, 2.0),)))
    assert read([0, 0, 1, 1, 0, 0], 1, high).agreement == 0.5
    # and an output level that its value does not reach closes the table
    assert read([0, 0, 1, 1, 0, 0], 1, replace(right, level=1.0)).rule.share == 0


# the few features, and what is left out


def test_share_is_of_what_all_features_give():
    linear = MLPWeights(torch.eye(4), torch.zeros(4), act="identity")
    x = torch.tensor([2.0, 1.0, 0.5, 0.0])
    row = Row.of(linear, x, x, torch.eye(4), torch.zeros(4))
    assert row.reached.tolist() == pytest.approx([0, 4 / 5.25, 5 / 5.25, 1])
    assert [row.few(s) for s in (0.5, 0.9, 1.0)] == [1, 2, 3]


@pytest.mark.parametrize("keep", [True, False])
def test_error_stays_or_goes(keep):
    """A dictionary of two features beside an error: kept, the full subset is the row itself; left out, it is the code alone."""
    x = torch.tensor([1.0, 1.0, 0.7, 0, 0, 0])
    few = Rotation(torch.eye(WIDTH)[:2])
    row = Row.of(MLP, x, few.encode(x[None])[0], few.matrix, torch.zeros(WIDTH), keep)
    assert torch.equal(row.strongest(2), x if keep else torch.tensor([1.0, 1, 0, 0, 0, 0]))
    found = local_reading(row, x, output_of(OUT, 0), 0, 1.5, width=2, share=1.0)
    assert ("kept" in repr(found)) == keep


def test_limits():
    for wrong in ({"k": 0}, {"k": 11}, {"share": 0.0}, {"share": 1.5}):
        with pytest.raises(ConfigError, match="k must be 1..10"):
            read([1, 1, 0, 0, 0, 0], 0, **wrong)


# the local Jacobian


@pytest.mark.parametrize("gated", [False, True])
def test_slope_against_float64_autograd(gated):
    draw = torch.Generator().manual_seed(0)
    w_in, w_gate, w_out = (torch.randn(s, generator=draw, dtype=torch.float64) for s in ((5, 9), (5, 9), (9, 4)))
    b_in, b_out = torch.randn(9, generator=draw, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    mlp = MLPWeights(w_in, b_in, w_out, b_out, "silu" if gated else "gelu", w_gate if gated else None)
    basis = Rotation(torch.linalg.qr(torch.randn(4, 4, generator=draw, dtype=torch.float64))[0])
    x = torch.randn(5, generator=draw, dtype=torch.float64)

    def by_hand(at):
        pre = at @ w_in + b_in
        post = torch.nn.functional.silu(at @ w_gate) * pre if gated else torch.nn.functional.gelu(pre)
        return (post @ w_out) @ basis.matrix[2]

    expected = torch.autograd.functional.jacobian(by_hand, x)
    assert slope(mlp, output_of(basis, 2), x) == pytest.approx(expected, abs=1e-10)


def test_slopes_are_derivative_times_value():
    found = read([0.9, 1.0, 0, 0, 0, 0], 0)
    assert dict(zip(found.features, found.slopes, strict=True)) == pytest.approx({0: 0.9, 1: 1.0}, abs=1e-6)


# the benchmark's own arithmetic


def test_edits_of_a_linear_mlp_are_foreseen_by_the_whole_code_and_partly_by_few():
    sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
    from _prompt_rows import local_figures, shuffled_row_wise

    class Cut(Rotation):
        def encode(self, x):
            return (x @ self.matrix.T).clamp_min(0)

    draw = torch.Generator().manual_seed(0)
    matrix = torch.randn(12, 5, generator=draw)
    linear = MLPWeights(matrix, torch.zeros(5), act="identity")
    x = torch.rand(400, 12, generator=draw) * (torch.rand(400, 12, generator=draw) < 0.6)
    found = local_figures(linear, Cut(torch.eye(12)), x, qs=(3,))
    for keep in (False, True):
        assert min(found.r2["whole code", keep].values()) == pytest.approx(1, abs=1e-5)
        assert found.r2["3 strongest", keep]["single removals"] > found.r2["3 random", keep]["single removals"] > 0
        # an addition is foreseen whole: a linear map asks no context
        assert found.r2["3 random", keep]["additions"] == pytest.approx(1, abs=1e-5)
    assert found.fvu["whole code", False] == pytest.approx(0, abs=1e-6)
    assert 0 < found.needed <= found.active

    mixed = shuffled_row_wise(Segment("in", "out", linear, 12, 5, linear)).mlp.W_in
    assert torch.equal(mixed.sort(1).values, matrix.sort(1).values)
    assert not torch.equal(mixed, matrix)
