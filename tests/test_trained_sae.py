"""Trained SAEs on bad rows and few rows: what is refused before training, and what is trained all the same."""

from __future__ import annotations

import pytest
import torch

import gatelens as gl
from gatelens.errors import BasisError, NonFiniteError

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
