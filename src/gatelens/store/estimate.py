"""What work will take in memory and on disk, from shapes alone: said before it starts, refused when it cannot fit.

Memory is what comes on top of the process as it is (libraries, model and data already loaded), at the highest point.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import TooLargeError
from . import check_space, readable

#: bytes for each row's document, position and token
WHERE = 24
#: rows on which a dictionary's threshold is set
THRESHOLD_ROWS = 16_384
#: what the allocator holds back of freed temporaries while batches come and go
ALLOCATOR = 64 << 20


@dataclass(frozen=True)
class Estimate:
    """Bytes of memory at the highest point and bytes on disk.

    Attributes:
        what: the work.
        memory, disk: bytes.
        parts: what the memory is for, the largest first when shown.
    """

    what: str
    memory: int
    disk: int = 0
    parts: Mapping[str, int] = field(default_factory=dict)

    def check(self, folder: str | Path | None = None) -> Estimate:
        """Refuse what would not fit in the memory that is available now, or on the disk of `folder`.

        Raises:
            TooLargeError: with what is needed, what there is, and the largest part.
        """
        available = available_memory()
        if available is not None and self.memory > available:
            largest = max(self.parts, key=lambda p: self.parts[p], default="")
            named = f", most of it for {largest}" if largest else ""
            raise TooLargeError(
                f"{self.what} would take about {readable(self.memory)} of memory{named}; {readable(available)} are "
                "available. Take fewer rows, hook points or features, or a machine with more memory"
            )
        if folder is not None:
            check_space(folder, self.disk, self.what)
        return self

    def __str__(self) -> str:
        disk = f", {readable(self.disk)} on disk" if self.disk else ""
        return f"{self.what}: about {readable(self.memory)} of memory{disk}"


def available_memory() -> int | None:
    """Bytes that can still be taken, where the system says so (Linux); never more than the limit of a container."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return free
    return max(min(free, limit - used), 0)


def collecting(
    rows: int, widths: Iterable[int], *, shard_rows: int | None = None, itemsize: int = 4, pass_bytes: int = 0
) -> Estimate:
    """`collect` at hook points of these widths.

    Args:
        rows: positions that are kept.
        shard_rows: positions in a shard of a store; None for everything in memory.
        itemsize: bytes of a number as it is kept.
        pass_bytes: what one forward pass takes.
    """
    row = sum(widths) * itemsize + WHERE
    if shard_rows is None:
        kept = {"the activations": rows * row}
        return _sum("collect", kept | {"a forward pass": pass_bytes, "what the allocator keeps": ALLOCATOR})
    held = min(rows, shard_rows) * row
    # a shard is held as tensors, as the bytes of each, as the bytes of the file, and as what the allocator keeps of them
    parts = {"a shard": 4 * held, "where the rows come from": 2 * WHERE * rows, "a forward pass": pass_bytes}
    return _sum("collect", parts | {"what the allocator keeps": ALLOCATOR}, disk=rows * row)


def reading(rows: int, widths: Iterable[int]) -> int:
    """Bytes of stored activations while they are used: the tensor, and the pages of the file that it is copied from."""
    return 2 * 4 * rows * sum(widths)


def training(rows: int, width: int, d_sae: int, batch_size: int, active: float, ends: int = 1) -> Estimate:
    """One dictionary: its rows, and weights, gradients and two moments of Adam, in float32.

    Args:
        active: features in a row; where a threshold is looked for, so many values of `THRESHOLD_ROWS` are held.
        ends: 2 for a dictionary that reads one hook point and writes another, both of this width.
    """
    parts = {
        "the activations": 4 * rows * width * ends,
        "the same in units of the training": 4 * rows * width * ends,
        "weights and optimiser": 4 * 4 * (2 * width + 2) * d_sae,
        "a batch": 4 * batch_size * (6 * d_sae + 4 * width),
        "values about the threshold": int(48 * min(rows, THRESHOLD_ROWS) * min(active, d_sae)),
        "the order of the rows": 8 * 2 * rows,
    }
    return in_all("bases", parts, disk=4 * (2 * width + 2) * d_sae)


def features(rows: int, width: int, active: float | None = None) -> int:
    """Bytes of features over rows: dense float32, or CSR with so many active in a row (4 bytes and an 8-byte index)."""
    return 4 * rows * width if active is None else int(12 * rows * active + 8 * (rows + 1))


def gram_fit(rows: int, m: int, n: int) -> Estimate:
    """A fit from Gram matrices: X'X and X'Y in float64, their copies while they are added and solved, and the features.

    The one-sided fit looks at 20,000 rows at most, row by row and column by column.
    """
    parts = {
        "the features": features(rows, m) + features(rows, n),
        "Gram matrices": 3 * 8 * m * (m + n),
        "rows of the one-sided fit": 2 * 4 * min(rows, 20_000) * (m + n),
    }
    return _sum("connect", parts)


def greedy_fit(rows: int, m: int, n: int, active_in: float, active_out: float) -> Estimate:
    """ReluOMP: both sides' nonzeros by rows and by columns; no matrix of features by features."""
    nonzeros = int(rows * (active_in + active_out))
    parts = {
        "the features, by row and by column": 24 * nonzeros + 8 * (2 * rows + m + n),
        "one output at work": 100 * rows,
    }
    return _sum("connect", parts, disk=24 * nonzeros)


def by_column(rows: int, active: float) -> int:
    """Bytes of features kept a feature at a time (row and value of each nonzero), twice while they are put together."""
    return int(2 * 8 * rows * active)


def only_the_largest(work: Mapping[str, int]) -> dict[str, int]:
    """The one of several works, done one after the other, that takes most."""
    name = max(work, key=lambda w: work[w])
    return {name: work[name]}


def in_all(what: str, parts: Mapping[str, int], disk: int = 0) -> Estimate:
    """These parts at once, and what the allocator keeps."""
    return _sum(what, dict(parts) | {"what libraries and the allocator keep": ALLOCATOR}, disk)


def _sum(what: str, parts: dict[str, int], disk: int = 0) -> Estimate:
    return Estimate(what, sum(parts.values()), disk, {k: v for k, v in parts.items() if v})
