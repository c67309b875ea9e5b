"""Shards: work cut into pieces that are done, checked and repeated one by one, by one process or by many.

The shard is the unit of work, of resuming and of checksums. Where it begins and ends depends on the data alone, never
on who does it, so one process and several leave the same bytes.

    with ShardFolder(folder, "activations", config, count=len(spans(data.examples, 512))) as out:
        for i in out.missing():              # good shards of an earlier run are kept, damaged ones done again
            out.write(i, tensors, {"rows": rows})
        stored = out.finish()                # checks that all are there, and writes the manifest
    for i in range(stored.count): stored.read(i), stored.meta(i)     # later: read_shards(folder, "activations")
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .. import __version__, store
from ..errors import StoreError
from .manifest import load_manifest

if TYPE_CHECKING:
    from torch import Tensor

HEADER = "shards.json"
FORMAT = 1


def spans(total: int, size: int) -> list[range]:
    """`total` things in order, cut into pieces of `size`; the last is shorter, none is padded or dropped."""
    return [range(start, min(start + size, total)) for start in range(0, total, max(size, 1))]


class ShardFolder:
    """A folder of numbered shards, one safetensors file each, for one config.

    Args:
        folder: made when it is missing.
        kind: what the shards hold, as in `store.writing`.
        config: all that the bytes depend on (model, data, hook points, seed); another config is refused.
        count: how many shards make the whole.
        worker: name of one of several workers on the same folder ("0-of-2"); None to be the only one.

    Raises:
        StoreError: on entering, when another process holds the folder or the name, when the folder holds something
            else or was made with another config (the differences are listed), when it cannot be written.
    """

    def __init__(
        self, folder: str | Path, kind: str, config: Mapping[str, Any], count: int, worker: str | None = None
    ) -> None:
        self.folder, self.kind, self.count = Path(folder), kind, count
        # what a reader will get back: lists for tuples, strings for keys
        self.config: dict[str, Any] = store.parse_json(store.dump_json(dict(config)), "the config")
        self.worker = worker
        self._locks = ExitStack()
        self._sound: dict[Path, tuple[Any, ...]] = {}

    def __enter__(self) -> ShardFolder:
        with ExitStack() as locks:
            locks.enter_context(store.lock(self.folder, "shards", shared=self.worker is not None))
            if self.worker is not None:
                locks.enter_context(store.lock(self.folder, f"worker-{self.worker}"))
            self._claim()
            store.sweep(self.folder)
            if self.worker is None:
                store.forget_locks(self.folder, "worker-*")
            self._locks = locks.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._locks.close()

    def _claim(self) -> None:
        """Write the header, or compare with the one that is there."""
        path = store.inside(self.folder, HEADER)
        header = {"format": FORMAT, "kind": self.kind, "count": self.count, "config": self.config}
        if not path.exists():
            store.replace_file(path, store.dump_json(header))
        _compare(_header(self.folder), header, self.folder)

    def done(self, i: int) -> bool:
        """Whether shard `i` is there and its hash is right."""
        entry = self._entry(i)
        return entry is not None and not self.damage(store.inside(self.folder, shard_name(i)), entry)

    def damage(self, path: Path, entry: Mapping[str, Any]) -> str:
        """What is wrong with a shard's file, as `store.damage`; one that was found sound is hashed again when it changes."""
        seen = _signature(path, entry)
        if seen is not None and self._sound.get(path) == seen:
            return ""
        problem = store.damage(path, entry)
        if seen is not None and not problem:
            self._sound[path] = seen
        return problem

    def missing(self, of: Iterable[int] | None = None) -> Iterator[int]:
        """The shards (of those in `of`; None for all) that are to be made: never made, or damaged since."""
        return (i for i in (range(self.count) if of is None else of) if not self.done(i))

    def damaged(self, of: Iterable[int]) -> Iterator[tuple[int, str]]:
        """Of the shards that are to be made, those that had been made before, and what is wrong with them."""
        for i in of:
            entry, record = self._entry(i), self.folder / record_name(i)
            if entry is None and record.exists():
                yield i, f"its record {record.name} cannot be read"
            elif entry is None and (self.folder / shard_name(i)).exists():
                yield i, f"its record {record.name} is missing"
            elif entry is not None and (problem := self.damage(store.inside(self.folder, shard_name(i)), entry)):
                yield i, problem

    def write(self, i: int, tensors: Mapping[str, Any], meta: Mapping[str, Any] | None = None) -> None:
        """Store shard `i`: first the tensors, then the record that makes them count."""
        if not 0 <= i < self.count:
            raise StoreError(f"shard {i} is out of range: {self.folder} has shards 0..{self.count - 1}")
        data = store.tensor_bytes(tensors)
        entry = {**fingerprint(data), "meta": dict(meta or {})}
        path = store.inside(self.folder, shard_name(i))
        store.replace_file(path, data)
        if (written := _signature(path, entry)) is not None:
            self._sound[path] = written
        store.replace_file(store.inside(self.folder, record_name(i)), store.dump_json(entry))

    def read(self, i: int) -> dict[str, Tensor]:
        """The tensors of shard `i`, mapped from the file."""
        return self._opened(i).tensors(shard_name(i))

    def arrays(self, i: int) -> dict[str, Any]:
        """The same as numpy arrays, without importing torch."""
        return self._opened(i).arrays(shard_name(i))

    def meta(self, i: int) -> dict[str, Any]:
        """What `write` was given beside the tensors."""
        return self._good_entry(i)["meta"]

    def finish(self) -> ShardFolder:
        """Check that every shard is there and good, and write the manifest: the same bytes whoever made the shards.

        Raises:
            StoreError: naming the shards that are missing or damaged.
        """
        absent = list(self.missing())
        if absent:
            raise StoreError(f"{self.folder} lacks {some(absent)} of its {self.count} shards. Run the step again")
        files = {
            shard_name(i): {k: v for k, v in self._good_entry(i).items() if k != "meta"} for i in range(self.count)
        }
        header = store.read_file(store.inside(self.folder, HEADER), store.MAX_BYTES)
        manifest = store.new_manifest(self.kind, {HEADER: fingerprint(header), **files})
        store.replace_file(self.folder / store.MANIFEST, store.dump_json(manifest))
        return self

    def _entry(self, i: int) -> dict[str, Any] | None:
        """The record of shard `i`, or None when there is none that can be trusted."""
        try:
            path = store.inside(self.folder, record_name(i))
            entry = store.parse_json(store.read_file(path, store.MAX_BYTES), path)
        except StoreError:
            return None
        whole = isinstance(entry, dict) and isinstance(entry.get("bytes"), int) and isinstance(entry.get("sha256"), str)
        return entry if whole and isinstance(entry.get("meta"), dict) else None

    def _good_entry(self, i: int) -> dict[str, Any]:
        entry = self._entry(i)
        if entry is None:
            raise StoreError(
                f"{self.folder} has no whole record of shard {i}. Run the step again: only this shard is redone"
            )
        return entry

    def _opened(self, i: int) -> store.Reading:
        return _Shard(self, store.new_manifest(self.kind, {shard_name(i): self._good_entry(i)}))


class _Shard(store.Reading):
    """One shard, listed by its own record."""

    def __init__(self, shards: ShardFolder, manifest: dict[str, Any]):
        super().__init__(shards.folder, manifest)
        self.damage = shards.damage

    def rewritten(self) -> bool:
        return False  # the folder's manifest is not what it was opened with


def read_shards(folder: str | Path, kind: str, config: Mapping[str, Any] | None = None) -> ShardFolder:
    """A finished shard folder, to be read.

    Args:
        config: what it must have been made with; None for any.

    Raises:
        StoreError: unfinished, of another kind, or made with another config.
    """
    folder = Path(folder)
    store.reading(folder, kind)
    header = _header(folder)
    expected = header["config"] if config is None else dict(config)
    stored = ShardFolder(folder, kind, expected, header["count"])
    _compare(header, {**header, "kind": kind, "config": stored.config}, folder)
    return stored


def shard_name(i: int) -> str:
    return f"shard-{i:06d}.safetensors"


def record_name(i: int) -> str:
    return f"shard-{i:06d}.json"


def fingerprint(data: bytes) -> dict[str, Any]:
    """Size and SHA-256, as a manifest lists them."""
    import hashlib

    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _signature(path: Path, entry: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """Which file this is and when it was changed last, with the hash that it should have; None when it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, entry["sha256"]


def some(shards: list[int]) -> str:
    """Their number and the first few: 3 (0, 4, 5)."""
    return f"{len(shards)} ({', '.join(map(str, shards[:8]))}{', ..' if len(shards) > 8 else ''})"


def _header(folder: Path) -> dict[str, Any]:
    path = store.inside(folder, HEADER)
    header = store.parse_json(store.read_file(path, store.MAX_BYTES), path)
    if not (
        isinstance(header, dict) and isinstance(header.get("format"), int) and isinstance(header.get("config"), dict)
    ):
        raise StoreError(f"{path} is not a shard list of ours. Delete {folder} and run the step again")
    if header["format"] > FORMAT:
        raise StoreError(
            f"{path} has format {header['format']}, this gatelens reads formats 1 to {FORMAT}. Upgrade gatelens"
        )
    if not isinstance(header.get("kind"), str) or not isinstance(header.get("count"), int) or header["count"] < 0:
        raise StoreError(f"{path} is not a shard list of ours. Delete {folder} and run the step again")
    return header


def _compare(found: dict[str, Any], expected: dict[str, Any], folder: Path) -> None:
    if found["kind"] != expected["kind"]:
        raise StoreError(f"{folder} holds {found['kind']}, expected {expected['kind']}. Give another folder")
    changed = differences(
        {**found["config"], "shards": found["count"]}, {**expected["config"], "shards": expected["count"]}
    )
    if changed:
        raise StoreError(
            f"{folder} was made{_writer(folder)} with other settings: {'; '.join(changed[:6])}"
            f"{'; ..' if len(changed) > 6 else ''}. Give another folder, or delete this one to make it again"
        )


def _writer(folder: Path) -> str:
    """Which version wrote a finished folder, where it is not this one: it noted what it was made from in its own way."""
    found = load_manifest(folder)
    by = __version__ if found is None else str(found[0]["written_by"])[:40]
    return "" if by == __version__ else f" by gatelens {by} (this is {__version__})"


def differences(stored: Any, asked: Any, place: str = "") -> list[str]:
    """Where two JSON values differ, one readable clause a place: "seed: stored 0, asked for 1"."""
    if isinstance(stored, dict) and isinstance(asked, dict):
        keys = list(dict.fromkeys([*stored, *asked]))
        parts = (differences(stored.get(k, _ABSENT), asked.get(k, _ABSENT), f"{place}.{k}".lstrip(".")) for k in keys)
        return [clause for part in parts for clause in part]
    if stored == asked and type(stored) is type(asked):
        return []
    return [f"{place or 'value'}: stored {_shown(stored)}, asked for {_shown(asked)}"]


_ABSENT = object()


def _shown(value: Any) -> str:
    text = "nothing" if value is _ABSENT else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
