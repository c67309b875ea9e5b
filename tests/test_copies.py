"""Copies of one feature: planted ones are grouped, others are not, and gates over them are no relations."""

from __future__ import annotations

import pytest
import torch
from _copies import copy_groups
from _relations import relations, single_group_openings

from gatelens.codes.rows import Codes
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


def test_a_dictionary_without_copies_has_none():
    f = torch.eye(6).repeat(20, 1)  # never two at once
    segment = Segment("in", "out", lambda x: x, 6, 6)
    groups = copy_groups(Dictionary(torch.eye(6)), Codes.of(f), segment=segment, x=f)
    assert groups.sizes.tolist() == [1] * 6


def test_bad_thresholds_are_refused(planted):
    basis, codes, _ = planted
    with pytest.raises(BasisError, match=r"cosine must be"):
        copy_groups(basis, codes, cosine=0)
    with pytest.raises(BasisError, match=r"give x"):
        copy_groups(basis, codes, segment=Segment("in", "out", lambda x: x, 6, 6))


@pytest.fixture(scope="module")
def split_and():
    """y = relu(u + v - 1.4) where u is split into features 0, 1 and v into 2, 3: an AND of two things, four wires."""
    generator = torch.Generator().manual_seed(1)
    rows = 6000
    things = torch.rand(rows, 2, generator=generator) < 0.4
    size = 0.9 + 0.2 * torch.rand(rows, 2, generator=generator)
    piece = torch.rand(rows, 2, generator=generator) < 0.5  # which copies carry it: the first alone, or both
    f = torch.zeros(rows, 5)
    for thing, (a, b) in enumerate(((0, 1), (2, 3))):
        value = things[:, thing] * size[:, thing]
        f[:, a] = torch.where(piece[:, thing], value / 2, value)
        f[:, b] = torch.where(piece[:, thing], value / 2, torch.zeros(()))
    f[:, 4] = torch.rand(rows, generator=generator) * (torch.rand(rows, generator=generator) < 0.2)
    weight = torch.tensor([[1.0, 1, 1, 1, 0], [1, 1, 0, 0, 0]])
    wires = Connector.from_dense(weight, torch.tensor([-1.4, -0.4]))
    basis = Dictionary(torch.eye(3)[[0, 0, 1, 1, 2]])
    return basis, f, wires


def test_relations_count_concepts_not_copies(split_and):
    basis, f, wires = split_and
    groups = copy_groups(basis, Codes.of(f), together=0.3)
    assert groups.group.tolist() == [0, 0, 1, 1, 2] or len(groups.leader) == 3
    found = relations(wires, groups, f)
    assert found.gates == 2
    assert found.share == 0.5  # the AND needs both groups; the other gate is opened by one
    assert found.several == 0.5
    firings, opened = single_group_openings(wires, torch.arange(5), f)
    halves = (f[:, :2] > 0).all(1)
    fires = f[:, 0] + f[:, 1] > 0.4
    alone = f[:, :2].amax(1) > 0.4
    assert firings[1] == fires.sum()
    assert opened[1] == (fires & alone).sum()
    assert halves.any()
    assert relations(wires, groups, torch.zeros(10, 5)).share is None
