"""Rules as values: evaluated by hand, on rows and on columns alike, in words, and through JSON."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest

from gatelens.errors import DataError
from gatelens.gates.rule import GateKind, Literal, Op, Rule

A, B, C, D = Literal(3), Literal(7, 0.5), Literal(9), Literal(1, 0.25)
TABLE = np.array(list(product([False, True], repeat=4)))

#: a rule, its kind, its words, and the same in Python's own logic
RULES = [
    (Rule((A,)), "copy", "IF_3", lambda a, b, c, d: a),
    (Rule((A,), steps=((Op.OR, B), (Op.OR, C))), "or", "IF_3 or IF_7 > 0.5 or IF_9", lambda a, b, c, d: a or b or c),
    (Rule((A,), steps=((Op.AND, B),)), "and", "IF_3 and IF_7 > 0.5", lambda a, b, c, d: a and b),
    (
        Rule((A,), steps=((Op.OR, B),), also=(C, D)),
        "mixed",
        "(IF_3 or IF_7 > 0.5) and (IF_9 or IF_1 > 0.25)",
        lambda a, b, c, d: (a or b) and (c or d),
    ),
    (
        Rule((A,), steps=((Op.AND_NOT, B), (Op.AND_NOT, C))),
        "and_not",
        "IF_3 and not IF_7 > 0.5 and not IF_9",
        lambda a, b, c, d: a and not b and not c,
    ),
    (
        Rule((A,), steps=((Op.OR, B), (Op.AND_NOT, C))),
        "mixed",
        "(IF_3 or IF_7 > 0.5) and not IF_9",
        lambda a, b, c, d: (a or b) and not c,
    ),
    (
        Rule((A,), steps=((Op.AND, B), (Op.OR, C), (Op.AND, D))),
        "mixed",
        "((IF_3 and IF_7 > 0.5) or IF_9) and IF_1 > 0.25",
        lambda a, b, c, d: ((a and b) or c) and d,
    ),
    (
        Rule((A, B, C), 2),
        "k_of_n",
        "at least 2 of IF_3, IF_7 > 0.5, IF_9",
        lambda a, b, c, d: a + b + c >= 2,
    ),
    (
        Rule((A, B, C), 2, ((Op.AND_NOT, D),)),
        "mixed",
        "(at least 2 of IF_3, IF_7 > 0.5, IF_9) and not IF_1 > 0.25",
        lambda a, b, c, d: a + b + c >= 2 and not d,
    ),
]


@pytest.mark.parametrize(("rule", "kind", "words", "truth"), RULES, ids=lambda x: x if isinstance(x, str) else "")
def test_a_rule_says_the_same_everywhere(rule, kind, words, truth):
    width = len(rule.literals)
    want = np.array([bool(truth(*map(bool, row))) for row in TABLE])
    assert (rule.evaluate(TABLE[:, :width]) == want).all()
    said = rule.open_rows([np.flatnonzero(column) for column in TABLE.T[:width]])
    assert said.tolist() == np.flatnonzero(want).tolist()
    assert rule.kind() == GateKind(kind)
    assert rule.words() == words
    assert Rule.from_json(json.loads(json.dumps(rule.to_json()))) == rule


def test_literals_by_role():
    rule = Rule((A,), steps=((Op.OR, B), (Op.AND_NOT, C)))
    assert rule.literals == (A, B, C)
    assert rule.features == (3, 7, 9)
    assert rule.positive == (A, B)
    assert rule.negative == (C,)
    assert rule.words(lambda literal: f"f{literal.feature}") == "(f3 or f7) and not f9"


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: Rule(()), "begins with one literal"),
        (lambda: Rule((A, B), 2), "Write OR and AND as steps"),
        (lambda: Rule((A,), 2), "at_least 2"),
        (lambda: Rule((A,), steps=((Op.OR, Literal(3, 0.4)),)), "names each feature once"),
        (lambda: Rule((A,)).evaluate(TABLE), r"1 literals, a column each; got shape \(16, 4\)"),
        (lambda: Rule((A,)).open_rows([]), "the rows of 0"),
    ],
)
def test_what_is_no_rule_is_refused(make, part):
    with pytest.raises(DataError, match=part):
        make()


def test_one_of_some_besides():
    rule = Rule((A,), steps=((Op.OR, B),), also=(C, D))
    assert str(Rule((A,), also=(C, D))) == "IF_3 and (IF_9 or IF_1 > 0.25)"
    for place in range(4):  # a literal that is never on might as well not be there
        never = TABLE[~TABLE[:, place]]
        assert (rule.without(place).evaluate(np.delete(never, place, axis=1)) == rule.evaluate(never)).all()
    assert "also" not in Rule((A,)).to_json()
    with pytest.raises(DataError, match="AND step"):
        Rule((A,), also=(B,))
