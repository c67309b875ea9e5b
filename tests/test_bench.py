"""`gatelens bench`: every benchmark of the repository can be started."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gatelens import bench
from gatelens.errors import ConfigError
from support import warm


def test_every_benchmark_is_importable_by_the_command():
    """In a process of its own, in which no test has put anything on the path."""
    program = "from gatelens import bench\nfor n in bench.names(): print(n, bench.load(n).SEEDS, bench.load(n).measure)"
    done = warm.run("-c", program, folder=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == bench.names()


def test_an_unknown_benchmark_is_named_with_its_neighbours():
    with pytest.raises(ConfigError, match="did you mean 'rotations'"):
        bench.load("rotation")


def test_parts_of_the_rules_are_kept_by_their_sizes(tmp_path, monkeypatch):
    """A part is found again at the sizes that it was measured at alone, and its figures take the places of those of their names."""
    rules = bench.load("rules")
    kept, layers = sys.modules["_kept"], sys.modules["_layers"]
    monkeypatch.setattr(kept, "FOLDER", tmp_path)
    monkeypatch.setattr(
        rules, "parts", lambda *_: [(n, lambda n=n: [bench.Figure(n, 1.0)]) for n in ("chains", "named")]
    )
    small = layers.Sizes(rows=(600, 200))
    assert [f.name for f in rules.measure((3,), None, ["named"], small)] == ["named"]
    assert [n for n, found in rules.so_far((3,), small).items() if found] == ["named"]
    assert not any(rules.so_far((3,), layers.Sizes()).values())
    assert [f.name for f in rules.measure((3,), None, (), small)] == ["chains", "named"]
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "tools"))
    import collect_rules

    figures = [{"name": "a", "value": 1}, {"name": "b", "value": 2}]
    collect_rules.replaced(figures, [{"name": "b", "value": 3, "baselines": {}}, {"name": "c", "value": 4}], "")
    assert figures == [{"name": "a", "value": 1}, {"name": "b", "value": 3, "baselines": {}}, {"name": "c", "value": 4}]
    collect_rules.replaced(figures, [{"name": "b", "value": 5, "baselines": {}}], "seed 1")
    assert figures[1] == {"name": "b", "value": 5, "baselines": {"seed 1": 3}}  # what another seed gave stays beside


def test_parts_of_speed_and_scaling_are_kept_and_collected(tmp_path, monkeypatch):
    """Every part has a measurement; what was measured is kept and collected, what was not is there without a figure."""
    scaling, speed = bench.load("scaling"), bench.load("speed")
    monkeypatch.setattr(sys.modules["_kept"], "FOLDER", tmp_path)
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "tools"))
    import collect_parts

    assert set(scaling._parts((0,))) == set(scaling.PARTS)
    monkeypatch.setattr(scaling, "efficiency", lambda work, seeds: [bench.Figure(work, 0.9, 0.85)])
    monkeypatch.setattr(speed, "gram", lambda seed: [bench.Figure("gram", 9.0, 20, "lower")])
    assert [f.name for f in scaling.measure((0, 1), None, ["gates"])] == ["gates"]
    assert [f.value for f in speed.measure((4,), None, ["gram"])] == [9.0]
    for module, name, seeds, part in ((scaling, "scaling", [0, 1], "gates"), (speed, "speed", [4], "gram")):
        found = collect_parts.collected(module, name, seeds)
        assert [p for p, about in found["parts"].items() if about["run"]] == [part]
        assert [f["name"] for f in found["figures"] if f["value"] is not None] == [part]
        assert all(f["note"] == collect_parts.NOT_RUN for f in found["figures"] if f["value"] is None)
        assert len(found["figures"]) == len(module.PARTS)
