"""The state of a walk: what is finished and what is loaded. Each part is made once, or read back where it was stored."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from .. import store
from ..activations.capture import data_fingerprint
from ..activations.collecting import Activations, check_forwards, collect, hook_names
from ..basis.ends import completed, fit_bases, preflight
from ..circuits import Circuit, connect, features_at, read_gates, seen_by
from ..data import Batches
from ..distributed import Worker, apart, from_first, meet, team, this_worker
from ..errors import GateLensError, StoreError
from ..errors.progress import bar
from ..evaluation.measure import Measuring
from ..evaluation.report import Report
from ..gate_dictionaries.doors import taken_in
from ..models.fingerprint import weights_fingerprint
from ..saving import load_basis, save_basis
from ..segments import Segment, at_home
from ..solvers.protocol import as_solver
from ..solvers.size_rule import default_solver
from .building import keywords
from .kept_parts import Parts
from .provenance import Provenance
from .source import Source


@dataclass
class State:
    """A walk in its run folder, or in memory alone.

    Attributes:
        source: model, data, recipes and settings.
        out: the run folder; None keeps nothing.
        progress: bars on standard error; None: where somebody watches.
        reports: those that are made or read back, by whether they are quick. drawn: the page's cards, once they are.
        worker: which of several processes this is. All of them walk through all rooms and share what takes long; the first
            writes.
    """

    source: Source
    out: Path | None = None
    progress: bool | None = None
    timing_s: dict[str, float] = field(default_factory=dict)
    reports: dict[bool, Report] = field(default_factory=dict)
    drawn: Any = None
    worker: Worker = field(default_factory=this_worker)

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def seed(self) -> int:
        return self.source.seed

    @property
    def batches(self) -> tuple[Batches, Batches]:
        """The fitting part and the held-out part."""
        return self.source.batches

    @cached_property
    def model(self) -> Any:
        if self.parts is not None:
            self._forget_unless_trusted("model")
        with self.room("model"):
            model = self.source.model
        if self.parts is not None and self.manifest.digest("model"):  # trained here
            self.manifest.record("model")
        return model

    def _forget_unless_trusted(self, name: str) -> Path:
        """The place of a part that proves by itself what it is made of; one that is whole, and not what this run wrote, is removed.

        An unfinished one is gone on with.
        """
        manifest, folder = self.manifest, store.inside(self.out or Path(), name)
        whole = from_first(lambda: bool(not manifest.trusted(name, proves_itself=True) and manifest.digest(name)))
        if whole and team().first:
            shutil.rmtree(folder)
        meet()
        return folder

    @cached_property
    def segments(self) -> list[Segment]:
        return at_home(self.model, self.source.segments_of(self.model))

    @cached_property
    def recipes(self) -> dict[str, Any]:
        """hook name -> recipe with the whole protocol; "" for one recipe for all."""
        return completed(self.source.recipes, self.segments)

    @cached_property
    def acts(self) -> tuple[Activations, Activations]:
        """Fitting and held-out activations at the segments' hook points."""
        fit, held_out = self.batches
        preflight(self.recipes, self.segments)
        with self.room("collect"):
            return self._collect("fit", fit), self._collect("held_out", held_out)

    def _collect(self, part: str, batches: Batches) -> Activations:
        if self.parts is None:
            return collect(self.model, batches, self.segments, progress=self.progress)
        name = f"activations/{part}"
        folder = self._forget_unless_trusted(name)
        try:
            acts = collect(self.model, batches, self.segments, store=folder, progress=self.progress)
        except StoreError as error:
            raise StoreError(
                f"{error}. In a run folder: gatelens run CONFIG --restart makes everything again"
            ) from error
        self.manifest.record(name, self.origins)
        return acts

    @cached_property
    def bases(self) -> dict[str, Any]:
        acts = self.acts
        if self.parts is None:
            with self.room("bases"):
                return self._fit(acts[0])
        names = {hook: f"bases/{store.slug(hook)}" for hook in hook_names(self.segments)}
        folders = {hook: self.parts.place(name) for hook, name in names.items()}
        made_from = self.made_from("activations/fit")
        missing = self.parts.missing(list(names.values()), load_basis, made_from)
        with self.room("bases"):
            if missing:
                self._make_bases(folders, [hook for hook, name in names.items() if name in missing])
                meet()
            found = {hook: load_basis(folder) for hook, folder in folders.items()}
        for name in names.values():
            self.manifest.record(name, made_from)
        return found

    def _make_bases(self, folders: dict[str, Path], missing: list[str]) -> None:
        """One recipe that fits hook points apart is spread over the processes, data-parallel ones are fitted by all of them together;
        other bases are fitted by the first process."""
        recipe, bases = self.recipes.get(""), {}
        if any(r.data_parallel for r in self.recipes.values()):
            bases = self._fit(self.acts[0])
        elif recipe is not None and recipe.apart:
            recipe = recipe if self.progress is None else recipe.watched(self.progress)
            for hook in (missing[i] for i in team().owned(len(missing))):
                basis = recipe.fit_at(hook, self.segments, self.acts[0])
                save_basis(taken_in({hook: basis}, self.segments, self.acts[0])[hook], folders[hook])
            return
        elif team().first:
            with apart():
                bases = self._fit(self.acts[0])
        if team().first:
            for hook in missing:
                save_basis(bases[hook], folders[hook])

    def _fit(self, acts: Activations) -> dict[str, Any]:
        return taken_in(fit_bases(self.recipes, self.segments, acts, self.progress), self.segments, acts)

    @cached_property
    def solver(self) -> Any:
        """The one that is named; else the one that the bases ask for."""
        named = self.source.solver
        return default_solver(self.segments, self.bases, self.seed) if named is None else as_solver(named)

    @cached_property
    def features(self) -> dict[str, torch.Tensor]:
        check_forwards(self.segments, self.acts[0])
        return features_at(self.segments, self.bases, self.acts[0])

    @cached_property
    def connected(self) -> Circuit:
        """The circuit without gates."""
        _ = self.bases
        if self.parts is None:
            return self._connect(None)
        used = (f"bases/{store.slug(hook)}" for hook in hook_names(self.segments))
        made_from = self.made_from("activations/fit", *used)
        load = partial(Circuit.load, segments=self.segments)
        return replace(self.parts.finished("connectors", load, self._connect, made_from), bases=self.bases)

    def _connect(self, folder: Path | None) -> Circuit:
        features = self.features
        with self.room("connect"):
            keeps = not team().alone and folder is not None and self.solver.in_blocks
            solver = self.solver.keeping(folder.parent / "blocks") if keeps and folder is not None else self.solver
            connectors = connect(self.segments, self.bases, features, solver, progress=self.progress)
            seen = seen_by(self.model, self.segments, self.acts[0])
            circuit = Circuit(self.segments, self.bases, connectors, {}, self._info(), seen)
            circuit = self._polished(circuit)
            if folder is not None and team().first:
                circuit.save(folder, bases=False)
            return circuit

    def _info(self) -> dict[str, Any]:
        return {
            "model": self.source.model_name,
            "weights": self.origins["model"],
            "data": self.batches[0].name,
            "seed": self.seed,
            "solver": repr(self.solver),
        }

    def _polished(self, circuit: Circuit) -> Circuit:
        polish = self.source.evaluation.polish
        if polish is None:
            return circuit
        from ..evaluation import Polish

        settings = keywords(Polish, {"seed": self.seed} | polish, "evaluation.polish")
        return replace(circuit, connectors=Polish(**settings).fit(self.model, circuit, self.batches[0]))

    @cached_property
    def circuit(self) -> Circuit:
        """The circuit with its gates."""
        _ = self.connected
        if self.parts is None:
            return self._read_gates(None)
        made_from = self.made_from("connectors", "activations/held_out")
        load = partial(Circuit.load, segments=self.segments)
        return self.parts.finished("circuit", load, self._read_gates, made_from)

    def _read_gates(self, folder: Path | None) -> Circuit:
        fitted_on, held_out = self.acts
        with self.room("gates"):
            options = self.source.gate_options
            circuit = read_gates(
                self.connected, self.features, held_out, self.progress, fitted_on, self.model, **options
            )
            if folder is not None and team().first:
                circuit.save(folder)
            return circuit

    @cached_property
    def measuring(self) -> Measuring:
        """The circuit in the model over the held-out part; passes are shared by all that is measured there."""
        fit, held_out = self.acts
        means = {hook: x.mean(0) for hook, x in fit.items()}
        tokens = self.source.evaluation.tokens
        return Measuring(self.model, self.circuit, self.batches[1], held_out, means, tokens)

    @cached_property
    def parts(self) -> Parts | None:
        """What the run folder holds; None for a walk in memory."""
        return None if self.out is None else Parts(self.out, self.manifest)

    @cached_property
    def manifest(self) -> Provenance:
        """Which parts the run folder holds, with their hashes and what they were made from."""
        return Provenance.of(self.out or Path(), not self.worker.alone, self.worker.first)

    @cached_property
    def origins(self) -> dict[str, str]:
        """Hashes of what everything is made from: the model and both parts of the data."""
        fit, held_out = map(data_fingerprint, self.batches)
        return {"model": weights_fingerprint(self.model, hook_names(self.segments)), "data": f"{fit} {held_out}"}

    def made_from(self, *parts: str) -> dict[str, str]:
        """The hashes of what a part is made from."""
        return self.origins | ({} if self.parts is None else self.parts.digests(parts))

    @contextmanager
    def room(self, name: str) -> Iterator[None]:
        """Time the room, and say in which room an exception of somebody else's code came up."""
        began = time.perf_counter()
        try:
            with bar(room=name, progress=self.progress):
                yield
        except GateLensError:
            raise
        except Exception as error:
            where = f" ({self.out})" if self.out is not None else ""
            error.add_note(f"this happened in the room {name!r} of the run {self.name!r}{where}")
            raise
        finally:
            self.timing_s[name] = self.timing_s.get(name, 0.0) + time.perf_counter() - began
