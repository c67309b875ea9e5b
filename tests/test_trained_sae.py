"""Trained SAEs on bad rows and few rows: what is refused before training, and what is trained all the same."""

from __future__ import annotations

import warnings

import pytest
import torch

import gatelens as gl
from gatelens.errors import BasisError, GateLensWarning, NonFiniteError

KINDS = [{"trainer": "sparse"}, {"trainer": "sae-lens"}, {"architecture": "tied"}]
HOOK = "blocks.0.hook_mlp_out"


def rows(count: int = 300) -> torch.Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(0))


def recipe(**how) -> gl.TrainedSAE:
    return gl.TrainedSAE(d_sae=12, k=2, samples=640, batch_size=64, **how)


@pytest.mark.parametrize("how", KINDS, ids=str)
def test_rows_that_teach_nothing_are_refused(how):
    spoilt = rows()
    spoilt[7, 2], spoilt[9, 0] = torch.nan, torch.inf
    with pytest.raises(NonFiniteError, match=rf"at {HOOK} hold NaN or infinity in 2 rows, first in row 7"):
        recipe(**how).train(spoilt, HOOK)
    with pytest.raises(BasisError, match="needs rows: got none"):
        recipe(**how).train(rows(0), HOOK)
    with pytest.raises(BasisError, match=rf"{HOOK} are the same in every row"):
        recipe(**how).train(torch.ones(300, 6), HOOK)


@pytest.mark.parametrize("how", KINDS, ids=str)
def test_fewer_rows_than_features_and_a_coordinate_that_never_varies(how):
    x = rows(5)
    x[:, 1] = 3.0
    sae = recipe(**how).train(x, HOOK)
    assert torch.isfinite(sae.decode(sae.encode(x))).all()
    torch.testing.assert_close(sae.decode(torch.zeros(1, 12))[0, 1], torch.tensor(3.0), atol=0.5, rtol=0)


@pytest.mark.parametrize("how", KINDS, ids=str)
def test_the_same_seed_gives_the_same_weights(how):
    one, same, other = (recipe(**how, seed=seed).train(rows(), HOOK).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_the_sparse_trainer_is_the_default_and_sae_lens_there_by_name():
    default, named = (recipe(**how).train(rows(), HOOK).state_dict() for how in ({}, {"trainer": "sparse"}))
    assert all(torch.equal(default[name], named[name]) for name in default)
    assert (
        gl.TrainedSAE("topk", d_sae=12, k=2, samples=640, batch_size=64).train(rows(), HOOK).cfg.architecture()
        == "topk"
    )


@pytest.mark.parametrize(
    ("count", "steps", "batch"), [(246, 500, 64), (1_438, 1_123, 64), (16_000, 1_562, 512), (200_000, 1_953, 512)]
)
def test_what_is_left_open_is_chosen_from_the_rows(count, steps, batch):
    """A million samples and fifty passes at most; halved batches while there are fewer than a thousand steps, never under 500."""
    assert gl.TrainedSAE().schedule(count) == (steps, batch)


def test_samples_far_beyond_the_rows_are_warned_of():
    with pytest.warns(GateLensWarning, match=r"samples = 640 of 3 rows: .* each row 213 times"):
        recipe().schedule(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert recipe().schedule(4)[0] == 10
        assert gl.TrainedSAE().schedule(4)[0] == 500


def test_l0_after_export_is_k_on_the_rows_of_the_fit_and_few_features_are_dead():
    """Planted: 24 directions of which three are on at a time; a short training, so that a threshold that lags would show."""
    generator = torch.Generator().manual_seed(1)
    on = torch.rand(4_000, 24, generator=generator) < 1 / 8
    x = (on * (0.5 + torch.rand(4_000, 24, generator=generator))) @ torch.randn(24, 12, generator=generator)
    sae = gl.TrainedSAE(d_sae=24, k=3, samples=20_000, batch_size=64).train(x, HOOK)
    f = sae.encode(x)
    assert float((f != 0).sum()) / len(x) == pytest.approx(3, abs=1e-3)
    assert int((f == 0).all(0).sum()) == 0
