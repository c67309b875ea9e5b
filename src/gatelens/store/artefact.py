"""An artefact: a folder of files that are written together and are either all there, as written, or not there."""

from __future__ import annotations

import contextlib
import copy
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import ConfigError, DataError, StoreError
from .files import explained, file_sha256, move, replace_file, sweep, sync_folder, write_temporary
from .lock import lock
from .manifest import MANIFEST, PENDING, NewerFormatError, load_manifest, new_manifest
from .paths import check_name, inside, read_file
from .strict_json import MAX_BYTES, dump_json, parse_json
from .tensor_files import load_tensors, tensor_bytes

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


class Writing:
    """A folder being written: `tensors`, `json`, `text`, `bytes`, `copy` add files, leaving the block commits them."""

    def __init__(self, folder: Path, kind: str):
        self.folder, self.kind, self._below = folder, kind, ""
        self.files: dict[str, dict[str, Any]] = {}
        self._staged: dict[str, Path] = {}

    def part(self, name: str) -> Writing:
        """The same artefact, one folder further down: for a value that is kept inside another and committed with it."""
        part = copy.copy(self)
        part._below = f"{self._below}{check_name(name)}/"
        return part

    def bytes(self, name: str, data: bytes) -> None:
        self._stage(name, lambda file: file.write(data))

    def tensors(self, name: str, tensors: Mapping[str, Any]) -> None:
        """Torch tensors of any device, or numpy arrays, as safetensors."""
        self.bytes(name, tensor_bytes(tensors))

    def json(self, name: str, value: Any) -> None:
        self.bytes(name, dump_json(value))

    def text(self, name: str, text: str) -> None:
        """As UTF-8, whatever the locale says."""
        self.bytes(name, text.encode("utf-8", "backslashreplace"))

    def copy(self, name: str, source: str | Path) -> None:
        """A file that something else wrote, such as the weights that sae-lens saves."""
        with open(source, "rb") as file:
            self._stage(name, lambda out: shutil.copyfileobj(file, out, 1 << 20))

    def _stage(self, name: str, write: Any) -> None:
        own = name in (MANIFEST, PENDING)
        name = self._below + name
        path = inside(self.folder, name)
        if own or name in self.files:
            raise StoreError(
                f"{name!r} was given twice, or is a name of the store's own: give every file one name of its own"
            )
        temporary = write_temporary(path, write)
        self._staged[name] = temporary
        self.files[name] = {"sha256": file_sha256(temporary), "bytes": temporary.stat().st_size}

    def commit(self, earlier: Mapping[str, Any]) -> None:
        """All files are on the disk: say so in one step, then put them in place."""
        manifest = new_manifest(self.kind, self.files)
        staged = {name: path.name for name, path in self._staged.items()}
        replace_file(self.folder / PENDING, dump_json({"manifest": manifest, "staged": staged}))
        self._staged.clear()
        roll_forward(self.folder)
        for name in set(earlier) - set(self.files):
            with contextlib.suppress(OSError, StoreError):
                inside(self.folder, name).unlink()

    def discard(self) -> None:
        for temporary in self._staged.values():
            with contextlib.suppress(OSError):
                temporary.unlink()


def roll_forward(folder: Path) -> None:
    """Put in place what a writer had committed before it was stopped; nothing to do otherwise."""
    if not (folder / PENDING).exists():
        return
    found = load_manifest(folder)
    if found is None:
        return
    manifest, staged = found
    for name, temporary in staged.items():
        path = inside(folder, name)
        at = path.with_name(temporary)
        if at.exists():
            move(at, path)
    replace_file(folder / MANIFEST, dump_json(manifest))
    with explained(folder / PENDING):
        (folder / PENDING).unlink()
        sync_folder(folder)


@contextmanager
def writing(folder: str | Path, kind: str) -> Iterator[Writing]:
    """Write an artefact of a kind into a folder; an earlier one stays in force until all of the new one is on the disk.

    Raises:
        StoreError: the folder holds something else, is being written by another process, is read-only or full.
    """
    folder = Path(folder)
    with lock(folder):
        earlier = _earlier(folder, kind)
        sweep(folder, keep=PENDING)
        out = Writing(folder, kind)
        try:
            yield out
            out.commit(earlier)
        finally:
            out.discard()


def _earlier(folder: Path, kind: str) -> dict[str, Any]:
    """The files of the artefact that is to be replaced."""
    try:
        roll_forward(folder)
        found = load_manifest(folder)
    except NewerFormatError:
        raise
    except StoreError:
        found = None  # damaged beyond use; writing it again is what its reader was told to do
    if found is None:
        (folder / PENDING).unlink(missing_ok=True)
        return {}
    if found[0]["kind"] != kind:
        raise StoreError(f"{folder} holds a {found[0]['kind']}, which a {kind} would overwrite. Give another folder")
    return found[0]["files"]


class Reading:
    """A folder that was committed; every file is checked against its hash before it is used."""

    def __init__(self, folder: Path, manifest: dict[str, Any], staged: Mapping[str, str] | None = None):
        self.folder, self.manifest, self._below = folder, manifest, ""
        self._staged = staged or {}

    def part(self, name: str, kind: str) -> Reading:
        """What was written through `Writing.part` of that name.

        Args:
            kind: of the artefact that stands there by itself where gatelens 0.1.0 or earlier wrote it.
        """
        part = copy.copy(self)
        part._below = f"{self._below}{check_name(name)}/"
        alone = inside(self.folder, part._below + MANIFEST)
        return reading(alone.parent, kind) if not part.names() and alone.exists() else part

    @property
    def place(self) -> Path:
        return self.folder / self._below

    def names(self) -> list[str]:
        return [name.removeprefix(self._below) for name in self.manifest["files"] if name.startswith(self._below)]

    def bytes(self, name: str, limit: int = MAX_BYTES) -> bytes:
        return self._read(name, lambda path: read_file(path, limit))

    def tensors(self, name: str) -> dict[str, Tensor]:
        return self._read(name, lambda path: load_tensors(path, "torch"))

    def arrays(self, name: str) -> dict[str, Any]:
        """As numpy arrays, without importing torch."""
        return self._read(name, lambda path: load_tensors(path, "numpy"))

    def json(self, name: str) -> Any:
        return parse_json(self.bytes(name), self.place / name)

    def text(self, name: str) -> str:
        return self.bytes(name).decode("utf-8")

    def copy(self, name: str, target: str | Path) -> None:
        """The file, for something else that reads files of its own."""
        self._read(name, lambda path: shutil.copyfile(path, target))

    def _read(self, name: str, read: Callable[[Path], T]) -> T:
        """Read a file wherever it is: a writer that has committed may move it into its place between check and use."""
        path = self.path(name)
        try:
            return read(path)
        except (OSError, StoreError):
            if path.exists():
                raise
        return read(self.path(name))

    def check(self) -> Reading:
        """Check every file now, instead of each when it is used."""
        for name in self.names():
            self.path(name)
        return self

    def path(self, name: str) -> Path:
        """Where the file is, once its size and hash have been found right.

        Raises:
            StoreError: not listed, missing, damaged, or a link.
        """
        names = self.names()
        if name not in names:
            raise StoreError(f"{self.place} holds no {name}; it has {', '.join(names) or 'no files'}. Check the name")
        name = self._below + name
        entry = self.manifest["files"][name]
        path = inside(self.folder, name)
        if name in self._staged:
            staged = path.with_name(self._staged[name])
            if not staged.is_symlink() and not self.damage(staged, entry):
                return staged  # else it has been moved into place since the folder was opened
        problem = self.damage(path, entry)
        if problem and self.rewritten():
            raise StoreError(f"{self.folder} was written anew while it was being read. Open it again")
        if problem:
            raise StoreError(
                f"{path} is damaged: {problem}. Restore it from a copy, or run the step again: what is damaged is redone"
            )
        return path

    def damage(self, path: Path, entry: Mapping[str, Any]) -> str:
        return damage(path, entry)

    def rewritten(self) -> bool:
        """Whether the folder holds another artefact than the one that was opened."""
        try:
            found = load_manifest(self.folder)
        except StoreError:
            return False
        return found is None or found[0] != self.manifest


def damage(path: Path, entry: Mapping[str, Any]) -> str:
    """What is wrong with a file of which the manifest says `entry`; empty when nothing is."""
    try:
        size = path.stat().st_size
        if size != entry["bytes"]:
            return f"{MANIFEST} lists {entry['bytes']} bytes, the file has {size}"
        if file_sha256(path) != entry["sha256"]:
            return f"its SHA-256 is not the one in {MANIFEST}"
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    return ""


@contextmanager
def understood(what: object) -> Iterator[None]:
    """Within the block, stored values are made into ours; values of another shape are refused, whatever they break.

    Raises:
        StoreError: naming `what` was read. A right hash says that a file is the one that was written, not who wrote it.
    """
    try:
        yield
    except (
        ConfigError,
        DataError,
        KeyError,
        TypeError,
        ValueError,
        IndexError,
        AttributeError,
        RuntimeError,
        OverflowError,
    ) as error:
        first = (str(error).splitlines() or [""])[0][:160]
        raise StoreError(
            f"{what} does not hold what this version of gatelens writes there ({type(error).__name__}: {first}). "
            "Restore it from a copy, or run the step that makes it again"
        ) from error


def reading(folder: str | Path, kind: str) -> Reading:
    """Open a committed artefact.

    Raises:
        StoreError: nothing there, another kind, a damaged manifest, or a format that this version does not know.
    """
    folder = Path(folder)
    found = load_manifest(folder)
    if found is None:
        raise StoreError(
            f"{folder} holds no finished {kind}: there is no {MANIFEST} in it. Check the path, or run the step again"
        )
    manifest, staged = found
    if manifest["kind"] != kind:
        raise StoreError(f"{folder} holds a {manifest['kind']}; expected a {kind}. Check the path")
    return Reading(folder, manifest, staged)
