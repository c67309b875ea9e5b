"""Pages in headless Chromium, from their files, with every host name unresolvable."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest
from tests.browser.chromium import PROGRAM, REASON, open_page, screenshot
from tests.support.pages import planted
from tests.test_views import HOSTILE, packs_of

from gatelens import views
from gatelens.gates import Gate, GateKind
from gatelens.views import document, matrix
from gatelens.views.net import net_of
from gatelens.views.sketch import sketch_of

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=REASON)


@pytest.fixture(scope="module")
def hostile():
    return planted([f" word{i}" for i in range(30)] + HOSTILE, outputs=6, inputs=24)


@pytest.fixture(scope="module")
def page(hostile, tmp_path_factory):
    made = views.page(hostile.circuit, hostile.acts, tokenizer=hostile.tokenizer, title=HOSTILE[0], token_panels=True)
    return made.save(tmp_path_factory.mktemp("page") / "page.html")


def text_of(dom: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", re.sub(r"<(script|style)\b.*?</\1>", "", dom, flags=re.S)))


def test_the_check_itself_sees_requests_and_errors(tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text("<!doctype html><img src='http://example.invalid/a.png'><script>throw Error('seen')</script>")
    seen = open_page(bad)
    assert seen.requests == ["http://example.invalid/a.png"]
    assert any("seen" in line for line in seen.console)


@pytest.mark.parametrize("dark", [False, True])
def test_a_page_is_silent_and_fetches_nothing(page, dark):
    seen = open_page(page, dark=dark)
    assert seen.console == []
    assert seen.requests == []
    assert "window.ran" in text_of(seen.dom), "hostile tokens are there, as text"
    assert re.search(r'<div class="cv" id="[^"]+"><', seen.dom), "circuitsvis drew"
    assert "6 of 6 gates" in text_of(seen.dom), "the index works"


def test_hostile_text_ran_nothing(page, tmp_path):
    probe = tmp_path / "probe.html"
    text = page.read_text("utf-8")
    # only the policy is taken off: without it, whatever the data could run would run
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    probe.write_text(text.replace("</body>", "<script>document.title = 'ran: ' + window.ran</script></body>"), "utf-8")
    assert "<title>ran: undefined</title>" in open_page(probe).dom


def test_the_policy_stops_a_foreign_script_and_picture(tmp_path):
    made = document.document(
        "t", document.Markup("<p>x</p><script>document.title='ran'</script><img src='http://example.invalid/p.png'>")
    )
    seen = open_page(made.save(tmp_path / "policy.html"))
    assert "<title>t</title>" in seen.dom
    assert seen.requests == []
    assert len(seen.console) >= 2


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    p = planted([f" w{i}" for i in range(50)], outputs=90, inputs=24)
    made = views.page(p.circuit, p.acts, tokenizer=p.tokenizer, max_cards=90)
    return made.save(tmp_path_factory.mktemp("many") / "many.html")


def acted(page: Path, folder: Path, moves: str, fragment: str = "") -> str:
    """What a program puts into the title after it acted in the page, its policy taken off; the page must stay silent."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text("utf-8"), count=1)
    # packs are inflated while the browser's own clock stands: what is waited for is asked, not timed
    wait = """function until(ready, act) { if (ready()) { act(); } else { setTimeout(function () { until(ready, act); }, 20); } }
function later(act) { setTimeout(act, 500); }"""
    path = folder / "acted.html"
    path.write_text(text.replace("</body>", f"<script>{wait}\n{moves}</script></body>"), "utf-8")
    seen = open_page(path, fragment=fragment, wait_ms=15000)
    assert seen.console == []
    return html.unescape(re.search(r"<title>(.*?)</title>", seen.dom)[1])


def test_a_link_opens_a_packed_card_at_its_head(many, tmp_path):
    last = views_rows(many)[-1][0]
    title = acted(
        many,
        tmp_path,
        f"""var card = null;
until(function () {{ card = document.getElementById("{last}"); return card && card.querySelector(".tools"); }}, function () {{ later(function () {{
  document.title = [card.open, Math.abs(card.getBoundingClientRect().top) < 2, card.querySelector(".pic svg") !== null,
    location.hash].join(" ");
}}); }});""",
        fragment=f"#{last}",
    )
    assert title == f"true true true #{last}"


def views_rows(page: Path) -> list[list]:
    return packs_of(page.read_text("utf-8"))["index-s0"]["rows"]


def test_an_id_finds_the_gates_of_that_feature_alone_and_opening_sets_the_hash(many, tmp_path):
    rows = views_rows(many)
    wanted = sum(1 in row[8] for row in rows)
    assert 0 < wanted < sum(any(str(i).startswith("1") for i in row[8]) for row in rows)
    title = acted(
        many,
        tmp_path,
        """until(function () { return !document.querySelector("form").hidden; }, function () {
  var q = document.querySelector("[name=q]");
  q.value = "IF_1"; q.dispatchEvent(new Event("input"));
  var found = document.querySelector("form output").textContent, card = document.querySelector(".cards .card");
  card.open = true;
  until(function () { return card.querySelector(".tools") && location.hash; }, function () { document.title = [found, location.hash === "#" + card.id, card.querySelectorAll(".tools button").length].join(" | "); });
});""",
    )
    assert title == f"{wanted} of 90 gates | true | 4"


def test_a_feature_has_a_page_of_its_own_and_pins_are_kept_in_a_copy(many, tmp_path):
    wanted = sum(1 in row[8] for row in views_rows(many))
    title = acted(
        many,
        tmp_path,
        """var kept = null;
URL.createObjectURL = function (blob) { kept = blob; return "data:,"; };
HTMLAnchorElement.prototype.click = function () {};
until(function () { return document.querySelector("#feature .ctx"); }, function () {
  var about = document.getElementById("feature"), name = about.querySelector("input");
  name.value = "<" + "/script><b>mine"; name.dispatchEvent(new Event("input"));
  about.querySelector("button[data-pin]").click();
  document.querySelector("[name=keep]").click();
  kept.text().then(function (text) {
    document.title = [about.hidden, about.querySelectorAll("li").length, about.querySelectorAll(".ctx").length > 0,
      text.match(/id="saved">([^<]*)</)[1]].join(" | ");
  });
});""",
        fragment="#s0.IF_1",
    )
    hidden, fed, examples, saved = title.split(" | ", 3)
    assert (hidden, fed, examples) == ("false", str(wanted), "true")
    assert json.loads(saved) == {
        "groups": [{"name": "Pinned", "items": ["s0.IF_1"]}],
        "names": {"s0.IF_1": "</script><b>mine"},
    }


def test_the_map_follows_the_steps_of_a_fit_and_lights_both_drawings(tmp_path):
    end = [[1.0, 0.0, 0.0], [0.0, 0.5, -1.0]]
    begin = [[0.5, 0.0, 0.0], [0.0, 0.0, 0.75]]
    gates = [Gate(0, GateKind.COPY, (0,), (1.0,), 0.0, excite=(0,))]
    gates.append(Gate(1, GateKind.AND_NOT, (1, 2), (0.5, -1.0), 0.0, excite=(1,), inhibit=(2,)))
    net = net_of([sketch_of(gate) for gate in gates])
    made = document.document("map", matrix.layer_map(end, trace=[begin, end], net=net)).text
    made = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", made, count=1)
    moves = """<script>
var steps = document.querySelector("form.steps");
steps.step.value = 0;
steps.dispatchEvent(new Event("input"));
document.querySelector(".v[data-o='1']").dispatchEvent(new Event("focusin", {bubbles: true}));
var lit = Array.from(document.querySelectorAll(".e.hit")).map(function (e) { return e.firstChild.textContent; });
document.title = [steps.querySelector("output").textContent, lit.sort().join(), document.querySelector(".at").textContent,
  document.querySelectorAll("canvas").length].join(" | ");
</script></body>"""
    path = tmp_path / "map.html"
    path.write_text(made.replace("</body>", moves), "utf-8")
    seen = open_page(path)
    assert seen.console == []
    title = html.unescape(re.search(r"<title>(.*?)</title>", seen.dom)[1])
    assert title == (
        "step 1: 2 wires in all, 2 between these features | IF_1 → OF_1: 0.500,IF_2 → OF_1: −1.000 | OF_1 | 1"
    )


def test_the_same_fragment_twice_draws_twice(hostile, tmp_path):
    shown = hostile.circuit.gate(0)._repr_html_()
    path = tmp_path / "notebook.html"
    count = """<script>document.title = Array.from(document.querySelectorAll(".gl-host")).map(function (host) {
  return host.shadowRoot.textContent.split("Truth table").length - 1; }).join();</script>"""
    path.write_text(f"<!doctype html><body>{shown}{shown}{count}</body>", "utf-8")
    assert "<title>1,1</title>" in open_page(path).dom
    # front ends put outputs in piece by piece, and run their scripts by putting them in again
    held = json.dumps(shown).replace("<", "\\u003c")
    again = f"""<script>[0, 1].forEach(function () {{
  var place = document.createElement("div");
  document.body.append(place);
  place.innerHTML = {held};
  place.querySelectorAll("script").forEach(function (s) {{ var n = document.createElement("script"); n.textContent = s.textContent; s.replaceWith(n); }});
}});</script>"""
    path.write_text(f"<!doctype html><body>{again}{count}</body>", "utf-8")
    seen = open_page(path)
    assert "<title>1,1</title>" in seen.dom
    assert seen.console == []


SCREENSHOTS = Path(__file__).parent / "screenshots"


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_screenshots_are_of_their_theme_and_nothing_sticks_out(page, width, dark):
    from PIL import Image

    # kept, for a person to look at
    SCREENSHOTS.mkdir(exist_ok=True)
    out = SCREENSHOTS / f"page-{width}-{'dark' if dark else 'light'}.png"
    out.unlink(missing_ok=True)
    picture = Image.open(screenshot(page, out, width, 900, dark=dark)).convert("L")
    corner = picture.getpixel((3, 3))
    assert (corner < 60) == dark
    wire = {picture.getpixel((picture.width - 2, y)) for y in range(picture.height)}
    assert wire == {corner}, "the right wire is bare: nothing is cut off"


@pytest.mark.parametrize("width", [390, 1200])
def test_no_text_of_a_page_lies_on_another(many, tmp_path, width):
    from tests.browser.test_notebooks_in_chromium import measured

    found = measured(many, tmp_path, width)
    assert found["texts"] > 200
    assert found["pairs"] == []
