"""Levels, literals and the search for rules: against dense arithmetic, brute force and planted rules."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import torch

from gatelens.errors import SolverError
from gatelens.gates.levels import QUANTILES, Levels, feature_thresholds, thresholds
from gatelens.gates.literals import Literals, rows_of
from gatelens.gates.patterns import Patterns, Terms, best_by_size, chosen
from gatelens.gates.rule import GateKind, Literal, Op, Rule
from gatelens.gates.scores import Counts, Score, average_precision, counts, matthews
from gatelens.gates.search import Search, Target
from gatelens.gates.tables import Columns

ROWS = 6000
NOBODY = np.zeros(0, np.int64)


def features(seed: int = 0, width: int = 30, rate: float = 0.12) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return ((rng.random((ROWS, width)) < rate) * rng.gamma(2.0, 1.0, (ROWS, width))).astype(np.float32)


def columns(f: np.ndarray) -> Columns:
    return Columns.of(torch.from_numpy(f).to_sparse_csr(), "f")


def found(f: np.ndarray, y: np.ndarray, wires=(), levels: str = "zero", terms: Terms | None = None):
    """The finding for an output with values y."""
    choice = Levels.of(levels)
    row = np.flatnonzero(y > 0)
    targets = [Target.at(row, y[row], t) for t in feature_thresholds(y[row], choice.outputs) if np.isfinite(t)]
    return Search(Literals(columns(f), choice.inputs), terms or Terms()).rule(targets, wires)


# ---- levels and literals


def test_levels_are_quantiles_of_the_positive_values():
    f = features(width=6)
    f[:, 2], f[:, 3] = 0.0, (np.arange(ROWS) < 5)  # never on; on five times
    f[:, 4] = f[:, 4] > 0  # one value: no level lies between its values
    level = thresholds(columns(f), QUANTILES)
    for j in (0, 1, 5):
        assert level[j] == pytest.approx([0, *np.quantile(f[f[:, j] > 0, j], QUANTILES[1:])])
    assert np.isinf(level[2]).all()
    for j in (3, 4):
        assert level[j, 0] == 0
        assert np.isinf(level[j, 1:]).all()


def test_a_literal_is_on_where_its_feature_exceeds_its_level():
    f = features(width=7)
    literals = Literals(columns(f), QUANTILES)
    dense = np.stack([f[:, i.feature] > i.level for i in map(literals.literal, range(len(literals)))], 1)
    assert (literals.count == dense.sum(0)).all()
    for number in range(len(literals)):
        want = np.flatnonzero(dense[:, number]).tolist()
        assert literals.on(number).tolist() == rows_of(columns(f), literals.literal(number)).tolist() == want
    rows, groups = np.array([5, 17, 400, 401]), np.array([[1, 0], [1, 1], [0, 1], [1, 0]], np.float32)
    assert literals.sums(rows, groups) == pytest.approx(dense[rows].T.astype(np.float32) @ groups)


@pytest.mark.parametrize("choice", ["low", (-0.1, 0.5), (0.5, 1.0), ()])
def test_levels_that_are_none_are_refused(choice):
    with pytest.raises(SolverError, match=r"levels .*got"):
        Levels.of(choice)


# ---- scores


def test_figures_by_hand():
    rows = [0, 1, 2, 3, 4, 5, 6, 7]
    said, on, unclear = np.array([0, 1, 2, 6]), np.array([1, 2, 3]), np.array([6, 7])
    c = counts(said, on, unclear, len(rows))
    assert c == Counts(hit=2, said=3, on=3, rows=6)
    score = Score.of(c)
    assert score.precision == score.recall == score.f1 == pytest.approx(2 / 3)
    assert score.iou == pytest.approx(2 / 4)
    pairs = np.array([[1, 0], [1, 1], [1, 1], [0, 1], [0, 0], [0, 0]])
    assert score.mcc == pytest.approx(np.corrcoef(pairs.T)[0, 1])
    assert Score.of(Counts(0, 0, 3, 6)) == Score(None, None, 0.0, 0.0, 0.0)


def test_average_precision_by_hand():
    # ranked: on, off, on, then three rows of equal rank with one on: precision 1, 2/3, 3/6
    z, is_on = np.array([3.0, 2.0, 1.0]), np.array([True, False, True])
    assert average_precision(z, is_on, 0.0, on=3, rows=6) == pytest.approx((1 + 2 / 3 + 3 / 6) / 3)
    assert average_precision(z, is_on, 5.0, on=3, rows=6) == pytest.approx((1 / 3 + 2 / 4 + 3 / 6) / 3)
    assert average_precision(z, is_on, 0.0, on=0, rows=6) is None


# ---- the search


def test_patterns_count_each_row_once():
    f = features(width=5)
    lits = [Literal(j, 0.5 * (j == 2)) for j in range(5)]
    on = np.stack([f[:, i.feature] > i.level for i in lits], 1)
    y, unclear = np.flatnonzero(on[:, 0] | (f[:, 3] > 2)), np.flatnonzero(~on[:, 0] & (f[:, 4] > 1) & (f[:, 3] <= 2))
    table = Patterns.counted(lits, [np.flatnonzero(c) for c in on.T], y, unclear, scratch := np.zeros(ROWS, np.uint32))
    assert not scratch.any()
    keep = np.setdiff1d(np.arange(ROWS), unclear)
    for pattern, count, fired in zip(table.on, table.count, table.fired, strict=True):
        rows = keep[(on[keep] == pattern).all(1)]
        assert (count, fired) == (len(rows), len(np.intersect1d(rows, y)))
    assert table.count.sum() == len(keep)


def brute_force(on: np.ndarray, y: np.ndarray, size: int) -> float:
    """The best MCC of any rule of `size` literals, tried one by one on the rows themselves."""
    best, width = -1.0, on.shape[1]
    for order in permutations(range(width), size):
        rules = [Rule((Literal(order[0]),), 1, tuple(zip(ops, map(Literal, order[1:]), strict=True)))
                 for ops in product(Op, repeat=size - 1)]  # fmt: skip
        rules += [Rule(tuple(map(Literal, order)), k) for k in range(2, size)]
        for rule in rules:
            says = rule.evaluate(on[:, list(rule.features)])
            best = max(best, float(matthews((says & y).sum(), says.sum(), y.sum(), len(y))))
    return best


@pytest.mark.parametrize("seed", range(4))
def test_no_rule_that_brute_force_finds_is_better(seed):
    """An output with no simple rule at all; without a beam the best of every size is found, with one hardly worse."""
    rng = np.random.default_rng(seed)
    on = rng.random((800, 4)) < 0.4
    truth = rng.random(16) < 0.4
    y = truth[on @ (1 << np.arange(4))] ^ (rng.random(800) < 0.1)
    table = Patterns.counted([Literal(j) for j in range(4)], [np.flatnonzero(c) for c in on.T], np.flatnonzero(y), NOBODY,
                             np.zeros(800, np.uint32))  # fmt: skip
    whole, beam = (best_by_size(table, Terms(support=0), width) for width in (None, 32))
    for size in (1, 2, 3, 4):
        best = brute_force(on, y, size)
        assert whole[size].mcc == pytest.approx(best)
        assert best - 0.03 < beam[size].mcc <= best + 1e-9
        rule = whole[size].rule
        says = rule.evaluate(on[:, list(rule.features)])
        assert matthews((says & y).sum(), says.sum(), y.sum(), 800) == pytest.approx(best)


PLANTED = {
    "copy": lambda a, b, c, d: a,
    "or": lambda a, b, c, d: a | b | c,
    "and": lambda a, b, c, d: a & b,
    "and_not": lambda a, b, c, d: a & ~b,
    "k_of_n": lambda a, b, c, d: a.astype(int) + b + c >= 2,
    "mixed": lambda a, b, c, d: (a | b) & ~c,
    "mixed: a or (b and c)": lambda a, b, c, d: a | (b & c),
    "mixed: a and (b or c)": lambda a, b, c, d: a & (b | c),
    "mixed: 2 of 3 and not d": lambda a, b, c, d: (a.astype(int) + b + c >= 2) & ~d,
    "or, arms that never meet": lambda a, b, c, d: a | b | c,
}


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_planted_rules_are_found_among_thirty_features(name, noise):
    f = features(rate=0.2)
    if "never meet" in name:
        f[:, 1] *= f[:, 0] == 0
        f[:, 2] *= (f[:, 0] == 0) & (f[:, 1] == 0)
    rng = np.random.default_rng(1)
    y = PLANTED[name](*(f[:, j] > 0 for j in range(4))) ^ (rng.random(ROWS) < noise)
    best = found(f, y.astype(float)).best
    assert best.rule.kind() == GateKind(name.split(":")[0].split(",")[0])
    named = {"copy": {0}, "and": {0, 1}, "and_not": {0, 1}}.get(
        name, {0, 1, 2, 3} if name.endswith("not d") else {0, 1, 2}
    )
    assert set(best.rule.features) == named
    assert best.mcc > (0.999 if noise == 0 else 0.8)


def test_a_level_is_found_on_either_side():
    """On means above a level of its own, for literals and for the output."""
    f = features(rate=0.25)
    rng = np.random.default_rng(2)
    strong = (f[:, 0] > np.quantile(f[f[:, 0] > 0, 0], 0.55)) | (f[:, 1] > np.quantile(f[f[:, 1] > 0, 1], 0.55))
    weak = rng.random(ROWS) < 0.3  # noise, well below
    y = np.where(strong, 1 + rng.random(ROWS), np.where(weak, 0.2 * rng.random(ROWS), 0.0))
    at_zero, at_levels = found(f, y, levels="zero"), found(f, y, levels="chosen")
    assert at_levels.best.mcc > 0.99 > 0.7 > at_zero.best.mcc
    assert at_levels.best.rule.kind() == GateKind.OR
    assert {i.feature for i in at_levels.best.rule.literals} == {0, 1}
    assert at_levels.target.level > 0.2 * 0.9
    assert at_levels.target.kept == pytest.approx((y > at_levels.target.level).sum() / (y > 0).sum())


def test_a_literal_pays_for_itself_and_decides_enough_rows():
    f = features()
    y = (f[:, 0] > 0).astype(float)
    extra = np.flatnonzero((f[:, 1] > 0) & (y == 0))[:12]
    y[extra] = 1.0  # twelve rows of another arm: more than its price, too few to be told from chance
    assert found(f, y).best.rule == Rule((Literal(0),))
    assert found(f, y, terms=Terms(price=0.2)).best.rule == Rule((Literal(0),))
    by_size = found(f, ((f[:, 0] > 0) | (f[:, 1] > 0)).astype(float)).by_size
    assert chosen(by_size, 0.5).rule.kind() == GateKind.COPY
    assert chosen(by_size, 0.01).rule.kind() == GateKind.OR


def test_an_output_that_never_fires_and_one_that_nothing_explains():
    f = features()
    row = np.zeros(0, np.int64)
    assert Search(Literals(columns(f), (0.0,)), Terms()).rule([Target.at(row, row.astype(float), 0.0)]) is None
    chance = (np.random.default_rng(7).random(ROWS) < 0.1).astype(float)
    assert found(f, chance).best.mcc < 0.1
    assert found(np.zeros_like(f), chance).best is None
