"""A lock on a folder that names its owner, and that ends with its process, however that ends."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from ..errors import StoreError
from .files import explained
from .paths import check_name

#: seconds to wait for one who only enters or leaves among those who share
_MOMENT = 2.0


@contextlib.contextmanager
def lock(folder: str | Path, name: str = "write", shared: bool = False) -> Iterator[None]:
    """Hold `folder` against other processes, and other threads, until the block is left.

    Args:
        name: what is locked: one folder can have several locks.
        shared: many holders at once, none of whom excludes the others; they exclude an owner who does not share.

    Raises:
        StoreError: at once, when another holds it; names its process, machine and time.
    """
    path = Path(folder) / f".{check_name(name)}.lock"
    with contextlib.ExitStack() as held:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if not shared:
                held.enter_context(_taken(path))
                for other in path.parent.glob(f".{name}.by-*.lock"):
                    with _taken(other):  # free: of a process that was killed
                        pass
            else:
                with _taken(path, _MOMENT):
                    held.enter_context(_taken(path.with_name(f".{name}.by-{uuid.uuid4().hex[:12]}.lock")))
        yield


@contextlib.contextmanager
def _taken(path: Path, wait: float = 0.0) -> Iterator[None]:
    """One file's lock; beside it stands whose it is. Both files go before the lock is let go: filelock notices."""
    from filelock import FileLock, Timeout

    held, note = FileLock(path, timeout=wait, thread_local=False), path.with_suffix(".owner")
    try:
        held.acquire()
    except Timeout:
        raise StoreError(
            f"{path.parent} is being written by {_owner(note)}: expected to be its only writer. "
            "Wait until it has finished, stop it, or give another folder"
        ) from None
    try:
        note.unlink(missing_ok=True)
        with note.open("x", encoding="utf-8") as out:
            json.dump(
                {
                    "process": os.getpid(),
                    "machine": socket.gethostname()[:64],
                    "since": time.strftime("%Y-%m-%d %H:%M:%S"),
                },
                out,
            )
        yield
    finally:
        with contextlib.suppress(OSError):
            note.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        held.release()


def forget_locks(folder: Path, names: str) -> None:
    """Remove the lock files that killed processes left; only for a process that holds `folder` against all others.

    Args:
        names: a pattern, such as "worker-*".
    """
    for left in (*folder.glob(f".{names}.lock"), *folder.glob(f".{names}.owner")):
        left.unlink(missing_ok=True)


def _owner(note: Path) -> str:
    """What the owner wrote beside the lock file."""
    try:
        said = json.loads(note.read_text(encoding="utf-8"))
        return f"process {said['process']} on {said['machine']} (since {said['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
