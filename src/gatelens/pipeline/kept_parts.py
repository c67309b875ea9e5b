"""Parts of a run that are finished: read back where the folder holds them as written, made and recorded where it does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .. import store
from ..distributed import from_first, meet
from ..errors import StoreError
from .provenance import Provenance, say

T = TypeVar("T")


@dataclass
class Parts:
    """The parts of a run in its folder, and the manifest that says which of them can be trusted."""

    folder: Path
    manifest: Provenance

    def place(self, part: str) -> Path:
        """Where a part stands; never outside the folder."""
        return store.inside(self.folder, part)

    def digests(self, parts: tuple[str, ...]) -> dict[str, str]:
        """The hashes of parts that another is made from."""
        return {part: self.manifest.digest(part) for part in parts}

    def stored(self, part: str, load: Callable[[Path], T], made_from: Mapping[str, str]) -> T | None:
        """A part that is there, as this run wrote it, made from what is there now; None, and why, where it is to be made again."""
        if not self.manifest.trusted(part, made_from):
            return None
        try:
            return load(self.place(part))
        except store.NewerFormatError:
            raise
        except StoreError as error:
            say(f"{self.folder / part} is made again: {error}")
            return None

    def finished(
        self, part: str, load: Callable[[Path], T], make: Callable[[Path], T], made_from: Mapping[str, str]
    ) -> T:
        """The part, read back or made; and recorded. Of several processes all make it, and the first one writes it."""
        if self.missing([part], load, made_from):
            found = make(self.place(part))
            meet()  # from here on it can be read
        else:
            found = load(self.place(part))
        self.manifest.record(part, made_from)
        return found

    def missing(self, parts: Sequence[str], load: Callable[[Path], Any], made_from: Mapping[str, str]) -> list[str]:
        """Which parts are to be made, as the first process sees it."""
        return from_first(lambda: [part for part in parts if self.stored(part, load, made_from) is None])
