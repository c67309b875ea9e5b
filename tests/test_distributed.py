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
from gatelens.store.shards import ShardFolder

ROWS, SIZE, COUNT = 61, 9, 7  # 7 shards, the last one shorter

#: what ends a test that hangs; nothing here is measured by the clock, so a slow machine only takes longer
HANGS = 600.0

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
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir() if p.is_file()}


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


# whole runs


CONFIG = {
    "name": "tiny",
    "model": {"use": "HookedMLP", "sizes": [64, 8, 8, 10], "train": {"epochs": 1}},
    "data": {"use": "image_batches", "source": "digits", "rows": [300, 100]},
    "bases": {"use": "TrainedSAE", "architecture": "tied", "expansion": 2, "samples": 2000, "batch_size": 100},
    "solver": {"use": "ReluOMP", "max_fan_in": 3, "block": 4},
}


def test_a_run_by_two_processes_leaves_the_artefacts_of_one(tmp_path):
    """Activations, SAEs (one a worker) and connectors (blocks of outputs), through the command."""
    from gatelens.pipeline import run
    from gatelens.pipeline.config import check_config

    (tmp_path / "c.yaml").write_text(json.dumps(CONFIG))
    command = [sys.executable, "-m", "gatelens", "connect", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "two")]
    numbers = {"GATELENS_WORLD": "2", "GATELENS_PATIENCE": str(HANGS), "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(
            command, env={**os.environ, **numbers, "GATELENS_RANK": rank}, stderr=subprocess.PIPE, text=True
        )
        for rank in "01"
    ]
    left = tmp_path / "one" / ".run-1-of-2.lock"  # of a worker that was killed
    left.parent.mkdir()
    left.touch()
    run(check_config(CONFIG), tmp_path / "one", until="connect")
    assert not left.exists()
    for process in both:
        _, error = process.communicate(timeout=HANGS)
        assert process.returncode == 0, error
    for room in ("model", "activations", "bases", "connectors"):
        one, two = (
            {p.relative_to(d): p.read_bytes() for p in (d / room).rglob("*") if p.is_file()}
            for d in (tmp_path / "one", tmp_path / "two")
        )
        assert one
        assert one == two


FIVE_RUNS = """
import json, sys
from gatelens.pipeline import run
from gatelens.pipeline.config import check_config
for i in range(5):
    run(check_config(json.loads(sys.argv[1])), f"{sys.argv[2]}/{i}", until="connect")
"""


def test_five_runs_of_two_workers(tmp_path):
    """Each reads what the other is just putting into place; none may stumble over a file that is being renamed."""
    command = [sys.executable, "-c", FIVE_RUNS, json.dumps(CONFIG), str(tmp_path)]
    numbers = {"GATELENS_WORLD": "2", "GATELENS_PATIENCE": str(HANGS), "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    both = [
        subprocess.Popen(command, env={**os.environ, **numbers, "GATELENS_RANK": rank}, stderr=pipe, text=True)
        for rank in "01"
    ]
    for process in both:
        _, error = process.communicate(timeout=HANGS)
        assert process.returncode == 0, error
    runs = [{p.relative_to(d): p.read_bytes() for p in d.rglob("*.safetensors")} for d in sorted(tmp_path.iterdir())]
    assert len(runs) == 5
    assert len(runs[0]) > 5
    assert all(found == runs[0] for found in runs)
