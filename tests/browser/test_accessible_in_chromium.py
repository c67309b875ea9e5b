"""axe-core finds nothing serious in any page, light or dark, with everything open: names, contrast, roles, keyboard order."""

from __future__ import annotations

import html
import json
import os
import re
from pathlib import Path

import pytest
from tests.browser.chromium import PROGRAM, REASON, open_page
from tests.support.pages import planted
from tests.test_prompts_page import reading, ruled  # noqa: F401

from gatelens import views

#: where `npm install axe-core` put it; .ci/run does so
AXE = Path(os.environ.get("GATELENS_AXE", "node_modules/axe-core/axe.min.js"))
pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason=REASON),
    pytest.mark.skipif(not AXE.is_file(), reason="needs axe-core: npm install axe-core, GATELENS_AXE=its axe.min.js"),
]

RUN = """;setTimeout(function () {
  document.querySelectorAll("details").forEach(function (d) { d.open = true; });
  setTimeout(function () { axe.run(document).then(function (found) {
    document.title = JSON.stringify([found.passes.length, found.violations.map(function (v) { return [v.id, v.impact, v.nodes[0].html.slice(0, 200)]; })]);
  }); }, 1500);
}, 1500);"""


def checked(page: Path, dark: bool = False, fragment: str = "") -> tuple[int, list]:
    """How many rules a page keeps, and those that it breaks: (rule, how serious, the first element)."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text("utf-8"), count=1)
    script = (AXE.read_text("utf-8") + RUN).replace("</script", "<\\/script")
    probe, cut = page.with_suffix(".axe.html"), text.rindex("</body>")
    probe.write_text(f"{text[:cut]}<script>{script}</script>{text[cut:]}", "utf-8")
    seen = open_page(probe, dark=dark, fragment=fragment, wait_ms=20_000)
    kept, broken = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", seen.dom, re.S)[1]))
    return kept, broken


def test_the_check_itself_sees_what_is_wrong(tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!doctype html><html lang=en><title>t</title><body><button></button><p style='color:#bbb'>pale</p></body></html>"
    )
    assert {name for name, *_ in checked(bad)[1]} >= {"button-name", "color-contrast"}


@pytest.mark.parametrize("dark", [False, True])
def test_a_page_of_gates(tmp_path, dark):
    made = planted([f" w{i}" for i in range(50)], outputs=9, inputs=16)
    page = views.page(made.circuit, made.acts, tokenizer=made.tokenizer, max_cards=6, token_panels=True)
    kept, broken = checked(page.save(tmp_path / "page.html"), dark)
    assert kept > 15
    assert broken == []


@pytest.mark.parametrize("dark", [False, True])
def test_a_page_of_a_prompt(tmp_path, dark, reading):  # noqa: F811
    page = views.prompt_page(ruled(reading).on(reading.model, "It was late"), local=2)
    kept, broken = checked(page.save(tmp_path / "prompt.html"), dark)
    assert kept > 10
    assert broken == []


def test_a_comparison(tmp_path):
    made = planted([f" w{i}" for i in range(50)], outputs=9, inputs=16)
    page = views.compare(made.circuit, made.circuit, names=("one", "two"))
    assert checked(page.save(tmp_path / "compare.html"))[1] == []
