"""Copies of one feature: planted ones are grouped, others are not, and gates over them are no relations."""

from __future__ import annotations

import pytest
import torch

from gatelens.bases.codes import Codes
from gatelens.bases.copies import copy_groups
from gatelens.connectors import Connector
from gatelens.errors import BasisError
from gatelens.segments import Segment


class Dictionary:
    def __init__(self, directions):
        self.W_dec = directions

    def encode(self, x):
        return (x @ self.W_dec.T).clamp_min(0)

    def decode(self, f):
        return f @ self.W_dec


@pytest.fixture(scope="module")
def planted():
    """Features 0, 1, 2 are pieces of one direction and come together; 3 points the same way but never comes with them;
    4 comes with them but points elsewhere; 5 stands alone."""
    generator = torch.Generator().manual_seed(0)
    base = torch.eye(6)
    matrix = torch.stack([base[0], base[0] + 0.3 * base[1], 2 * base[0] + 0.2 * base[2], base[0], base[3], base[4]])
    mood = torch.rand(2000, 1, generator=generator) < 0.3
    noise = torch.rand(2000, 6, generator=generator)
    on = torch.cat(
        [
            mood & (noise[:, :3] < torch.tensor([0.9, 0.8, 0.7])),
            ~mood & (noise[:, 3:4] < 0.2),
            mood,
            noise[:, 5:] < 0.1,
        ],
        1,
    )
    return Dictionary(matrix), Codes.of(on * (1 + noise)), on * (1 + noise)


def test_copies_are_grouped_and_others_are_not(planted):
    basis, codes, f = planted
    groups = copy_groups(basis, codes)
    assert len(set(groups.group[:3].tolist())) == 1
    assert len(set(groups.group[[0, 3, 4, 5]].tolist())) == 4
    assert int(groups.leader[groups.group[0]]) == 0
    together = groups.merged(f)[:, groups.group[0]]
    assert torch.allclose(together, f[:, 0] + f[:, 1] + 2 * f[:, 2], atol=1e-5)
    assert "1 groups of copies, the largest of 3" in repr(groups)


def test_a_gate_over_copies_is_no_relation(planted):
    basis, codes, _ = planted
    groups = copy_groups(basis, codes)
    weight = torch.zeros(4, 6)
    weight[0, [0, 1, 2]] = 1.0  # two of three copies
    weight[1, [0, 4]] = 1.0
    weight[2, [0, 1, 5]] = torch.tensor([1.0, 1.0, -1.0])
    connector = Connector.from_dense(weight, torch.zeros(4))
    assert groups.groups_read(connector).tolist() == [1, 2, 2, 0]
    assert groups.relations(connector) == pytest.approx(2 / 3)
    assert groups.parents(connector, 2) == {0: [0, 1], 5: [5]}
    assert groups.relations(Connector.from_dense(torch.zeros(2, 6), torch.zeros(2))) is None


def test_features_of_another_effect_are_no_copies(planted):
    basis, codes, _ = planted
    kink = Segment("in", "out", lambda x: torch.stack([(x[:, 0] - 0.1).clamp_min(0) * 0, x[:, 1] * 10], 1), 6, 2)
    x = torch.zeros(8, 6)
    assert (
        len(copy_groups(basis, codes, segment=kink, x=x).leader) == 6
    )  # feature 1 alone moves y: no pair has the same effect
    same = Segment("in", "out", lambda x: x[:, :1], 6, 1)
    assert len(copy_groups(basis, codes, segment=same, x=x).leader) == 4


def test_bad_thresholds_are_refused(planted):
    basis, codes, _ = planted
    with pytest.raises(BasisError, match=r"cosine must be"):
        copy_groups(basis, codes, cosine=0)
    with pytest.raises(BasisError, match=r"give x"):
        copy_groups(basis, codes, segment=Segment("in", "out", lambda x: x, 6, 6))
