"""The gate as a picture: shapes, wires, levels, rates and captions are what the gate says, read back from the SVG."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
import torch
from tests.support.pages import HOOK_IN, planted

from gatelens import views
from gatelens.gates import Gate, GateKind, TruthTable
from gatelens.gates.agreement import CLEAR
from gatelens.gates.effects import Effect as GateEffect
from gatelens.gates.rule import Literal, Op, Rule
from gatelens.views import legend, lettering, matrix, net, picture, shapes, sketch
from gatelens.views.labels import Label
from gatelens.views.sketch import Arm, Effect, Known, Moment, Sketch, Stage, sketch_of


def gate(kind: str, excite: tuple[int, ...], inhibit: tuple[int, ...] = (), at_least: int = 1, **rest) -> Gate:
    inputs = (*excite, *inhibit)
    weights = tuple(1.0 + i for i in range(len(excite))) + tuple(-2.0 for _ in inhibit)
    return Gate(9, GateKind(kind), inputs, weights, 0.0, excite=excite, inhibit=inhibit, at_least=at_least, **rest)


def table(k: int, counts: list[int], fired: list[int]) -> TruthTable:
    patterns = ((torch.arange(2**k)[:, None] >> torch.arange(k)) & 1).bool()
    return TruthTable(patterns, torch.tensor(counts), torch.tensor(fired), torch.zeros(2**k))


def elements(svg: str, name: str) -> list[ET.Element]:
    return [e for e in ET.fromstring(svg).iter() if e.tag.endswith(name)]


def words(svg: str) -> list[str]:
    return ["".join(e.itertext()) for e in elements(svg, "text")]


@pytest.mark.parametrize(
    ("made", "stages"),
    [
        (gate("copy", (1,)), [("copy", 1, 0)]),
        (gate("or", (1, 2, 3)), [("or", 3, 0)]),
        (gate("and", (1, 2), at_least=2), [("and", 2, 0)]),
        (gate("k_of_n", (1, 2, 3), at_least=2), [("k_of_n", 3, 0)]),
        (gate("and_not", (1,), (4,)), [("and", 2, 1)]),
        (gate("mixed", (1, 2), (4,), at_least=2), [("and", 3, 1)]),
        (gate("mixed", (1, 2), (4, 5)), [("or", 2, 0), ("and", 2, 2)]),
        (gate("not_read", ()), [("unknown", 0, 0)]),
    ],
)
def test_a_rule_becomes_the_shapes_that_say_it(made, stages):
    found = sketch_of(made)
    assert [(s.shape, len(s.arms), sum(a.negated for a in s.arms)) for s in found.stages] == stages
    svg = picture.drawn(found)
    assert len([e for e in elements(svg, "circle") if e.get("class") == "n"]) == sum(n for _, _, n in stages)
    assert len([e for e in elements(svg, "path") if (e.get("class") or "").split()[0] == "g"]) == len(stages)


def test_widths_are_weight_times_typical_value_and_signs_are_dashes():
    made = gate("mixed", (1, 2), (4,), at_least=2)
    svg = picture.drawn(sketch_of(made, Known(typical=lambda i: {1: 8.0, 2: 1.0, 4: 1.0}[i])))
    wires = [e for e in elements(svg, "path") if (e.get("class") or "").split()[0] == "w"]
    widths = [float(e.get("stroke-width")) for e in wires]
    strength = [1.0 * 8.0, 2.0 * 1.0, 2.0 * 1.0]
    assert widths == pytest.approx([0.8 + 6.2 * s / 8.0 for s in strength], abs=0.05)
    assert [e.get("stroke-dasharray") is not None for e in wires] == [False, False, True]
    assert ["m" in e.get("class").split() for e in wires] == [False, False, True]


def test_a_level_is_a_cut_where_it_lies():
    arm = Arm(3, Label(("he",)), 1.0, level=0.5)
    drawn = Sketch(1, Label(), "copy", "holds", (Stage("copy", (arm,)),))
    cuts = [e for e in elements(picture.drawn(drawn), "path") if e.get("class") == "c"]
    assert len(cuts) == 1
    none = replace(drawn, stages=(Stage("copy", (replace(arm, level=0.0),)),))
    assert not [e for e in elements(picture.drawn(none), "path") if e.get("class") == "c"]
    x = float(re.match(r"M([\d.]+)", cuts[0].get("d"))[1])
    full = replace(drawn, stages=(Stage("copy", (replace(arm, level=1.0),)),))
    far = float(
        re.match(
            r"M([\d.]+)", next(e for e in elements(picture.drawn(full), "path") if e.get("class") == "c").get("d")
        )[1]
    )
    assert far - x == pytest.approx(picture._CUT / 2)


def test_rates_beside_the_arms_are_those_of_the_truth_table():
    # columns 1, 2, 4: code = on1 + 2 on2 + 4 on4
    counts, fired = [100, 50, 40, 10, 20, 8, 6, 6], [1, 40, 30, 9, 0, 2, 1, 1]
    found = sketch_of(gate("mixed", (1, 2), (4,), table=table(3, counts, fired)))
    assert [a.rate for a in found.arms] == pytest.approx([40 / 50, 30 / 40, (2 + 1 + 1) / (8 + 6 + 6)])
    assert found.when_on == pytest.approx((40 + 30 + 9) / (50 + 40 + 10))
    assert found.when_off == pytest.approx((1 + 0 + 2 + 1 + 1) / (100 + 20 + 8 + 6 + 6))
    text = " ".join(words(picture.drawn(found)))
    assert "alone 80\u00a0%" in text
    assert "despite it 20\u00a0%" in text
    assert "fires in 79\u00a0% where the rule says on" in text


def test_a_pattern_seen_in_a_handful_of_rows_has_no_rate():
    found = sketch_of(gate("or", (1, 2), table=table(2, [100, sketch.FEW - 1, 40, 5], [0, 1, 30, 5])))
    assert [a.rate for a in found.arms] == [None, 0.75]


@pytest.mark.parametrize(
    ("rest", "grade"),
    [
        ({"verified": True, "mcc": 0.4}, "verified"),
        ({"mcc": 0.6, "control_mcc": 0.2}, "holds"),
        ({"mcc": 0.6, "control_mcc": 0.55}, "weak"),
        ({"mcc": 0.4}, "weak"),
        ({}, "weak"),
    ],
)
def test_the_outline_is_the_grade(rest, grade):
    found = sketch_of(gate("or", (1, 2), **rest))
    assert found.grade == grade
    outlines = [e.get("class") for e in elements(picture.drawn(found), "path")]
    assert f"g {grade}" in outlines
    assert ("g2" in outlines) == (grade == "verified")


def test_amounts_that_matter_are_hatched():
    plain, matters = gate("or", (1, 2)), gate("or", (1, 2), magnitude="adder")
    hatched = [
        bool([e for e in elements(views.gate(g).svg, "path") if e.get("class") == "h"]) for g in (plain, matters)
    ]
    assert hatched == [False, True]
    for shape in ("or", "and", "k_of_n"):
        ends = [float(v) for v in re.findall(r"[\d.]+", shapes._hatching(shape, 40.0, 60.0))]
        assert ends
        assert all(0 < x < 40 for x in ends[::2])
        assert all(0 < y < 60 for y in ends[1::2])


@pytest.mark.parametrize(("null", "clear"), [(None, CLEAR), (1.0, CLEAR), (10.0, 10.0)])
def test_the_bar_of_agreement_and_the_mark_of_its_null_lie_at_their_shares(null, clear):
    effect = GateEffect("tokens", (7, 8), t=1.5 * clear, null=null)
    known = Known(output={7: " them", 8: "us"}.get)
    made = views.gate(replace(gate("or", (1, 2)), effect=effect), known)
    track, bar, mark = (next(e for e in elements(made.svg, "rect") if e.get("class") == c) for c in "tad")
    wide, start = float(track.get("width")), float(track.get("x"))
    assert float(bar.get("width")) == pytest.approx(0.5 * wide, abs=0.1)
    assert float(mark.get("x")) + 1 == pytest.approx(start + wide / 3, abs=0.01)
    assert "them, us" in words(made.svg)
    said = f"comes, t {1.5 * clear:.1f}; " + ("clear from 4" if null is None else f"null {null:.1f}")
    assert said.replace(";", "") in " ".join(words(made.svg))
    assert f"It favours them, us ({said})." in made.said
    assert Effect(("a",), -5.0).verdict == "does not come, t −5.0; clear from 4"
    assert Effect(("a",), 1.0).verdict.startswith("unclear")
    assert Effect(("a",), 9.0, 10.0).verdict == "unclear, t 9.0; null 10.0"


def test_a_thumbnail_of_the_output_lies_above_what_it_favours():
    effect = GateEffect("classes", (7,), t=9.0)
    known = Known(output=lambda i: f"class {i}", picture=lambda side, i: THUMB)
    svg = views.gate(replace(gate("or", (1, 2)), effect=effect), known).svg
    top = max(float(e.get("y")) + float(e.get("height")) for e in elements(svg, "image") if float(e.get("x")) > 200)
    below = {"".join(e.itertext()): float(e.get("y")) for e in elements(svg, "text") if float(e.get("x")) > 200}
    track = next(float(e.get("y")) for e in elements(svg, "rect") if e.get("class") == "t")
    assert top < below["favours class"] - 10 < below["7"] < track < next(y for s, y in below.items() if "comes" in s)


def seen(svg: str) -> set[str]:
    """The marks that an SVG holds, by what stands in it."""
    kinds = [(e.get("class") or "").split() for e in elements(svg, "path")]
    lettered = [e for e in elements(svg, "text") if e.get("class") == "k"]
    said = " ".join(words(svg))
    found = {"takes" if "m" in kind else "adds" for kind in kinds if kind[:1] == ["w"]}
    found |= {kind[1] for kind in kinds if kind[:1] == ["g"]}
    found |= {mark for mark, name in (("cut", "c"), ("hatched", "h")) if [name] in kinds}
    found |= {mark for mark, name in (("ring", "n"), ("lamp", "z")) if name in classes(svg, "circle")}
    found |= {"copy"} if len([k for k in kinds if k[:1] == ["g"]]) > len(lettered) else set()
    counted = ["".join(e.itertext()) for e in lettered if "≥" in "".join(e.itertext())]
    found |= {"and_any" if word.startswith("&") else "k_of_n" for word in counted}
    found |= {mark for mark in ("alone", "despite", "strong", "favours", "null") if mark in said.split()}
    found |= {"agreement"} if "d" in classes(svg, "rect") else set()
    return found | ({"pixels"} if elements(svg, "image") else set())


def classes(svg: str, name: str) -> set[str]:
    return {kind for e in elements(svg, name) for kind in (e.get("class") or "").split()}


THUMB = "data:image/png;base64,AAAA"
#: patterns of inputs 1, 2 and 4
MANY = table(3, [100, 50, 40, 10, 20, 8, 6, 6], [1, 40, 30, 9, 0, 2, 1, 1])
OF_A_PRODUCT = Rule((Literal(1),), steps=((Op.OR, Literal(2)),), also=(Literal(3), Literal(4)))
PICTURED = [
    sketch_of(gate("copy", (1,))),
    sketch_of(gate("k_of_n", (1, 2, 3), at_least=2, mcc=0.9, control_mcc=0.1)),
    sketch_of(gate("and_not", (1,), (4,), verified=True)),
    sketch_of(replace(gate("mixed", (1, 2, 3, 4)), rule=OF_A_PRODUCT)),
    sketch_of(gate("mixed", (1, 2), (4,), table=MANY)),
    sketch_of(gate("or", (1, 2, 3), table=MANY, magnitude="adder"), Known(picture=lambda side, i: THUMB)),
    replace(
        sketch_of(replace(gate("or", (1, 2)), effect=GateEffect("tokens", (7,), t=9.0, null=3.0)), Known(output=str)),
        kept=0.4,
    ),
    replace(sketch_of(gate("or", (1, 2), table=MANY)), effect=Effect(("a",))),
    replace(sketch_of(gate("or", (1, 2), table=MANY)), moment=Moment({1: (True, 1.0)}, True, 2.0, True)),
    Sketch(1, Label(), "copy", "holds", (Stage("copy", (Arm(3, Label(("he",)), 1.0, level=0.5),)),)),
    sketch_of(Gate(9, GateKind("not_read"), (1, 2), (1.0, -2.0), 0.0)),
]


@pytest.mark.parametrize("drawn", PICTURED)
def test_the_legend_tells_the_marks_that_are_drawn_and_no_others(drawn):
    svg = picture.drawn(drawn)
    assert legend.marks_in(drawn) == seen(svg)
    alone = legend.drawn(legend.marks_in(drawn))
    root = ET.fromstring(alone)
    told = [says for mark, (_, says) in legend.MARKS.items() if mark in seen(svg)]
    assert root.get("aria-label") == "How to read it: " + "; ".join(told)
    assert " ".join(" ".join(words(alone)).split()).count("…") == 0, "no meaning is cut"
    listed = str(legend.listed(seen(svg)))
    assert listed.count("<li>") == len(told) == len(seen(svg))


def test_every_mark_of_the_legend_is_drawn_as_it_is_in_pictures():
    assert set().union(*map(seen, map(picture.drawn, PICTURED))) == set(legend.MARKS)
    for mark, (swatch, _) in legend.MARKS.items():
        if mark not in ("copy", "pixels"):  # swatches of outlines have no letters either, and a thumbnail is none
            assert mark in seen(f"<svg>{swatch}</svg>")
    gates = [s for s in PICTURED if s.moment is None]
    drawing = net.drawing(net.net_of(gates))
    hidden = {"hatched", "cut", "alone", "despite", "strong", "favours", "agreement", "null", "pixels"}
    assert drawing.marks == seen(drawing.svg)
    assert not drawing.marks & hidden


def test_hostile_names_are_text_and_the_alternative_says_the_rule():
    known = Known(label=lambda side, i: Label(("</svg><script>", '"&')), hint=lambda side, i: "<b>")
    made = views.gate(gate("and_not", (1,), (4,)), known)
    root = ET.fromstring(made.show_code())
    assert {e.tag.rpartition("}")[2] for e in root.iter()} <= {
        "svg", "style", "g", "title", "text", "path", "circle", "rect",
    }  # fmt: skip
    assert root.get("aria-label").startswith('OF_9 (</svg><script> | "&) is on when IF_1')
    assert ", unless IF_4" in root.get("aria-label")
    assert repr(made) == made.said


def test_a_drawing_stands_alone_and_fetches_nothing(tmp_path):
    path = views.gate(gate("or", (1, 2))).save(tmp_path / "gate.svg")
    text = path.read_text("utf-8")
    ET.fromstring(text)
    assert "prefers-color-scheme:dark" in text
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    stored = re.findall(r'src="data:image/svg\+xml;base64,([^"]*)"', views.gate(gate("or", (1, 2)))._repr_html_())
    assert base64.b64decode(stored[0]).decode() == text
    assert len(stored) == 2, "the drawing and its legend"


@pytest.fixture(scope="module")
def made():
    return planted([f" w{i}" for i in range(50)], outputs=24, inputs=16)


def test_known_reads_names_and_typical_values_from_activations(made):
    known = views.known(made.circuit, made.acts, tokenizer=made.tokenizer)
    values = made.acts[HOOK_IN][:, 2]
    assert known.typical(2) == pytest.approx(float(values[values > 0].mean()))
    assert known.largest(2) == pytest.approx(float(values.max()))
    assert str(known.label("in", 2)) == str(
        views.known(made.circuit, made.acts, tokenizer=made.tokenizer).label("in", 2)
    )
    assert "w" in str(known.label("in", 2))


def test_a_neighbourhood_is_the_gate_and_those_that_share_its_inputs(made):
    name = made.circuit.segments[0].name
    drawn = views.neighbourhood(made.circuit, 1, nodes=12)
    gates = {int(o) for o in re.findall(r'class="v" data-o="(\d+)"', drawn.svg)}
    inputs = {int(i) for i in re.findall(r'class="v" data-i="(\d+)"', drawn.svg)}
    assert 1 in gates
    assert len(gates) + len(inputs) <= 12
    own = {*(g := made.circuit.gate(1)).excite, *g.inhibit}
    for other in made.circuit.gates[name]:
        if other.out in gates:
            assert {*other.excite, *other.inhibit} & own
            assert {*other.excite, *other.inhibit} <= inputs


def test_the_caption_of_the_page_is_what_is_drawn(made):
    """The strongest wire in the SVG is the one that the caption names, whatever other wires the connector has."""
    name = made.circuit.segments[0].name
    sketches = [sketch_of(g, Known(typical=lambda i: 0.5 + i)) for g in made.circuit.gates[name]]
    drawn = net.net_of(sketches)
    dense = made.circuit.connectors[name].weight.to_dense().clone()
    dense[0, 0] = 1000.0  # a wire that no rule names
    text = str(matrix.layer_map(dense, net=drawn))
    strengths = [float(w) for w in re.findall(r'data-w="([\d.e+-]+)"', text)]
    said = float(re.search(r"at most ([\d.]+)\.", text)[1])
    assert said == pytest.approx(max(strengths), abs=5e-4)
    widths = [float(w) for w in re.findall(r'stroke-width="([\d.]+)"', text)]
    assert max(widths) == pytest.approx(5.0)
    gates, inputs = int(re.search(r"(\d+) gates", text)[1]), int(re.search(r"the (\d+) inputs that", text)[1])
    assert gates == len(re.findall(r'class="v" data-o=', text))
    assert inputs == len(re.findall(r'class="v" data-i=', text))


def test_texts_are_cut_to_their_room():
    assert lettering.fitted("short", 200, 13) == "short"
    cut = lettering.fitted("a very long label indeed", 60, 13)
    assert cut.endswith("…")
    assert lettering.width_of(cut, 13) <= 60
    assert lettering.wrapped(["one", "two", "three"], 80, 13, 2, joint=" |") == ["one | two |", "three"]
    assert lettering.width_of("漢字", 10) > lettering.width_of("ab", 10)
