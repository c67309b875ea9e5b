"""Circuits, splicing and evaluation: worked by hand where they can be, on a small trained network else."""

from __future__ import annotations

import pytest
import torch

import gatelens as gl
from gatelens.circuits import Circuit, connect, features_at
from gatelens.codes.csr import blocks, stack_csr, take_rows, to_csr
from gatelens.connectors import Connector
from gatelens.errors import BasisError, ConfigError, DataError, NonFiniteError, SegmentError
from gatelens.evaluation.baselines import baseline_circuits, random_weights
from gatelens.evaluation.figures import firings, fvu, gap_closed, per_output_r2
from gatelens.evaluation.passes import metric
from gatelens.evaluation.readings import read_share
from gatelens.saving import load_basis, save_basis


@pytest.fixture(scope="module")
def walked(digits):
    """(model, held out batches, segments, activations, held-out activations) of the digits net."""
    model, fit, held_out = digits
    segments = gl.mlp_segments(model)
    return model, held_out, segments, gl.collect(model, fit, segments), gl.collect(model, held_out, segments)


def exact_neuron_circuit(model, segments, acts) -> Circuit:
    """The network itself as a circuit: neurons as features, its own weights as wires."""
    connectors = {s.name: gl.Connector.from_dense(s.mlp.W_in.T.contiguous(), s.mlp.b_in) for s in segments}
    return Circuit(segments, gl.Neurons().fit(segments, acts), connectors)


def test_the_exact_circuit_computes_what_the_model_does(walked):
    model, held_out, segments, acts, _ = walked
    circuit = exact_neuron_circuit(model, segments, acts)
    x = held_out.inputs
    replaced = model.run_with_hooks(x, fwd_hooks=gl.splice(circuit))
    torch.testing.assert_close(replaced, model(x), atol=1e-4, rtol=1e-4)
    report = gl.evaluate(model, circuit, held_out)
    assert report.all_replaced["accuracy"] == report.model["clean"]
    assert all(c["median_r2"] > 0.9999 for c in report.connectors.values())


def test_hooks_come_off_and_nothing_changes(walked):
    model, held_out, segments, acts, _ = walked
    before = model(held_out.inputs)
    circuit = exact_neuron_circuit(model, segments, acts)
    model.run_with_hooks(held_out.inputs, fwd_hooks=gl.splice(circuit))
    gl.evaluate(model, circuit, held_out)
    assert torch.equal(model(held_out.inputs), before)
    assert not any(hook.fwd_hooks for hook in model.hook_dict.values())


def test_mean_ablation_and_keep(walked):
    model, held_out, segments, acts, _ = walked
    circuit = exact_neuron_circuit(model, segments, acts)
    means = {h: torch.full_like(acts[h][0], 7.0) for h in acts}
    seen = {}
    keep = torch.zeros(len(held_out.inputs), dtype=torch.bool)
    keep[:3] = True
    hooks = gl.splice(circuit, segments[-1:], how="mean", means=means, keep=keep)
    hooks.append((segments[-1].hook_out, lambda x, hook: seen.setdefault("x", x)))
    model.run_with_hooks(held_out.inputs, fwd_hooks=hooks)
    assert (seen["x"][:3] == 7.0).all()
    assert not (seen["x"][3:] == 7.0).all(1).any()


def test_figures_of_wide_codes_are_those_of_dense_ones():
    """Codes of many features are held as sparse rows: on which rows they are on, R2 and truth tables are the same."""
    draw = torch.Generator().manual_seed(0)
    f, out = (torch.rand(400, 6, generator=draw) * (torch.rand(400, 6, generator=draw) < 0.3) for _ in range(2))
    out = (out + f).relu()
    connector = Connector.from_dense(torch.eye(6), torch.zeros(6))
    sparse, out_sparse = f.to_sparse_csr(), out.to_sparse_csr()
    assert torch.equal(firings(out_sparse), (out != 0).sum(0))
    assert torch.equal(per_output_r2(sparse, out_sparse), per_output_r2(f, out))
    assert read_share(connector, sparse, out_sparse, sparse, out_sparse, 5) == read_share(connector, f, out, f, out, 5)


def test_figures_by_hand():
    assert gap_closed(clean=1.0, ablated=3.0, replaced=1.5) == 0.75  # a loss: lower is better
    assert gap_closed(clean=0.9, ablated=0.1, replaced=0.7) == pytest.approx(0.75)  # an accuracy
    assert gap_closed(1.0, 1.0, 1.0) is None
    x = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    assert fvu(x, torch.tensor([[0.0, 0.0], [1.0, 0.0]])) == 0.5
    assert fvu(torch.ones(3, 2), torch.zeros(3, 2)) is None
    r2 = per_output_r2(torch.tensor([[0.0, 1.0], [1.0, 1.0]]), torch.tensor([[0.0, 5.0], [2.0, 5.0]]))
    assert r2[0] == 0.5
    assert torch.isnan(r2[1])


def test_metric_is_accuracy(walked):
    model, held_out, *_ = walked
    right = (model(held_out.inputs).argmax(1) == held_out.targets).double().mean()
    assert metric(model, held_out) == pytest.approx(float(right))


def test_save_and_load(walked, tmp_path):
    model, held_out, segments, acts, unseen = walked
    bases = gl.TrainedSAE(expansion=1, k=4, samples=3000, batch_size=64).fit(segments, acts)
    circuit = gl.build_circuit(model, segments, bases, acts, gl.GramLasso(mean_wires=2), held_out=unseen)
    circuit.save(tmp_path / "c")
    loaded = Circuit.load(tmp_path / "c")
    x = held_out.inputs
    assert torch.equal(
        model.run_with_hooks(x, fwd_hooks=gl.splice(loaded)), model.run_with_hooks(x, fwd_hooks=gl.splice(circuit))
    )
    assert repr(loaded.gates) == repr(circuit.gates)
    with pytest.raises(SegmentError, match="without its model"):
        loaded.segments[0].forward(acts[segments[0].hook_in])
    with pytest.raises(SegmentError, match="holds a circuit of"):
        Circuit.load(tmp_path / "c", segments[:1])
    with pytest.raises(DataError, match="no gate was read for output feature 999"):
        loaded.gate(999, segments[0].name)
    with pytest.raises(ConfigError, match="name one of"):
        loaded.gate(0)


@pytest.mark.parametrize("architecture", ["batchtopk", "sparse", "matryoshka", "topk", "relu", "tied"])
def test_every_architecture_keeps_the_contract(architecture, walked, tmp_path):
    """Non-negative features, unit decoder rows, the same bytes for the same seed, back from disk unchanged."""
    acts = walked[3]
    how = {"trainer": "sparse"} if architecture == "sparse" else {"architecture": architecture}
    recipe = gl.TrainedSAE(**how, expansion=2, k=4, samples=4000, batch_size=64)
    x = acts["hook_post.0"]
    sae, again = recipe.train(x, "hook_post.0"), recipe.train(x, "hook_post.0")
    f = sae.encode(x)
    assert f.shape == (len(x), 48)
    assert (f >= 0).all()
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(48), atol=1e-4, rtol=0)
    assert torch.equal(f, again.encode(x))
    assert (x - sae.decode(f)).square().sum() < (x - x.mean(0)).square().sum()
    if architecture == "topk":
        assert int((f > 0).sum(1).max()) <= 4
    if architecture == "tied":
        torch.testing.assert_close(sae.W_dec, sae.W_enc.T)
    save_basis(sae, tmp_path / "sae")
    assert torch.equal(load_basis(tmp_path / "sae").encode(x), f)


def test_dead_features_come_back_within_a_short_training(monkeypatch):
    """With sae-lens' own window of 1,000 steps this training of 585 would end with the features dead that it began with."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(40, 24, generator=generator), dim=1)
    often = torch.tensor([0.08] * 20 + [0.01] * 20)
    values = 1 + 0.2 * torch.rand(20_000, 40, generator=generator)
    x = (torch.rand(20_000, 40, generator=generator) < often) * values @ directions
    recipe = gl.TrainedSAE(d_sae=56, k=1.8, samples=150_000, batch_size=256, trainer="sae-lens")

    def dead() -> int:
        return int((recipe.train(x).encode(x) > 0).any(0).logical_not().sum())

    revived = dead()
    monkeypatch.setattr("gatelens.bases.sae.trained.DEAD_SHARE", 0.5)
    assert revived < dead() - 5


def test_linear_bases_decode_what_they_encode(walked):
    segments, acts = walked[2], walked[3]
    for recipe in (gl.Neurons(), gl.PCA()):
        for hook, basis in recipe.fit(segments, acts).items():
            torch.testing.assert_close(basis.decode(basis.encode(acts[hook])), acts[hook], atol=1e-4, rtol=1e-4)
    pca = gl.PCA(components=3).fit(segments, acts)["hook_post.0"].encode(acts["hook_post.0"])
    off_diagonal = torch.cov(pca.T) - torch.diag(pca.var(0))
    assert off_diagonal.abs().max() < 1e-3 * pca.var(0).max()


def test_a_chain_hands_its_features_on(walked):
    """Replacing both maps is one connector after the other, on features: not decoded and read again in between."""
    model, held_out, segments, acts, _ = walked
    bases = gl.TrainedSAE(expansion=2, k=4, samples=3000, batch_size=64).fit(segments, acts)
    circuit = Circuit(
        segments, bases, connect(segments, bases, features_at(segments, bases, acts), gl.GramLasso(mean_wires=3))
    )
    h = model.run_with_cache(held_out.inputs, names_filter=["hook_post.0"])[1]["hook_post.0"]
    first, second = (circuit.connectors[s.name] for s in segments)
    by_hand = model.layers[-1](bases["hook_post.2"].decode(second(first(bases["hook_post.0"].encode(h)))))
    torch.testing.assert_close(model.run_with_hooks(held_out.inputs, fwd_hooks=gl.splice(circuit)), by_hand)


def test_baselines_are_what_they_say(walked):
    model, held_out, segments, acts, _ = walked
    bases = gl.TrainedSAE(expansion=2, k=4, samples=6000, batch_size=64).fit(segments, acts)
    solver = gl.GramLasso(mean_wires=3)
    circuit = gl.build_circuit(model, segments, bases, acts, solver, gates=False)
    beside = baseline_circuits(model, circuit, acts, solver, gates=False)
    wires = sum(c.wires for c in circuit.connectors.values())
    assert sum(c.wires for c in beside["virtual_weights"].connectors.values()) == wires
    assert sum(c.wires for c in beside["neurons"].connectors.values()) <= wires
    report = gl.evaluate(model, circuit, held_out, baselines=beside)
    assert report.baselines["shuffled"]["replaced"] < report.all_replaced["accuracy"]
    assert report.baselines["random_weights"] is None
    mixed = random_weights(model)
    assert metric(mixed, held_out) < 0.5 < metric(model, held_out)
    for name, weight in mixed.state_dict().items():
        assert torch.equal(weight.flatten().sort().values, model.state_dict()[name].flatten().sort().values)


def test_bad_input(walked):
    model, held_out, segments, acts, _ = walked
    with pytest.raises(BasisError, match="takes vectors of width 7, the hook point has width 24"):
        gl.build_circuit(model, segments, {h: gl.Rotation(torch.eye(7)) for h in acts}, acts, gl.GramLasso())
    with pytest.raises(ConfigError, match=r"no basis for hook_post\.0"):
        gl.build_circuit(model, segments, {}, acts, gl.GramLasso())
    with pytest.raises(BasisError, match="choose k <= 24"):
        gl.TrainedSAE(expansion=1, k=25).train(acts["hook_post.0"])
    with pytest.raises(BasisError, match="trainer 'sparse' does not train 'relu': expected sae-lens"):
        gl.TrainedSAE("relu", trainer="sparse")
    with pytest.raises(NonFiniteError, match="must be finite"):
        gl.Connector.from_dense(torch.full((2, 2), torch.nan), torch.zeros(2))
    with pytest.raises(ConfigError, match="needs `means`"):
        gl.splice(exact_neuron_circuit(model, segments, acts), how="mean")
    nan = held_out.inputs.clone()
    nan[3, 0] = torch.nan
    from dataclasses import replace

    with pytest.raises(NonFiniteError, match=r"hook_post\.0.*batch 0, row 3"):
        gl.collect(model, replace(held_out, inputs=nan), segments)
    wrong = replace(segments[0], forward=lambda x: torch.relu(x))
    with pytest.raises(SegmentError, match="relative error"):
        wrong.check(acts[segments[0].hook_in], acts[segments[0].hook_out])


def test_connector_repr_and_equation():
    connector = gl.Connector.from_dense(torch.tensor([[0.0, 2.0], [0.0, 0.0]]), torch.tensor([-1.0, 0.0]))
    assert connector(torch.tensor([[9.0, 1.0]])).tolist() == [[1.0, 0.0]]
    assert connector.fan_in().tolist() == [1, 0]
    assert "1 wires" in repr(connector)
    gate = gl.Gate(30, gl.GateKind.OR, (2797, 946), (0.26, -0.1), -0.05)
    assert gate.equation() == "OF_30 = ReLU(0.26·IF_2797 - 0.1·IF_946 - 0.05)"


def test_sparse_rows_by_hand():
    dense = torch.tensor([[0.0, 1.0], [0.0, 0.0], [2.0, 3.0]])
    rows = to_csr(dense)
    assert torch.equal(take_rows(rows, torch.tensor([2, 0])).to_dense(), dense[[2, 0]])
    assert torch.equal(stack_csr([rows, rows]).to_dense(), torch.cat([dense, dense]))
    assert [b.tolist() for b in blocks(rows, 2)] == [dense[:2].tolist(), dense[2:].tolist()]


def test_find_circuit_is_the_whole_walk(digits):
    model, fit, held_out = digits
    bases = gl.TrainedSAE(expansion=1, k=5, samples=8000, batch_size=64)
    found = gl.find_circuit(model, (fit, held_out), bases=bases, tried_at_most=4)
    assert set(found.circuit.gates) == {s.name for s in found.circuit.segments}
    assert "obey a rule" in repr(found)
    assert 0.0 <= found.report.all_replaced["accuracy"] <= 1.0
