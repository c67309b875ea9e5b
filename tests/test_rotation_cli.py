"""`gatelens rotate`: every direction, its table, its files; what a rotation means at the end where it was fitted."""

from __future__ import annotations

import json

import pytest

from gatelens.cli import main

CONFIG = """
name: tiny
seed: 0
model: {use: HookedMLP, sizes: [64, 12, 12, 10], train: {epochs: 2}}
data: {use: image_batches, source: digits}
bases: {use: JacobianRotation}
solver: {use: GramLasso, signed: true, mean_wires: 4}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("rotate") / "tiny.yaml"
    path.write_text(CONFIG)
    return path


@pytest.mark.filterwarnings("ignore:.*point in only", "ignore:the columns span", "ignore:.*zero Jacobian")
@pytest.mark.parametrize(
    ("direction", "sides"),
    [
        ("forward", {"hook_post.1": "out"}),
        ("backward", {"hook_post.0": "in"}),
        ("both", {"hook_post.0": "in", "hook_post.1": "out"}),
    ],
)
def test_every_direction_reports_the_ends_that_it_rotated(config, capsys, direction, sides):
    out = config.parent / "run"
    assert main(["rotate", str(config), "--direction", direction, "--inputs", "20", "--out", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {hook: entry["side"] for hook, entry in report.items()} == sides
    for entry in report.values():
        assert set(entry["sparsity"]) == {"rotation", "neurons", "random", "svd", "qr", "fitted to noise"}
        assert entry["sparsity"]["rotation"]["l1"] < entry["sparsity"]["random"]["l1"]
    assert json.loads((out / "rotations.json").read_text()) == report
    assert (out / "rotations-0.svg").read_text().startswith("<svg")


def test_the_table_names_every_null_and_the_files(config, capsys):
    assert main(["rotate", str(config), "--method", "svd", "--out", str(config.parent / "run")]) == 0
    shown = capsys.readouterr().out
    for word in ("fitted to noise", "S(0.1)", "held out, mean |y| is", "rotations.json", "rotations-0.svg"):
        assert word in shown


def test_an_unknown_method_is_refused_in_one_sentence(config, capsys):
    assert main(["rotate", str(config), "--method", "chian", "--out", str(config.parent / "other")]) == 2
    assert "did you mean 'chain'" in capsys.readouterr().err
    assert not (config.parent / "other").exists()  # before any work


def test_the_page_of_a_run_with_rotations_shows_jacobians_before_and_after(config, capsys):
    out = config.parent / "whole"
    assert main(["run", str(config), "--out", str(out)]) == 0
    assert "rotation at hook_post.1: held out, mean |y| is" in capsys.readouterr().out
    section = (out / "index.html").read_text().split('<section id="jacobians">')[1]
    for said in (
        "before, fitted",
        "after, held out",
        "one of 64 fitted",
        "L1, mu 0.02",
        "fitted to noise",
        "held out, mean |y| is",
    ):
        assert said in section
    assert section.count("<image") == 4 + 1  # the panels and the scale's bar
