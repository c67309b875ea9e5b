"""Labels: what stands beside a feature's number is counted, worked by hand here."""

from __future__ import annotations

import pytest
import torch

from gatelens.views.contexts import FeatureRows
from gatelens.views.document import percent
from gatelens.views.labels import Label, Labels, full

WORDS = [" said", "said", " he", ".", "\n", " she", " it", " they"]


def labels(tokens):
    return Labels(torch.tensor(tokens), WORDS.__getitem__)


def test_shares_are_of_the_sum_of_values_and_spaces_around_a_word_do_not_part_it():
    features = FeatureRows.of([[3.0, 0.0], [1.0, 0.0], [4.0, 0.0], [0.4, 0.0], [0.0, 0.0]])
    of = labels([0, 1, 2, 3, 3])
    # " said" and "said" are one text: (3 + 1) / 8.4; "." has .4 / 8.4, under a tenth
    assert [name for name, _ in of.shares(features, 0)] == ["he", "said"]
    assert [share for _, share in of.shares(features, 0)] == pytest.approx([4 / 8.4, 4 / 8.4])
    assert of.short(features, 0) == Label(("he", "said"), more=False)
    assert full(of.shares(features, 0)) == f"“he” {percent(4 / 8.4)}, “said” {percent(4 / 8.4)}"


def test_a_feature_of_many_texts_says_so_and_one_that_never_fired_has_no_label():
    features = FeatureRows.of([[1.0, 0.0]] * 5)
    of = labels([2, 3, 5, 6, 7])  # five texts of a fifth each: three are named, and they are not nearly all
    assert of.short(features, 0).more
    assert len(of.short(features, 0).texts) == 3
    assert not of.short(features, 1)
    assert full(of.shares(features, 1)) == ""
    spread = FeatureRows.of([[1.0]] * 16)
    assert not Labels(torch.arange(16), lambda t: f"t{t}").short(spread, 0), "a sixteenth each is no label"


def test_white_space_is_shown_as_marks():
    assert str(labels([4, 4]).short(FeatureRows.of([[1.0], [2.0]]), 0)) == "⏎"
