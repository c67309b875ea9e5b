"""Pages as values: what they say, what they leave out, and that nothing which came in with the data is markup."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.support.pages import HOOK_IN, HOOK_OUT, Words, planted

from gatelens import views
from gatelens.errors import DataError, GateLensError, NonFiniteError
from gatelens.gates import Gate, GateKind, TruthTable
from gatelens.views import cards, contexts, document, images, sections, truth
from gatelens.views.examples import Texts, Window, mistakes
from support.gates import ruled

HOSTILE = [
    "</script><script>window.ran=1</script>",
    "<img src=x onerror=window.ran=1>",
    "<!--",
    "&amp;",
    '" onmouseover="window.ran=1',
    "'><b>bold</b>",
    "\u200b",
    "\n",
    "\t",
    "\x07",
    "]]>",
    "{{ 7*7 }}",
]


class Elements(HTMLParser):
    """The elements, attributes and text of a page, as a browser's parser would see them."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def hostile():
    words = [f" word{i}" for i in range(40)] + HOSTILE
    return planted(words, outputs=6, inputs=24)


@pytest.fixture(scope="module")
def page(hostile):
    return views.page(
        hostile.circuit,
        hostile.acts,
        tokenizer=hostile.tokenizer,
        title=HOSTILE[0],
        labels=lambda hook, f: HOSTILE[f % 6],
    )


def test_hostile_text_is_text(page):
    seen = Elements(page.text)
    assert page.text.count("<script>") == 1, "our own script and no other"
    assert all(v in ("application/json", "text/plain") for n, v in seen.attributes if n == "type" and "/" in (v or ""))
    assert not [name for name, _ in seen.attributes if name.startswith("on")]
    assert all((v or "").startswith("data:") for n, v in seen.attributes if n in ("src", "srcset"))
    text = "".join(seen.text)
    for word in HOSTILE[:6]:
        assert word in text
    assert "{{ 7*7 }}" in text, "a label is not a template"


def test_hostile_text_adds_no_element(hostile, page):
    """The same page with harmless words and labels has the same elements in the same order."""
    harmless = Words([f" word{i}" for i in range(40 + len(HOSTILE))])
    plain = views.page(hostile.circuit, hostile.acts, tokenizer=harmless, title="title", labels=lambda hook, f: "label")
    assert Elements(page.text).names == Elements(plain.text).names


def vocabulary(folder) -> tuple[list[int], list[str]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return list(range(len(tokenizer))), [tokenizer.decode([i]) for i in range(len(tokenizer))]


@pytest.mark.parametrize("which", ["the package's own", "GPT-2's"])
def test_every_token_of_a_vocabulary_is_inert(which):
    if which == "GPT-2's" and not os.environ.get("GATELENS_DATA"):
        pytest.skip("needs GATELENS_DATA with gpt2_tokenizer/ for GPT-2's vocabulary")
    own = resources.files("gatelens").joinpath("demo", "gpt2-mini")
    ids, texts = vocabulary(
        own if which == "the package's own" else Path(os.environ["GATELENS_DATA"]) / "gpt2_tokenizer"
    )
    tokens = [contexts.Token(text, 1.0, False, (i,)) for i, text in zip(ids, texts, strict=True)]
    window = Window(tokens, 1.0)
    example = cards.Examples("all", windows=[window], largest=1.0)
    template = document.environment().from_string('{% from "parts.html.j2" import group %}{{ group(e) }}')
    seen = Elements(template.render(e=example))
    assert set(seen.names) == {"figure", "figcaption", "p", "span"}
    assert seen.names.count("span") == len(tokens) + 4
    shown = "".join(seen.text)
    assert all(t.shown in shown for t in tokens)


def test_policy_names_the_hash_of_the_script_and_nothing_wider(page):
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page.text)[1].replace("&#39;", "'")
    parts = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    script = re.findall(r"<script>(.*?)</script>", page.text, re.S)[0]
    assert parts["default-src"] == "'none'"
    assert parts["script-src"] == f"'sha256-{document._hash(script)}'"
    assert "unsafe-inline" not in parts["script-src"]
    assert parts["img-src"] == "data:"


def test_page_says_what_share_was_read_before_it_shows_gates(hostile, page):
    gates = hostile.circuit.gates[hostile.circuit.segments[0].name]
    read = sum(g.read for g in gates)
    assert f"{read} of {len(gates)} output features" in page.text
    assert page.text.index("output features") < page.text.index('<details class="card"')


def test_an_empty_circuit_has_a_page(hostile):
    bare = replace(hostile.circuit, gates={})
    text = views.page(bare, hostile.acts, tokenizer=hostile.tokenizer).text
    assert "No gates were read in this segment." in text
    assert 'class="card"' not in text


def test_a_feature_that_never_fires_is_said_not_divided_by(hostile):
    acts = replace(hostile.acts, tensors={h: torch.zeros_like(v) for h, v in hostile.acts.tensors.items()})
    assert "never fired on these rows" in views.page(hostile.circuit, acts, tokenizer=hostile.tokenizer).text


def test_order_is_by_evidence():
    best = [
        ruled(0, (1,), grade="verified", mcc=0.6),
        ruled(1, (1,), mcc=0.7, firings=60),
        ruled(2, (1,), mcc=1.0, firings=5),
        ruled(3, (1,), mcc=1.0, firings=3),
        ruled(4, (1,), mcc=None),
        ruled(5, (1,), grade="weak", mcc=0.99),
        Gate(6, GateKind.NOT_READ, (), (), 0.0, mcc=0.99),
    ]
    found = best[::-1]
    found.sort(key=cards.order_key)
    assert [g.out for g in found] == [0, 1, 2, 3, 4, 5, 6]
    found += [ruled(7, (1, 2), mcc=0.6), ruled(8, (1, 2), grade="weak", mcc=0.6)]
    assert [g.out for g in sorted(found, key=cards.lead_key)] == [0, 7, 1, 2, 3, 4, 8, 5, 6], (
        "several inputs lead their grade"
    )


@pytest.mark.parametrize(
    ("excite", "at_least", "inhibit", "words"),
    [
        ((1,), 1, (), "On when IF_1 is on."),
        ((1, 2), 1, (), "On when IF_1 or IF_2 is on."),
        ((1, 2), 2, (), "On when both IF_1 and IF_2 are on."),
        ((1, 2, 3), 2, (), "On when at least 2 of IF_1, IF_2 and IF_3 are on."),
        ((1,), 1, (4,), "On when IF_1 is on, unless IF_4 is on."),
    ],
)
def test_rules_in_words(excite, at_least, inhibit, words):
    kind = GateKind.AND_NOT if inhibit else GateKind.OR
    assert (
        cards.rule_in_words(
            Gate(0, kind, (1, 2, 3, 4), (1.0,) * 4, 0.0, excite=excite, inhibit=inhibit, at_least=at_least)
        )
        == words
    )


def table_gate(k: int, counts: list[int], fired: list[int]) -> Gate:
    codes = torch.arange(2**k)
    patterns = ((codes[:, None] >> torch.arange(k)) & 1).bool()
    table = TruthTable(patterns, torch.tensor(counts), torch.tensor(fired), torch.zeros(2**k))
    return Gate(9, GateKind.OR, tuple(range(k)), (1.0,) * k, 0.0, excite=(0, 1), table=table)


def test_truth_table_rows_say_what_the_rule_says_and_whether_it_holds():
    rows = truth.patterns(table_gate(2, [100, 50, 50, 5], [2, 45, 10, 5]))
    assert [(r.on, r.rule, r.agrees) for r in rows] == [
        ((False, False), False, True),
        ((True, False), True, True),
        ((False, True), True, False),  # fires in 10 of 50 rows: the rule is wrong there
        ((True, True), True, None),  # five rows are too few to say
    ]


def test_unseen_and_rare_patterns_are_pooled_and_counted():
    counts = [1000 - i for i in range(20)] + [0] * 12
    rows = truth.patterns(replace(table_gate(5, counts, [c // 2 for c in counts]), excite=()))
    assert len(rows) == truth.MAX_PATTERNS + 2
    rarer, unseen = rows[-2:]
    assert (rarer.pooled, rarer.count) == (20 - truth.MAX_PATTERNS, sum(counts[truth.MAX_PATTERNS : 20]))
    assert (unseen.pooled, unseen.count, unseen.rate) == (12, 0, None)
    assert rarer.low < rarer.rate < rarer.high


def test_a_long_table_is_over_the_inputs_of_the_rule():
    gate = table_gate(5, list(range(32)), [c // 2 for c in range(32)])
    assert [gate.inputs[c] for c in truth.shown_inputs(gate)] == [0, 1]
    rows = truth.patterns(gate)
    assert [r.on for r in rows] == [(False, False), (True, False), (False, True), (True, True)]
    for number, row in enumerate(rows):
        together = range(number, 32, 4)  # the patterns whose first two inputs are these
        assert row.count == sum(together)
        assert row.rate == pytest.approx(sum(c // 2 for c in together) / sum(together))
    assert "Over the inputs that the rule names; the other 3 were as they came." in views.card(gate).text


def test_patterns_on_which_the_rule_says_on_are_shown_though_they_are_rare():
    codes = torch.arange(64)
    patterns = ((codes[:, None] >> torch.arange(6)) & 1).bool()
    count = torch.where(patterns.all(1), 3, 1000)
    table = TruthTable(patterns, count, torch.where(patterns.all(1), 3, 0), torch.zeros(64))
    gate = Gate(9, GateKind.AND, tuple(range(6)), (1.0,) * 6, 0.0, excite=tuple(range(6)), at_least=6, table=table)
    on = [r for r in truth.patterns(gate) if r.rule]
    assert [(r.on, r.count, r.rate) for r in on] == [((True,) * 6, 3, 1.0)]


def test_an_intervention_that_decided_nothing_is_not_said_to_be_none():
    gate = table_gate(2, [9] * 4, [1] * 4)
    assert "not tested by intervention" in views.card(gate).text
    assert "undecided by intervention" in views.card(replace(gate, intervention=gate.table)).text


def test_counterexamples_are_where_rule_and_output_differ(hostile):
    gate = next(g for gs in hostile.circuit.gates.values() for g in gs if g.kind == GateKind.OR)
    f_in, f_out = contexts.FeatureRows.of(hostile.acts[HOOK_IN]), contexts.FeatureRows.of(hostile.acts[HOOK_OUT])
    on = (hostile.acts[HOOK_IN][:, list(gate.excite)] > 0).any(1)
    fired = hostile.acts[HOOK_OUT][:, gate.out] > 0
    wrong = mistakes(gate, f_in, f_out, Texts(hostile.acts, hostile.tokenizer))
    assert wrong[0].note == f"{int((on & ~fired).sum()):,} of {int(on.sum()):,} rows"
    assert wrong[1].note == f"{int((fired & ~on).sum()):,} of {int(fired.sum()):,} rows"


def test_groups_are_the_strongest_then_intervals_of_the_range():
    f = torch.zeros(1000, 1)
    f[:100, 0] = torch.arange(100, 0, -1).float()
    found = contexts.groups(contexts.FeatureRows.of(f), 0, top=10, each=2)
    assert found[0].rows.tolist() == list(range(10))
    assert [g.name for g in found] == [
        "strongest",
        *(f"{a}%–{b}% of the largest" for a, b in ((60, 80), (40, 60), (20, 40), (0, 20))),
    ]
    for group, (low, high) in zip(found[1:], ((60, 80), (40, 60), (20, 40), (0, 20)), strict=True):
        assert all(low < v <= high for v in group.values.tolist())
        assert group.population == 20


def test_equal_contexts_are_shown_once():
    f, same = torch.arange(1.0, 7.0)[:, None], np.array([0, 0, 0, 1, 1, 2])
    assert contexts.groups(contexts.FeatureRows.of(f), 0, top=6, each=0, same=same)[0].rows.tolist() == [5, 4, 2]


class Bytes:
    """A tokenizer of one byte a token, as byte-level ones are at their smallest."""

    def decode(self, ids):
        return bytes(ids).decode("utf-8", "replace")


class Row:
    def __init__(self, token, document=None):
        self.token = torch.tensor(token)
        self.document = torch.tensor(document or [0] * len(token))
        self.position = torch.arange(len(token))


def test_a_character_of_several_tokens_is_joined():
    windows = contexts.Windows(Row(list("a é €".encode())), Bytes(), reach=9)
    f = torch.zeros(len(windows.token), 1)
    f[2] = 2.0
    shown = windows.window(2, contexts.FeatureRows.of(f), 0)
    assert [t.text for t in shown] == ["a", " ", "é", " ", "€"]
    assert (shown[2].value, shown[2].centre) == (2.0, True)


def test_windows_stay_within_their_document():
    windows = contexts.Windows(Row([65, 66, 67, 68], [0, 0, 1, 1]), Bytes())
    assert windows.rows(1) == [0, 1]
    assert windows.rows(2) == [2, 3]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a b", "a b"),
        ("\n", "⏎"),
        ("\t", "⇥"),
        ("\x00", "\\x00"),
        ("\u200b", "∅"),
        ("\u202e", "∅"),
        ("<|endoftext|>", "<|endoftext|>"),
        ("\ud800", "\ufffd"),
    ],
)
def test_nothing_hides_in_a_text(text, shown):
    assert document.visible(text) == shown


def test_white_space_alone_is_marked():
    assert contexts.Token("  ", 0.0, False).shown == "··"
    assert contexts.Token(" the", 0.0, False).shown == " the"


def test_percent_never_rounds_to_all_or_nothing():
    assert [document.percent(x) for x in (0.0, 0.0001, 0.05, 0.5, 0.9999, 1.0, None, float("nan"))] == [
        "0\u00a0%", "<\u00a00.1\u00a0%", "5.0\u00a0%", "50\u00a0%", "99.9\u00a0%", "100\u00a0%", "–", "–",
    ]  # fmt: skip


def test_inert_json_cannot_close_its_element_and_refuses_nan():
    text = str(document.inert_json({"a": HOSTILE}))
    assert "<" not in text
    assert json.loads(text) == {"a": HOSTILE}
    with pytest.raises(NonFiniteError, match="finite numbers"):
        document.inert_json([float("nan")])


def pixels(address: str) -> np.ndarray:
    assert address.startswith("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))).convert("RGB")).astype(int)


def test_signed_field_shows_sign_by_colour_and_by_a_dot():
    address, top, bad = images.field([[1.0, -1.0], [0.0, float("nan")]], size=40)
    picture = pixels(address)
    assert (top, bad) == (1.0, 1)
    assert tuple(picture[2, 2]) == images.POSITIVE
    assert tuple(picture[2, 22]) == images.NEGATIVE
    assert tuple(picture[10, 30]) not in (images.NEGATIVE, (255, 255, 255)), "a dot in the middle of a negative pixel"
    assert tuple(picture[10, 10]) == images.POSITIVE, "none in a positive one"
    assert tuple(picture[22, 2]) == (255, 255, 255)
    assert len({tuple(p) for p in picture[20:, 20:].reshape(-1, 3)}) == 2, "hatched: two shades"


def test_strip_of_blank_pictures_is_white():
    assert (pixels(images.strip(np.zeros((2, 4, 4)))) == 255).all()


def test_pixel_field_is_the_mean_gradient_of_the_feature():
    from gatelens.models.mlp import HookedMLP

    model = HookedMLP((4, 3, 2), seed=0)
    x = torch.rand(5, 4, generator=torch.Generator().manual_seed(0))
    weight, bias = model.layers[0].weight.detach(), model.layers[0].bias.detach()
    on = (x @ weight.T + bias > 0).float()
    got = images.pixel_field(model, lambda a: 2 * a, x, "hook_post.0", 1)
    torch.testing.assert_close(got, 2 * weight[1] * on[:, 1].mean())


def packs_of(text: str) -> dict[str, object]:
    found = re.findall(r'id="pack-([^"]+)">([^<]*)<', text)
    return {name: json.loads(zlib.decompress(base64.b64decode(pack))) for name, pack in found}


@pytest.fixture(scope="module")
def many():
    p = planted([f" w{i}" for i in range(50)] + HOSTILE, outputs=90, inputs=24)
    return p, views.page(p.circuit, p.acts, tokenizer=p.tokenizer, max_cards=60).text


def test_the_index_has_every_gate_however_many_cards_are_drawn(many):
    p, text = many
    index = packs_of(text)["index-s0"]
    gates = {g.out: g for g in p.circuit.gates[p.circuit.segments[0].name]}
    assert sorted(row[1] for row in index["rows"]) == sorted(gates)
    for anchor, out, kind, grade, mcc, firings, *_ in index["rows"]:
        assert (anchor, kind, firings) == (f"g0-{out}", str(gates[out].kind), gates[out].firings)
        assert mcc == pytest.approx(gates[out].mcc, abs=1e-3)
        assert grade == str(gates[out].grade)


def test_packed_cards_come_back_whole(many):
    _, text = many
    packs = packs_of(text)
    bodies = [body for name, pack in packs.items() if re.fullmatch(r"s0-\d+", name) for body in pack]
    static = text.count('<details class="card"')
    rows = packs["index-s0"]["rows"]
    places = [row[-1] for row in rows if row[-1] >= 0]
    without = [row for row in rows if row[-1] < 0 and f'id="{row[0]}"' not in text]
    assert static + len(places) + len(without) == len(rows) == 90
    assert all(row[3] == "none" for row in without), "only what has no rule has no body"
    assert sorted(places) == list(range(len(bodies)))
    for row in rows:
        if row[-1] >= 0:
            assert f"OF_{row[1]}" in bodies[row[-1]]
            assert "Truth table" in bodies[row[-1]] or row[2] == "not_read"
    features = [f for name, pack in packs.items() if re.fullmatch(r"s0f-\d+", name) for f in pack]
    for i, place in packs["index-s0"]["features"].items():
        assert f"IF_{i}<" in features[place]


def test_nothing_packed_holds_markup_that_came_with_the_data(many):
    packs = packs_of(many[1])
    pieces = [row[-2] for row in packs["index-s0"]["rows"]]
    pieces += [body for name, pack in packs.items() if not name.startswith("index") for body in pack]
    assert any("window.ran" in piece for piece in pieces)
    for piece in pieces:
        seen = Elements(piece)
        assert not {"script", "b", "iframe", "object"} & (set(seen.names) - {"b"})
        assert not [name for name, _ in seen.attributes if name.startswith("on")]
        assert all((v or "").startswith("data:") for n, v in seen.attributes if n in ("src", "srcset"))


def test_the_page_leads_with_pictures_and_marks_do_not_lead(many):
    p, text = many
    first = text.index('class="best"')
    assert (
        text.index("<svg", first)
        < text.index('class="lead"')
        < text.index("All gates")
        < text.index("How good the whole is")
    )
    lead = text[first : text.index('class="lead"')]
    marks = {f"OF_{g.out}" for g in p.circuit.gates[p.circuit.segments[0].name]}
    shown = set(re.findall(r'href="#g0-(\d+)"', lead))
    assert len(shown) == 6
    labels = sections.Maker(p.circuit, p.acts, Texts(p.acts, p.tokenizer)).source.labels
    rows = contexts.FeatureRows.of(p.acts[HOOK_OUT])
    assert not any(labels.marks(rows, int(out)) for out in shown)
    assert marks


def test_a_picture_shows_contexts_when_it_is_pointed_at(many):
    _, text = many
    lead = text[text.index('class="best"') : text.index('class="lead"')]
    titles = re.findall(r"<title>([^<]*)</title>", lead)
    assert any("of rows" in t and "[" in t for t in titles), "contexts of inputs"


def test_a_feature_of_punctuation_is_one_of_marks():
    acts = Row([0, 1, 2, 3])
    labels = Texts(acts, Words([".", "\n", " he", "!"])).labels
    rows = contexts.FeatureRows.of(torch.tensor([[1.0, 0.2], [1.0, 0.0], [0.5, 1.0], [0.0, 0.3]]))
    assert labels.marks(rows, 0)
    assert not labels.marks(rows, 1)


def test_the_glossary_has_every_word_of_the_page(many):
    from gatelens.views.glossary import words

    text = many[1]
    known = " ".join(f"{word} {meaning}" for word, meaning in words()).lower()
    heads = re.findall(r"<dt>([^<]+)</dt>", text[: text.index('id="glossary"')])
    kinds = [name.lower() for name in cards.KIND_NAMES.values()]
    for word in [*heads, *kinds, "verified", "holds", "weak", "favours", "alone", "despite it", "fan-in", "held out"]:
        main = re.sub(r"^median |,.*| all replaced", "", word.lower()).strip()
        assert main in known or main in ("checked", "outputs that obey a rule", "wires", "k of n"), main


def test_what_stands_in_the_page_is_held_under_its_size():
    assert sections.fitting(["abc", "de", "f"], 5) == 2
    assert sections.fitting(["é" * 3, "a"], 6) == 1
    assert sections.fitting(["a" * 100, "b"], 5) == 1, "one at least"
    assert sections.fitting([], 5) == 0


def test_an_adder_is_not_said_to_be_logic():
    gate = Gate(0, GateKind.ADDER, (1, 2), (1.0, 1.0), 0.0, excite=(1, 2))
    assert (
        cards.rule_in_words(gate)
        == "Adds up its inputs: amounts decide, not the pattern. The nearest rule of on and off: IF_1 or IF_2 is on."
    )


def test_save_is_one_file_of_utf8_and_survives_lone_surrogates(tmp_path):
    path = document.document("a \ud800", "b \ud800").save(tmp_path / "deep" / "page.html")
    assert "a \ufffd" in path.read_text("utf-8")
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]


def test_a_page_is_framed_in_a_notebook_and_a_large_one_saved_beside_it(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert page._repr_html_().startswith('<iframe sandbox="allow-scripts allow-downloads"')
    assert "<script" not in document.Html("<script>1</script>")._repr_html_()
    large = document.Html("x" * (document.FRAME_LIMIT + 1))
    link = re.search(r'href="([^"]+)"', large._repr_html_())[1]
    assert (tmp_path / link).read_text() == large.text


def test_panels_bring_their_bundle_once_a_session_and_are_complete_without(monkeypatch):
    from itertools import count

    from gatelens.views import panels

    monkeypatch.setattr(panels, "_given", count(0))
    made = views.token_panels([("h", [(["<i>", "b"], [1.0, -2.0])])])
    first, second = made._repr_html_(), made._repr_html_()
    assert (first.count("var CircuitsVis="), second.count("var CircuitsVis=")) == (1, 0)
    assert "&lt;i&gt;" in second
    assert "ColoredTokens" in made.show_code(bundled=False)
    assert "<i>" not in second.replace("\\u003ci\\u003e", "")
    assert made.text.startswith("<!doctype html>")
    assert len(repr(made)) < 100, "a cell stores it as plain text too"


def test_panels_escape_and_replace(tmp_path):
    p = views.panel(["<b>", "\n", "", "x"], [1.0, float("nan"), -2.0, float("inf")])
    assert p.props["tokens"] == ["&lt;b&gt;", "⏎", "∅", "x"]
    assert p.props["values"] == [1.0, 0.0, -2.0, 0.0]
    assert (p.props["minValue"], p.props["maxValue"], p.not_finite) == (-2.0, 2.0, 2)
    assert views.panel(["a"], [0.0]).props["maxValue"] == 1.0, "no division by zero"
    with pytest.raises(DataError, match="one value a token"):
        views.panel(["a"], [])


def test_the_bundle_is_in_a_page_once_and_only_where_a_panel_is(hostile, page):
    with_panels = views.page(hostile.circuit, hostile.acts, tokenizer=hostile.tokenizer, token_panels=True).text
    assert with_panels.count("var CircuitsVis=") == 1
    assert "CircuitsVis=" not in page.text
    assert page.text.count("<script>") == 1


def test_card_alone_and_a_card_as_svg():
    gate = table_gate(2, [100, 50, 50, 5], [2, 45, 40, 5])
    assert "Truth table" in views.card(gate).text
    import xml.etree.ElementTree as ET

    root = ET.fromstring(views.card_svg(gate, label="<b>").text)
    assert "OF_9" in "".join(root.itertext())


def test_compare_refuses_circuits_of_other_depth(hostile):
    with pytest.raises(GateLensError, match="as many segments"):
        views.compare(hostile.circuit, replace(hostile.circuit, segments=[]))
