"""Matching, agreement, perturbation, and a circuit found again under changes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import gatelens as gl
from gatelens import stability
from gatelens.connectors import Connector
from gatelens.data import Batches
from gatelens.errors import BasisError, ConfigError, DataError
from gatelens.gates import Grade
from gatelens.models import HookedMLP
from gatelens.models.training import Training
from gatelens.stability.conditions import Condition, halves
from gatelens.stability.matching import Matching
from gatelens.stability.refits import compare_circuits
from support.gates import ruled


def seeded(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def same(n: int) -> Matching:
    return Matching(torch.arange(n), torch.arange(n), torch.ones(n), 0.1, "directions", torch.ones(n))


def test_matching_undoes_order_and_sign():
    a = seeded(12, 6)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    b = torch.empty_like(a)
    b[order] = a * torch.where(torch.arange(12) % 2 == 0, 1.0, -1.0)[:, None]
    found = stability.match_directions(a, b)
    assert found.second.tolist() == order.tolist()
    assert found.mean == pytest.approx(1, abs=1e-6)
    assert found.random < 0.8
    acts = seeded(300, 12, seed=3)
    mixed = torch.empty_like(acts)
    mixed[:, order] = -2 * acts + 1
    by_rows = stability.match_activations(acts, mixed)
    assert by_rows.second.tolist() == order.tolist()
    assert by_rows.mean == pytest.approx(1, abs=1e-6)


def test_random_level_is_what_random_rotations_give():
    q = [torch.linalg.qr(seeded(64, 64, seed=s)).Q for s in (0, 1, 2)]
    found = stability.match_directions(q[0], q[1])
    assert found.mean == pytest.approx(found.random, abs=0.02)
    assert found.random == pytest.approx(stability.match_directions(q[0], q[2]).mean, abs=0.02)


def test_mmcs_lets_many_share_one():
    a = torch.eye(4)[[0, 0, 1]]
    assert stability.mean_max_cosine(a, torch.eye(4))[0] == pytest.approx(1)
    assert stability.mean_max_cosine(torch.eye(4), a)[0] == pytest.approx(0.5)  # e_2 and e_3 have no counterpart


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: stability.match_directions(seeded(4, 3), seeded(4, 5)), BasisError, "two models or two hook points"),
        (lambda: stability.match_directions(torch.zeros(4, 3), seeded(4, 3)), BasisError, "not all zero"),
        (lambda: stability.match_activations(seeded(9, 3), seeded(8, 3)), DataError, "the same rows twice"),
        (lambda: stability.match_activations(torch.ones(9, 3), seeded(9, 3)), DataError, "constant over 9 rows"),
        (lambda: stability.noisy_model(HookedMLP((2, 2, 2)), -1.0), ConfigError, "zero or more"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_wire_jaccard_by_hand():
    a = Connector.from_dense(torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 3.0]]), torch.zeros(2))
    b = Connector.from_dense(torch.tensor([[5.0, 0.0, 0.0], [0.0, 1.0, 1.0]]), torch.zeros(2))
    # wires a: 00 01 12; wires b: 00 11 12; two of four
    assert stability.wire_jaccard(a, b, same(3), same(2))[0] == 0.5
    swapped = Matching(torch.arange(2), torch.tensor([1, 0]), torch.ones(2), 0.1, "directions", torch.ones(2))
    # outputs exchanged: 10 11 02 against 00 11 12: one of five
    assert stability.wire_jaccard(a, b, same(3), swapped)[0] == pytest.approx(1 / 5)
    with pytest.raises(BasisError, match="different circuits or models"):
        stability.wire_jaccard(a, b, same(4), same(2))


def test_gate_agreement_by_hand():
    a = [
        ruled(0, (0, 1), grade="verified"),
        ruled(1, (2, 3), at_least=2, grade="verified"),
        ruled(2, (0,), (1,)),
        ruled(3, (1,), grade="weak"),
    ]
    b = [
        ruled(0, (0, 1, 2)),  # the kind, and two of three inputs
        ruled(1, (2, 3)),  # another kind
        ruled(2, (1,), (0,)),  # the same inputs, their signs exchanged
        ruled(3, (1,)),
    ]
    found = stability.gate_agreement(a, b, same(4), same(4))
    assert found.gates == 3
    assert found.kind == pytest.approx(2 / 3)
    assert found.inputs == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert found.whole == pytest.approx(1 / 3)
    assert found.random_whole is not None
    confirmed = stability.gate_agreement(a, b, same(4), same(4), verified=True)
    assert (confirmed.gates, confirmed.whole) == (2, 0.5)
    assert stability.gate_agreement(a[3:], b, same(4), same(4)).whole is None
    weak = [replace(b[0], grade=Grade.WEAK), *b[1:]]  # the same rule, but it does not hold there
    assert stability.gate_agreement(a[:1], weak, same(4), same(4)).kind == 0


def toy(n: int = 400, seed: int = 0) -> Batches:
    x = seeded(n, 6, seed=seed)
    return Batches(x, (x[:, 0] * x[:, 1] > 0).long(), torch.ones(n, dtype=torch.bool), torch.arange(n), 128)


@pytest.fixture(scope="module")
def trained() -> tuple[HookedMLP, Batches]:
    data = toy()
    return Training(epochs=15, batch_size=64).fit(HookedMLP((6, 12, 12, 2)), data), data


def test_noise_is_sized_by_the_loss(trained):
    model, data = trained
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for rise in (0.01, 0.1):
        relative, reached, noisy = stability.noise_for_rise(model, data, rise)
        assert reached == pytest.approx(rise, rel=0.1)
        clean, changed = (F.cross_entropy(m(data.inputs), data.targets).item() for m in (model, noisy))
        assert changed / clean - 1 == pytest.approx(reached, abs=1e-4)
        assert relative > 0
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    tuned = stability.fine_tuned(model, data, 20, lr=1e-3)
    assert F.cross_entropy(tuned(data.inputs), data.targets) < F.cross_entropy(model(data.inputs), data.targets)


def test_halves_share_no_document():
    first, second = halves(toy(101))
    assert (first.examples, second.examples) == (50, 51)
    assert not set(first.document.tolist()) & set(second.document.tolist())


def test_halves_leave_out_a_window_that_holds_documents_of_both():
    document = torch.tensor([[0, 0, 0], [0, 1, 1], [1, 2, 2], [2, 2, 3]])
    tokens = torch.zeros(4, 3, dtype=torch.long)
    first, second = halves(Batches(tokens, tokens, tokens == 0, document, metric="ce"))
    # cut at document 2: the third window holds 1 and 2
    assert first.document.tolist() == [[0, 0, 0], [0, 1, 1]]
    assert second.document.tolist() == [[2, 2, 3]]


def test_gain_kept_is_one_for_the_same_network_and_none_for_another_width():
    generator = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(seeded(12, 12)).Q
    sparse = torch.randn(12, 4000, generator=generator) * (torch.rand(12, 4000, generator=generator) < 0.1)
    columns = rotation.T @ sparse / sparse.std()
    kept = stability.gain_kept(rotation, columns[:, :3000], columns[:, 3000:])
    assert kept.share == pytest.approx(1, abs=0.02)
    assert abs(kept.random_share) < 0.4
    assert kept.matching.mean > 0.99
    with pytest.raises(BasisError, match="different models or hook points"):
        stability.gain_kept(torch.eye(11), columns[:, :3000], columns[:, 3000:])


def test_a_circuit_found_again(trained):
    model, data = trained
    (segment,) = gl.mlp_segments(model)

    def refit(model, fit, seed, bases):
        segments = gl.mlp_segments(model)
        acts = gl.collect(model, fit, segments)
        bases = bases if bases is not None else gl.Neurons().fit(segments, acts)
        return gl.build_circuit(model, segments, bases, acts, gl.GramLasso(mean_wires=4), seed=seed)

    first, conditions = stability.standard_conditions(
        model, data, rises=(0.01,), steps=5, retrained=HookedMLP((6, 12, 12, 2), 9)
    )
    found = stability.stability(model, refit, first, toy(200, seed=5), conditions)
    names = [row.change for row in found.rows]
    assert names[0] == "other inputs, bases kept"
    assert names[-2:] == ["retrained", "random weights"]
    kept = found.row("other seed")
    # neurons are neurons, and the solver has no seed: everything comes back
    assert (kept.matched_in, kept.wires) == (pytest.approx(1), 1.0)
    assert kept.random_wires < 0.9
    assert found.row("retrained").by == "activations"
    assert found.row("random weights").control
    assert "random weights [control]" in repr(found)
    assert segment.name in repr(found)
    assert found.to_dict()["rows"][0]["wires"] <= 1


def test_circuits_of_different_models_are_refused(trained):
    model, data = trained
    other = HookedMLP((6, 5, 5, 5, 2))
    circuits, acts = [], []
    for m in (model, other):
        segments = gl.mlp_segments(m)
        acts.append(gl.collect(m, data, segments))
        bases = gl.Neurons().fit(segments, acts[-1])
        circuits.append(gl.build_circuit(m, segments, bases, acts[-1], gl.GramLasso(mean_wires=2), gates=False))
    with pytest.raises(BasisError, match="two circuits of different models"):
        compare_circuits(*circuits, *acts, Condition("other", other, data))
