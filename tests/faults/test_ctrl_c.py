"""Ctrl-C in each room of a run, and in the calls of the library: one sentence says what is kept, and going on gives the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import yaml
from fault import HOOKS, config_values, files_in, forty_rows, hooks_on, tiny_model

import gatelens as gl
import gatelens.pipeline.hooks
import gatelens.pipeline.prompting  # before anything is patched, which these would keep
from gatelens.cli.main import main
from gatelens.errors.interrupt import kept

#: where the key is pressed, in the order of a walk -> what is said to be kept
ROOMS = {
    "gatelens.models.training.Training.fit": "no room is finished in {}",
    "gatelens.activations.capture.run_cached": "keeps model, the finished shards of its activations",
    "gatelens.pipeline.state.fit_bases": "{} keeps model, activations",
    "gatelens.pipeline.state.connect": "keeps model, activations, bases",
    "gatelens.pipeline.state.read_gates": "keeps model, activations, bases, connectors",
    "gatelens.pipeline.finishing.own_report": "keeps model, activations, bases, connectors, circuit",
    "gatelens.pipeline.finishing.whole_report": "keeps model, activations, bases, connectors, circuit, report-quick.json",
    "gatelens.views.saved_in": "circuit, report-quick.json, report.json",
    "gatelens.cli.walks.best_gates": "report.json, index.html",
}


LIGHT = {"baselines": [], "curve_rows": 0, "coverage": False}


def pressed(*arguments: Any, **options: Any) -> Any:
    raise KeyboardInterrupt


def figures(folder: Path) -> Any:
    return {k: v for k, v in json.loads((folder / "report.json").read_text()).items() if k != "timing_s"}


def test_in_every_room_of_a_run(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config_values() | {"evaluation": LIGHT}))
    run = ["run", str(tmp_path / "c.yaml"), "--out"]
    for place, says in ROOMS.items():
        if place == "gatelens.views.saved_in":  # the page ahead is drawn with it too
            assert main(["evaluate", *run[1:], str(tmp_path / "stopped")]) == 0
        with mock.patch(place, pressed):
            assert main([*run, str(tmp_path / "stopped")]) == 130
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("gatelens run: stopped; ")
        assert says.format(tmp_path / "stopped") in said
        assert said.endswith("; run the same command to go on")
    assert main([*run, str(tmp_path / "stopped")]) == 0
    assert "again" not in capsys.readouterr().err
    assert main([*run, str(tmp_path / "whole")]) == 0
    stopped, whole = (files_in(tmp_path / name) for name in ("stopped", "whole"))
    assert set(stopped) == set(whole)
    timed = {"report.json", "report-quick.json", "manifest.json", "index.html"}
    assert {name for name in whole if stopped[name] != whole[name]} <= timed
    assert figures(tmp_path / "stopped") == figures(tmp_path / "whole")


@pytest.mark.parametrize("arguments", [["compare", "a", "b"], ["prompt", "a", "text"], ["hooks", "digits"]])
def test_verbs_that_keep_nothing_say_so(arguments: list[str], capsys: Any) -> None:
    places = ["gatelens.pipeline.provenance.check_part", "gatelens.pipeline.prompting.stored_config"]
    with (
        mock.patch(places[0], pressed),
        mock.patch(places[1], pressed),
        mock.patch("gatelens.pipeline.config.read_config", pressed),
    ):
        assert main(arguments) == 130
    assert capsys.readouterr().err == f"gatelens {arguments[0]}: stopped; nothing of it is kept\n"


def find(model: Any) -> Any:
    return gl.find_circuit(model, (forty_rows(), forty_rows()), bases=gl.Neurons(), progress=False)


CALLS: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "collect": ("gatelens.activations.capture.run_cached", lambda m: gl.collect(m, forty_rows(), HOOKS), "store=FOLDER"),
    "find_circuit": ("gatelens.pipeline.state.read_gates", find, "find_circuit keeps nothing of what it began"),
    "find_circuit, collecting": ("gatelens.activations.capture.run_cached", find, "find_circuit keeps nothing"),
    "train": (
        "gatelens.bases.sae.trained.train_pair",
        lambda m: gl.TrainedSAE(d_sae=8, k=2).train(torch.rand(40, 6)),
        "TrainedSAE.train was stopped: nothing of it is kept",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_calls_of_the_library_say_what_is_kept(name: str) -> None:
    place, call, says = CALLS[name]
    model = tiny_model()
    with mock.patch(place, pressed), pytest.raises(KeyboardInterrupt) as stopped:
        call(model)
    assert says in kept(stopped.value)
    assert ";" not in kept(stopped.value).partition("; ")[2]  # one sentence, of two halves at most
    assert hooks_on(model) == 0


#: presses the key when a module is first looked for; `swallowed`: what its importer makes of that
PRESSING = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            sys.meta_path.remove(self)
            try:
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(1000): pass
            except KeyboardInterrupt:
                if {swallowed}: raise RecursionError("half imported")
                raise
sys.meta_path.insert(0, Finder())
sys.argv = ["gatelens", "run", {config!r}, "--out", {out!r}]
from gatelens.__main__ import start
sys.exit(start())
"""


@pytest.mark.parametrize(
    ("name", "swallowed"),
    [("gatelens.cli.main", False), ("gatelens.pipeline.running", True)],
)
def test_within_an_import(name: str, swallowed: bool, tmp_path: Path) -> None:
    """From the first import on, whatever a half imported library makes of it: a sentence, and no traceback."""
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config_values() | {"evaluation": LIGHT}))
    script = PRESSING.format(name=name, swallowed=swallowed, config=str(tmp_path / "c.yaml"), out=str(tmp_path / "out"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("gatelens")
    assert "stopped; " in done.stderr


def half_imported(*arguments: Any, **options: Any) -> Any:
    try:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):  # the handler is called between two steps
            pass
    except KeyboardInterrupt:
        raise RecursionError("half imported") from None


def test_what_a_library_makes_of_it_later(capsys: Any) -> None:
    with mock.patch("gatelens.pipeline.config.read_config", half_imported):
        assert main(["hooks", "digits"]) == 130
    assert capsys.readouterr().err == "gatelens hooks: stopped; finished rooms are kept\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
