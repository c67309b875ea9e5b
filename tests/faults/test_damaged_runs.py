"""Every file of a finished run, damaged in every way, under every verb that reads runs: our errors, or a remake that says why.

A random part of all that can be done, for a few seconds, from a seed that is printed; GATELENS_FUZZ_SECONDS gives it longer.
"""

from __future__ import annotations

import os
import random
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gatelens as gl
from gatelens.cli.main import main
from gatelens.errors import GateLensError

SECONDS = float(os.environ.get("GATELENS_FUZZ_SECONDS", "4"))
SEED = int(os.environ.get("GATELENS_FUZZ_SEED", "0"))
CONFIG = """name: tiny
model: {use: HookedMLP, sizes: [64, 8, 8, 10], train: {epochs: 1}}
data: {use: image_batches, source: digits, rows: [300, 100]}
bases: {use: Neurons}
solver: {use: ReluOMP, max_fan_in: 3}
evaluation: {baselines: [], curve_rows: 0, coverage: false}
"""
#: what a run writes anew each time, or does not read where a newer part says the same
UNREAD = ("index.html", "views.yaml", "model/model.json", "report-quick.json", "shards.json", "connectors/")


def flipped(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def a_link(file: Path, to: str = "nowhere") -> None:
    file.unlink()
    file.symlink_to(to)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "deleted": Path.unlink,
    "emptied": lambda file: file.write_bytes(b""),
    "cut short": lambda file: file.write_bytes(file.read_bytes()[:-3]),
    "flipped": flipped,
    "null": lambda file: file.write_text("null"),
    "a folder": a_folder,
    "a link to nothing": a_link,
    "a link to itself": lambda file: a_link(file, file.name),
}
VERBS: dict[str, Callable[[Path, Path], list[Any]]] = {
    "run": lambda run, root: ["run", root / "c.yaml", "--out", run],
    "evaluate": lambda run, root: ["evaluate", root / "c.yaml", "--out", run, "--quick"],
    "view": lambda run, root: ["view", run, "--set", "views.max_cards=3"],
    "prompt": lambda run, root: ["prompt", run, "a prompt"],
    "compare": lambda run, root: ["compare", run, root / "sound", "--out", root / "compare.html"],
    "hooks": lambda run, root: ["hooks", run / "config.yaml"],
}


def used(verb: str, run: Path, root: Path) -> int:
    if verb == "load":
        try:
            gl.Circuit.load(run / "circuit")
        except GateLensError:
            return 2
        return 0
    with warnings.catch_warnings():
        return main([str(part) for part in VERBS[verb](run, root)])


def test_a_damaged_run_is_refused_or_made_again_aloud(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG)
    sound, damaged = tmp_path / "sound", tmp_path / "damaged"
    assert main(["run", str(tmp_path / "c.yaml"), "--out", str(sound)]) == 0
    report = (sound / "report.json").read_bytes()
    files = sorted(file.relative_to(sound) for file in sound.rglob("*") if file.is_file())
    cases = [(file, how, verb) for file in files for how in DAMAGE for verb in (*VERBS, "load")]
    rng, until = random.Random(SEED), time.monotonic() + SECONDS
    rng.shuffle(cases)
    for number, (file, how, verb) in enumerate(cases):
        if number >= 20 and time.monotonic() > until:
            return
        shutil.rmtree(damaged, ignore_errors=True)
        shutil.copytree(sound, damaged)
        DAMAGE[how](damaged / file)
        capsys.readouterr()
        try:
            code = used(verb, damaged, tmp_path)
        except BaseException as error:
            pytest.fail(f"{verb} with {file} {how} (seed {SEED}) raised {error!r}")
        said = capsys.readouterr().err
        assert code in (0, 2), f"{verb} with {file} {how}: exit code {code}, {said}"
        if code == 0 and verb == "run":
            assert "again" in said or str(file).startswith(UNREAD) or file.name in UNREAD, f"{file} {how}: {said}"
            kept = (damaged / "report.json").read_bytes()
            assert kept == report or "report.json is made again" in said, f"{file} {how}"
