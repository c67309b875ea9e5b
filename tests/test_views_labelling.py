"""Names of features: made from some documents, judged on others beside the name of another feature, and asked for once."""

from __future__ import annotations

import json
import re

import pytest
from tests.support.pages import HOOK_OUT, planted

import gatelens as gl
from gatelens import views
from gatelens.errors import DataError


@pytest.fixture(scope="module")
def made():
    return planted([f" w{i}" for i in range(12)], outputs=6, inputs=24)


def test_names_of_tokens_tell_their_own_feature_and_not_another(made):
    names = gl.label(made.circuit, made.acts, tokenizer=made.tokenizer)
    assert len(names.labels) == 6
    scores = [x.score for x in names.labels if x.score is not None]
    others = [x.shuffled for x in names.labels if x.shuffled is not None]
    assert sum(scores) / len(scores) > 0.8
    assert sum(others) / len(others) < 0.65
    assert re.fullmatch(r"6 names; balanced accuracy 0\.\d\d, of shuffled names 0\.\d\d, over 6", repr(names))


def test_a_callable_is_asked_once_with_contexts_of_other_documents_than_it_is_judged_on(made, tmp_path):
    asked, judged = [], []

    def describe(question: str) -> str:
        asked.append(question)
        return "  fires on\nnames <b> "

    def judge(name: str, contexts: list[str]) -> list[bool]:
        judged.append(list(contexts))
        return [True] * len(contexts)

    cache = tmp_path / "labels.json"
    names = gl.label(made.circuit, made.acts, describe, judge, tokenizer=made.tokenizer, most=2, cache=cache)
    assert [x.text for x in names.labels] == ["fires on names <b>"] * 2
    assert [x.score for x in names.labels] == [0.5, 0.5], "a name that fits everything tells nothing"
    assert all("[[" in line for question in asked for line in question.splitlines()[2:])
    # a window lies within one document: no context that was shown is one that decides
    shown = {line for question in asked for line in question.splitlines()[2:]}
    assert not shown & {line for contexts in judged for line in contexts if line in shown and len(line) > 60}
    count = len(asked), len(judged)
    again = gl.label(made.circuit, made.acts, describe, judge, tokenizer=made.tokenizer, most=2, cache=cache)
    assert (len(asked), len(judged)) == count, "answers are kept"
    assert again == names
    assert json.loads(cache.read_text())
    page = views.page(made.circuit, made.acts, tokenizer=made.tokenizer, labels=names).text
    assert "fires on names &lt;b&gt;" in page
    assert names(HOOK_OUT, 999) == ""


def test_answers_that_are_none_are_refused(made):
    with pytest.raises(DataError, match="answers a question with a text; got int"):
        gl.label(made.circuit, made.acts, lambda q: 3, tokenizer=made.tokenizer, most=1)
    with pytest.raises(DataError, match="expected .* answers, got 1"):
        gl.label(made.circuit, made.acts, lambda q: "x", lambda n, c: [True], tokenizer=made.tokenizer, most=1)
    one = planted([f" w{i}" for i in range(12)], outputs=3, inputs=24, rows=32)
    with pytest.raises(DataError, match="at least two"):
        gl.label(one.circuit, one.acts, tokenizer=one.tokenizer)
