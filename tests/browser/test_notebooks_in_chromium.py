"""A notebook is executed, converted to HTML and opened: every value shows itself, and no text lies on another."""

from __future__ import annotations

import base64
import html
import json
import os
import re
from pathlib import Path

import pytest
from tests.browser.chromium import PROGRAM, REASON, open_page, screenshot

nbconvert = pytest.importorskip("nbconvert")
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason=REASON)

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = Path(__file__).parent / "screenshots"

SETUP = """
import warnings; warnings.simplefilter("ignore")
import torch
from tests.support.pages import HOOK_IN, HOOK_OUT, planted
from gatelens import views
from gatelens.bases.rotation import JacobianRotation, rotation_pictures
from gatelens.basis.linear import Rotation
from gatelens.data import image_batches
from gatelens.models import HookedMLP
from gatelens.pipeline.find import find_circuit
import gatelens as gl
made = planted([f" w{i}" for i in range(50)], outputs=9, inputs=16)
circuit = made.circuit
known = views.known(circuit, made.acts, tokenizer=made.tokenizer)
"""
CELLS = {
    "circuit": "circuit",
    "gate": "circuit.gate(1)",
    "drawing": "views.gate(circuit.gate(2), known)",
    "neighbourhood": "views.neighbourhood(circuit, 1, known)",
    "connector": "circuit.connectors[circuit.segments[0].name]",
    "found": """model = HookedMLP((64, 16, 16, 10), seed=0)
batches = image_batches("digits", rows=(300, 100))
found = find_circuit(model, batches, bases=gl.Neurons())
found""",
    "report": "found.report",
    "jacobians": """segments = gl.mlp_segments(model)
fit, unseen = (gl.collect(model, part, segments) for part in batches)
recipe = JacobianRotation(method="svd", inputs=8, seed=0)
bases = recipe.fit(segments, fit)
next(iter(rotation_pictures(segments, bases, fit, unseen, recipe).values()))""",
    "rotation": "Rotation(torch.linalg.qr(torch.randn(12, 12))[0])",
    "comparison": 'views.compare(circuit, circuit, names=("one", "two"))',
    "page": "views.page(circuit, made.acts, tokenizer=made.tokenizer)",
    "panels": 'views.token_panels([("tokens", [([" he", " she", "<b>"], [1.0, 0.4, -0.5])])])',
    "panels again": 'views.token_panels([("again", [([" him", " her"], [1.0, 0.9])])])',
}

#: boxes of text that lie on one another, also within shadow roots and frames; clipped parts do not count
OVERLAPS = """
function boxes(root, view, dx, dy, found) {
  root.childNodes.forEach(function (node) {
    if (node.nodeType === 3 && node.textContent.trim()) {
      var range = node.ownerDocument.createRange(); range.selectNodeContents(node);
      var clip = [-1e9, -1e9, 1e9, 1e9], at = node.parentNode;
      for (; at && at.nodeType === 1; at = at.parentNode || (at.getRootNode().host)) {
        var style = view.getComputedStyle(at);
        if (style.visibility === "hidden" || style.opacity === "0") { return; }
        if (style.overflowX !== "visible" || style.overflowY !== "visible") {
          var c = at.getBoundingClientRect();
          clip = [Math.max(clip[0], c.left), Math.max(clip[1], c.top), Math.min(clip[2], c.right), Math.min(clip[3], c.bottom)];
        }
      }
      Array.prototype.forEach.call(range.getClientRects(), function (r) {
        var x0 = Math.max(r.left, clip[0]), y0 = Math.max(r.top, clip[1]), x1 = Math.min(r.right, clip[2]), y1 = Math.min(r.bottom, clip[3]);
        if (x1 - x0 > 1 && y1 - y0 > 1) { found.push([x0 + dx, y0 + dy, x1 + dx, y1 + dy, node.textContent.trim().slice(0, 40), node]); }
      });
    } else if (node.nodeType === 1 && !/^(script|style|title|template|noscript|select|option)$/i.test(node.tagName)) {
      if (node.shadowRoot) { boxes(node.shadowRoot, view, dx, dy, found); return; }
      if (node.tagName === "DETAILS" && !node.open) { boxes(node.querySelector("summary"), view, dx, dy, found); return; }
      boxes(node, view, dx, dy, found);
    }
  });
}
function overlaps(body, view) {
  var found = [], pairs = [];
  boxes(body, view, 0, 0, found);
  found.sort(function (a, b) { return a[1] - b[1]; });
  for (var i = 0; i < found.length; i += 1) {
    for (var j = i + 1; j < found.length && found[j][1] < found[i][3]; j += 1) {
      var a = found[i], b = found[j], w = Math.min(a[2], b[2]) - Math.max(a[0], b[0]), h = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
      // line boxes are taller than letters: a third of the smaller box must be covered; a text cut with an ellipsis has two
      if (a[5] !== b[5] && w > 2 && h > Math.min(a[3] - a[1], b[3] - b[1]) / 3) { pairs.push(a[4] + " / " + b[4]); }
    }
  }
  return { texts: found.length, pairs: pairs.slice(0, 20), number: pairs.length };
}
"""


def measured(path: Path, folder: Path, width: int = 1200) -> dict:
    """How many texts a page shows, and which of them overlap."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", path.read_text("utf-8"), count=1)
    probe = folder / "measured.html"
    run = """window.addEventListener("load", function () { setTimeout(function () {
var all = overlaps(document.body, window);
document.querySelectorAll("iframe").forEach(function (frame) {
  if (!frame.contentDocument) { return; }
  var more = overlaps(frame.contentDocument.body, frame.contentWindow);
  all = { texts: all.texts + more.texts, pairs: all.pairs.concat(more.pairs), number: all.number + more.number };
});
document.title = JSON.stringify(all); }, 700); });"""
    # measuring looks into the frames: for that alone their sandbox is opened
    text = text.replace('sandbox="allow-scripts', 'sandbox="allow-same-origin allow-scripts')
    cut = text.rindex("</body>")
    probe.write_text(f"{text[:cut]}<script>{OVERLAPS}{run}</script>{text[cut:]}", "utf-8")
    seen = open_page(probe, wait_ms=6000, width=width)
    return json.loads(html.unescape(re.search(r"<title>(.*?)</title>", seen.dom, re.S)[1]))


def test_the_measure_itself_sees_texts_that_overlap(tmp_path):
    page = tmp_path / "bad.html"
    page.write_text(
        "<!doctype html><body><p style='position:absolute;top:9px'>one</p><p style='position:absolute;top:9px'>two</p></body>"
    )
    assert measured(page, tmp_path)["number"] == 1


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    cells = [nbformat.v4.new_code_cell(SETUP), *(nbformat.v4.new_code_cell(code) for code in CELLS.values())]
    book = nbformat.v4.new_notebook(cells=cells)
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT), before])
    try:
        nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    finally:
        os.environ["PYTHONPATH"] = before
    return book, folder


def shown(book) -> dict[str, str]:
    outputs = [next((o for o in c["outputs"] if o["output_type"] == "execute_result"), None) for c in book.cells[1:]]
    return {name: (o or {}).get("data", {}).get("text/html", "") for name, o in zip(CELLS, outputs, strict=True)}


def test_every_value_shows_itself_whole_and_fetches_nothing(executed):
    found = shown(executed[0])
    assert not [name for name, text in found.items() if not text]
    assert "too large for a notebook" not in "".join(found.values())
    for text in found.values():
        markup = re.sub(r"<script>.*?</script>", "", text, flags=re.S)
        assert not re.search(r'(?:src|href)="(?!data:|#)[^"]', markup)
    assert "".join(found.values()).count("var CircuitsVis=") == 1, "the bundle is in a notebook once"
    assert "&lt;b&gt;" in found["panels"]
    drawing = base64.b64decode(re.search(r'src="data:image/svg\+xml;base64,([^"]*)"', found["drawing"])[1]).decode()
    assert "w" in re.search(r'<text class="l"[^>]*>([^<]*)<', drawing)[1], "names, not numbers"


def sanitized(text: str) -> str:
    """An output as a front end leaves it of a notebook that is not trusted: without scripts, styles, SVG and frames."""
    text = re.sub(r"<(script|style|svg|template)\b.*?</\1>", "", text, flags=re.S)
    return re.sub(r"</?iframe\b[^>]*>", "", text)


def test_a_notebook_that_is_not_trusted_shows_its_drawings_and_fetches_nothing(executed, tmp_path):
    found = {name: sanitized(text) for name, text in shown(executed[0]).items()}
    page = tmp_path / "untrusted.html"
    body = "".join(f'<div id="{name}">{text}</div>' for name, text in found.items())
    count = """window.addEventListener("load", function () { document.title = JSON.stringify(Array.from(document.querySelectorAll("body > div")).map(function (d) {
  var images = Array.from(d.querySelectorAll("img.drawing"));
  return [d.id, images.length, images.every(function (i) { return i.naturalWidth > 0 && i.alt; }), d.innerText.length]; })); });"""
    page.write_text(f'<!doctype html><meta charset="utf-8"><body>{body}<script>{count}</script></body>', "utf-8")
    seen = open_page(page)
    assert (seen.console, seen.requests) == ([], [])
    kept = {name: rest for name, *rest in json.loads(html.unescape(re.search(r"<title>(.*?)</title>", seen.dom)[1]))}
    assert all(loaded for _, loaded, _ in kept.values())
    pictures = {"drawing": 2, "neighbourhood": 2, "gate": 2, "jacobians": 1}
    assert {name: kept[name][0] for name in pictures} == pictures
    assert kept["circuit"][0] > 5 < kept["found"][0]
    assert all(
        words > 10
        for name, (_, _, words) in kept.items()
        if name not in ("drawing", "neighbourhood", "jacobians", "panels again")
    )
    assert "shows when the notebook is trusted" in found["page"]


@pytest.mark.parametrize("template", ["lab", "classic"])
def test_no_text_of_the_converted_notebook_lies_on_another(executed, template):
    book, folder = executed
    exporter = nbconvert.HTMLExporter(template_name=template)
    exporter.exclude_input = True
    body, _ = exporter.from_notebook_node(book)
    # the converter's own page asks for programs that draw formulae; ours needs none
    body = re.sub(r'<script[^>]*src="https?://[^"]*"[^>]*>\s*</script>', "", body)
    page = folder / f"{template}.html"
    page.write_text(body, "utf-8")
    SCREENSHOTS.mkdir(exist_ok=True)
    screenshot(page, SCREENSHOTS / f"notebook-{template}.png", 1200, 5200)
    found = measured(page, folder)
    assert found["texts"] > 300
    assert found["pairs"] == []
