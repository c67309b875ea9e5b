"""Running: one room after the other, in a folder that belongs to one config; what is finished there is used."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .. import store
from ..errors import ConfigError
from .building import check
from .config import Config
from .resume import claim
from .walk import Walk

ROOMS = ("collect", "bases", "connect", "gates", "evaluate", "view")


def run(
    config: Config,
    out: str | Path | None = None,
    until: str = "view",
    progress: bool | None = None,
    restart: bool = False,
    say: Callable[[str], None] | None = None,
) -> Walk:
    """Walk through the rooms up to `until`; what is finished in the run folder is used.

    Args:
        out: the run folder; `runs/<name>` by default.
        until: one of `ROOMS`.
        restart: forget what is finished and begin again.
        say: is told what each room will take before the first begins; a room that cannot fit is refused then.

    Raises:
        TooLargeError: with `say`, when memory or disk could not hold what a room takes.
        StoreError: when the folder holds a run of another config (the differences are shown), or another process runs in it.
    """
    if until not in ROOMS:
        raise ConfigError(f"there is no room {until!r}; the rooms are {', '.join(ROOMS)}")
    folder = Path(out) if out is not None else Path("runs") / config.name
    check_settings(walk := Walk(config, folder, progress))
    worker = walk.worker
    if restart and not worker.alone:
        raise ConfigError(
            "several workers cannot restart a run: one would delete what another has begun. Use one process"
        )
    with ExitStack() as locks:
        locks.enter_context(store.lock(folder, "run", shared=not worker.alone))
        if worker.name:
            locks.enter_context(store.lock(folder, f"run-{worker.name}"))
        else:
            store.forget_locks(folder, "run-*")
        if restart:
            _clear(folder)
        walk.manifest = claim(folder, config, not worker.alone, worker.first)
        if say is not None and worker.first:
            from .estimating import estimates

            for estimate in estimates(walk, until, ROOMS):
                say(str(estimate.check(folder)))
        for room in ROOMS[: ROOMS.index(until) + 1]:
            if worker.first or room in walk.shared_rooms:
                _STEPS[room](walk)
    return walk


_STEPS: dict[str, Callable[[Walk], Any]] = {
    "collect": lambda w: w.acts,
    "bases": lambda w: w.bases,
    "connect": lambda w: w.connected,
    "gates": lambda w: w.circuit,
    "evaluate": lambda w: w.report,
    "view": lambda w: w.page,
}


def check_settings(walk: Walk) -> None:
    """Everything in the config that can be judged without work is judged now."""
    from .reporting import ladder_settings

    _ = walk.recipes, walk.solver, walk.gate_options, ladder_settings(walk.config)
    check({"use": "image_batches"} | walk.config.data, "data", reserved=("model",))
    check({"use": "mlp_segments"} | walk.config.segments, "segments", reserved=("model",))


def _clear(folder: Path) -> None:
    for name in ("model", "activations", "bases", "blocks", "connectors", "circuit"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("config.yaml", "report.json", "index.html", "views.yaml", store.MANIFEST):
        (folder / name).unlink(missing_ok=True)
