"""An input dictionary trained on with its gates: derivatives equal autograd's, what gates need comes into the code, bad input is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from _explained import explained

from gatelens.bases.sae.trained import TrainedSAE, as_jumprelu, single_threshold
from gatelens.basis.linear import Rotation
from gatelens.codes.rows import Codes
from gatelens.edits.counterfactual import Counterfactual
from gatelens.errors import BasisError
from gatelens.gate_dictionaries.gate_first import GateDictionary
from gatelens.gate_dictionaries.gate_run import GateTraining
from gatelens.gate_dictionaries.gate_start import GateStart, Units
from gatelens.gate_dictionaries.gate_training import GateRun
from gatelens.gate_dictionaries.input_tuning import InputTuning, _JointRun
from gatelens.gate_dictionaries.rows import Rows
from gatelens.segments import Segment

D, CAUSES, GATES = 12, 24, 12
LAM, OWN = 3.0, 0.7


def world(rows: int = 4_000, seed: int = 0):
    """x: sparse causes in superposition (24 in 12 dimensions), of which a small MLP reads four directions that carry little of x."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(CAUSES, D, generator=generator), dim=1)
    on = torch.rand(rows, CAUSES, generator=generator) < 0.12
    causes = on * (0.8 + 0.4 * torch.rand(rows, CAUSES, generator=generator))
    size = torch.cat([torch.full((4,), 0.4), torch.ones(D - 4)])
    W = torch.randn(64, D, generator=torch.Generator().manual_seed(9)) * (size < 1) / 0.4
    V = torch.randn(64, GATES, generator=torch.Generator().manual_seed(8)) / 8
    segment = Segment("in", "out", lambda x: (x @ W.T.to(x) - 1).clamp_min(0) @ V.to(x), D, GATES)
    x = causes @ directions * size
    return segment, x, segment.forward(x)


@pytest.fixture(scope="module")
def fitted():
    segment, x, y = world()
    sae = TrainedSAE(d_sae=CAUSES, k=3, samples=60_000, batch_size=128, trainer="sparse").train(x, "in")
    outer = TrainedSAE(d_sae=2 * GATES, k=4, samples=60_000, batch_size=128, trainer="sparse").train(y, "out")
    return segment, x, y, sae, outer


def recipe(**rest):
    settings = {"fan_in": 4, "l0": 4, "samples": 40_000, "dense_share": 1.0, "batch_size": 128, "counterfactual": None}
    return GateDictionary(**{**settings, **rest})


@pytest.mark.parametrize("edits", [None, Counterfactual(pairs=20_000), Counterfactual(pairs=20_000, keep_error=False)])
def test_tuned_inputs_explain_more_at_the_same_number_of_active_features(fitted, edits):
    """Held-out rows; beside it, the same steps for the gates alone."""
    segment, x, y, sae, outer = fitted
    x_held, y_held = world(6_000)[1][4_000:], world(6_000)[2][4_000:]
    fixed = recipe(counterfactual=edits).train(segment, sae, outer, x, y)
    more = {"samples": 80_000} if edits is None else {"counterfactual": replace(edits, pairs=40_000)}
    longer = recipe(**{"counterfactual": edits, **more}).train(segment, sae, outer, x, y)
    tuned = recipe(counterfactual=edits, tune_inputs=InputTuning(samples=40_000)).train(segment, sae, outer, x, y)
    rest = [explained(gates, x_held, y_held) for gates in (fixed, longer, tuned)]
    assert rest[2] < 0.9 * min(rest[:2])
    before, after = (float((s.encode(x_held) > 0).sum()) / len(x_held) for s in (sae, tuned.basis_in))
    assert after == pytest.approx(before, rel=0.1)
    lost = [float((s.decode(s.encode(x_held)) - x_held).square().sum()) for s in (sae, tuned.basis_in)]
    assert lost[1] < 1.3 * lost[0], "it stays a dictionary of x"
    assert torch.allclose(tuned.basis_in.W_dec.norm(dim=1), torch.ones(CAUSES), atol=1e-4)
    assert tuned.basis_in.cfg.metadata.hook_name == "in"


def test_fit_gives_the_tuned_dictionary_for_the_input(fitted):
    segment, x, y, sae, outer = fitted
    gates = recipe(samples=2_000, inputs=sae, outputs=outer, tune_inputs=InputTuning(samples=2_000))
    bases = gates.fit([segment], {"in": x, "out": y})
    assert bases["in"] is bases["out"].basis_in
    assert bases["in"] is not sae


def test_the_dictionary_given_is_not_touched(fitted):
    segment, x, y, sae, outer = fitted
    before = {name: value.clone() for name, value in sae.state_dict().items()}
    recipe(samples=2_000, tune_inputs=InputTuning(samples=4_000)).train(segment, sae, outer, x, y)
    for name, value in sae.state_dict().items():
        assert torch.equal(value, before[name]), name


def joint(fitted, edits):
    segment, x, y, sae, _ = fitted
    codes = Codes.encode(sae, x)
    units, generator = Units.of(codes, y), torch.Generator().manual_seed(0)
    parents = torch.stack([torch.randperm(CAUSES, generator=generator)[:4] for _ in range(GATES)])
    start = GateStart(
        parents, torch.rand(GATES, 4, generator=generator), torch.zeros(GATES), torch.eye(GATES), torch.zeros(GATES)
    )
    settings = GateTraining(4.0, LAM, 10, 64, 1e-2, 0, 0, 0)
    rows = Rows(units.codes(codes), units.y(y), None)
    run = GateRun(rows, units.start(start), torch.ones(CAUSES, dtype=torch.bool), settings)
    return _JointRun(InputTuning(own=OWN), run, single_threshold(sae), segment, x, units, edits)


def dense_loss(run, p, index, on, chosen, change, y_edited, segment, y):
    """The whole loss written out densely, from which features and gates are on and what an edit changes."""
    scale, units, g = run.scale, run.units, run.run
    X, target = scale(run.x[index]).double(), units.y(y[index]).double()
    f = torch.where(on, X @ p["encoder"].T + p["bias"], 0.0)
    x_hat = f @ p["dictionary"] + p["offset"]
    f = f * scale.size
    if change is not None:  # what is taken away has no derivative, what is put in is constant
        f = torch.cat([f, torch.where(change < 0, 0.0, f) + change.clamp_min(0)])
        target = torch.cat([target, y_edited.double()])
    weight = torch.zeros(GATES, CAUSES, dtype=torch.float64).scatter_add(1, g.parents, p["weights"])
    pre = f / units.size_in @ weight.T + p["gate bias"]
    left = torch.where(chosen, pre, 0.0) @ p["gate dictionary"] + p["gate offset"] - target
    loss = left.square().mean()
    if change is not None:
        loss = loss + LAM * (left[len(index) :] - left[: len(index)]).square().mean()
    beyond = units.y(segment.forward(scale.back(x_hat))) - target[: len(index)]
    return loss + OWN * ((x_hat - X).square().mean() + beyond.square().mean())


@pytest.mark.parametrize("edits", [None, Counterfactual(drop=(0.3, 0.3), add=(1, 2))])
def test_derivatives_equal_those_of_the_dense_loss(fitted, edits):
    """In float64 by autograd, with the active features and gates and the edits held as they were drawn."""
    segment, _, y, _, _ = fitted
    run, index = joint(fitted, edits), torch.arange(64)
    d, g = run.dictionary, run.run
    given = {"encoder": d.encoder, "bias": d.bias, "dictionary": d.dictionary, "offset": d.offset}
    given |= {"weights": g.weights, "gate bias": g.bias, "gate dictionary": g.dictionary, "gate offset": g.offset}
    params = {name: value.detach().double().requires_grad_() for name, value in given.items()}
    held, see, edit = {}, g.see, run._edit

    def seen(inputs, target, pairs):
        held["gates"] = see(inputs, target, pairs)
        return held["gates"]

    def edited(rows, natural):
        held["edit"] = edit(rows, natural)
        return held["edit"]

    g.see, run._edit = seen, edited
    features = d.see(index)
    on = torch.zeros(64, CAUSES, dtype=torch.bool)
    on[features.rows, features.cols] = True
    for optimiser in run.optimisers:
        for group in optimiser.param_groups:
            group["lr"] = 0.0
    run._step(index)
    change, y_edited = held.get("edit", (None, None))
    change = None if change is None else change.T.double()
    chosen = torch.zeros(64 if change is None else 128, GATES, dtype=torch.bool)
    chosen[held["gates"].rows, held["gates"].cols] = True
    if change is not None:
        assert (change < 0).sum() > 30
        assert (change > 0).sum() > 20
    dense_loss(run, params, index, on, chosen, change, y_edited, segment, y).backward()
    for name, value in given.items():
        torch.testing.assert_close(value.grad.double(), params[name].grad, rtol=2e-3, atol=2e-5, msg=name)


@pytest.mark.parametrize("keep_error", [True, False])
def test_an_edit_is_what_the_model_makes_of_the_tuned_directions(fitted, keep_error):
    """With every feature taken away, x' is what the dictionary misses; without what it misses, the offset alone."""
    edits = Counterfactual(drop=(1.0, 1.0), drop_share=1.0, add_share=0.0, keep_error=keep_error)
    run, index = joint(fitted, edits), torch.arange(32)
    seen = run.dictionary.see(index)
    natural = Codes.from_entries(seen.rows, seen.cols, seen.value.detach() * run.scale.size, 32, CAUSES)
    change, y = run._edit(index, natural)
    torch.testing.assert_close(change, -natural.columns())
    missed = fitted[1][index] - natural.times(run.dictionary.dictionary.detach())
    offset = run.scale.back(run.dictionary.offset.detach()).expand(32, D)
    left = missed if keep_error else offset
    torch.testing.assert_close(y, run.units.y(fitted[0].forward(left)), atol=1e-5, rtol=1e-5)


def test_the_weights_of_a_dictionary_go_there_and_back(fitted):
    _, x, _, sae, _ = fitted
    again = as_jumprelu(single_threshold(sae), "in")
    assert torch.equal(again.encode(x), sae.encode(x))
    shifted = as_jumprelu(single_threshold(sae), "in")
    shifted.cfg.apply_b_dec_to_input = True
    again = as_jumprelu(single_threshold(shifted), "in")
    torch.testing.assert_close(again.encode(x), shifted.encode(x), atol=1e-5, rtol=1e-4)


def test_bad_input_is_refused(fitted):
    _, _, _, sae, _ = fitted
    with pytest.raises(BasisError, match=r"samples must be at least 1"):
        InputTuning(samples=0)
    with pytest.raises(
        BasisError, match=r"expected a dictionary whose features share one threshold.*got Rotation\. Train one"
    ):
        InputTuning().check(Rotation(torch.eye(D)))
    mixed = as_jumprelu(single_threshold(sae), "in")
    mixed.threshold.data[0] += 1
    with pytest.raises(BasisError, match=r"thresholds of their own"):
        InputTuning().check(mixed)
