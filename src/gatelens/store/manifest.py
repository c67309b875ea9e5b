"""The manifest: which files an artefact has, with their sizes and SHA-256; and how older manifests are read."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import StoreError
from .paths import check_name, inside, read_file
from .strict_json import parse_json

FORMAT = 2
MANIFEST = "manifest.json"
#: what a writer leaves between "all is on the disk" and "all is in place"; whoever reads it sees the new artefact
PENDING = "manifest.pending.json"
MAX_MANIFEST = 16 << 20


class NewerFormatError(StoreError):
    """Written by a later version; never to be overwritten by this one."""


def new_manifest(kind: str, files: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {"format": FORMAT, "kind": kind, "written_by": __version__, "files": files}


def load_manifest(folder: Path) -> tuple[dict[str, Any], dict[str, str]] | None:
    """The manifest in force and, for files that are not yet in place, where they are; None where there is no artefact.

    Raises:
        StoreError: damaged, or from a newer version.
    """
    pending = inside(folder, PENDING)
    committed = _if_there(pending)
    if committed is not None:
        stored = _object(parse_json(committed, pending, MAX_MANIFEST), pending)
        staged = stored.get("staged")
        if not isinstance(staged, dict) or not all(_is_staged(name, at) for name, at in staged.items()):
            raise _not_ours(pending, "'staged' does not list temporary files")
        return check_manifest(stored.get("manifest"), pending), staged
    path = inside(folder, MANIFEST)
    listed = _if_there(path)
    return None if listed is None else (check_manifest(parse_json(listed, path, MAX_MANIFEST), path), {})


def _if_there(path: Path) -> bytes | None:
    """Its bytes; None where it is not, or not any more: a writer removes what is pending as soon as it is in place."""
    if not path.exists():
        return None
    try:
        return read_file(path, MAX_MANIFEST)
    except StoreError:
        if path.exists():
            raise
        return None


def check_manifest(value: Any, source: object) -> dict[str, Any]:
    """`value` as a manifest of the present format, older ones migrated.

    Raises:
        StoreError: another shape, or a format that this version does not know.
    """
    value = _object(value, source)
    found = value.get("format")
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise _not_ours(source, f"its format is {str(found)[:40]!r}, expected a number from 1 to {FORMAT}")
    if found > FORMAT:
        writer = str(value.get("written_by", "of a newer version"))[:40]
        raise NewerFormatError(
            f"{source} has format {found}, written by gatelens {writer}; this is gatelens {__version__}, which reads "
            f"formats 1 to {FORMAT}. Upgrade gatelens, or make the artefact again"
        )
    for older in range(found, FORMAT):
        value = MIGRATIONS[older](value)
    kind, files = value.get("kind"), value.get("files")
    if not isinstance(kind, str) or not isinstance(files, dict):
        raise _not_ours(source, "it lacks 'kind' or 'files'")
    for name, entry in files.items():
        check_name(name)
        _check_entry(name, entry, source)
    return value


def _from_1(value: dict[str, Any]) -> dict[str, Any]:
    """Format 1 did not say which version had written it."""
    return {**value, "format": 2, "written_by": "0.1.0 or earlier"}


#: format -> what turns a manifest of that format into one of the next
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1}


def _check_entry(name: str, entry: Any, source: object) -> None:
    entry = _object(entry, source)
    size, sha = entry.get("bytes"), entry.get("sha256")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise _not_ours(source, f"{name} has no size")
    if not isinstance(sha, str) or not re.fullmatch(r"[0-9a-f]{64}", sha):
        raise _not_ours(source, f"{name} has no SHA-256")


def _is_staged(name: object, at: object) -> bool:
    check_name(name)
    return isinstance(at, str) and re.fullmatch(r"\.[A-Za-z0-9_.-]+\.tmp", at) is not None


def _object(value: Any, source: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _not_ours(source, f"expected an object, found {type(value).__name__}")
    return value


def _not_ours(source: object, why: str) -> StoreError:
    return StoreError(
        f"{source} is not a manifest of ours: {why}. "
        "Restore it from a copy, or delete its folder and run the step again"
    )
