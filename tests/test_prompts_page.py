"""A prompt in the terminal and on a page: short, escaped, with nothing to fetch."""

from __future__ import annotations

import json
import re

import pytest
import torch

import gatelens as gl
from gatelens import views
from gatelens.circuits import Circuit
from gatelens.cli.main import main
from gatelens.errors import ConfigError, DataError
from gatelens.gates import Gate, GateKind
from gatelens.gates.grade import Grade
from gatelens.gates.rule import Literal, Op, Rule
from gatelens.views import document, live_prompt, page, prompt_page


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder of the demonstration's model in principal components, up to its circuit."""
    folder = tmp_path_factory.mktemp("prompt")
    config = folder / "small.yaml"
    config.write_text(
        "name: small\nmodel: {use: load_model, name: gpt2-mini}\n"
        "data: {use: text_batches, source: gpt2-mini-sample, rows: [20, 10], length: 32}\n"
        "segments: {layers: [3]}\nbases: {use: PCA, components: 16}\n"
        "solver: {use: GramLasso, mean_wires: 3, signed: true}\n"
    )
    assert main(["gates", str(config), "--out", str(folder / "run")]) == 0
    return folder / "run"


def test_in_the_terminal(run, capsys):
    capsys.readouterr()
    assert main(["prompt", str(run), "It was late, therefore he left"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 20
    assert lines[0].startswith("PromptReading of 8 tokens")


def test_as_json_and_nothing_else(run, capsys, tmp_path):
    capsys.readouterr()
    page = tmp_path / "page.html"
    assert main(["prompt", str(run), "It was late", "--json", "--out", str(page)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tokens"][1:] == ["It", " was", " late"]
    assert found["firings"]
    assert page.is_file()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{run}", ""], "the prompt is empty"),
        (["{run}", "word " * 400], "the model reads at most 256"),
        (["{run}/nowhere", "a"], "is no run folder"),
    ],
)
def test_mistakes_are_one_sentence(run, capsys, arguments, says):
    capsys.readouterr()
    assert main(["prompt", *(a.format(run=run) for a in arguments)]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("gatelens prompt")]
    assert len(said) == 1
    assert says in said[0]


def test_a_run_without_a_circuit(run, capsys, tmp_path):
    (tmp_path / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    assert main(["prompt", str(tmp_path), "a"]) == 2
    assert "holds no circuit yet" in capsys.readouterr().err
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe: [")
    assert main(["prompt", str(tmp_path), "a"]) == 2
    assert "is damaged" in capsys.readouterr().err


# the page


@pytest.fixture(scope="module")
def reading():
    model = gl.load_model("gpt2-mini")
    segments = gl.mlp_segments(model, [3])
    acts = {h: torch.randn(80, model.cfg.d_model) for s in segments for h in (s.hook_in, s.hook_out)}
    return Circuit(segments, gl.PCA(components=8).fit(segments, acts), {}).on(
        model, 'a <script>alert("x")</script> & b'
    )


def test_page_is_one_file_with_every_token_and_nothing_to_fetch(reading):
    text = prompt_page(reading, local=2).text
    assert text.count('class="place"') == len(reading)
    assert text.count('<details class="firing">') == 2
    assert not re.search(r'(src|href)="(?!#|data:)', re.sub(r"<script>.*?</script>", "", text, flags=re.S))
    strip = text[text.index('<p class="strip"') : text.index('<details class="place"')]
    assert "<script" not in strip
    assert "&lt;" in strip
    for n in range(len(reading)):
        assert f'id="at-{n}"' in text
        assert f'href="#at-{n}"' in text


def ruled(reading) -> Circuit:
    """A circuit with a rule for the output that fires last: IF_0 or IF_1 > .5."""
    layer = reading.layer()
    out = reading.firings(-1)[0].out
    rule = Rule((Literal(0),), steps=((Op.OR, Literal(1, 0.5)),))
    gates = {layer.segment.name: [Gate(out, GateKind.OR, (0, 1), (1.0, 1.0), 0.0, rule=rule, grade=Grade.WEAK)]}
    return Circuit(reading.circuit.segments, reading.circuit.bases, {}, gates)


def test_gates_with_a_rule_are_drawn_with_the_inputs_that_are_on_there(reading):
    found = ruled(reading).on(reading.model, "a b")
    layer, text = found.layer(), prompt_page(found, local=0).text
    seen = re.findall(r'aria-label="(OF_\d+ is on when [^"]*)"', text)
    drawn = [f for p in range(len(found)) for f in found.firings(p)[:8] if f.said is not None]
    assert len(seen) == len(drawn) >= 1
    for said, firing in zip(seen, drawn, strict=True):
        on = layer.f_in[firing.position, 0] > 0, layer.f_in[firing.position, 1] > 0.5
        words = ["on" if x else "off" for x in on]
        assert f"Here IF_0 is {words[0]}, IF_1 is {words[1]}; the rule says {'on' if any(on) else 'off'}" in said
        assert said.endswith(f"the output is {'on' if firing.came > 0 else 'off'}.")


def test_a_page_holds_a_list_of_prompts_and_refuses_what_the_model_cannot_read(reading):
    circuit, layer = ruled(reading), reading.layer()
    number = torch.arange(len(reading))
    values = {layer.segment.hook_in: layer.x, layer.segment.hook_out: layer.y}
    acts = gl.Activations(values, 0 * number, number, reading.prompt.inputs[0], "the prompt")
    text = page(circuit, acts, model=reading.model, prompts=["a b", "</script><b>x"]).text
    assert text.count('class="prompted"') == 2
    assert 'role="tablist"' in text
    assert text.index('id="p0-at-2"') < text.index('id="p1-at-1"') < text.index('id="glossary"')
    strip = json.loads(re.search(r'id="p1-at-strip">([^<]*)<', text)[1])
    assert len(strip["tokens"]) == len(strip["values"]) == len(circuit.on(reading.model, "</script><b>x"))
    assert "</script><b>x" not in text
    assert 'role="tablist"' not in page(circuit, acts, model=reading.model).text
    for wrong, says in (
        ([""], "the prompt is empty"),
        ([torch.rand(1, 9)], "reads tokens"),
    ):
        with pytest.raises(DataError, match=says):
            page(circuit, acts, model=reading.model, prompts=wrong)
    with pytest.raises(ConfigError, match="`prompts` must be"):
        page(circuit, acts, model=reading.model, prompts="a b")
    with pytest.raises(DataError, match="give the page its `model`"):
        page(circuit, acts, prompts=["a"])


def test_in_a_notebook_it_is_a_fragment_that_can_be_shown_twice(reading):
    text = reading._repr_html_()
    assert 'class="place"' in text
    assert text.count("<script") == 1, "the few lines that make a shadow root"
    assert not re.search(r'\bid="', text.split("<script>", 1)[0])
    assert len(text) < 300_000
    assert reading.firings()[0].why()._repr_html_().startswith("<pre>")


def test_an_image_has_a_page(digits):
    model, fit, held = digits
    segments = gl.mlp_segments(model, [1])
    circuit = Circuit(segments, gl.Neurons().fit(segments, gl.collect(model, fit, segments)), {})
    text = prompt_page(circuit.on(model, held.inputs[0]), local=1).text
    assert "class " in text
    assert text.count('class="place"') == 1


# live, in a notebook


@pytest.fixture
def live(reading):
    circuit, layer = ruled(reading), reading.layer()
    number = torch.arange(len(reading))
    values = {layer.segment.hook_in: layer.x, layer.segment.hook_out: layer.y}
    acts = gl.Activations(values, 0 * number, number, reading.prompt.inputs[0], "the prompt")
    return views.live(circuit, reading.model, "a b", acts)


def test_live_stores_the_static_reading_where_nobody_is_there(live):
    bundle = live._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    assert 'class="place"' in bundle["text/html"]
    assert not re.search(r'(src|href)="(?!#|data:)', bundle["text/html"])


def test_live_reads_what_is_typed_and_holds_a_gate(live):
    found = live.answered({"kind": "read", "text": "It was <b>late"})
    assert live.reading.prompt.texts[1:3] == ("It", " was")
    assert "<b>late" not in found["html"]
    assert found["html"].count('class="place"') == len(live.reading)
    gate = live.state()["gates"][0][0]
    out = gate.rpartition("|")[2]
    held = live.answered({"kind": "steer", "gate": gate, "strength": 2})["written"]
    assert held == repr(live.reading.steer(out, 2.0))


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"kind": "read", "text": ""}, "the prompt is empty"),
        ({"kind": "read", "text": "word " * 400}, "reads at most 256"),
        ({"kind": "steer", "gate": "blocks.3|OF_99999"}, "blocks.3"),
        ({"kind": "steer", "gate": "|", "strength": 1.0}, "unknown segment"),
        ({}, "kind read or steer"),
    ],
)
def test_live_answers_a_mistake_in_a_sentence_and_stays_as_it_was(live, asked, says):
    before = live.reading
    (said,) = live.answered(asked).values()
    assert says in said
    assert live.reading is before


def test_the_widget_sends_what_is_shown_and_fetches_nothing(live):
    pytest.importorskip("anywidget")
    made = live_prompt.widget(live)
    assert made.html == live.state()["html"]
    made._handle_custom_msg({"kind": "read", "text": "It was"}, [])
    assert made.html == live.state()["html"]
    assert made.text == "It was"
    for number in (2, 3):  # the same mistake twice is answered twice: the view waits for an answer
        made._handle_custom_msg({"kind": "read", "text": ""}, [])
        assert "the prompt is empty" in made.said
        assert made.answers == number
    assert not re.search(r"https?://|import\(|fetch\(", document.asset("live.js"))
    made.close()
