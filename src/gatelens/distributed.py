"""Several processes on one piece of work: who does which shard, and waiting for the others by looking at their files.

Started by `torchrun -m gatelens run CONFIG`, as a Slurm array, or as any number of processes with GATELENS_RANK and
GATELENS_WORLD set: all that a process needs to know is its number and how many there are.

Nothing is sent between them, so no process group of torch.distributed (gloo, nccl) is made. What they compute meets in a
folder of shards, and no collective could do better there:

- A sum over rows is folded in the order of the shards, whoever made them; an all-reduce adds in an order that depends on
  the number of ranks, and float addition then gives other bits.
- What is shared (activations, SAEs, blocks of a connector) has to reach the disk in any case, to be resumed from.
- A collective waits for every rank of its group. Here a process may die and be started again while the others go on, a
  run begun by two may be finished by one, and waiting ends after GATELENS_PATIENCE seconds without a new file.

What the processes need in common is one file system, which all of them see.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .errors import ConfigError, StoreError
from .store.shards import ShardFolder, read_shards, some

T = TypeVar("T")


@dataclass(frozen=True)
class Worker:
    """One of `world` processes; `rank` counts from 0."""

    rank: int = 0
    world: int = 1

    def __post_init__(self):
        if self.world < 1 or not 0 <= self.rank < self.world:
            raise ConfigError(f"expected a rank from 0 to world - 1, got rank {self.rank} of world {self.world}")

    @property
    def alone(self) -> bool:
        return self.world == 1

    @property
    def first(self) -> bool:
        """Whether this one prints and writes what is written once."""
        return self.rank == 0

    @property
    def name(self) -> str | None:
        return None if self.alone else f"{self.rank}-of-{self.world}"

    def owned(self, count: int) -> range:
        """Which of `count` shards are this worker's: each has one owner, and shares differ by at most one."""
        return range(self.rank, count, self.world)


#: variables of each launcher: rank, how many, and the number of the first
_LAUNCHERS = (
    ("GATELENS_RANK", "GATELENS_WORLD", None),
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"),
    ("RANK", "WORLD_SIZE", None),
    ("SLURM_PROCID", "SLURM_NTASKS", None),
)


def this_worker(environment: Mapping[str, str] | None = None) -> Worker:
    """Which worker this process is, from the variables that its launcher set; alone without any.

    Raises:
        ConfigError: variables that are half set, no numbers, or a Slurm array with steps between its numbers.
    """
    given = os.environ if environment is None else environment
    for rank, world, first in _LAUNCHERS:
        if rank not in given and not (rank == "GATELENS_RANK" and world in given):
            continue
        if rank == "SLURM_PROCID" and "SLURM_STEP_ID" not in given:
            continue  # a batch script, not `srun`: one process that merely sees the allocation
        if first and given.get("SLURM_ARRAY_TASK_STEP", "1") != "1":
            raise ConfigError("a Slurm array with steps leaves workers out: expected --array=0-7, say, without ':step'")
        return Worker(_number(given, rank) - (_number(given, first) if first else 0), _number(given, world))
    return Worker()


def _number(given: Mapping[str, str], name: str) -> int:
    text = given.get(name)
    if text is None or not text.isascii() or not text.isdigit():
        raise ConfigError(f"{name} must be a whole number, got {text!r}; set it, or unset the others")
    return int(text)


def patience_set() -> float:
    """Seconds without any new file after which a process stops waiting for the others: GATELENS_PATIENCE, or 14400."""
    text = os.environ.get("GATELENS_PATIENCE", "14400")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ConfigError(f"GATELENS_PATIENCE is a number of seconds, got {text!r}; unset it for four hours")
    return seconds


def spread(
    folder: str | Path,
    kind: str,
    config: Mapping[str, Any],
    count: int,
    work: Callable[[int], tuple[Mapping[str, Any], Mapping[str, Any]]],
    worker: Worker | None = None,
    patience: float | None = None,
) -> ShardFolder:
    """Do this worker's share of `count` shards, wait until all are there, and return them to be read.

    Args:
        work: shard number -> its tensors and its record; must depend on the number and the config alone.
        worker: None asks the environment.
        patience: seconds without a new shard after which waiting ends; None for `patience_set()`.

    Raises:
        StoreError: another config, a locked folder, or a worker that does not deliver: the missing shards are named.
    """
    worker = worker or this_worker()
    with ShardFolder(folder, kind, config, count, worker.name) as out:
        for i in out.missing(worker.owned(count)):
            tensors, meta = work(i)
            out.write(i, tensors, meta)
        wait_for(out, patience)
        out.finish()
    return read_shards(folder, kind, config)


def wait_for(shards: ShardFolder, patience: float | None = None) -> None:
    """Return when all shards are there.

    Raises:
        StoreError: when none has come for `patience` seconds.
    """
    patience = patience_set() if patience is None else patience
    absent = list(shards.missing())
    since = began = time.monotonic()
    while absent:
        if time.monotonic() - since > patience:
            raise StoreError(
                f"waited {patience:g} s for {some(absent)} of the {shards.count} shards in {shards.folder}: expected "
                "the other workers to write them. Start those again that stopped, or run the step in one process, "
                "which does what is missing"
            )
        _pause(began)
        left = list(shards.missing(absent))
        if len(left) < len(absent):
            absent, since = left, time.monotonic()


def made_once(worker: Worker, load: Callable[[], T | None], make: Callable[[], object], what: str) -> T:
    """What `load` finds; where it finds nothing, the first worker makes it and the others wait.

    Raises:
        StoreError: when it has not come after `patience_set()` seconds.
    """
    found = load()
    if found is None and worker.first:
        make()
    return found if found is not None else awaited(load, what)


def awaited(load: Callable[[], T | None], what: str) -> T:
    """What `load` finds, as soon as it finds something; `what` names it in the error."""
    since, patience = time.monotonic(), patience_set()
    while (found := load()) is None:
        if time.monotonic() - since > patience:
            raise StoreError(
                f"waited {patience:g} s for {what}: expected another worker to make it. "
                "Start those again that stopped, or run the step in one process"
            )
        _pause(since)
    return found


def _pause(since: float) -> None:
    """Before looking again: a twentieth of the time waited so far, so that what came is never noticed much later."""
    time.sleep(min(max((time.monotonic() - since) / 20, 0.02), 2.0))
