"""The store: how anything reaches the disk and comes back unharmed.

Write protocol: temporary file in the same folder, write, flush and fsync, hash, replace, fsync the folder; then the
manifest with every file's SHA-256 (replaced atomically). A reader trusts only what the manifest lists and the hash
confirms.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from .errors import StoreError

FORMAT = 1
MANIFEST = "manifest.json"


class Writing:
    """A folder being written; `tensors`, `json` and `text` add files, leaving the `with` block commits them."""

    def __init__(self, folder: Path, kind: str):
        self.folder, self.kind = folder, kind
        self.files: dict[str, dict[str, Any]] = {}

    def bytes(self, name: str, data: bytes) -> None:
        self.files[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        replace_file(self.folder / name, data)

    def tensors(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        self.bytes(name, safetensors.torch.save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}))

    def json(self, name: str, value: Any) -> None:
        self.bytes(name, dump_json(value))


class Reading:
    """A folder that was committed; every file is checked against its hash before it is used."""

    def __init__(self, folder: Path, manifest: dict[str, Any]):
        self.folder, self.manifest = folder, manifest

    def bytes(self, name: str) -> bytes:
        entry = self.manifest["files"].get(name)
        if entry is None:
            raise StoreError(f"{self.folder} holds no {name}; it has {', '.join(self.manifest['files'])}")
        path = self.folder / name
        data = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise StoreError(f"{path} is damaged: its SHA-256 is not the one in {MANIFEST}. Delete it and run the step again")
        return data

    def tensors(self, name: str) -> dict[str, Tensor]:
        return safetensors.torch.load(self.bytes(name))

    def json(self, name: str) -> Any:
        return json.loads(self.bytes(name))


def dump_json(value: Any) -> bytes:
    """JSON with sorted keys; NaN and infinity are refused."""
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n").encode()


def replace_file(path: Path, data: bytes) -> None:
    """Write `data` so that `path` holds either what it held before or all of `data`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def writing(folder: str | Path, kind: str) -> Iterator[Writing]:
    """Write an artefact of a kind into a folder; the manifest comes last."""
    out = Writing(Path(folder), kind)
    yield out
    replace_file(out.folder / MANIFEST, dump_json({"format": FORMAT, "kind": kind, "files": out.files}))


def reading(folder: str | Path, kind: str) -> Reading:
    """Open a committed artefact.

    Raises:
        StoreError: nothing there, another kind, or a format that this version does not know.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    if not path.is_file():
        raise StoreError(f"{folder} holds no finished {kind}: there is no {MANIFEST} in it. Check the path, or run the step again")
    try:
        manifest = json.loads(path.read_bytes())
        found = manifest["format"], manifest["kind"], manifest["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is not a manifest of ours ({error}). Delete the folder and run the step again") from error
    if found[0] != FORMAT or found[1] != kind:
        raise StoreError(f"{folder} holds a {found[1]} of format {found[0]}; expected a {kind} of format {FORMAT}")
    return Reading(folder, manifest)
