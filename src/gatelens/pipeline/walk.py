"""The walk: one room after the other into a run folder; a room that is finished there is read back, not done again."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from .. import store
from ..activations.collecting import Activations, collect, hook_names
from ..bases.sae.trained import TrainedSAE
from ..basis.fitting import preflight
from ..circuits import Circuit, connect, features_at, read_gates
from ..data import Batches
from ..distributed import Worker, awaited, this_worker
from ..errors import ConfigError, GateLensError, StoreError
from ..evaluation.report import Report
from ..gate_dictionaries.doors import taken_in
from ..saving import load_basis, save_basis
from ..segments import Segment
from .blocks import can_block, in_blocks
from .building import build, check, find, keywords, parameters
from .config import Config
from .loading import model_from
from .resume import claim

T = TypeVar("T")
ROOMS = ("collect", "bases", "connect", "gates", "evaluate", "view")


@dataclass
class Walk:
    """A run in its folder. Each attribute is computed once, from disk where it is finished there.

    Attributes:
        config: checked.
        out: the run folder.
        progress: bars on standard error.
        worker: which of several processes this is. All of them collect, train dictionaries and solve blocks of outputs;
            the first does the rest.
    """

    config: Config
    out: Path
    progress: bool = False
    timing_s: dict[str, float] = field(default_factory=dict)
    worker: Worker = field(default_factory=this_worker)

    @cached_property
    def batches(self) -> tuple[Batches, Batches]:
        """The fitting part and the held-out part."""
        section = {"use": "image_batches"} | self.config.data
        model = {"model": self.model} if "model" in parameters(find(section["use"], "data")) else {}
        return build(section, "data", given=model, seed=self.config.seed)

    @cached_property
    def model(self) -> Any:
        with self._room("model"):
            return model_from(self.config, self.out / "model", self.progress, self.worker)

    @cached_property
    def segments(self) -> list[Segment]:
        section = {"use": "mlp_segments"} | self.config.segments
        return list(build(section, "segments", given={"model": self.model}))

    @cached_property
    def recipes(self) -> dict[str, Any]:
        """hook name -> recipe; "" for one recipe for all."""
        section = self.config.bases
        if "use" in section:
            return {"": build(section, "bases", seed=self.config.seed)}
        return {hook: build(recipe, f"bases.{hook}", seed=self.config.seed) for hook, recipe in section.items()}

    @cached_property
    def solver(self) -> Any:
        return build(self.config.solver, "solver", seed=self.config.seed)

    @cached_property
    def acts(self) -> tuple[Activations, Activations]:
        """Fitting and held-out activations at the segments' hook points."""
        fit, held_out = self.batches
        preflight(self.recipes, self.segments)
        with self._room("collect"):
            return self._collect("fit", fit), self._collect("held_out", held_out)

    def _collect(self, part: str, batches: Batches) -> Activations:
        return collect(
            self.model, batches, self.segments, store=self.out / "activations" / part, progress=self.progress
        )

    @cached_property
    def bases(self) -> dict[str, Any]:
        folders = {hook: self.out / "bases" / store.slug(hook) for hook in hook_names(self.segments)}
        missing = [hook for hook, folder in folders.items() if _loaded(load_basis, folder) is None]
        if missing:
            _ = self.acts
        with self._room("bases"):
            if missing:
                self._make_bases(folders, missing)
            return {
                hook: awaited(partial(_loaded, load_basis, folder), f"the basis of {hook} in {folder}")
                for hook, folder in folders.items()
            }

    def _make_bases(self, folders: dict[str, Path], missing: list[str]) -> None:
        """SAEs are trained one by one, spread over the workers; any other bases are fitted together, by the first."""
        recipe = self.recipes.get("")
        if isinstance(recipe, TrainedSAE):
            hooks = list(folders)
            for hook in (hooks[i] for i in self.worker.owned(len(hooks))):
                if hook in missing:
                    sae = replace(recipe, progress=self.progress).train(self.acts[0][hook], hook)
                    save_basis(sae, folders[hook])
        elif self.worker.first:
            bases = self.fit_bases(self.acts[0])
            for hook in missing:
                save_basis(bases[hook], folders[hook])

    def fit_bases(self, acts: Any, segments: Sequence[Segment] | None = None) -> dict[str, Any]:
        from ..basis.fitting import fit_bases

        chosen = list(segments or self.segments)
        return taken_in(fit_bases(self.recipes, chosen, acts, progress=self.progress), chosen)

    @cached_property
    def features(self) -> dict[str, torch.Tensor]:
        return features_at(self.segments, self.bases, self.acts[0])

    @cached_property
    def connected(self) -> Circuit:
        """The circuit without gates."""
        folder = self.out / "connectors"
        info = {
            "model": self.model_name,
            "data": self.batches[0].name,
            "seed": self.config.seed,
            "solver": repr(self.solver),
        }
        stored = _loaded(partial(Circuit.load, segments=self.segments), folder)
        if stored is not None:
            return replace(stored, bases=self.bases)
        features = self.features
        with self._room("connect"):
            solver = self.solver if self.worker.alone else in_blocks(self.solver, self.out / "blocks")
            connectors = connect(self.segments, self.bases, features, solver, progress=self.progress)
            circuit = Circuit(self.segments, self.bases, connectors, {}, info)
            if not self.worker.first:
                return circuit
            if self.config.evaluation.polish is not None:
                from ..evaluation import Polish

                settings = keywords(
                    Polish, {"seed": self.config.seed} | self.config.evaluation.polish, "evaluation.polish"
                )
                circuit = replace(circuit, connectors=Polish(**settings).fit(self.model, circuit, self.batches[0]))
            circuit.save(folder, bases=False)
            return circuit

    @cached_property
    def circuit(self) -> Circuit:
        """The circuit with its gates."""
        folder = self.out / "circuit"
        stored = _loaded(partial(Circuit.load, segments=self.segments), folder)
        if stored is not None:
            return stored
        connected = self.connected
        with self._room("gates"):
            circuit = read_gates(connected, self.features, self.acts[1], self.progress, **self.gate_options)
            circuit.save(folder)
            return circuit

    @cached_property
    def gate_options(self) -> dict[str, Any]:
        from ..gates import type_gates

        reserved = ("connector", "f_in", "f_out", "held_out", "segment", "basis_in", "basis_out", "x")
        return keywords(type_gates, {"seed": self.config.seed} | self.config.gates, "gates", reserved)

    @cached_property
    def report(self) -> Report:
        from .reporting import report_of

        path = self.out / "report.json"
        circuit = self.circuit
        if path.is_file():
            with store.understood(path):
                return Report.from_dict(store.parse_json(path.read_bytes(), path))
        with self._room("evaluate"):
            report = report_of(self, circuit)
        report = replace(report, timing_s={k: round(v, 3) for k, v in self.timing_s.items()})
        store.replace_file(path, store.dump_json(report.to_dict()))
        return report

    @cached_property
    def page(self) -> Path:
        from .. import views
        from .reporting import pictures_of
        from .view_settings import keep_settings

        path = self.out / "index.html"
        report = self.report
        with self._room("view"):
            html = views.page(
                self.circuit,
                self.acts[1],
                report,
                batches=self.batches[1],
                model=self.model,
                tokenizer=getattr(self.model, "tokenizer", None),
                title=self.config.views.title or self.config.name,
                max_cards=self.config.views.max_cards,
                token_panels=self.config.views.token_panels,
                rotations=pictures_of(self),
                saved=views.saved_in(path),
            )
            html.save(path)
            keep_settings(self.out, self.config.views)
        return path

    @property
    def shared_rooms(self) -> tuple[str, ...]:
        """The rooms in which workers beside the first have something to do."""
        return ("collect", "bases", "connect") if can_block(self.solver) else ("collect", "bases")

    @property
    def model_name(self) -> str:
        config = getattr(self.model, "cfg", None)
        return str(getattr(config, "model_name", None) or self.config.model.get("name") or self.config.name)

    @contextmanager
    def _room(self, name: str) -> Iterator[None]:
        """Time the room, and say in which room an exception of somebody else's code came up."""
        began = time.perf_counter()
        try:
            yield
        except GateLensError:
            raise
        except Exception as error:
            if sys.version_info >= (3, 11):
                error.add_note(f"this happened in the room {name!r} of the run {self.config.name!r} ({self.out})")
            raise
        finally:
            self.timing_s[name] = self.timing_s.get(name, 0.0) + time.perf_counter() - began


def run(
    config: Config,
    out: str | Path | None = None,
    until: str = "view",
    progress: bool = False,
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
    _check_settings(walk := Walk(config, folder, progress))
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
        claim(folder, config)
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


def _check_settings(walk: Walk) -> None:
    """Everything in the config that can be judged without work is judged now."""
    from .reporting import ladder_settings

    _ = walk.recipes, walk.solver, walk.gate_options, ladder_settings(walk.config)
    check({"use": "image_batches"} | walk.config.data, "data", reserved=("model",))
    check({"use": "mlp_segments"} | walk.config.segments, "segments", reserved=("model",))


def _loaded(load: Callable[[Path], T], folder: Path) -> T | None:
    """What is stored there; a damaged artefact counts as missing and is made again."""
    try:
        return load(folder)
    except store.NewerFormatError:
        raise
    except StoreError:
        return None


def _clear(folder: Path) -> None:
    for name in ("model", "activations", "bases", "blocks", "connectors", "circuit"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("config.yaml", "report.json", "index.html", "views.yaml"):
        (folder / name).unlink(missing_ok=True)
