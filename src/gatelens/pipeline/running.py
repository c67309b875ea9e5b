"""A config walked into a run folder: the order of the rooms, and what is settled before the first one begins."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .. import store
from ..distributed import apart, from_first, meet, this_worker, together
from ..errors import ConfigError
from ..errors.interrupt import keeping
from ..models import device_named
from . import finishing, view_settings
from .building import check
from .config import Config
from .estimating import estimates
from .provenance import kept_in
from .reporting import ladder_settings
from .resume import claim
from .source import FromConfig
from .state import State

ROOMS = ("collect", "bases", "connect", "gates", "evaluate", "view")


def state_of(config: Config, out: str | Path | None = None, progress: bool | None = None) -> State:
    """The walk of a config in its run folder (`runs/<name>`); nothing is done yet."""
    folder = _folder(config, out)
    worker = this_worker()
    progress = progress if worker.first else False
    return State(FromConfig(config, folder, progress), folder, progress, worker=worker)


def _folder(config: Config, out: str | Path | None) -> Path:
    return Path(out) if out is not None else Path("runs") / config.name


def run(
    config: Config,
    out: str | Path | None = None,
    until: str = "view",
    progress: bool | None = None,
    restart: bool = False,
    say: Callable[[str], None] | None = None,
    quick: bool = False,
) -> State:
    """Walk through the rooms up to `until`; what is finished in the run folder is used.

    Args:
        out: the run folder; `runs/<name>` by default.
        until: one of `ROOMS`.
        restart: forget what is finished and begin again.
        say: is told what each room will take before the first begins; a room that cannot fit is refused then.
        quick: stop at the circuit's own figures and their page: no baselines, coverage, curves.

    Raises:
        TooLargeError: with `say`, when memory or disk could not hold what a room takes.
        StoreError: when the folder holds a run of another config (the differences are shown), or another process runs in it.
    """
    if until not in ROOMS:
        raise ConfigError(f"there is no room {until!r}; the rooms are {', '.join(ROOMS)}")
    state = state_of(config, out, progress)
    check_settings(state, config)
    folder, worker = _folder(config, out), state.worker
    if restart and not worker.alone:
        raise ConfigError(
            "several workers cannot restart a run: one would delete what another has begun. Use one process"
        )
    if not worker.alone and not worker.meets and until != "collect":
        raise ConfigError(
            f"process {worker.rank} of {worker.world} has no rendezvous (MASTER_ADDR): expected `gatelens collect`, which needs "
            "none. Start the other rooms by torchrun, or in one process"
        )
    with ExitStack() as locks:
        locks.enter_context(keeping(lambda: kept_in(folder)))
        locks.enter_context(store.lock(folder, "run", shared=not worker.alone))
        if worker.name:
            locks.enter_context(store.lock(folder, f"run-{worker.name}"))
        else:
            store.forget_locks(folder, "run-*")
        if restart:
            _clear(folder)
        rooms = ROOMS[: ROOMS.index(until) + 1]
        with together(worker):
            if worker.first:  # whose config.yaml and manifest the others read
                state.manifest = claim(folder, config)
            meet()
            if not worker.first:
                state.manifest = claim(folder, config, several=True, writes=False)
            if say is not None:
                _tell(state, until, folder, say if worker.first else _silent)
            for room in rooms:
                if room == "evaluate" and until == "view" and not quick:
                    _page_ahead(state, folder, say)
                if room != "view":
                    enter(state, room, quick)
        if "view" in rooms and worker.first:
            enter(state, "view", quick)
    return state


def _silent(line: str) -> None:
    """One of several processes speaks."""


def _tell(state: State, until: str, folder: Path, say: Callable[[str], None]) -> None:
    """What each room will take; one that cannot fit is refused."""
    for estimate in estimates(state, until, ROOMS):
        say(str(estimate.check(folder)))


def enter(state: State, room: str, quick: bool = False) -> Any:
    """What a room makes, made or read back."""
    if room == "evaluate":
        return finishing.report(state, quick)
    if room == "view":
        return finishing.page(state, quick)
    return getattr(state, {"collect": "acts", "connect": "connected", "gates": "circuit"}.get(room, room))


def _page_ahead(state: State, folder: Path, say: Callable[[str], None] | None) -> None:
    """The page of the gates, before passes through the whole model and baselines take most of a walk's time."""
    if from_first((folder / finishing.REPORT).is_file) or not state.worker.first:
        return
    with apart():
        place = finishing.page_ahead(state)
    if say is not None:
        say(f"{place} is there to look at; what the circuit does in the model and its baselines are being measured")


def check_settings(state: State, config: Config) -> None:
    """Everything in the config that can be judged without work is judged now."""
    source = state.source
    device_named(config.device)
    _ = source.recipes, source.solver, source.gate_options, ladder_settings(source.evaluation, source.seed)
    check({"use": "image_batches"} | config.data, "data", reserved=("model",))
    check({"use": "mlp_segments"} | config.segments, "segments", reserved=("model",))


def _clear(folder: Path) -> None:
    for name in ("model", "activations", "bases", "blocks", "connectors", "circuit"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("config.yaml", finishing.REPORT, finishing.QUICK, "index.html", view_settings.FILE, store.MANIFEST):
        (folder / name).unlink(missing_ok=True)
