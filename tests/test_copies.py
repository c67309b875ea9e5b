"""Copies of one feature: planted ones are grouped, others are not, and gates over them are no relations."""

from __future__ import annotations

import pytest
import torch

from gatelens import views
from gatelens.bases.codes import Codes
from gatelens.bases.copies import CopyGroups, copy_groups
from gatelens.bases.gate_basis import BuiltInWires, GateBasis
from gatelens.bases.linear import Rotation
from gatelens.bases.merged import MergedBasis
from gatelens.bases.relations import relations, single_group_openings
from gatelens.bases.saving import load_basis, save_basis
from gatelens.circuits import build_circuit
from gatelens.connectors import Connector
from gatelens.errors import BasisError
from gatelens.gates import GateKind, type_gates
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


def test_a_gate_over_split_copies_is_read_as_the_and_of_two_things(split_and):
    basis, f, wires = split_and
    groups = copy_groups(basis, Codes.of(f), together=0.3)
    merged = MergedBasis(basis, groups)
    parents = merged.wires(wires)
    assert parents.fan_in().tolist() == [2, 1]
    assert torch.allclose(parents.weight.values(), torch.ones(3), atol=1e-5)
    f_out = wires(f)
    together = groups.merged(f)
    assert torch.allclose(parents(together), f_out, atol=1e-5)
    gate = type_gates(parents, together, f_out)[0]
    assert gate.kind == GateKind.AND
    assert gate.mcc > 0.95
    assert type_gates(wires, f, f_out)[0].kind != GateKind.AND, "what merging is for"
    x = torch.eye(3)
    assert torch.allclose(merged.decode(merged.encode(x))[:, 2], x[:, 2])


def test_a_merged_dictionary_is_saved_and_read_again(split_and, tmp_path):
    _, f, _ = split_and
    rotation = Rotation(torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(0)))[0])
    groups = CopyGroups(torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 2, 3]), torch.ones(5), torch.ones(5))
    save_basis(MergedBasis(rotation, groups), tmp_path)
    again = load_basis(tmp_path)
    assert isinstance(again, MergedBasis)
    assert torch.allclose(again.encode(f), MergedBasis(rotation, groups).encode(f), atol=1e-6)
    assert torch.equal(again.groups.power, groups.power)
    with pytest.raises(BasisError, match=r"groups are of 5 features, the dictionary has 3"):
        MergedBasis(Rotation(torch.eye(3)), groups)
    with pytest.raises(BasisError, match=r"connector reads 2 features, the groups are of 5"):
        MergedBasis(rotation, groups).wires(Connector.from_dense(torch.ones(1, 2), torch.zeros(1)))


def test_a_circuit_over_merged_copies_is_built_and_shown(split_and):
    """Deliver, end to end: the gate dictionary's wires, read group by group, typed, and on a page that says so."""
    basis, f, wires = split_and
    groups = copy_groups(basis, Codes.of(f), together=0.3)
    coder = Looked(basis.W_dec, f)
    x = coder.x
    segment = Segment("in", "out", lambda x: wires(coder.encode(x)), 4, 2)
    gates = GateBasis(coder, wires, torch.eye(2), torch.zeros(2), 4, None, "in", "out")
    acts = {"in": x, "out": segment.forward(x)}
    bases = {"in": MergedBasis(coder, groups), "out": gates}
    circuit = build_circuit(None, [segment], bases, acts, BuiltInWires(), require_verified=False)
    assert circuit.gate(0).kind == GateKind.AND
    assert sorted(circuit.gate(0).inputs) == [0, 1]
    text = views.page(circuit, acts).text
    assert "At in: features, copies merged; by construction, every parent is a group" in text
    assert (
        "At out: gate dictionary; by construction, every output feature is a function of at most fan_in input features"
        in text
    )


class Looked:
    """A dictionary whose code of a row is looked up by the row's number, its last coordinate."""

    def __init__(self, directions, f):
        self.f, self.W_dec = f, torch.cat([directions, torch.zeros(len(directions), 1)], 1)
        self.x = torch.cat([(f @ self.W_dec)[:, :-1], torch.arange(len(f))[:, None].float()], 1)

    def encode(self, x):
        return self.f[x[:, -1].long()]

    def decode(self, f):
        return f @ self.W_dec
