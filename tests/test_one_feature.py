"""One feature of a dictionary, alone and behind an MLP, against the whole computation; groups and values against dense ones."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse
import torch

from gatelens.basis.columns import Columns
from gatelens.gates.companions import Together
from gatelens.gates.one_feature import OneFeature
from gatelens.gates.rule import Literal
from gatelens.gates.stage import Stage
from gatelens.segments import MLPWeights, Segment

D, M, F, ROWS = 6, 16, 24, 64


class Dictionary:
    """A JumpReLU encoder; with `most`, only so many features of a row are kept."""

    def __init__(self, most: int | None = None, from_input: bool = False):
        g = torch.Generator().manual_seed(1)
        self.W_enc, self.b_enc = torch.randn(D, F, generator=g), 0.1 * torch.randn(F, generator=g)
        self.b_dec, self.W_dec = torch.randn(D, generator=g), torch.randn(F, D, generator=g)
        self.threshold = 0.3 * torch.rand(F, generator=g)
        self.most, self.cfg = most, SimpleNamespace(apply_b_dec_to_input=from_input)

    def encode(self, x):
        z = (x - self.b_dec if self.cfg.apply_b_dec_to_input else x) @ self.W_enc + self.b_enc
        f = torch.where(z > self.threshold, z, 0.0)
        if self.most is None:
            return f
        kept = f.topk(self.most, dim=-1)
        return torch.zeros_like(f).scatter(-1, kept.indices, kept.values)

    def decode(self, f):
        return f @ self.W_dec + self.b_dec


def mlp(gated: bool) -> MLPWeights:
    g = torch.Generator().manual_seed(2)
    weight = [torch.randn(*shape, generator=g) / 3 for shape in ((D, M), (M,), (M, D), (D,), (D, M))]
    return MLPWeights(*weight[:4], "silu" if gated else "gelu", weight[4] if gated else None)


def rows(seed: int = 3) -> torch.Tensor:
    return torch.randn(ROWS, D, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("from_input", [False, True])
def test_some_features_are_those_of_the_whole_encoder(from_input):
    basis, y, outs = Dictionary(from_input=from_input), rows(), torch.tensor([5, 0, 23])
    found = Columns.proven(basis, y)
    assert found is not None
    torch.testing.assert_close(found.encode(y, outs), basis.encode(y)[:, outs])


def test_an_encoder_whose_features_know_of_one_another_is_refused():
    assert Columns.proven(Dictionary(most=3), rows()) is None
    short = 0.05 * rows()  # no real row has more than twelve features on, and a longer one has
    most = int((Dictionary().encode(short) > 0).sum(1).max())
    torch.testing.assert_close(Dictionary(most=most).encode(short), Dictionary().encode(short))
    assert Columns.proven(Dictionary(most=most), short) is None


def test_a_dictionary_without_an_encoder_that_is_known_is_refused():
    assert Columns.proven(SimpleNamespace(encode=torch.relu, decode=torch.relu), rows()) is None


@pytest.mark.parametrize("gated", [False, True])
def test_a_feature_behind_an_mlp_is_what_segment_and_encoder_make_of_the_changed_rows(gated):
    weights, basis, x = mlp(gated), Dictionary(from_input=True), rows()
    segment = Segment("in", "out", weights, D, D, weights)
    found = OneFeature.proven(segment, basis, x)
    assert found is not None
    g = torch.Generator().manual_seed(4)
    along, change = torch.randn(3, D, generator=g), torch.randn(5, ROWS, 3, generator=g)
    whole = basis.encode(segment.forward(x[None] + change @ along))
    for out in (0, 7, 23):
        torch.testing.assert_close(found.changed(x, along, change, out), whole[..., out], rtol=1e-4, atol=1e-4)


def test_a_segment_that_is_more_than_its_weights_is_refused():
    weights = mlp(gated=False)
    segment = Segment("in", "out", lambda x: weights(x) + 1.0, D, D, weights)
    assert OneFeature.proven(segment, Dictionary(), rows()) is None


@pytest.fixture
def stage():
    weights, x = mlp(gated=True), rows()
    return Stage.of(Segment("in", "out", weights, D, D, weights), Dictionary(), Dictionary(), x)


def test_changes_are_shown_the_same_by_either_way(stage):
    where, features = np.array([9, 3, 40]), np.array([2, 11])
    change = np.random.default_rng(5).normal(size=(4, 3, 2))
    fast = stage.shown_changed(where, features, change, 7)
    assert stage._one_feature is not None
    stage.__dict__["_one_feature"] = None
    np.testing.assert_allclose(stage.shown_changed(where, features, change, 7), fast, rtol=1e-4, atol=1e-4)


def test_values_are_those_of_the_dense_matrix(stage):
    where, features = np.array([63, 0, 17, 17]), [4, 0, 23]
    np.testing.assert_array_equal(stage.values(features, where), stage.f_in.toarray()[where][:, features])


def test_groups_are_counted_as_by_hand():
    # feature 0 is on in rows 0 to 3; 1 in three of these, at 2, 4, 6; 2 in one; 3 in three but also in most other rows
    f = np.zeros((40, 4), np.float32)
    f[:4, 0], f[:3, 1], f[3, 2], f[1:, 3] = 1.0, (2.0, 4.0, 6.0), 1.0, 1.0
    f[:4, 3] = (0, 1, 1, 1)
    literal = Literal(0, 0.0)
    group = Together(scipy.sparse.csr_matrix(f)).groups([literal])[literal]
    assert group.members.tolist() == [0, 1]
    assert group.means.tolist() == [1.0, 4.0]
