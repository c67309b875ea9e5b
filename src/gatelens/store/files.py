"""Writing one file so that a crash, a full disk or a second process leaves either the old file or the new one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import StoreError, TooLargeError

_SERIAL = itertools.count()
_HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
_TEMPORARY = re.compile(r"\..+\.([0-9a-f]{8})-([0-9]+)-[0-9]+\.tmp")
#: a temporary file of another machine counts as left behind after this many seconds
ABANDONED = 24 * 3600


def replace_file(path: Path, data: bytes) -> None:
    """Write `data` so that `path` holds either what it held before or all of `data`.

    Raises:
        StoreError: a full disk, a read-only folder; the earlier file is untouched and no temporary file is left.
    """
    temporary = write_temporary(path, lambda file: file.write(data))
    move(temporary, path)


def write_temporary(path: Path, write: Callable[[BinaryIO], object]) -> Path:
    """A new file beside `path`, written and on the disk; `move` puts it in place."""
    temporary = path.with_name(f".{path.name}.{_HOST}-{os.getpid()}-{next(_SERIAL)}.tmp")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    return temporary


def move(temporary: Path, path: Path) -> None:
    """Put a temporary file in its place, in one step, and make that last."""
    with explained(path):
        try:
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a loss of power, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, read in pieces."""
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            sha.update(piece)
    return sha.hexdigest()


def sweep(folder: Path, keep: str = "") -> list[Path]:
    """Remove temporary files whose process is gone (one that was killed while writing); the files removed.

    Folders below that hold a file named `keep` are passed over: there the temporary files are committed.
    """
    gone = []
    for place, below, files in os.walk(folder):
        below[:] = [name for name in below if not keep or not os.path.lexists(Path(place, name, keep))]
        for path in (Path(place, name) for name in files):
            match = _TEMPORARY.fullmatch(path.name)
            if match and not path.is_symlink() and _abandoned(path, *match.groups()):
                with contextlib.suppress(OSError):
                    path.unlink()
                    gone.append(path)
    return gone


def _abandoned(path: Path, host: str, pid: str) -> bool:
    if host != _HOST:
        with contextlib.suppress(OSError):
            return time.time() - path.stat().st_mtime > ABANDONED
        return False
    return int(pid) != os.getpid() and not _alive(int(pid))


def _alive(pid: int) -> bool:
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def free_bytes(folder: Path) -> int:
    """The free space where `folder` is, or will be made."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free


def check_space(folder: str | Path, needed: int, what: str) -> None:
    """Refuse work whose result would not fit on the disk, before it starts.

    Raises:
        TooLargeError: naming what is needed and what is free.
    """
    free = free_bytes(Path(folder))
    if needed > free:
        raise TooLargeError(
            f"{what} needs about {readable(needed)} in {folder}, {readable(free)} are free. "
            "Free some space, give another folder, or take fewer rows or hook points"
        )


def check_target(path: str | Path) -> Path:
    """A path that a file can be written to, asked before the work whose result goes there; nothing is made.

    Raises:
        StoreError: a folder stands there, a file on the way to it, or the folder is read-only for this user.
    """
    path = Path(path)
    with explained(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        place = path.absolute().parent
        while not place.exists() and place != place.parent:
            place = place.parent
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(place, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return path


def readable(count: float | int) -> str:
    """1536 -> '1.5 KiB'."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say what an error of the operating system means for the user's data."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StoreError(
                f"the disk is full: {path} could not be written, {readable(free_bytes(path.parent))} are free. "
                "What was stored before is untouched. Free some space or give another folder, then run the step again"
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise StoreError(
                f"{path.parent} is read-only for this user ({error.strerror}): expected a folder to write in. "
                "Give another folder, or change its permissions"
            ) from error
        if error.errno == errno.EISDIR:
            raise StoreError(f"{path} is a folder where a file belongs: delete it, and run the step again") from error
        raise StoreError(
            f"{path} could not be written ({error.strerror or error}). Check that {path.parent} is a folder"
        ) from error
