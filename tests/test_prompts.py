"""A circuit on a prompt, against the model run by hand; and everything that a user can give wrongly."""

from __future__ import annotations

import json
from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest
import torch

import gatelens as gl
from gatelens.basis.features import encode_rows
from gatelens.circuits import Circuit
from gatelens.errors import ConfigError, DataError, GateLensError, HookNameError, ModelError, NonFiniteError
from gatelens.gates import Gate, GateKind
from gatelens.gates.grade import Grade
from gatelens.gates.rule import Literal, Op, Rule
from gatelens.prompts import read_prompt
from gatelens.prompts.firing import row_of

TEXT = "It was late, therefore he left the old house and said"


@pytest.fixture(scope="module")
def model():
    return gl.load_model("gpt2-mini")


@pytest.fixture(scope="module")
def world(model):
    """(circuit, activations, data): the demonstration's layer and dictionaries, on few wires."""
    fit, held = gl.text_batches(model, "gpt2-mini-sample", rows=(60, 20), length=64)
    segments = gl.mlp_segments(model, [3])
    acts = gl.collect(model, fit, segments)
    bases = gl.PretrainedSAE("gpt2-mini").fit(segments, acts)
    solver = gl.VirtualWeights(mean_wires=4)
    circuit = gl.build_circuit(model, segments, bases, acts, solver, gates=False)
    return circuit, acts, held


@pytest.fixture(scope="module")
def reading(model, world):
    circuit, acts, held = world
    reading = read_prompt(circuit, model, TEXT, acts=acts, batches=held)
    strongest = reading.firings(-1)[0]
    parents = strongest.why().features
    rule = Rule((Literal(parents[0]),), steps=((Op.AND, Literal(parents[1])),))
    gate = Gate(strongest.out, GateKind.AND, parents[:2], (1.0, 1.0), 0.0, rule=rule, grade=Grade.HOLDS)
    circuit = Circuit(circuit.segments, circuit.bases, circuit.connectors, {circuit.segments[0].name: [gate]})
    return circuit.on(model, TEXT, acts=acts, batches=held)


@pytest.fixture(scope="module")
def cache(model, reading):
    return model.run_with_cache(reading.prompt.inputs)


# the reading itself


def test_features_are_those_of_a_run_by_hand(model, reading, cache):
    _, values = cache
    layer = reading.layer()
    for hook, found in ((layer.segment.hook_in, layer.f_in), (layer.segment.hook_out, layer.f_out)):
        by_hand = reading.circuit.bases[hook].encode(values[hook][0])
        assert torch.allclose(found, by_hand, atol=1e-5)
    predicted = reading.circuit.connectors[layer.segment.name](layer.f_in)
    assert torch.equal(layer.predicted, predicted)
    ids = [model.tokenizer.bos_token_id, *model.tokenizer(TEXT, add_special_tokens=False)["input_ids"]]
    assert reading.prompt.inputs[0].tolist() == ids
    assert torch.allclose(reading.logits, cache[0][0], atol=1e-5)


def test_every_firing_is_there_and_says_what_the_layer_says(reading):
    layer = reading.layer()
    fired = {(int(p), int(o)) for p, o in (layer.f_out > 0).nonzero() if p > 0}
    said = {(p, out) for out, said in layer.said.items() for p in range(1, len(reading)) if said[p]}
    found = reading.firings()
    assert {(f.position, f.out) for f in found} == fired | said
    effects = [abs(f.effect) for f in found]
    assert effects == sorted(effects, reverse=True)
    first = found[0]
    assert first.came == float(layer.f_out[first.position, first.out])


def test_literals_of_a_gate(reading):
    gate = reading.circuit.gates[reading.layer().segment.name][0]
    firing = reading.at(-1, gate.out)
    assert firing.position == len(reading) - 1
    assert [on for _, on, _ in firing.literals] == [True, True]
    assert firing.said is True
    assert "rule says on" in repr(firing)
    assert "holds" in repr(firing)
    elsewhere = reading.at(1, f"OF_{gate.out}")
    f = reading.layer().f_in[1, list(gate.rule.features)]
    assert elsewhere.said == bool((f > 0).all())


def test_direct_effect_by_hand_with_the_norms_scale_held(model, reading, cache):
    _, values = cache
    scale = values["ln_final.hook_scale"][0]
    for firing in reading.firings(most=5):
        direction = reading.circuit.bases[reading.layer().segment.hook_out].W_dec[firing.out].detach()
        step = firing.came * direction
        logits = (step - step.mean()) / scale[firing.position] @ model.W_U
        target = int(reading.targets[firing.position])
        assert firing.effect == pytest.approx(float(logits[target] - logits.mean()), abs=1e-4)
        up, down = firing.logits(3)
        assert up[0][1] == pytest.approx(float((logits - logits.mean()).max()), abs=1e-4)
        assert down[0][1] == pytest.approx(float((logits - logits.mean()).min()), abs=1e-4)


def test_direct_effect_behind_an_rms_norm_that_was_not_folded(tmp_path):
    from support.small_models import llama_folder

    model = gl.load_model(llama_folder(tmp_path), fold_ln=False)
    segments = gl.mlp_segments(model, [1])
    acts = {h: torch.randn(50, 32) for s in segments for h in (s.hook_in, s.hook_out)}
    circuit = Circuit(segments, gl.PCA().fit(segments, acts), {})
    reading = read_prompt(circuit, model, [3, 4, 5, 6])
    _, values = model.run_with_cache(reading.prompt.inputs)
    firing = reading.firings(2)[0]
    step = firing.came * circuit.bases[segments[0].hook_out].matrix[firing.out]
    logits = step / values["ln_final.hook_scale"][0, 2] * model.ln_final.w @ model.W_U
    expected = float(logits[reading.targets[2]] - logits.mean())
    assert firing.effect == pytest.approx(expected, abs=1e-4)


def test_a_reading_prints_itself_small_and_leaves_whole(reading):
    lines = repr(reading).splitlines()
    assert len(lines) <= 20
    assert max(map(len, lines)) <= 145
    table = reading.to_dataframe()
    assert len(table) == len(reading.firings())
    assert {"position", "token", "out", "came", "predicted", "rule_says_on", "effect", "literals"} <= set(table.columns)
    written = json.loads(json.dumps(reading.to_json(), allow_nan=False))
    assert len(written["firings"]) == len(table)
    assert written["tokens"][1] == "It"


def test_why_at_a_real_position(model, reading):
    """The full subset of a small table is the model's own answer on the row's strongest features."""
    firing = reading.firings(-1)[0]
    found = firing.why(k=6)
    layer = reading.layer()
    basis_in, basis_out = (reading.circuit.bases[h] for h in (layer.segment.hook_in, layer.segment.hook_out))
    x, f = layer.x[-1], layer.f_in[-1]
    off = torch.zeros_like(f)
    off[list(found.features)] = f[list(found.features)]
    rest = basis_in.decode(f[None])[0] - basis_in.decode(torch.zeros_like(f)[None])[0]
    row = x - rest + off @ basis_in.W_dec
    assert not found.held
    assert found.values[-1] == pytest.approx(
        float(basis_out.encode(layer.segment.forward(row[None]))[0, firing.out]), abs=1e-3
    )
    assert found.share >= 0.9
    assert found.q <= found.active
    whole = firing.why(share=1.0)
    assert whole.q == whole.active
    json.dumps(found.to_json(), allow_nan=False)


def test_names_come_from_the_rows_at_hand(world, reading):
    _, acts, _ = world
    hook = reading.layer().segment.hook_in
    f = encode_rows(reading.circuit.bases[hook], acts[hook])
    feature = int((f > 0).sum(0).argmax())
    mass = {}
    for token, value in zip(acts.token.tolist(), f[:, feature].tolist(), strict=True):
        mass[token] = mass.get(token, 0) + value
    best = max(mass, key=mass.get)
    if mass[best] / sum(mass.values()) >= 0.15:
        assert reading.text_of(best).strip() in reading.ordinary.name("IF", hook, feature)
    assert reading.ordinary.typical(hook, feature) == pytest.approx(
        float(f[:, feature][f[:, feature] > 0].mean()), rel=1e-4
    )


# images


@pytest.fixture(scope="module")
def pictures(digits):
    model, fit, held = digits
    segments = gl.mlp_segments(model)
    acts = gl.collect(model, fit, segments)
    circuit = gl.build_circuit(
        model, segments, gl.Neurons().fit(segments, acts), acts, gl.GramLasso(mean_wires=4), gates=False
    )
    return model, circuit, held


def test_an_image_is_a_prompt(pictures):
    model, circuit, held = pictures
    reading = read_prompt(circuit, model, held.inputs[0].reshape(8, 8))
    last = circuit.segments[-1].name
    _, values = model.run_with_cache(held.inputs[:1])
    assert torch.allclose(reading.layer(last).f_out, values[circuit.segments[-1].hook_out], atol=1e-5)
    firing = reading.firings(0, last)[0]
    weight = model.layers[-1].weight[:, firing.out]
    assert firing.effect == pytest.approx(
        firing.came * float(weight[int(reading.targets[0])] - weight.mean()), abs=1e-4
    )
    assert reading.layer(circuit.segments[0].name).path is None
    assert "image 0" in repr(firing.why())
    assert len(repr(reading).splitlines()) <= 20


def test_inputs_and_outputs_have_names_of_their_own(pictures):
    """The same hook point ends one map and begins the next."""
    model, circuit, held = pictures
    reading = read_prompt(circuit, model, held.inputs[0])
    first = circuit.segments[0].name
    assert reading.firings(0, first)[0].name.startswith("OF_")
    assert all(name.startswith("IF_") for name in reading.firings(0, circuit.segments[1].name)[0].why().names)


def test_several_images_are_positions(pictures):
    model, circuit, held = pictures
    several = read_prompt(circuit, model, held.inputs[:3])
    alone = read_prompt(circuit, model, held.inputs[2])
    name = circuit.segments[0].name
    assert torch.allclose(several.layer(name).f_out[2], alone.layer(name).f_out[0], atol=1e-6)
    assert several.target(None, 2) == alone.target(None, 0)


def test_neurons_as_features_leave_nothing_out(pictures):
    """With every neuron a feature, the whole code is the row itself, error or none."""
    model, circuit, held = pictures
    reading = read_prompt(circuit, model, held.inputs[1])
    layer = reading.layer(circuit.segments[0].name)
    row = row_of(reading, layer, 0, keep_error=False)
    assert torch.allclose(row.strongest(len(row)), layer.x[0], atol=1e-5)
    assert float(row.reached[-1]) == pytest.approx(1)


# bad input, before any run


@contextmanager
def silent(model):
    """The model must not be run."""
    with (
        mock.patch.object(model, "run_with_hooks", side_effect=AssertionError("the model was run")),
        mock.patch.object(model, "run_with_cache", side_effect=AssertionError("the model was run")),
    ):
        yield model


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("", "empty"),
        ([], "empty"),
        ([1, 2, 9_999], "does not know token 9999"),
        ([-1], "does not know token -1"),
        (list(range(300)), "reads at most 256"),
        (torch.rand(8, 8), "reads tokens"),
        ([0.5, 0.25], "reads tokens"),
        (torch.zeros(2, 3, dtype=torch.long), "one row of token ids"),
        (np.zeros((2, 2, 2), dtype=int), "one row of token ids"),
        ([4095], "nothing else"),
        ({"text": "a"}, "expected a text or token ids"),
        (None, "expected a text or token ids"),
    ],
)
def test_bad_prompts(model, world, prompt, says):
    with pytest.raises(DataError, match=says), silent(model):
        read_prompt(world[0], model, prompt)


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("a prompt on images", "reads images of 64 numbers; got the text"),
        (torch.zeros(64, dtype=torch.uint8), "got uint8"),
        (torch.zeros(0, 64), "empty"),
        (torch.zeros(63), "Give \\[64\\]"),
        (torch.full((64,), float("nan")), "NaN"),
    ],
)
def test_bad_images(pictures, prompt, says):
    model, circuit, _ = pictures
    with pytest.raises((DataError, NonFiniteError), match=says), silent(model):
        read_prompt(circuit, model, prompt)


def test_good_forms_of_a_prompt(model, world, reading):
    ids = reading.prompt.inputs
    for same in (ids, ids[0], ids[0].tolist(), ids.numpy(), np.asarray(ids[0].tolist()), TEXT):
        assert torch.equal(read_prompt(world[0], model, same).prompt.inputs, ids)


def test_another_model_is_refused_before_any_run(model, world, digits):
    circuit, _, _ = world
    other = gl.load_model("gpt2-mini")
    with torch.no_grad():
        other.blocks[3].mlp.W_in.mul_(1.01)
    with pytest.raises(ModelError, match="made from another model: its MLP .* has other weights"), silent(other):
        read_prompt(circuit, other, TEXT)
    with pytest.raises(HookNameError), silent(digits[0]) as images:
        read_prompt(circuit, images, torch.zeros(64))
    net, _, _ = digits
    wider = gl.HookedMLP((64, 20, 20, 20, 10))
    segments = gl.mlp_segments(net)
    bases = gl.Neurons().fit(segments, {h: torch.zeros(2, 24) for s in segments for h in (s.hook_in, s.hook_out)})
    with pytest.raises(ModelError, match="other widths"), silent(wider):
        read_prompt(Circuit(segments, bases, {}), wider, torch.zeros(64))


def test_a_circuit_without_its_model_takes_this_ones(model, world, reading, tmp_path):
    world[0].save(tmp_path / "circuit")
    found = read_prompt(Circuit.load(tmp_path / "circuit"), model, TEXT)
    assert torch.allclose(found.layer().f_out, reading.layer().f_out, atol=1e-5)
    assert found.firings(-1)[0].why().q > 0
    other = gl.load_model("gpt2-mini")
    with torch.no_grad():
        other.blocks[1].mlp.W_in.mul_(1.01)
    with pytest.raises(ModelError), silent(other):
        read_prompt(Circuit.load(tmp_path / "circuit"), other, TEXT)


def test_places_and_features_that_are_not_there(reading):
    for position in (13, -14):
        with pytest.raises(DataError, match="this prompt has 13"):
            reading.at(position, 0)
    with pytest.raises(ConfigError, match="`position` must be a whole number; got bool True"):
        reading.at(True, 0)
    with pytest.raises(DataError, match="nearest are OF_1023"):
        reading.at(0, "OF_10233")
    with pytest.raises(DataError, match="nearest are"):
        reading.at(0, 1024)
    with pytest.raises(DataError, match="no feature 'IF_3'"):
        reading.at(0, "IF_3")
    with pytest.raises(GateLensError, match="unknown segment"):
        reading.layer("blocks.2")
    with pytest.raises(ConfigError, match='"on" or "off"'):
        reading.switch(0, "open")
