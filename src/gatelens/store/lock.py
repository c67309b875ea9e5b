"""A lock on a folder that names its owner, and that ends with its process, however that ends."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import StoreError
from .files import explained
from .paths import check_name

_NOTE = 256

if sys.platform == "win32":  # no lock here ends with its process, so none is taken

    @contextlib.contextmanager
    def lock(folder: str | Path, name: str = "write", shared: bool = False) -> Iterator[None]:
        check_name(name)
        Path(folder).mkdir(parents=True, exist_ok=True)
        yield

else:
    import fcntl

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
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = _acquire(path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                if shared:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while others share it
                path.unlink()  # while it is ours alone; `_acquire` notices when it opened a file that is gone since
            os.close(descriptor)

    def _acquire(path: Path, how: int) -> int:
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, how | fcntl.LOCK_NB)
                if _same_file(descriptor, path):
                    os.pwrite(descriptor, _note(), 0)
                    return descriptor
            except BlockingIOError:
                raise StoreError(
                    f"{path.parent} is being written by {_owner(descriptor)}: expected to be its only writer. "
                    "Wait until it has finished, stop it, or give another folder"
                ) from None
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)


def forget_locks(folder: Path, names: str) -> None:
    """Remove the lock files that killed processes left; only for a process that holds `folder` against all others.

    Args:
        names: a pattern, such as "worker-*".
    """
    for left in folder.glob(f".{names}.lock"):
        left.unlink(missing_ok=True)


def _note() -> bytes:
    note = {"process": os.getpid(), "machine": socket.gethostname()[:64], "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    return json.dumps(note).encode().ljust(_NOTE)


def _same_file(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    return False


def _owner(descriptor: int) -> str:
    """What the owner wrote into the lock file; closes it."""
    try:
        note = json.loads(os.pread(descriptor, _NOTE, 0))
        return f"process {note['process']} on {note['machine']} (since {note['since']})"
    except (ValueError, KeyError, TypeError):
        return "another process"
    finally:
        os.close(descriptor)
