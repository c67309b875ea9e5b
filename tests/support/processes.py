"""Several processes on one machine, as torchrun starts them: for tests and measurements of work that they share."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

#: what ends processes that hang; nothing is measured by it, so a slow machine only takes longer
HANGS = 600.0


def python(arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen:
    """A fresh Python."""
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, *arguments], env=environment, stdout=pipe, stderr=pipe, text=True)


def launch(world: int, *arguments: str, start: Callable[..., Any] = python, **environment: str) -> list[Any]:
    """Python with these arguments, once for each rank; `start`: `python`, or `warm.Program`, whose libraries are loaded."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    return [start(arguments, {**os.environ, **shared, **environment, "RANK": str(rank)}) for rank in range(world)]


def ended(processes: list[Any], hangs: float = HANGS) -> list[str]:
    """Their standard output, once all have ended well; where one fails or hangs, all are ended and what each said is shown."""
    with ThreadPoolExecutor(len(processes)) as readers:  # at once: a full pipe would hold one up, and it the others
        reading = [readers.submit(process.communicate) for process in processes]
        since = time.monotonic()
        while any(process.poll() is None for process in processes):
            if any(process.returncode for process in processes) or time.monotonic() - since > hangs:
                for process in processes:
                    process.kill()
            time.sleep(0.05)
        said = [read.result() for read in reading]
    assert not any(process.returncode for process in processes), "\n".join(error for _, error in said)
    return [out for out, _ in said]
