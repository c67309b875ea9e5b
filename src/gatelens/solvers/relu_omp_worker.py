"""Blocks of outputs for ReluOMP: solved by this process, or by several that map the features from files.

Workers are started as `python -m gatelens.solvers.relu_omp_worker FOLDER RANK WORLD`, so that fitting from a notebook
or an unguarded script works: nothing of the caller's main module is imported again.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import store
from ..errors import SolverError
from ..errors.progress import Bar
from ..store.shards import ShardFolder, spans
from .relu_omp_output import Parents, Search, Settings
from .sparse_rows import SparseRows

KIND = "relu_omp_blocks"


@dataclass(frozen=True)
class Job:
    """All that a block's result depends on beside the features."""

    settings: Settings
    seed: int
    block: int

    def config(self, inputs: SparseRows, outputs: SparseRows) -> dict[str, Any]:
        """The job as it is written beside the blocks, with checksums of the features: another job is refused there."""
        return asdict(self) | {"settings": self.settings._asdict(), "inputs": _sign(inputs), "outputs": _sign(outputs)}

    @classmethod
    def read(cls, config: dict[str, Any]) -> Job:
        return cls(Settings(**config["settings"]), config["seed"], config["block"])


def _sign(features: SparseRows) -> list[int]:
    arrays = (features.row_start, features.column, features.row_value)
    return [features.rows, features.width, *(zlib.crc32(np.ascontiguousarray(a).data) for a in arrays)]


def solve_block(search: Search, outputs: SparseRows, span: range) -> dict[str, np.ndarray]:
    """The parents of the outputs in `span`, packed: fan_in and bias [outputs], inputs and weights [wires]."""
    found = [search.solve(*outputs.column_of(out)) for out in span]
    return {
        "fan_in": np.array([len(p.inputs) for p in found], np.int64),
        "bias": np.array([p.bias for p in found]),
        "inputs": np.concatenate([p.inputs for p in found]).astype(np.int64),
        "weights": np.concatenate([p.weights for p in found]),
    }


def unpack(block: dict[str, np.ndarray]) -> list[Parents]:
    """The opposite of the packing in `solve_block`."""
    cuts = np.cumsum(block["fan_in"])[:-1]
    parts = zip(np.split(block["inputs"], cuts), np.split(block["weights"], cuts), block["bias"], strict=True)
    return [Parents(inputs, weights, float(bias)) for inputs, weights, bias in parts]


def run_workers(folder: Path, config: dict[str, Any], count: int, workers: int, shown: Bar) -> None:
    """Solve all blocks in `workers` processes; returns when they are done.

    Raises:
        SolverError: with the last lines of a worker that failed; blocks that were done stay.
    """
    store.replace_file(folder / "job.json", store.dump_json(config | {"count": count}))
    command = [sys.executable, "-m", "gatelens.solvers.relu_omp_worker", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as complaints:
        running = [
            subprocess.Popen([*command, str(rank), str(workers)], env=environment, stdout=complaints, stderr=complaints)
            for rank in range(workers)
        ]
        try:
            while any(process.poll() is None for process in running):
                shown.n = len(list((folder / "blocks").glob("shard-*.safetensors")))
                shown.refresh()
                time.sleep(0.2)
        finally:
            for process in running:
                process.terminate()
                process.wait()
        if failed := [process.returncode for process in running if process.returncode]:
            complaints.seek(0)
            last = complaints.read().decode(errors="replace").strip().splitlines()[-3:]
            raise SolverError(
                f"{len(failed)} of {workers} ReluOMP processes stopped (exit {failed[0]}): {' / '.join(last)}. Blocks "
                "that were done are kept when `store` is set; run the fit again, with fewer workers if memory ran out"
            )


def work(folder: Path, rank: int, world: int) -> None:
    """One worker's share of the blocks."""
    config = store.parse_json(store.read_file(folder / "job.json", store.MAX_BYTES), folder / "job.json")
    count = config.pop("count")
    job, inputs, outputs = Job.read(config), SparseRows.open(folder / "inputs"), SparseRows.open(folder / "outputs")
    blocks = spans(outputs.width, job.block)
    with ShardFolder(folder / "blocks", KIND, config, count, worker=f"{rank}-of-{world}") as out:
        search = Search(inputs, job.settings, job.seed)
        for i in out.missing(range(rank, count, world)):
            out.write(i, solve_block(search, outputs, blocks[i]))


if __name__ == "__main__":
    work(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
