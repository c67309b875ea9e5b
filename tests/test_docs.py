"""The documentation's made pages: all names, verbs and errors are in them; results are those of the files; links that lead nowhere are seen."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

import gatelens
from gatelens.cli.main import build_parser
from gatelens.errors import GateLensError

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import check_site  # noqa: E402
import docs_notebooks  # noqa: E402
import docs_reference  # noqa: E402
import docs_results  # noqa: E402
import make_tutorials  # noqa: E402

RESULTS = ROOT / "docs" / "results"


def test_the_api_page_has_the_whole_front_door():
    page = docs_reference.api()
    assert not [name for name in gatelens.__all__ if f"`{name}`" not in page]
    assert re.search(r"::: gatelens\.circuits\.[a-z_.]*Circuit\n", page)


def test_every_verb_and_every_config_is_in_the_reference():
    verbs = build_parser()._subparsers._group_actions[0].choices
    page = docs_reference.command_line()
    assert not [verb for verb in verbs if f"## gatelens {verb}\n" not in page]
    configs = docs_reference.configs()
    assert not [p.stem for p in (ROOT / "configs").glob("*.yaml") if f"### {p.stem}\n" not in configs]
    assert "| `mean_wires` |" in configs


def test_every_error_is_in_the_index_with_what_it_says():
    page = docs_reference.errors()
    kinds = [cls.__name__ for cls in GateLensError.__subclasses__() if cls.__module__ == "gatelens.errors"]
    assert not [kind for kind in kinds if f"## {kind}\n" not in page]
    assert "there is no config …" in page


def test_results_are_those_of_the_files():
    page = docs_results.page(RESULTS)
    for path in RESULTS.glob("*.json"):
        result = json.loads(path.read_text("utf-8"))
        assert f"({path.name})" in page
        for row in result.get("rows", []):
            assert row["figure"].replace("|", "\\|") in page
        for figure in result.get("figures", []):
            assert docs_results.shown(figure["value"]) in page
        if "figures" in result:
            assert {"date", "commit", "machine", "seeds"} <= set(result), f"{path.name}: when, where and how?"


def test_a_missed_bar_and_a_figure_that_was_not_measured_are_said(tmp_path):
    figures = [
        {
            "name": "a",
            "value": 0.5,
            "bar": 0.8,
            "better": "higher",
            "holds": False,
            "baselines": {"null": 0.1},
            "note": "",
        },
        {
            "name": "b",
            "value": None,
            "bar": None,
            "better": "higher",
            "holds": None,
            "baselines": {},
            "note": "no time",
        },
    ]
    result = {"bench": "x", "seeds": [1], "machine": {}, "date": "2026-01-01", "commit": "abc", "figures": figures}
    (tmp_path / "x.json").write_text(json.dumps(result))
    page = docs_results.page(tmp_path)
    assert "| a | **0.5** | ≥ 0.8 **missed** | null 0.1 |" in page
    assert "not measured" in page
    assert "no time" in page


def test_the_table_of_peers_is_the_files(tmp_path):
    """A row a form, a dash where nothing was measured, one plot a model, bars apart; a model that was not run says how to."""
    columns = {"weights": 10.0, "inputs an output": 8.0, "removals": 0.6, "KL": None, "seconds a token": 2e-3}
    nothing = dict.fromkeys(columns)
    row = lambda name, value, beside, note="": {  # noqa: E731
        "name": name, "value": value, "bar": None, "better": "lower", "holds": None, "baselines": beside, "note": note,
    }  # fmt: skip
    rows = [
        row("a: gates", 0.25, columns),
        row("a: ridge", None, nothing, "not run"),
        row("b: gates", None, nothing, "not run"),
    ]
    rows.append(row("a: price", 1.25, {}) | {"bar": 1.15, "holds": False})
    about = {
        "sizes": {"d_sae": 3_072, "l0": 32, "samples": 5, "pairs": 7},
        "rows": [4, 5],
        "sinks": 0.02,
        "rates": {"gates": 0.01},
    }
    result = {
        "bench": "peers",
        "seeds": [0],
        "machine": {},
        "date": "d",
        "commit": "c",
        "figures": rows,
        "models": {"a": about},
    }
    (tmp_path / "peers.json").write_text(json.dumps(result))
    page = docs_results.page(tmp_path)
    assert "| 1 | gates | **0.25** | 8 | 10 | 0.6 | 2 |" in page
    assert "| 2 | ridge<br><small>not run</small> | – | – | – | – | – |" in page
    assert "| a: price | **1.25** | ≤ 1.15 **missed** |" in page
    assert "2.0% of them left out as sinks" in page
    assert page.count("<svg") == 1
    assert "\n\n" not in page[page.index("<svg") : page.index("</svg>")]
    assert "gatelens bench peers --only b" in page


def test_dead_links_and_things_from_the_net_are_seen(tmp_path):
    (tmp_path / "other.html").write_text('<h2 id="there">x</h2>')
    (tmp_path / "index.html").write_text(
        '<a href="other.html#there">1</a><a href="other.html#gone">2</a><a href="none.html">3</a>'
        '<a href="https://example.org">4</a><script src="https://example.org/x.js"></script><img src="lost.png">'
    )
    found = check_site.faults(tmp_path)
    assert len(found) == 4
    assert all(any(word in line for line in found) for word in ("#gone", "none.html", "x.js", "lost.png"))


SCRIPTS = sorted(make_tutorials.FOLDER.glob("[0-9]*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_tutorials_are_stored_as_they_were_run(script):
    """`.ci/docs` runs them; here: the notebook is of its source, every cell has run without an error, its page has the output."""
    made = make_tutorials.notebook(script.read_text("utf-8"))
    kept = json.loads(script.with_suffix(".ipynb").read_text("utf-8"))
    assert [c.source for c in made.cells] == ["".join(c["source"]) for c in kept["cells"]]
    code = [c for c in kept["cells"] if c["cell_type"] == "code"]
    assert [c["execution_count"] for c in code] == list(range(1, len(code) + 1))
    outputs = [o for c in code for o in c["outputs"]]
    assert outputs
    assert not [o for o in outputs if o["output_type"] == "error"]
    assert "pip" in "".join(code[0]["source"]), "the first cell installs gatelens where it is not"
    text, marked = docs_notebooks.page(script.with_suffix(".ipynb"))
    assert 'title="Output"' in text
    assert all(mark in text for mark in marked)


def test_every_tutorial_and_guide_is_in_the_nav():
    nav = (ROOT / "mkdocs.yml").read_text("utf-8")
    pages = [p.relative_to(ROOT / "docs") for p in (ROOT / "docs").rglob("*.md")] + [
        s.with_suffix(".ipynb").relative_to(ROOT / "docs") for s in SCRIPTS
    ]
    assert not [str(p) for p in pages if not re.search(rf"[- ]{re.escape(str(p))}$", nav, re.M)]
