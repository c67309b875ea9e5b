"""Several processes: the same bytes as one, whoever did what, whoever died."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from gatelens.distributed import Worker, spread, this_worker, wait_for
from gatelens.errors import ConfigError, StoreError
from gatelens.evaluation.figures import fvu
from gatelens.saving import load_basis
from gatelens.store.shards import ShardFolder
from gatelens.store.tensor_files import load_tensors
from support.processes import HANGS, ended, launch
from support.warm import Program

ROWS, SIZE, COUNT = 61, 9, 7  # 7 shards, the last one shorter

#: a worker in a process of its own; it imports numpy and the store, never torch; with "waits", for ever at its second shard
CHILD = textwrap.dedent("""
    import sys
    import numpy as np
    from gatelens.distributed import spread, this_worker
    from gatelens.store.shards import spans

    folder, waits, patience = sys.argv[1], sys.argv[2] == "waits", float(sys.argv[3])
    begun = []

    def work(i):
        begun.append(i)
        print("begun", i, flush=True)
        if waits and len(begun) == 2:
            sys.stdin.read()
        rows = np.array(spans(61, 9)[i])
        x = np.sin(rows[:, None] * np.arange(1, 6)).astype(np.float32)
        return {"gram": x.astype(np.float64).T @ x, "row": rows}, {"rows": len(rows)}

    spread(folder, "sums", {"seed": 0}, 7, work, this_worker(), patience)
""")


def start(folder: Path, rank: int, world: int, waits: bool = False, patience: float = HANGS) -> subprocess.Popen:
    environment = {**os.environ, "GATELENS_RANK": str(rank), "GATELENS_WORLD": str(world), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, str(folder), "waits" if waits else "goes on", str(patience)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def finish(*processes: subprocess.Popen) -> list[int]:
    """Wait until they have ended, and say which shards they made."""
    made = []
    for process in processes:
        out, error = process.communicate(timeout=HANGS)
        assert process.returncode == 0, error
        made += [int(line.split()[1]) for line in out.splitlines()]
    return made


def hashes(folder: Path) -> dict[str, str]:
    """What lies there, but the locks that a killed process leaves."""
    kept = [p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")]
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in kept}


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("alone")
    assert finish(start(folder, 0, 1)) == list(range(COUNT))
    return hashes(folder)


@pytest.mark.parametrize("world", [2, 3])
def test_several_processes_leave_the_bytes_of_one(tmp_path, alone, world):
    made = finish(*(start(tmp_path, rank, world) for rank in range(world)))
    assert sorted(made) == list(range(COUNT))
    assert hashes(tmp_path) == alone


def killed_in_its_second_shard(process: subprocess.Popen) -> None:
    """One shard is stored, the second was begun and waits: kill -9."""
    assert process.stdout is not None
    for _ in range(2):
        assert process.stdout.readline().startswith("begun")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=HANGS)


def test_a_rank_that_is_killed_and_started_again(tmp_path, alone):
    survivor, victim = start(tmp_path, 0, 2), start(tmp_path, 1, 2, waits=True)
    killed_in_its_second_shard(victim)
    again = finish(start(tmp_path, 1, 2))
    finish(survivor)
    assert again == [3, 5]  # what it had stored before was kept
    assert hashes(tmp_path) == alone


def test_begun_by_two_finished_by_one(tmp_path, alone):
    for process in [start(tmp_path, rank, 2, waits=True) for rank in range(2)]:
        killed_in_its_second_shard(process)
    assert finish(start(tmp_path, 0, 1)) == [2, 3, 4, 5, 6]
    assert hashes(tmp_path) == alone


def test_no_row_is_lost_or_counted_twice(tmp_path):
    finish(*(start(tmp_path, rank, 3) for rank in range(3)))
    stored = ShardFolder(tmp_path, "sums", {"seed": 0}, COUNT)
    rows = np.concatenate([stored.arrays(i)["row"] for i in range(COUNT)])
    assert rows.tolist() == list(range(ROWS))
    assert sum(stored.meta(i)["rows"] for i in range(COUNT)) == ROWS


def test_a_worker_that_never_comes_is_named_and_waiting_ends(tmp_path):
    process = start(tmp_path, 0, 2, patience=0.3)
    _, error = process.communicate(timeout=HANGS)
    assert process.returncode != 0
    assert "waited 0.3 s for 3 (1, 3, 5) of the 7 shards" in error


def test_one_rank_twice_and_one_beside_several_are_refused(tmp_path):
    with ShardFolder(tmp_path, "sums", {}, 2, "0-of-2"):
        for name in ("0-of-2", None):
            with (
                pytest.raises(StoreError, match="is being written by process"),
                ShardFolder(tmp_path, "sums", {}, 2, name),
            ):
                pass
        with ShardFolder(tmp_path, "sums", {}, 2, "1-of-2"):
            pass


def test_waiting_goes_on_while_shards_come(tmp_path):
    with ShardFolder(tmp_path, "sums", {}, 1) as out:
        with pytest.raises(StoreError, match="waited 0 s"):
            wait_for(out, patience=0.0)
        out.write(0, {"x": torch.zeros(1)})
        wait_for(out, patience=0.0)


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_every_shard_has_one_owner_and_shares_are_even(world):
    shares = [Worker(rank, world).owned(COUNT) for rank in range(world)]
    assert sorted(i for share in shares for i in share) == list(range(COUNT))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, Worker(0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "4"}, Worker(1, 4)),  # torchrun
        ({"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_MIN": "4", "SLURM_ARRAY_TASK_COUNT": "3"}, Worker(1, 3)),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "3", "SLURM_STEP_ID": "0"}, Worker(2, 3)),  # srun
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "3"}, Worker(0, 1)),  # inside sbatch, without srun
        ({"GATELENS_RANK": "0", "GATELENS_WORLD": "2", "RANK": "1", "WORLD_SIZE": "4"}, Worker(0, 2)),
    ],
)
def test_launchers_are_understood(given, expected):
    assert this_worker(given) == expected


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"RANK": "1"}, "WORLD_SIZE must be a whole number"),
        ({"GATELENS_WORLD": "2"}, "GATELENS_RANK must be a whole number"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK must be a whole number.*'-1'"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "rank 2 of world 2"),
        ({"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_STEP": "2"}, "without ':step'"),
    ],
)
def test_launchers_that_are_half_set_are_refused(given, sentence):
    with pytest.raises(ConfigError, match=sentence):
        this_worker(given)


def test_spread_in_one_process_resumes_after_an_error(tmp_path):
    made = []

    def work(i):
        if i == 2 and len(made) < 3:
            raise RuntimeError("the user's own code")
        made.append(i)
        return {"x": torch.full((1,), i)}, {}

    with pytest.raises(RuntimeError, match="the user's own code"):
        spread(tmp_path, "k", {}, 3, work, Worker())
    made.append(None)
    stored = spread(tmp_path, "k", {}, 3, work, Worker())
    assert made == [0, 1, None, 2]
    assert int(stored.read(2)["x"]) == 2


# whole runs, by processes that meet


CONFIG = {
    "name": "tiny",
    "model": {"use": "HookedMLP", "sizes": [64, 12, 10, 10], "train": {"epochs": 3}},
    "data": {"use": "image_batches", "source": "digits", "rows": [600, 200], "batch_size": 64},
    "bases": {"use": "TrainedSAE", "expansion": 2, "k": 4, "samples": 4000, "batch_size": 100},
    "solver": {"use": "ReluOMP", "max_fan_in": 3, "block": 4},
    "gates": {"min_count": 5, "tried_at_most": 16, "max_literals": 2},
}
GRAM = {"use": "GramLasso", "mean_wires": 3}
#: dictionaries that all processes train together; features are chosen row by row in one, over a batch (its part of it) in the other
EXACT = {"use": "Transcoder", "activation": "topk", "d_sae": 24, "k": 4, "samples": 4_000, "batch_size": 100}
ACTS = "activations/held_out/shard-000000.safetensors"
ALONG = CONFIG | {
    "bases": {
        "hook_post.0": CONFIG["bases"] | {"samples": 40_000, "data_parallel": True},
        "hook_post.1": EXACT | {"data_parallel": True},
    }
}

#: runs one after the other in one process, as (config, folder, last room)
RUNS = """
import json, sys
from gatelens.pipeline import run
from gatelens.pipeline.config import check_config
for settings, folder, until in json.loads(sys.argv[1]):
    run(check_config(settings), folder, until=until)
"""


def contents(folder: Path) -> dict[str, bytes]:
    """Everything that a run leaves, but its locks and what holds times."""
    found = {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")}
    timed = ("report.json", "report-quick.json", "manifest.json", "index.html")
    return {name: p.read_bytes() for name, p in found.items() if name not in timed and not name.startswith("blocks/")}


def figures(folder: Path) -> dict:
    """The report without its times."""
    report = json.loads((folder / "report.json").read_text())
    return {key: value for key, value in report.items() if key != "timing_s"}


@pytest.fixture(scope="module")
def shared_runs(tmp_path_factory):
    """A folder of runs by one, two and three processes: a whole one with each solver, and by two processes five up to the wires."""
    root = tmp_path_factory.mktemp("shared")
    solvers = {"ReluOMP": CONFIG["solver"], "GramLasso": GRAM}
    whole = {w: [(CONFIG | {"solver": s}, f"{n}-{w}", "view") for n, s in solvers.items()] for w in (1, 2, 3)}
    whole[1] += [(ALONG, "along-alone", "connect")]
    whole[2] += [(CONFIG, f"again-{i}", "connect") for i in range(5)]
    whole[2] += [(ALONG, f"along-{i}", "connect") for i in range(2)]
    runs = {
        w: json.dumps([(settings, str(root / name), room) for settings, name, room in of]) for w, of in whole.items()
    }
    for processes in [launch(world, "-c", RUNS, wanted, start=Program) for world, wanted in runs.items()]:
        ended(processes)
    return root


@pytest.mark.parametrize("solver", ["ReluOMP", "GramLasso"])
def test_one_two_and_three_processes_leave_the_same(shared_runs, solver):
    """Activations, dictionaries, wires, gates and figures, to the last bit."""
    alone = shared_runs / f"{solver}-1"
    one = contents(alone)
    assert {"circuit/circuit.json", "circuit/gates-0.json", "connectors/circuit.json", "model/model.json"} <= set(one)
    for folder in (shared_runs / f"{solver}-2", shared_runs / f"{solver}-3"):
        assert contents(folder) == one
        assert figures(folder) == figures(alone)
        assert (folder / "index.html").is_file()


def test_one_process_speaks_and_a_restart_finds_what_is_stored(tmp_path):
    (tmp_path / "c.yaml").write_text(json.dumps(CONFIG))
    command = ["-m", "gatelens", "connect", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "run")]
    first = ended(launch(2, *command, start=Program))
    assert "ReluOMP" in first[0]
    assert first[1] == ""
    weights = tmp_path / "run" / "bases" / "hook_post.0" / "sae_weights.safetensors"
    made = weights.stat().st_mtime_ns
    assert ended(launch(3, *command, start=Program))[0] == first[0]
    assert weights.stat().st_mtime_ns == made


def test_five_runs_of_two_processes(shared_runs):
    """Each reads what the other has just put into place; none may stumble over a file that is being renamed."""
    runs = [contents(shared_runs / f"again-{i}") for i in range(5)]
    assert len(runs[0]) > 5
    assert all(found == runs[0] for found in runs)


def test_one_dictionary_trained_by_two_processes(shared_runs):
    """The same bits in every run; what features row by row learn is what one process learns, but for the order of sums."""
    alone, along = shared_runs / "along-alone", shared_runs / "along-0"
    assert contents(along) == contents(shared_runs / "along-1")
    x, y = (load_tensors(alone / ACTS)[hook].float() for hook in ("hook_post.0", "hook_post.1"))
    saes, pairs = ([load_basis(f / "bases" / hook) for f in (alone, along)] for hook in ("hook_post.0", "hook_post.1"))
    one, two = (pair.reconstruct(x) for pair in pairs)
    assert fvu(y, one) < 0.5
    torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5)
    missed = [fvu(x, sae.decode(sae.encode(x))) for sae in saes]
    assert missed[1] == pytest.approx(missed[0], rel=0.1)
    assert not torch.equal(saes[0].W_enc, saes[1].W_enc)  # or they were not trained together


def test_processes_that_cannot_meet_share_collecting_alone(tmp_path, monkeypatch):
    from gatelens.pipeline import run
    from gatelens.pipeline.config import check_config

    for name, value in {"GATELENS_RANK": "1", "GATELENS_WORLD": "2", "GATELENS_PATIENCE": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="process 1 of 2 has no rendezvous .* `gatelens collect`"):
        run(check_config(CONFIG), tmp_path, until="bases")
    with pytest.raises(StoreError, match="waited 0 s"):  # the one shard is the other's
        run(check_config(CONFIG), tmp_path, until="collect")
    monkeypatch.setenv("GATELENS_RANK", "0")
    acts = run(check_config(CONFIG), tmp_path, until="collect").acts
    assert [part.rows for part in acts] == [600, 200]


#: wires of so many features that every part of the work has several owners
FITTED = """
import hashlib, torch
from gatelens import GramLasso
from gatelens.codes.csr import to_csr
from gatelens.distributed import this_worker, together
generator = torch.Generator().manual_seed(0)
f_in = torch.rand(900, 300, generator=generator) * (torch.rand(900, 300, generator=generator) < 0.05)
f_out = (f_in @ (torch.rand(300, 600, generator=generator) < 0.01).float() - 0.1).relu()
with together(this_worker()):
    for x, y in ((f_in, f_out), (to_csr(f_in), to_csr(f_out * (f_out > 0.5)))):
        found = GramLasso(mean_wires=2).fit(x, y)
        parts = (found.weight.crow_indices(), found.weight.col_indices(), found.weight.values(), found.bias)
        print(found.wires, hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest())
"""


def test_wires_of_many_features_are_the_same_from_one_two_and_three_processes():
    said = [out for world in (1, 2, 3) for out in ended(launch(world, "-c", FITTED, start=Program))]
    assert len(set(said)) == 1
    assert all(int(line.split()[0]) > 600 for line in said[0].splitlines())
