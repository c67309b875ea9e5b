"""Switching, steering and contrast, against the model edited by hand."""

from __future__ import annotations

import json

import pytest
import torch

import gatelens as gl
from gatelens.basis.pair import PairBasis
from gatelens.circuits import Circuit
from gatelens.errors import ConfigError, DataError
from gatelens.prompts import read_prompt
from gatelens.prompts.foreseeing import CONTROLS, unrelated

TEXT = "It was late, therefore he left"


@pytest.fixture(scope="module")
def model():
    return gl.load_model("gpt2-mini")


@pytest.fixture(scope="module")
def world(model):
    """(circuit of layers 1 and 3 in principal components, activations, held-out text)."""
    fit, held = gl.text_batches(model, "gpt2-mini-sample", rows=(20, 10), length=64)
    segments = gl.mlp_segments(model, [1, 3])
    acts = gl.collect(model, fit, segments)
    return Circuit(segments, gl.PCA(components=48).fit(segments, acts), {}), acts, held


@pytest.fixture(scope="module")
def reading(model, world):
    circuit, acts, held = world
    return read_prompt(circuit, model, TEXT, acts=acts, batches=held)


FIRST = "blocks.1.ln2.hook_normalized -> blocks.1.hook_mlp_out"
LAST = "blocks.3.ln2.hook_normalized -> blocks.3.hook_mlp_out"


def by_hand(model, inputs, hook, position, step, more=()):
    def add(value, hook=None):
        value = value.clone()
        value[:, position] += step
        return value

    with torch.no_grad():
        return model.run_with_hooks(inputs, fwd_hooks=[(hook, add), *more])[0]


def test_an_output_switched_off_is_the_model_with_its_step_taken_away(model, reading):
    layer = reading.layer(LAST)
    out = reading.firings(-1, LAST)[0].out
    found = reading.switch(out, segment=LAST)
    step = -layer.f_out[-1, out] * reading.circuit.bases[layer.segment.hook_out].matrix[out]
    logits = by_hand(model, reading.prompt.inputs, layer.segment.hook_out, -1, step)
    assert torch.allclose(found.after, logits, atol=1e-4)
    target = int(reading.targets[-1])
    change = (logits[-1, target] - logits[-1].mean()) - (reading.logits[-1, target] - reading.logits[-1].mean())
    assert found.change == pytest.approx(float(change), abs=1e-4)
    said = found.foreseen[0]
    assert said.who == "gates"
    assert said.carried == pytest.approx(found.change, abs=1e-4)
    # behind the last block there is only the final norm: the direct way is the whole way
    assert said.direct == pytest.approx(found.change, abs=1e-4)
    assert said.r2 is None
    p, q = (x[-1].double().softmax(-1) for x in (reading.logits, logits))
    assert found.kl() == pytest.approx(float((p * (p / q).log()).sum()), abs=1e-5)
    assert len(found.controls) == CONTROLS
    assert "unrelated changes of equal norm" in repr(found)
    json.dumps(found.to_json(), allow_nan=False)


def test_with_the_norms_scale_held_the_way_is_linear(reading):
    layer = reading.layer(FIRST)
    step, target = torch.randn(layer.y.shape[1]), 17
    held = float(layer.path.logits(4, step[None])[0, target])
    small = layer.path.change(4, 1e-4 * step, target) / 1e-4
    # to first order the two differ by what the step does to the scale alone
    stream = layer.path.stream[4].double()
    centred = stream - stream.mean()
    scale = float(layer.path.scale[4])
    along = float(centred @ (step.double() - step.double().mean())) / len(step) / scale**2
    logit = float((reading.logits[4, target] - reading.logits[4].mean()).double())
    assert small == pytest.approx(held - along * logit, abs=0.02)


def test_controls_have_the_switchs_norm_and_other_directions(reading):
    layer = reading.layer(LAST)
    vectors = torch.randn(2, layer.y.shape[1])
    drawn = unrelated(reading, layer.segment.hook_out, layer.f_out, torch.tensor([2, 4]), vectors)
    assert drawn.shape == (CONTROLS, 2, layer.y.shape[1])
    assert torch.allclose(drawn.norm(dim=-1), vectors.norm(dim=1).expand(CONTROLS, 2), atol=1e-4)


@pytest.mark.parametrize("segment", [FIRST, LAST])
def test_an_input_feature_set_by_hand(model, reading, segment):
    layer = reading.layer(segment)
    feature = int(layer.f_in[3].abs().argmax())
    found = reading.set({feature: 0.5}, at=3, segment=segment)
    before = float(layer.f_in[3, feature])
    step = (0.5 - before) * reading.circuit.bases[layer.segment.hook_in].matrix[feature]
    logits = by_hand(model, reading.prompt.inputs, layer.segment.hook_in, 3, step)
    assert torch.allclose(found.after, logits, atol=1e-4)
    assert torch.allclose(found.after[:3], reading.logits[:3], atol=1e-4)
    assert (found.steps[0].before, found.steps[0].after) == (pytest.approx(before), 0.5)
    assert [f.who for f in found.foreseen] == ["local reading"]
    # few features stay: what they foresee of the MLP's change is most of it
    assert found.foreseen[0].r2 > 0.5
    moved = {(m.segment, m.position) for m in found.moved}
    assert (segment, 3) in moved
    assert all(position >= 3 for _, position in moved)


def test_typical_is_the_mean_where_on(world, reading):
    layer = reading.layer(LAST)
    values = reading.circuit.bases[layer.segment.hook_out].encode(world[1][layer.segment.hook_out])[:, 5]
    found = reading.switch(5, "on", segment=LAST)
    assert found.steps[0].after == pytest.approx(float(values[values > 0].mean()), rel=1e-4)
    assert reading.set({"OF_5": "off"}, segment=LAST).steps[0].after == 0


def test_attention_is_held_or_not(model, reading):
    """Frozen: the patterns of later blocks are those of the untouched prompt; the values they carry are new."""
    layer = reading.layer(FIRST)
    out = reading.firings(2, FIRST)[0].out
    step = -3 * layer.f_out[2, out] * reading.circuit.bases[layer.segment.hook_out].matrix[out]
    changes = {f"OF_{out}": -2 * float(layer.f_out[2, out])}
    free, held = (reading.set(changes, at=2, segment=FIRST, frozen=frozen) for frozen in (False, True))
    _, cache = model.run_with_cache(reading.prompt.inputs)
    patterns = [
        (f"blocks.{n}.attn.hook_pattern", lambda value, hook=None, n=n: cache[f"blocks.{n}.attn.hook_pattern"])
        for n in (2, 3)
    ]
    hook = layer.segment.hook_out
    assert torch.allclose(free.after, by_hand(model, reading.prompt.inputs, hook, 2, step), atol=1e-4)
    assert torch.allclose(held.after, by_hand(model, reading.prompt.inputs, hook, 2, step, patterns), atol=1e-4)
    assert not torch.allclose(free.after, held.after, atol=1e-3)


def test_images_have_no_attention_to_hold(digits):
    model, fit, held = digits
    segments = gl.mlp_segments(model)
    acts = gl.collect(model, fit, segments)
    circuit = gl.build_circuit(
        model, segments, gl.Neurons().fit(segments, acts), acts, gl.GramLasso(mean_wires=6), gates=False
    )
    reading = read_prompt(circuit, model, held.inputs[:2], acts=acts)
    name = segments[-1].name
    feature = int(reading.layer(name).f_in[1].argmax())
    found = reading.set({feature: "off"}, at=1, segment=name)
    changed = model.run_with_hooks(
        held.inputs[1:2],
        fwd_hooks=[(segments[-1].hook_in, lambda v, hook=None: v.clone().index_fill_(1, torch.tensor([feature]), 0))],
    )
    assert torch.allclose(found.after[1], changed[0], atol=1e-5)
    assert torch.allclose(found.after[0], reading.logits[0], atol=1e-6)
    assert {f.who for f in found.foreseen} == {"gates", "local reading"}
    with pytest.raises(ConfigError, match="frozen=True"):
        reading.set({feature: "off"}, segment=name, frozen=True)
    with pytest.raises(ConfigError, match="writes text"):
        reading.steer(0, segment=name)


def test_whole_outputs_of_the_last_hidden_layer_carry_everything(digits):
    model, fit, held = digits
    segments = gl.mlp_segments(model, [1])
    circuit = Circuit(segments, gl.Neurons().fit(segments, gl.collect(model, fit, segments)), {})
    found = read_prompt(circuit, model, held.inputs[0]).contrast(held.inputs[1], tokens=(3, 7))
    assert found.outputs_remaining == pytest.approx(0, abs=1e-4)
    assert found.gates_remaining == pytest.approx(0, abs=1e-4)
    # the logits are linear in these outputs: what each carries alone adds up
    assert found.carriers[-1].remaining == pytest.approx(
        found.difference - sum(c.alone for c in found.carriers), abs=1e-3
    )


def test_contrast_by_hand(model, world, reading):
    circuit, acts, _ = world
    one = read_prompt(Circuit(circuit.segments[1:], circuit.bases, {}), model, "The old man said that", acts=acts)
    found = one.contrast("The former man said that", tokens=(" he", " the"))
    two = read_prompt(one.circuit, model, "The former man said that")
    up, down = (model.tokenizer.encode(t, add_special_tokens=False)[0] for t in (" he", " the"))
    assert found.first == pytest.approx(float(one.logits[-1, up] - one.logits[-1, down]), abs=1e-4)
    assert found.second == pytest.approx(float(two.logits[-1, up] - two.logits[-1, down]), abs=1e-4)
    hook = circuit.segments[1].hook_out
    carrier, layers = found.carriers[0], (one.layer(), two.layer())
    same = min(len(one), len(two))
    change = layers[0].f_out[-same:, carrier.out] - layers[1].f_out[-same:, carrier.out]
    step = change[:, None] * circuit.bases[hook].matrix[carrier.out]
    logits = by_hand(model, two.prompt.inputs, hook, slice(len(two) - same, None), step)
    assert carrier.alone == pytest.approx(float(logits[-1, up] - logits[-1, down]) - found.second, abs=1e-4)
    assert carrier.remaining == pytest.approx(found.difference - carrier.alone, abs=1e-4)
    json.dumps(found.to_json(), allow_nan=False)
    assert len(repr(found).splitlines()) <= 13
    with pytest.raises(DataError, match="both prompts are the same"):
        one.contrast("The old man said that")
    with pytest.raises(DataError, match="needs two tokens"):
        one.contrast("The old man said", tokens=(up, up))
    with pytest.raises(DataError, match="expected one"):
        one.contrast("The old man said", tokens=(" he said", up))


def test_steering_holds_the_feature_while_the_model_writes(model, reading):
    from gatelens.prompts.steering import Holding

    layer = reading.layer(LAST)
    hook, basis = layer.segment.hook_out, reading.circuit.bases[layer.segment.hook_out]
    hold = Holding(reading, layer, 0, 7.5, seed=0)
    seen = {}

    def keep(value, hook=None):
        seen["value"] = value[0]

    with torch.no_grad():
        model.run_with_hooks(reading.prompt.inputs, fwd_hooks=[*hold.from_position(3), (hook, keep)])
    now = basis.encode(seen["value"])
    assert torch.allclose(now[3:, 0], torch.full((len(now) - 3,), 7.5), atol=1e-3)
    assert torch.allclose(now[:3], layer.f_out[:3], atol=1e-4)
    assert torch.allclose(now[3:, 1:], layer.f_out[3:, 1:], atol=1e-3)

    found = reading.steer(0, strength=4.0, tokens=6, segment=LAST)
    assert found.level == pytest.approx(4 * reading.typical(layer, "OF", 0))
    with torch.no_grad():
        plain = model.generate(reading.prompt.inputs, max_new_tokens=6, do_sample=False, verbose=False)
    assert found.plain == model.tokenizer.decode(plain[0, len(reading) :])
    assert set(found.losses) == {"clean", "held", "control"}
    assert found.losses["clean"] == pytest.approx(gl_metric(model, reading.batches), abs=1e-4)
    assert found.losses["held"] > found.losses["clean"]
    json.dumps(found.to_json(), allow_nan=False)


def gl_metric(model, batches):
    logits = model(batches.inputs)
    known = batches.targets >= 0
    return float(torch.nn.functional.cross_entropy(logits[known], batches.targets[known]))


def test_runs_that_start_at_a_block_are_the_whole_runs(model, reading):
    """The same switch with every run a whole one."""
    from unittest import mock

    from gatelens.prompts.running import Runner

    out = reading.firings(4, LAST)[0].out
    short = reading.switch(out, at=4, segment=LAST)
    assert reading.runner._starts[3]
    with mock.patch.object(Runner, "_begin", return_value=-1):
        whole = reading.switch(out, at=4, segment=LAST)
    assert torch.allclose(short.after, whole.after, atol=1e-4)
    assert short.controls == pytest.approx(whole.controls, abs=1e-4)
    assert {(m.segment, m.position, m.out) for m in short.moved} == {
        (m.segment, m.position, m.out) for m in whole.moved
    }


def test_a_dictionary_of_a_pair_of_hook_points(model, world, reading):
    """Its features come from the input; what the model does with one is read off the output."""
    segment = world[0].segments[1]

    class Pair(PairBasis):
        def features_from(self, x):
            return torch.relu(x @ torch.eye(256)[:, :12])

        def save_into(self, out):
            raise NotImplementedError

    pair = Pair(segment.hook_in, segment.hook_out, 256, torch.randn(12, 256), torch.zeros(256))
    circuit = Circuit([segment], {segment.hook_in: world[0].bases[segment.hook_in], segment.hook_out: pair}, {})
    found = circuit.on(model, TEXT, acts=world[1])
    layer = found.layer()
    assert torch.allclose(layer.f_out, torch.relu(layer.x[:, :12]), atol=1e-5)
    firing = found.firings(-1)[0]
    why = firing.why(k=3, share=1.0)
    if why.held:  # all features on: the row itself
        y = layer.segment.forward(layer.x[-1:])
        assert why.values[-1] == pytest.approx(float(pair.shown(layer.x[-1:], y)[0, firing.out]), abs=1e-3)
    step = -layer.f_out[-1, firing.out] * pair.W_dec[firing.out]
    logits = by_hand(model, found.prompt.inputs, segment.hook_out, -1, step)
    assert torch.allclose(found.switch(firing.out).after, logits, atol=1e-4)
    held = found.steer(firing.out, strength=0.0, tokens=1)
    assert held.held == model.tokenizer.decode([int(logits[-1].argmax())])


def test_a_bridge_is_read_and_switched_as_the_model_is(reading):
    bridge = gl.load_model("gpt2-mini", bridge=True)
    segments = gl.mlp_segments(bridge, [1])
    acts = {h: torch.randn(60, 256) for s in segments for h in (s.hook_in, s.hook_out)}
    found = Circuit(segments, gl.PCA(components=8).fit(segments, acts), {}).on(bridge, TEXT)
    assert torch.allclose(found.logits, reading.logits, atol=1e-3)
    assert torch.allclose(found.layer().y, reading.layer(FIRST).y, atol=1e-3)
    switched = found.switch(found.firings(-1)[0].out, frozen=True)
    assert switched.foreseen[0].carried == pytest.approx(switched.change, abs=1e-4)


def test_companions_go_and_come_with_a_feature(digits):
    model, fit, held = digits
    segments = gl.mlp_segments(model, [1])
    acts = gl.collect(model, fit, segments)
    bases = gl.TrainedSAE(expansion=4, k=8, trainer="sparse", samples=60_000).fit(segments, acts)
    reading = Circuit(segments, bases, {}).on(model, held.inputs[:3], acts=acts)
    hook = segments[0].hook_in
    f = bases[hook].encode(acts[hook])
    layer = reading.layer()
    for feature in layer.f_in[0].nonzero()[:, 0].tolist():
        rows = f[:, feature] > 0
        together = [
            j
            for j in range(f.shape[1])
            if j != feature and (f[rows, j] > 0).float().mean() > 0.5 and (f[:, j] > 0).float().mean() < 0.1
        ]
        found = reading.set({feature: "off"}, at=0, companions=True)
        assert {s.feature for s in found.steps} == {feature, *(j for j in together if layer.f_in[0, j] > 0)}
        assert all(s.after == 0 for s in found.steps)
    with pytest.raises(DataError, match="not known"):
        Circuit(segments, bases, {}).on(model, held.inputs[0]).set({feature: "off"}, companions=True)


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda r: r.set({0: "loud"}, segment=LAST), '"off" or "typical"'),
        (lambda r: r.set({0: float("nan")}, segment=LAST), "finite number"),
        (lambda r: r.set({"IF_48": "off"}, segment=LAST), "nearest are IF_"),
        (lambda r: r.set({"XF_4": "off"}, segment=LAST), "no feature 'XF_4'"),
        (lambda r: r.set({}, segment=LAST), "nothing to switch"),
        (lambda r: r.set({0: "off"}, at=[], segment=LAST), "nothing to switch"),
        (lambda r: r.set({0: "off"}, at=99, segment=LAST), "no position 99"),
        (lambda r: r.set({0: "off"}, segment=LAST, target=" several tokens"), "expected one"),
        (lambda r: r.set({0: "off"}, segment=LAST, target=4096), "no output 4096"),
        (lambda r: r.set({0: "off"}), "name one of"),
        (lambda r: r.steer(0, float("inf"), segment=LAST), "finite multiple"),
        (lambda r: r.steer(0, tokens=0, segment=LAST), "tokens must be positive"),
        (lambda r: r.steer(0, tokens=10_000, segment=LAST), "at most 256"),
    ],
)
def test_bad_input(reading, act, says):
    with pytest.raises((DataError, ConfigError), match=says):
        act(reading)


def test_typical_without_rows_is_refused(model, world):
    bare = read_prompt(world[0], model, TEXT)
    with pytest.raises(DataError, match="typical level .* is not known"):
        bare.set({0: "typical"}, segment=LAST)
