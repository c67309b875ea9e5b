"""Tracking: curves and report go to anything with `log`; without a tracker nothing is asked for."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

import gatelens as gl
from gatelens.cli.main import main
from gatelens.errors.tracker import EVERY, tell_curve
from gatelens.models.training import Training


class Kept(list):
    log = list.append


def test_curves_and_the_report_are_told(digits):
    _, fit, held_out = digits
    with gl.tracking(Kept()) as kept:
        model = Training(epochs=12).fit(gl.HookedMLP((64, 8, 8, 10)), fit)
        bases = gl.TrainedSAE("batchtopk", d_sae=12, k=3, samples=3000)
        found = gl.find_circuit(model, (fit, held_out), bases=bases, quick=True)
    curve = [k["model/loss"] for k in kept if "model/loss" in k]
    assert curve[-1] < curve[0]
    assert [k["model/step"] for k in kept if "model/step" in k] == [EVERY * i for i in range(len(curve))]
    assert any("dictionary/loss" in k for k in kept)
    assert kept[-1] == found.report.numbers()
    assert kept[-1]["model.clean"] == found.report.to_dict()["model"]["clean"]


def test_nobody_is_asked_without_a_tracker():
    def asked() -> float:
        raise AssertionError("a loss was asked for")

    tell_curve("x", 0, asked)
    with gl.tracking(Kept()) as kept:
        tell_curve("x", EVERY + 1, asked)
    tell_curve("x", 0, asked)
    assert not kept


def test_the_command_opens_and_closes_the_tracker(monkeypatch, tmp_path, capsys):
    told: list = []
    stand_in = SimpleNamespace(
        init=lambda **how: told.append(how), log=told.append, finish=lambda: told.append("finished")
    )
    monkeypatch.setitem(sys.modules, "trackio", stand_in)
    changes = ["evaluation.polish=null", "model.train.epochs=1", "bases.samples=600", "solver.mean_wires=2"]
    changes += ["gates.tried_at_most=2", "data.rows=[600, 200]"]
    words = ["run", "digits", "--quick", "--track", "trackio", "--out", str(tmp_path / "run")]
    assert main([*words, *[w for c in changes for w in ("--set", c)]]) == 0
    assert told[0] == {"project": "gatelens", "name": "digits"}
    assert told[-1] == "finished"
    assert "model.clean" in told[-2]


def test_a_tracker_that_is_not_there_is_one_sentence(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "trackio", None)
    assert main(["run", "digits", "--track", "trackio", "--out", str(tmp_path / "run")]) == 2
    assert "pip install trackio" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["wandb"])
def test_the_real_module_takes_what_it_is_told(name, monkeypatch, tmp_path):
    wandb = pytest.importorskip(name)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    run = wandb.init(project="gatelens", dir=tmp_path)
    with gl.tracking(run):
        tell_curve("x", 0, lambda: 0.5)
    run.finish()
