"""`gatelens rank` and `gatelens stability` on a config, end to end."""

from __future__ import annotations

import json

import pytest

from gatelens.cli.main import main

CONFIG = """
name: small
seed: 0
model: {use: HookedMLP, sizes: [64, 12, 12, 10], train: {epochs: 3}}
data: {use: image_batches, source: digits, rows: [400, 150]}
bases: {use: Neurons}
solver: {use: GramLasso, mean_wires: 3, cap: 6}
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG)
    return path


def test_rank_writes_its_report_and_figures(config, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["rank", str(config), "--k", "2", "12", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "hook_post.0 -> hook_post.1" in text
    assert "random weights:" in text
    (report,) = json.loads((out / "rank.json").read_text())
    assert report["curve"]["k"] == [2, 12]
    page = (out / "rank.html").read_text()
    assert "<svg" in page
    assert "Static wires carry at most" in text
    assert "What static wires can carry at most" in page
    wires = report["static_wires"]
    curve = wires["removals"]
    assert curve == sorted(curve)
    # no more than twelve directions are there, and a wish is met where the curve says so
    assert curve[wires["wires"].index(16)] == pytest.approx(1)
    assert wires["removals_needed"]["0.9"] <= 12


def test_stability_writes_its_table(config, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["stability", str(config), "--rises", "0.01", "--steps", "2", "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    rows = json.loads((out / "stability.json").read_text())["rows"]
    assert [row["change"] for row in rows] == [
        "other inputs, bases kept",
        "other inputs",
        "other seed",
        "weight noise, loss +1.0%",
        "fine-tuned 2 steps",
        "retrained",
        "random weights",
    ]
    assert printed["rows"] == rows
    assert rows[0]["random_in"] is None  # nothing was matched: the bases were kept
    page = (out / "stability.html").read_text()
    assert "other seed" in page
    assert ("there is none to find again" in page) == (not any(row["verified"]["gates"] for row in rows))


def test_too_many_dimensions_are_refused(config, tmp_path, capsys):
    assert main(["rank", str(config), "--k", "99", "--out", str(tmp_path / "run")]) == 2
    assert "expected k from 0 to 12 dimensions, got 99" in capsys.readouterr().err
