"""Estimates: what is said before the work is what the work takes, and what cannot fit is refused before it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

from gatelens.errors import TooLargeError
from gatelens.store import estimate

#: what every measuring program begins with
PROBE = textwrap.dedent("""
    import json, sys, tempfile, warnings
    from pathlib import Path
    warnings.simplefilter("ignore")
    import torch
    import gatelens
    from gatelens.data import Batches

    def now():
        open("/proc/self/clear_refs", "w").write("5")  # the highest point begins anew
        return most()

    def most():
        return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

    def data(rows, seed, width):
        x, places = torch.rand(rows, width, generator=torch.Generator().manual_seed(seed)), torch.arange(rows)
        return Batches(x, places % 10, torch.ones(rows, dtype=torch.bool), places, 512)

    def walk_of(sizes, rows, held_out):
        from gatelens.pipeline.config import check_config
        from gatelens.pipeline.running import state_of

        walk = state_of(check_config({
            "name": "measured",
            "model": {"use": "HookedMLP", "sizes": sizes},
            "data": {"source": "digits"},
            "bases": {"use": "TrainedSAE", "architecture": "topk", "k": 8, "expansion": 1, "samples": 1000},
            "solver": {"use": "GramLasso", "mean_wires": 2},
            "gates": {"read_at_most": 24, "tried_at_most": 8},  # the highest point is reached with the first of them
        }), Path(sys.argv[1]))
        batches = data(rows, 0, sizes[0]), data(held_out, 1, sizes[0])
        walk.source.__dict__ |= {"model": gatelens.HookedMLP(sizes), "batches": batches}
        return walk
""")

MEASURE = textwrap.dedent("""
    from gatelens import HookedMLP, collect, ReluOMP
    from gatelens.store import estimate

    def collecting(rows, width, shard_rows):
        model, batches = HookedMLP((16, width, width, 10)), data(rows, 0, 16)
        hooks = ["hook_post.0", "hook_post.1"]
        collect(model, batches.take(512), hooks)
        said = estimate.collecting(rows, [width, width], shard_rows=shard_rows, pass_bytes=512 * 4 * (2 * width + 26))
        before = now()
        with tempfile.TemporaryDirectory() as folder:
            collect(model, batches, hooks, store=folder if shard_rows else None, shard_rows=shard_rows or 1)
        return said.memory, most() - before

    def greedy(rows, width, active):
        columns = torch.randint(0, width, (rows, active)).sort(1).values.flatten()
        starts = torch.arange(rows + 1) * active
        x = torch.sparse_csr_tensor(starts, columns, torch.rand(rows * active), (rows, width), check_invariants=False)
        small = torch.rand(50, 5).to_sparse_csr()
        solver = ReluOMP(max_fan_in=1, min_firings=10**6)
        solver.fit(small, small)
        before = now()
        solver.fit(x, x)
        return estimate.greedy_fit(rows, width, width, active, active).memory, most() - before

    works = {
        "collect in memory": lambda: collecting(30000, 512, None),
        "collect to a store": lambda: collecting(30000, 512, 16384),
        "ReluOMP": lambda: greedy(40000, 2048, 64),
        "collect over many batches": lambda: collecting(120000, 512, None),
    }
    print(json.dumps({work: works[work]() for work in sys.argv[1:]}))
""")


#: glibc decides by itself, and anew as it runs, which blocks go back when they are freed; with these, all that count do
GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_TOP_PAD_": "0"}

linux = pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")


def measured(program: str, arguments: list[str], allocator: dict[str, str]) -> dict[str, tuple[int, int]]:
    """work -> bytes that were said and bytes that were taken, in a process of its own, on top of what it had before."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    environment = plain | allocator | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", PROBE + program, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


WORKS = ["collect in memory", "collect to a store", "ReluOMP"]


@linux
def test_the_work_stays_within_its_estimate():
    """At most 1.25 times what was said."""
    for work, (said, taken) in measured(MEASURE, WORKS, GIVES_BACK).items():
        figures = f"{work} took {taken / 2**20:.0f} MiB, {said / 2**20:.0f} MiB were said"
        assert taken <= 1.25 * said, figures
        assert taken >= 0.5 * said, f"{figures}: an estimate that says far too much refuses what would fit"


#: a run of all rooms from data of its own; the highest point of each room, on top of model and data
ROOMS = textwrap.dedent("""
    from gatelens.pipeline.estimating import estimates
    from gatelens.pipeline.running import ROOMS, enter

    walk = walk_of([64, 1024, 16, 10], 12000, 3000)
    said = {e.what: e.memory for e in estimates(walk, "view", ROOMS)}
    before, found = now(), {}
    for room in ROOMS:
        now()
        enter(walk, room)
        found[room] = said[room], most() - before
    print(json.dumps(found))
""")


@linux
def test_each_room_stays_within_its_estimate(tmp_path):
    found = measured(ROOMS, [str(tmp_path)], GIVES_BACK)
    assert list(found) == ["collect", "bases", "connect", "gates", "evaluate", "view"]
    for room, (said, taken) in found.items():
        figures = f"{room} took {taken / 2**20:.0f} MiB, {said / 2**20:.0f} MiB were said"
        assert taken <= 1.25 * said, figures
        assert taken >= 0.4 * said, figures


#: a study of a model; its highest point on top of model, data and what libraries load
STUDIES = textwrap.dedent("""
    from gatelens.bases.rotation import JacobianRotation
    from gatelens.bases.rotation.baselines import rotation_report
    from gatelens.cli import rotate
    from gatelens.pipeline import estimating_studies as estimating, studies
    from gatelens.pipeline.source import FromConfig

    def rotating(walk):
        fit, held_out = walk.acts
        bases = recipe.fit(walk.segments, fit)
        rotation_report(walk.segments, bases, fit, held_out, recipe)
        rotate._draw(walk, bases, recipe)

    recipe, found = JacobianRotation(iterations=1), {}
    FromConfig.retrained = lambda self, folder: None
    for study, walk, estimate, work in (
        ("rotate", walk_of([16, 208, 208, 10], 2000, 1000), lambda w: estimating.rotation_estimate(w, recipe), rotating),
        ("rank", walk_of([16, 208, 208, 10], 2000, 1000), estimating.rank_estimate, lambda w: studies.rank_study(w, [8])),
        ("stability", walk_of([16, 128, 128, 10], 20000, 10000), estimating.stability_estimate, lambda w: studies.stability_study(w, (), 0)),
    ):
        walk.out.mkdir(exist_ok=True)
        said = estimate(walk).memory
        before = now()
        work(walk)
        found[study] = said, most() - before
    print(json.dumps(found))
""")


@linux
def test_each_study_stays_within_its_estimate(tmp_path):
    found = measured(STUDIES, [str(tmp_path / "run")], GIVES_BACK)
    assert list(found) == ["rotate", "rank", "stability"]
    for study, (said, taken) in found.items():
        figures = f"{study} took {taken / 2**20:.0f} MiB, {said / 2**20:.0f} MiB were said"
        assert taken <= 1.25 * said, figures
        assert taken >= 0.4 * said, figures


@linux
def test_freed_batches_are_used_again():
    """With the system's own allocator: what outlives a batch must not keep its freed memory from the next one."""
    [(said, taken)] = measured(MEASURE, ["collect over many batches"], {}).values()
    assert taken <= 1.25 * said, f"{taken / 2**20:.0f} MiB were taken, {said / 2**20:.0f} MiB were said"


def test_what_cannot_fit_is_refused_and_the_largest_part_named(monkeypatch, tmp_path):
    said = estimate.collecting(1_000_000, [64, 64], shard_rows=100_000)
    assert said.disk == 1_000_000 * (128 * 4 + 24)
    monkeypatch.setattr(estimate, "available_memory", lambda: 1000)
    with pytest.raises(
        TooLargeError, match=r"collect would take about .* most of it for a shard; 1000 bytes are available"
    ):
        said.check()
    monkeypatch.setattr(estimate, "available_memory", lambda: None)
    with pytest.raises(TooLargeError, match=r"collect needs about 4\.0 EiB|collect needs about"):
        estimate.Estimate("collect", 0, disk=1 << 62).check(tmp_path)
    assert said.check(tmp_path) is said


def test_estimates_print_what_a_person_wants_to_know():
    assert str(estimate.Estimate("collect", 3 << 20, 5 << 30)) == "collect: about 3.0 MiB of memory, 5.0 GiB on disk"
    assert str(estimate.gram_fit(1000, 100, 50)).startswith("connect: about")


def test_the_command_says_what_it_would_take_and_stops(tmp_path, capsys):
    import yaml

    from gatelens.cli import main

    values = {
        "name": "tiny",
        "model": {"use": "HookedMLP", "sizes": [64, 8, 8, 10]},
        "data": {"source": "digits", "rows": [100, 50]},
        "bases": {"use": "TrainedSAE", "k": 2},
        "solver": {"use": "ReluOMP"},
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(values))
    out = tmp_path / "run"
    assert main(["run", str(tmp_path / "c.yaml"), "--out", str(out), "--estimate"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["collect", "bases", "connect", "gates", "evaluate", "view"]
    for study in ("rotate", "rank", "stability"):
        assert main([study, str(tmp_path / "c.yaml"), "--out", str(out), "--estimate"]) == 0
        assert capsys.readouterr().out.startswith(f"{study}: about ")
    assert not out.exists()
