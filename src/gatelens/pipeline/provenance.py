"""What a run folder holds and what each part was made from: one manifest of hashes, asked before any part is trusted.

A part that is gone, edited, swapped for another run's, or made from something that has changed since is made again, and
why is said. What a run cannot make again by itself (its config, its model, its data) is refused when it changed.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import store
from ..errors import GateLensWarning, StoreError
from ..store.shards import differences

_REMAKE = "Give another --out, or --restart to begin again in this folder"


#: parts of a run as they come about
_ORDER = ("model", "activations", "bases", "connectors", "circuit", "report-quick.json", "report.json", "index.html")


@dataclass
class Provenance:
    """The manifest of a run folder.

    Attributes:
        folder: the run's.
        config: the settings that the run was begun with; None where no manifest says so.
        parts: part ("circuit", "report.json") -> its hash and, by name, the hashes of what it was made from.
        several, writes: whether several workers share the folder, and whether this one keeps the manifest. What one of them
            has just made is not yet recorded for the others.
        known: False for a run folder without a manifest (0.1.0 wrote none, or it was deleted).
    """

    folder: Path
    config: dict[str, Any] | None = None
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    several: bool = False
    writes: bool = True
    known: bool = True

    @classmethod
    def of(cls, folder: Path, several: bool = False, writes: bool = True) -> Provenance:
        """What the folder's manifest says; for a folder without one, nothing is known.

        Raises:
            StoreError: a manifest that is damaged, from a newer version, or no run's.
        """
        if not store.inside(folder, store.MANIFEST).exists():
            return cls(folder, None, {}, several, writes, known=not (folder / "config.yaml").exists())
        manifest = store.reading(folder, "run").manifest
        with store.understood(folder / store.MANIFEST):
            parts = {
                str(k): {"sha256": str(v["sha256"]), "made_from": dict(v["made_from"])}
                for k, v in manifest["parts"].items()
            }
            return cls(folder, dict(manifest["config"]), parts, several, writes)

    def begin(self, config: Mapping[str, Any]) -> None:
        """Take the folder for these settings.

        Raises:
            StoreError: it was begun with others; the differences are shown.
        """
        different = differences(without_views(self.config or config), without_views(config))
        if different:
            raise StoreError(f"{self.folder} holds a run with other settings: {'; '.join(different[:8])}. {_REMAKE}")
        if self.config is None:
            if not self.known:
                say(
                    f"{self.folder} has no {store.MANIFEST}: what is in it is taken as it is found, its origin cannot be checked"
                )
            self.config = dict(config)

    def trusted(self, part: str, made_from: Mapping[str, str] | None = None, proves_itself: bool = False) -> bool:
        """Whether a part is there, as it was written, and made from what is there now; where not, why is said.

        Args:
            proves_itself: the part holds hashes of what it was made from (activations do), so it need not be recorded.
        """
        digest = self.digest(part)
        recorded = self.parts.get(part)
        if not digest:
            if recorded is not None:
                say(f"{self.folder / part} is made again: it is gone")
            return False
        if recorded is None and proves_itself:
            return True
        why = self._doubt(digest, recorded, made_from or {})
        if why:
            say(f"{self.folder / part} is made again: {why}")
        return not why

    def _doubt(self, digest: str, recorded: Mapping[str, Any] | None, made_from: Mapping[str, str]) -> str:
        if recorded is None:
            return "" if self.several or not self.known else "this run has not recorded that it wrote it"
        if recorded["sha256"] != digest:
            return f"it was edited or swapped since this run wrote it (SHA-256 {recorded['sha256'][:12]}, now {digest[:12]})"
        changed = [name for name, sha in made_from.items() if recorded["made_from"].get(name, sha) != sha]
        return f"it was made from another {', another '.join(changed)}" if changed else ""

    def record(self, part: str, made_from: Mapping[str, str] | None = None) -> None:
        """A part is finished: write down its hash, and of what it was made."""
        entry = {"sha256": self.digest(part), "made_from": dict(made_from or {})}
        if not self.writes or self.config is None or self.parts.get(part) == entry:
            return
        self.parts[part] = entry
        manifest = store.new_manifest("run", {}) | {"config": self.config, "parts": self.parts}
        store.replace_file(self.folder / store.MANIFEST, store.dump_json(manifest))

    def digest(self, part: str) -> str:
        """The hash of a part: of a file's bytes, or of the list of an artefact's files; empty where there is none."""
        place = store.inside(self.folder, part)
        if place.is_file():
            return store.file_sha256(place)
        if not place.is_dir() or not store.inside(place, store.MANIFEST).exists():
            return ""
        try:
            listed = store.parse_json(store.read_file(place / store.MANIFEST, store.MAX_BYTES), place)
        except StoreError:
            return ""  # damaged: whoever reads it says so
        files = listed.get("files") if isinstance(listed, dict) else None
        return hashlib.sha256(store.dump_json(files)).hexdigest()


def kept_in(folder: Path) -> str:
    """What a run that is stopped leaves behind, in one sentence."""
    go_on = "run the same command to go on"
    try:
        parts = Provenance.of(folder).parts
    except StoreError:
        return f"what was finished is kept in {folder}; {go_on}"
    done = {part.split("/")[0] for part in parts}
    names = [part for part in _ORDER if part in done]
    if "activations" not in names and (folder / "activations").exists():
        names.append("the finished shards of its activations")
    return f"{folder} keeps {', '.join(names)}; {go_on}" if names else f"no room is finished in {folder}; {go_on}"


def without_views(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings on which results rest: what the page shows changes none."""
    return {name: value for name, value in config.items() if name != "views"}


def check_part(run: Path, part: str) -> None:
    """Refuse a part of a finished run that is not as the run wrote it; for those who read runs and make nothing.

    Raises:
        StoreError: edited, swapped or deleted; names the part. A folder without a manifest is taken as it is.
    """
    found = Provenance.of(run)
    if not found.known or part not in found.parts:
        return
    digest = found.digest(part)
    if digest != found.parts[part]["sha256"]:
        what = "is gone" if not digest else "was edited or swapped since the run wrote it"
        raise StoreError(
            f"{run / part} {what}. Restore it, or make it again: gatelens run {run / 'config.yaml'} --out {run}"
        )


def say(why: str) -> None:
    warnings.warn(why, GateLensWarning, stacklevel=3)
