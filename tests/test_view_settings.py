"""A finished run is drawn again with other view settings; nothing else of it changes, and what a reader pinned stays."""

from __future__ import annotations

import hashlib
import json
import re

import pytest
import yaml

from gatelens import views
from gatelens.cli import main
from gatelens.errors import ConfigError
from gatelens.pipeline import run
from gatelens.pipeline.config import check_config
from gatelens.pipeline.view_settings import redrawn_config

SMALL = {
    "name": "small",
    "model": {"use": "HookedMLP", "sizes": [64, 16, 16, 10], "train": {"epochs": 5}},
    "data": {"use": "image_batches", "source": "digits", "rows": [400, 200]},
    "bases": {"use": "Neurons"},
    "solver": {"use": "GramLasso", "mean_wires": 3},
    "evaluation": {"baselines": [], "curve_rows": 0},
    "views": {"max_cards": 2, "title": "first"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "small"
    run(check_config(SMALL), out)
    return out


def contents(folder) -> dict[str, str]:
    own = ("index.html", "views.yaml", ".run.lock", ".run.owner", "manifest.json")
    kept = [p for p in folder.rglob("*") if p.is_file() and p.name not in own]
    parts = json.loads((folder / "manifest.json").read_text())
    listed = {k: json.dumps(v) for k, v in _parts(parts).items() if "index.html" not in k}
    return listed | {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in kept}


def _parts(value, name: str = "") -> dict[str, object]:
    if not isinstance(value, dict):
        return {name: value}
    return {k: v for key, part in value.items() for k, v in _parts(part, f"{name}/{key}").items()}


def test_a_finished_run_is_redrawn_and_nothing_else_changes(folder, capsys):
    before = contents(folder)
    page = folder / "index.html"
    pins = {"groups": [{"name": "mine", "items": ["s0.OF_1"]}], "names": {"s0.IF_2": "</script>loops"}}
    held = json.dumps(pins).replace("<", "\\u003c")
    text = re.sub(r'(id="saved">)[^<]*', lambda m: m[1] + held, page.read_text("utf-8"))
    page.write_text(text, "utf-8")
    assert main(["view", str(folder), "--set", "views.max_cards=200", "--set", "views.title=second"]) == 0
    assert contents(folder) == before
    again = page.read_text("utf-8")
    assert "<h1>second</h1>" in again
    assert yaml.safe_load((folder / "views.yaml").read_text()) == {
        "max_cards": 200,
        "title": "second",
        "token_panels": False,
        "prompts": [],
    }
    assert views.saved_in(page) == pins
    assert redrawn_config(folder, []).views.max_cards == 200, "the last settings are the next ones to begin with"
    assert str(page) in capsys.readouterr().out


def test_the_same_config_with_other_view_settings_goes_on_in_its_folder(folder):
    run(check_config(SMALL | {"views": {"title": "third"}}), folder)
    assert "<h1>third</h1>" in (folder / "index.html").read_text("utf-8")


def test_what_is_no_view_setting_is_refused(folder, capsys, tmp_path):
    with pytest.raises(ConfigError, match=r"--set seed: a finished run can be redrawn .*views\.max_cards"):
        redrawn_config(folder, ["seed=1"])
    assert main(["view", str(folder), "--set", "views.max_card=9"]) == 2
    assert "did you mean 'max_cards'" in capsys.readouterr().err
    assert main(["view", str(tmp_path)]) == 2
    assert "is no run folder" in capsys.readouterr().err


def test_saved_is_read_with_care(tmp_path):
    page = tmp_path / "page.html"
    assert views.saved_in(page) == {}
    for held in ("", "[]", "{", '{"groups": 3, "names": []}', '{"groups": [{"items": ["../x", 7]}]}'):
        page.write_text(f'<script type="application/json" id="saved">{held}</script>', "utf-8")
        found = views.saved_in(page)
        assert not [i for g in found.get("groups", []) for i in g["items"]]
