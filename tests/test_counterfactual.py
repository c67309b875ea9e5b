"""Counterfactual rows: edits do what they say, x' and y' follow from them, and what cannot be edited is refused."""

from __future__ import annotations

import pytest
import torch

from gatelens.basis.linear import Rotation
from gatelens.codes.csr import as_csr
from gatelens.codes.rows import Codes
from gatelens.edits.counterfactual import Counterfactual, Library
from gatelens.edits.kinds import KINDS
from gatelens.errors import BasisError
from gatelens.segments import Segment


class Dictionary:
    """Six nonnegative features of four dimensions, and an affine decoder that misses some of x."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.W_dec, self.b_dec = torch.randn(6, 4, generator=generator), torch.randn(4, generator=generator)

    def encode(self, x):
        return (x @ self.W_dec.T - 0.5).clamp_min(0)

    def decode(self, f):
        return f @ self.W_dec + self.b_dec


def features(rows=400, width=10, share=0.4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, width, generator=generator) * (torch.rand(rows, width, generator=generator) < share)


def test_codes_keep_what_the_dense_features_say():
    f = features()
    codes = Codes.of(f)
    picked = torch.tensor([5, 0, 5, 399])
    matrix = torch.randn(10, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(codes.dense(), f)
    assert torch.equal(codes.rows(picked).dense(), f[picked])
    assert torch.allclose(codes.times(matrix), f @ matrix, atol=1e-6)
    assert torch.equal(as_csr(codes).to_dense(), f)
    assert torch.allclose(codes.frequency(), (f > 0).float().mean(0))
    assert torch.allclose(codes.typical(), f.sum(0) / (f > 0).sum(0))


def test_an_edit_and_its_change_add_up():
    codes = Codes.of(features())
    library, generator = Library.of(codes), torch.Generator().manual_seed(0)
    for edit in (Counterfactual(), Counterfactual(drop=(0.5, 0.5), add=(3, 3), add_share=1.0)):
        edited = edit.edit(codes, library, generator)
        assert torch.allclose(codes.dense() + edited.change.dense(), edited.codes.dense())
        assert float(edited.codes.dense().min()) >= 0


def test_the_rates_are_those_asked_for():
    codes = Codes.of(features(4000))
    edit = Counterfactual(drop=(0.3, 0.3), drop_share=1.0, add=(2, 2), add_share=0.0)
    edited = edit.edit(codes, Library.of(codes), torch.Generator().manual_seed(0))
    lost = float((edited.change.value < 0).sum()) / len(codes.col)
    assert abs(lost - 0.3) < 0.02
    assert not (edited.change.value > 0).any()


def test_additions_are_typical_values_of_features_that_were_off():
    codes = Codes.of(features(2000))
    library = Library.of(codes)
    edit = Counterfactual(drop=(0.0, 0.0), add=(1, 1), add_share=1.0).edit(
        codes, library, torch.Generator().manual_seed(0)
    )
    row, col = edit.change.row, edit.change.col
    assert len(col) > 800
    assert (codes.dense()[row, col] == 0).all()
    assert torch.allclose(edit.change.value, library.typical[col])


@pytest.mark.parametrize("keep_error", [True, False])
def test_the_edited_rows_go_through_the_segment(keep_error):
    basis = Dictionary()
    segment = Segment("in", "out", lambda x: x.square(), 4, 4)
    x = torch.randn(100, 4, generator=torch.Generator().manual_seed(2))
    edits = Counterfactual(pairs=250, keep_error=keep_error)
    seen = 0
    for pair in edits.pairs_of(segment, basis, x, batch_size=64):
        f, g = basis.encode(pair.x), pair.edit.codes.dense()
        expected = pair.x + basis.decode(g) - basis.decode(f) if keep_error else basis.decode(g)
        assert torch.allclose(pair.x_edited, expected, atol=1e-5)
        assert torch.allclose(pair.y_edited, pair.x_edited.square())
        assert torch.allclose(pair.codes.dense(), f)
        seen += len(pair.x)
    assert seen == 250


def test_fresh_edits_every_time_and_the_same_for_the_same_seed():
    basis, segment = Dictionary(), Segment("in", "out", lambda x: x, 4, 4)
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(2))
    runs = [list(Counterfactual(pairs=60, seed=s).pairs_of(segment, basis, x, batch_size=30)) for s in (0, 0, 1)]
    assert torch.equal(runs[0][1].x_edited, runs[1][1].x_edited)
    assert not torch.equal(runs[0][1].x_edited, runs[2][1].x_edited)
    order = [torch.argsort(pair.x[:, 0]) for pair in runs[0]]
    assert not torch.equal(runs[0][0].x_edited[order[0]], runs[0][1].x_edited[order[1]])


@pytest.mark.parametrize("name", list(KINDS))
def test_test_edits_do_what_their_names_say(name):
    codes = Codes.of(features())
    edit = KINDS[name](codes, Library.of(codes), torch.Generator().manual_seed(0))
    before, after = codes.dense(), edit.codes.dense()
    gone, come = (before > 0) & (after == 0), (before == 0) & (after > 0)
    if name == "removals":
        assert (gone.sum(1) == (before > 0).any(1)).all()
    if name == "subsets":
        assert abs(float(gone.sum() / (before > 0).sum()) - 0.4) < 0.05
    if name == "additions":
        assert come.any(1)[(before == 0).sum(1) >= 5].all()  # a row that is on nearly everywhere may be left as it is
        assert come.sum(1).max() == 1
        assert not gone.any()
    if name in ("removals", "subsets"):
        assert not come.any()
    if name == "patches":
        values = {round(v, 5) for v in before[before > 0].tolist()}
        assert all(round(v, 5) in values for v in after[come].tolist())


def test_bad_edits_are_refused():
    with pytest.raises(BasisError, match=r"never negative.*rotation"):
        Library.of(
            Codes.of(Rotation(torch.eye(3)).encode(torch.randn(5, 3, generator=torch.Generator().manual_seed(0))))
        )
    with pytest.raises(BasisError, match=r"no input feature is ever on"):
        Library.of(Codes.of(torch.zeros(4, 3)))
    for bad in ({"drop": (0.5, 0.1)}, {"drop": (0, 2)}, {"add": (2, 1)}, {"pairs": 0}, {"add_share": -1}):
        with pytest.raises(BasisError, match=r"probabilities|least"):
            Counterfactual(**bad)
