"""Planted networks: the MLP computes its gates, the directions overlap little, named gates and their wires are there."""

from __future__ import annotations

import pytest
import torch

from gatelens.basis.features import encode_rows
from gatelens.planted import check_basis, plant_network, score_wires, word_network
from gatelens.planted.network import HOOK_IN, HOOK_OUT, spread_directions
from gatelens.solvers import GramLasso, ReluOMP
from gatelens.solvers.size_rule import BySize


@pytest.fixture(scope="module")
def net():
    return plant_network(seed=1)


@pytest.fixture(scope="module")
def acts(net):
    return net.activations(8000, seed=4)


def test_the_mlp_computes_the_planted_gates(net, acts):
    f_in, f_out = (f.to_dense() for f in net.features.sample(8000, seed=4))
    torch.testing.assert_close(acts[HOOK_IN], f_in @ net.dictionaries[HOOK_IN].W_dec)
    target = f_out @ net.dictionaries[HOOK_OUT].W_dec
    missed = (acts[HOOK_OUT] - target).square().sum() / (target - target.mean(0)).square().sum()
    assert missed < 0.12  # on rows that it was not trained on; superposition leaves some
    assert net.error < 0.1
    net.segment.check(acts[HOOK_IN], acts[HOOK_OUT])
    assert net.features.width_in > net.segment.d_in


def test_wires_are_read_through_the_true_directions(net, acts):
    features = [encode_rows(net.dictionaries[hook], acts[hook]) for hook in (HOOK_IN, HOOK_OUT)]
    total = score_wires(net.gates, ReluOMP().fit(*features)).total
    assert total.recall > 0.9
    assert total.precision > 0.75  # overlapping directions leave traces in each other's readings
    assert total.sign_accuracy > 0.98
    check_basis(net.dictionaries[HOOK_IN], net.segment.d_in)


def test_directions_are_spread():
    generator = torch.Generator().manual_seed(0)
    D = spread_directions(60, 40, generator)
    overlap = (D @ D.T - torch.eye(60)).abs().max()
    random = torch.nn.functional.normalize(torch.randn(60, 40, generator=generator), dim=1)
    assert overlap < 0.6 * (random @ random.T - torch.eye(60)).abs().max()
    assert torch.allclose(D.norm(dim=1), torch.ones(60))
    few = spread_directions(5, 8, generator)
    assert torch.allclose(few @ few.T, torch.eye(5), atol=1e-5)


def test_named_gates_are_among_the_others():
    net = word_network(steps=50)
    gates = {tuple(net.words[i] for i in g.inputs): g for g in net.gates[:2]}
    assert gates["former", "old", "young"].weights == (0.26, 0.23, 0.10)
    assert gates["said", "said_after_quote"].kind == "and_not_subset"
    assert sum(set(g.inputs) == set(net.gates[1].inputs) and g.kind == "and_not_subset" for g in net.gates) == 1


def test_apart_no_other_gate_reads_the_named_words():
    net = word_network(steps=0, apart=True)
    assert [g.out for g in net.gates] == list(range(24))
    assert not any(set(net.words) & set(g.inputs) for g in net.gates[2:])
    f_in = net.features.sample(4000)[0].to_dense()
    index = {word: i for i, word in net.words.items()}
    assert not ((f_in[:, index["said_after_quote"]] > 0) & (f_in[:, index["said"]] == 0)).any()


@pytest.mark.parametrize(
    ("widths", "sign", "expected"),
    [
        ((4096, 4096), 1, GramLasso()),
        ((24_576, 24_576), 1, ReluOMP()),
        ((100, 5000), 1, ReluOMP()),
        ((10_000, 10_000), -1, GramLasso(signed=True)),
    ],
)
def test_the_size_rule(widths, sign, expected):
    rows = [torch.zeros(4, width).index_fill_(1, torch.tensor([0]), 1.0) for width in widths]
    assert BySize().choose(rows[0], sign * rows[1]) == expected


def test_the_solver_where_none_is_named_says_which_it_was(net, acts):
    features = [encode_rows(net.dictionaries[hook], acts[hook]) for hook in (HOOK_IN, HOOK_OUT)]
    found = BySize().fit(*features)
    assert found.solver.startswith("GramLasso(")
    assert found.solver.endswith(f"by size ({features[0].shape[1]} -> {features[1].shape[1]} features)")
    assert torch.equal(found.weight.to_dense(), GramLasso().fit(*features).weight.to_dense())
