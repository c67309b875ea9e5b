"""Several processes and machines on one piece of work, by torch.distributed: `torchrun -m gatelens run CONFIG`.

Every process walks through the same rooms and comes to the same results, bit by bit, as one alone does. What takes long is
cut into pieces whose bounds depend on the work alone, never on the number of processes: shards of activations,
dictionaries, columns of Gram matrices, blocks of outputs, gates, batches of an evaluation. Each piece has one owner
(`Worker.owned`); what it makes goes to all in the order of the pieces (`shared`), so that no sum depends on who added what.
An all-reduce would: it adds in an order that depends on the number of processes, and float addition then gives other bits. The one
exception is asked for by name: a dictionary that all processes train together (`data_parallel=True`, `add_up`).

Processes meet (`meet`) where one reads what another wrote; none waits for a name to appear. What is finished lies in the
store: torchrun's elastic restarts begin again and find it. Shards and results lie in one file system, which all see.

A Slurm array has no rendezvous, and its tasks need not run at the same time: they share `gatelens collect` alone, each its
shards, and wait for one another's by looking (`wait_for`).
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import ConfigError, StoreError
from .store.shards import ShardFolder, read_shards, some

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Worker:
    """One of `world` processes; `rank` counts from 0.

    Attributes:
        meets: whether its launcher gave the processes a place to meet (a rendezvous).
    """

    rank: int = 0
    world: int = 1
    meets: bool = field(default=False, compare=False)

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


_team = Worker()

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
        number = _number(given, rank) - (_number(given, first) if first else 0)
        return Worker(number, _number(given, world), first is None and "MASTER_ADDR" in given)
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
    """Return when all shards are there: at once where processes meet, else by looking.

    Raises:
        StoreError: when none has come for `patience` seconds.
    """
    meet()
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


@contextmanager
def together(worker: Worker) -> Iterator[None]:
    """Within it the processes of a launcher with a rendezvous (torchrun, srun with MASTER_ADDR) share what is `shared`."""
    global _team
    if worker.alone or not worker.meets:
        yield
        return
    _rendezvous(worker)
    _team = worker
    try:
        yield
    finally:
        _team = Worker()


def _rendezvous(worker: Worker) -> None:
    """Bring the processes together, once for as long as they live.

    A group that is given up and formed again at the same place can hang: a process that comes early asks the old group's store.
    """
    import torch.distributed as dist

    if dist.is_initialized():
        return
    where = {"rank": worker.rank, "world_size": worker.world, "timeout": timedelta(seconds=patience_set())}
    dist.init_process_group("gloo", **where)  # what goes between processes lies in the host's memory
    atexit.register(_part)


def _part() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def apart() -> Iterator[None]:
    """Within it this process does by itself what it would share, while the others go on to where they meet next."""
    global _team
    kept, _team = _team, Worker()
    try:
        yield
    finally:
        _team = kept


def team() -> Worker:
    """This process among those that share work now; alone outside of `together`."""
    return _team


def meet() -> None:
    """Wait until all processes have come here."""
    if not _team.alone:
        import torch.distributed as dist

        dist.barrier()


def shared(count: int, work: Callable[[int], T]) -> list[T]:
    """What `work` makes of each of `count` pieces, in their order; each piece is made by one process and goes to all.

    Args:
        work: must depend on the piece's number alone.
    """
    if _team.alone:
        return [work(i) for i in range(count)]
    import torch.distributed as dist

    own = [work(i) for i in _team.owned(count)]
    parts: list[Any] = [None] * _team.world
    dist.all_gather_object(parts, own)  # between processes of one job; nothing of it is ever read from a disk
    return [parts[i % _team.world][i // _team.world] for i in range(count)]


def fill_rows(matrix: Any, spans: Sequence[range], work: Callable[[range], Any]) -> Any:
    """Fill a tensor's rows, span by span, each by its owner; then every process has them all."""
    for i in _team.owned(len(spans)):
        matrix[spans[i].start : spans[i].stop] = work(spans[i])
    return all_rows(matrix, spans)


def all_rows(matrix: Any, spans: Sequence[range]) -> Any:
    """The rows of a tensor whose spans each have been filled by their owner, at every process."""
    if not _team.alone:
        import torch.distributed as dist

        parts = [matrix[span.start : span.stop] for span in spans]
        sent = [dist.broadcast(part, src=i % _team.world, async_op=True) for i, part in enumerate(parts)]
        for one in sent:  # all are under way at once
            if one is not None:
                one.wait()
    return matrix


def add_up(tensors: Iterable[Tensor]) -> None:
    """Sum each tensor over the processes, in place: the same bits at all of them, and in every run of as many processes.

    Another number of processes gives other bits: for what trains along, not for what must not depend on it.
    """
    if _team.alone:
        return
    import torch.distributed as dist

    for tensor in tensors:
        dist.all_reduce(tensor)


def from_first(make: Callable[[], T]) -> T:
    """What the first process finds, at all of them."""
    if _team.alone:
        return make()
    import torch.distributed as dist

    found = [make() if _team.first else None]
    dist.broadcast_object_list(found, src=0)
    return found[0]  # pyright: ignore[reportReturnType]


def _pause(since: float) -> None:
    """Before looking again: a twentieth of the time waited so far, so that what came is never noticed much later."""
    time.sleep(min(max((time.monotonic() - since) / 20, 0.02), 2.0))
