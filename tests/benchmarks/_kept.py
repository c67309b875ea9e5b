"""Parts of a long benchmark that are kept once they are finished: a run that was stopped goes on with the next one."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gatelens.bench import Figure, commit

#: where finished parts and what they are made from are kept; a part is measured anew after so many hours
FOLDER, HOURS = Path(tempfile.gettempdir()) / "gatelens-bench-rules", 24.0


def kept(name: str, make: Callable[[], Iterable[Figure]]) -> Iterator[Figure]:
    """The figures of a part: those of an earlier run that finished it, else as they are measured; progress on standard error.

    A part whose first figure says that it cannot be measured yet (no value, and no bar) is not kept.
    """
    file = FOLDER / f"{name}.json"
    if file.is_file() and time.time() - file.stat().st_mtime < HOURS * 3600:
        yield from (Figure(**values) for values in json.loads(file.read_text(encoding="utf-8")))
        return
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {name} ...\n")
    began, figures = time.process_time(), []
    for figure in make():
        figures.append(figure)
        yield figure
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {name}: {time.process_time() - began:.0f} CPU s\n")
    if figures and (figures[0].value is not None or figures[0].bar is not None):
        FOLDER.mkdir(parents=True, exist_ok=True)
        scratch = file.with_suffix(".new")
        scratch.write_text(json.dumps([asdict(f) for f in figures], indent=1), encoding="utf-8")
        file.with_suffix(".commit").write_text(commit(), encoding="utf-8")
        scratch.replace(file)


def finished(name: str) -> tuple[list[Figure], dict[str, Any]] | None:
    """The figures of a part that is on the disk, and when and at which commit it was measured; None where it is not."""
    file = FOLDER / f"{name}.json"
    if not file.is_file():
        return None
    at = file.with_suffix(".commit")
    about = {
        "date": time.strftime("%Y-%m-%d", time.gmtime(file.stat().st_mtime)),
        "commit": at.read_text(encoding="utf-8") if at.is_file() else "unknown",
    }
    return [Figure(**values) for values in json.loads(file.read_text(encoding="utf-8"))], about
