"""A metric by document: its mean and interval, by hand; and how many tokens it is measured on."""

from __future__ import annotations

import pytest
import torch

import gatelens as gl
from gatelens.evaluation.measure import first_tokens
from gatelens.evaluation.passes import Tally


def test_mean_and_interval_by_hand():
    document = torch.tensor([3, 3, 8, 8])
    clean = Tally.of(torch.tensor([1.0, 1.0, 2.0, 2.0]).double(), document)
    changed = Tally.of(torch.tensor([1.0, 2.0, 2.0, 5.0]).double(), document)
    assert (clean.mean, changed.mean) == (1.5, 2.5)
    # differences 1 and 3 over two tokens each; their mean a token is 1, so the documents lie -1 and +1 off:
    # sqrt(1 + 1) / 4 tokens * sqrt(2 / 1) = 0.5, twice that either way
    assert changed.interval(clean) == pytest.approx((1.5, 3.5))


def test_documents_that_change_alike_leave_no_doubt():
    document = torch.tensor([0, 0, 1])
    clean = Tally.of(torch.tensor([1.0, 4.0, 9.0]).double(), document)
    changed = Tally.of(torch.tensor([1.5, 4.5, 9.5]).double(), document)
    assert changed.interval(clean) == pytest.approx((changed.mean, changed.mean))


def test_one_document_has_no_interval():
    one = Tally.of(torch.tensor([1.0, 2.0]).double(), torch.tensor([5, 5]))
    assert one.interval(one) is None


def test_cross_entropy_is_measured_on_so_many_tokens_and_accuracy_on_everything():
    lm = gl.load_model("gpt2-mini")
    held = gl.text_batches(lm, "gpt2-mini-sample", rows=(4, 24), length=32)[1]
    few = first_tokens(held, 100)
    assert 70 <= few.rows <= 130
    torch.testing.assert_close(few.inputs, held.inputs[: few.examples])
    assert first_tokens(held, 10**6) is held
    pictures = gl.image_batches("digits", seed=0)[1]
    assert first_tokens(pictures, 10) is pictures
