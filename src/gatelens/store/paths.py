"""Names of stored files: which are allowed, and the proof that a path stays inside its folder."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path

from ..errors import StoreError

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_DEVICES = {"con", "prn", "aux", "nul", *(f"com{i}" for i in range(1, 10)), *(f"lpt{i}" for i in range(1, 10))}
LONGEST = 128


def check_name(name: object) -> str:
    """`name`, when it can be a file of ours on every system: parts of letters, digits, `_`, `.`, `-`, joined by `/`.

    Raises:
        StoreError: for anything else: `..`, an absolute path, a hidden file, a device name of Windows.
    """
    if isinstance(name, str) and all(_good_part(part) for part in name.split("/")):
        return name
    raise StoreError(
        f"{str(name)[:80]!r} cannot name a stored file: expected parts of letters, digits, '_', '.' and '-', "
        f"none beginning with '.', none longer than {LONGEST}, joined by '/'. "
        "Rename it, or restore the manifest from a copy"
    )


def _good_part(part: str) -> bool:
    return (
        _PART.fullmatch(part) is not None
        and not part.endswith(".")
        and len(part) <= LONGEST
        and part.split(".")[0].lower() not in _DEVICES
    )


def inside(folder: Path, name: str) -> Path:
    """The path of `name` in `folder`.

    The folder itself may be reached through a link, which is the user's own choice; nothing below it may be one.

    Raises:
        StoreError: a name that is not allowed, or a link on the way, which could lead out of the folder.
    """
    path = folder
    for part in check_name(name).split("/"):
        path = path / part
        if path.is_symlink():
            raise StoreError(
                f"{path} is a link to {os.readlink(path)!r}: expected a plain file or folder, since a link can "
                f"lead out of {folder}. Put the file itself there"
            )
    return path


def read_file(path: Path, limit: int) -> bytes:
    """The bytes of a plain file of at most `limit` bytes; links, pipes and devices are refused before they are read.

    Raises:
        StoreError: no plain file, too large, or not readable.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise StoreError(f"{path} is not a plain file. Put the file itself there")
            if found.st_size > limit:
                raise StoreError(
                    f"{path} has {found.st_size} bytes, at most {limit} were expected. Restore it from a copy"
                )
            return file.read(limit + 1)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be read ({error.strerror}): expected a plain file. Check it and its folder"
        ) from error


def slug(text: str) -> str:
    """A file name for any text: the text itself when it is one, else its readable part and eight digits of its hash.

    Different texts have different slugs, also on systems that do not tell upper from lower case.
    """
    if "/" not in text and _good_part(text) and len(text) <= 64 and text == text.lower():
        return text
    readable = re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-.")[:48].rstrip("-.") or "name"
    return f"{readable}-{hashlib.sha256(text.encode('utf-8', 'backslashreplace')).hexdigest()[:8]}".replace("--", "-")
