"""The state of a run in its folder: each part is read back where it is finished there, and made where it is not."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from .. import store
from ..activations.capture import data_fingerprint
from ..activations.collecting import Activations, collect, hook_names
from ..bases.sae.trained import TrainedSAE
from ..basis.fitting import preflight
from ..circuits import Circuit, connect, features_at, read_gates
from ..data import Batches
from ..distributed import Worker, awaited, this_worker
from ..errors import GateLensError, StoreError
from ..evaluation.report import Report
from ..gate_dictionaries.doors import taken_in
from ..models.fingerprint import weights_fingerprint
from ..progress import bar
from ..saving import load_basis, save_basis
from ..segments import Segment
from .blocks import can_block, in_blocks
from .building import build, find, keywords, parameters
from .config import Config
from .loading import model_from
from .provenance import Provenance, say

T = TypeVar("T")


@dataclass
class Walk:
    """A run in its folder. Each attribute is computed once, from disk where it is finished there.

    Attributes:
        config: checked.
        out: the run folder.
        progress: bars on standard error; None: where somebody watches.
        worker: which of several processes this is. All of them collect, train dictionaries and solve blocks of outputs;
            the first does the rest.
    """

    config: Config
    out: Path
    progress: bool | None = None
    timing_s: dict[str, float] = field(default_factory=dict)
    worker: Worker = field(default_factory=this_worker)

    @cached_property
    def manifest(self) -> Provenance:
        """Which parts the run folder holds, with their hashes and what they were made from."""
        return Provenance.of(self.out, not self.worker.alone, self.worker.first)

    @cached_property
    def sources(self) -> dict[str, str]:
        """Hashes of what everything is made from: the model and both parts of the data."""
        fit, held_out = map(data_fingerprint, self.batches)
        return {"model": weights_fingerprint(self.model, hook_names(self.segments)), "data": f"{fit} {held_out}"}

    def _digests(self, *parts: str) -> dict[str, str]:
        return self.sources | {part: self.manifest.digest(part) for part in parts}

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
        name = f"activations/{part}"
        folder = store.inside(self.out, name)
        if not self.manifest.trusted(name, proves_itself=True) and self.manifest.digest(name) and self.worker.alone:
            shutil.rmtree(folder)  # whole, and not what this run wrote; an unfinished one is gone on with
        try:
            acts = collect(self.model, batches, self.segments, store=folder, progress=self.progress)
        except StoreError as error:
            raise StoreError(
                f"{error}. In a run folder: gatelens run CONFIG --restart makes everything again"
            ) from error
        self.manifest.record(name, self.sources)
        return acts

    @cached_property
    def bases(self) -> dict[str, Any]:
        _ = self.acts
        parts = {hook: f"bases/{store.slug(hook)}" for hook in hook_names(self.segments)}
        folders = {hook: store.inside(self.out, part) for hook, part in parts.items()}
        made_from = self._digests("activations/fit")
        missing = [hook for hook, part in parts.items() if self._stored(part, load_basis, made_from) is None]
        with self._room("bases"):
            if missing:
                self._make_bases(folders, missing)
            found = {
                hook: awaited(partial(_loaded, load_basis, folder), f"the basis of {hook} in {folder}")
                for hook, folder in folders.items()
            }
        for part in parts.values():
            self.manifest.record(part, made_from)
        return found

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
        _ = self.bases
        folder = store.inside(self.out, "connectors")
        made_from = self._digests(
            "activations/fit", *(f"bases/{store.slug(hook)}" for hook in hook_names(self.segments))
        )
        info = {
            "model": self.model_name,
            "weights": self.sources["model"],
            "data": self.batches[0].name,
            "seed": self.config.seed,
            "solver": repr(self.solver),
        }
        stored = self._stored("connectors", partial(Circuit.load, segments=self.segments), made_from)
        if stored is not None:
            self.manifest.record("connectors", made_from)
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
        self.manifest.record("connectors", made_from)
        return circuit

    @cached_property
    def circuit(self) -> Circuit:
        """The circuit with its gates."""
        connected = self.connected
        made_from = self._digests("connectors", "activations/held_out")
        circuit = self._stored("circuit", partial(Circuit.load, segments=self.segments), made_from)
        if circuit is None:
            with self._room("gates"):
                held_out, fitted_on = self.acts[1], self.acts[0]
                circuit = read_gates(
                    connected, self.features, held_out, self.progress, fitted_on, self.model, **self.gate_options
                )
                circuit.save(store.inside(self.out, "circuit"))
        self.manifest.record("circuit", made_from)
        return circuit

    @cached_property
    def gate_options(self) -> dict[str, Any]:
        from ..gates import type_gates

        reserved = (
            "connector",
            "f_in",
            "f_out",
            "held_out",
            "segment",
            "basis_in",
            "basis_out",
            "x",
            "origins",
            "progress",
        )
        return keywords(type_gates, {"seed": self.config.seed} | self.config.gates, "gates", reserved)

    @cached_property
    def report(self) -> Report:
        from .reporting import report_of

        path = store.inside(self.out, "report.json")
        circuit = self.circuit
        made_from = self._digests("circuit", "activations/fit", "activations/held_out")
        report = self._stored("report.json", _read_report, made_from)
        if report is None:
            with self._room("evaluate"):
                report = report_of(self, circuit)
            report = replace(report, timing_s={k: round(v, 3) for k, v in self.timing_s.items()})
            store.replace_file(path, store.dump_json(report.to_dict()))
        self.manifest.record("report.json", made_from)
        return report

    @cached_property
    def page(self) -> Path:
        from .. import views
        from .reporting import pictures_of
        from .view_settings import keep_settings

        path = store.inside(self.out, "index.html")
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
        self.manifest.record("index.html", self._digests("report.json", "circuit"))
        return path

    def _stored(self, part: str, load: Callable[[Path], T], made_from: Mapping[str, str]) -> T | None:
        """A part that is there, as this run wrote it, made from what is there now; None, and why, where it is to be made again."""
        if not self.manifest.trusted(part, made_from):
            return None
        try:
            return load(store.inside(self.out, part))
        except store.NewerFormatError:
            raise
        except StoreError as error:
            say(f"{self.out / part} is made again: {error}")
            return None

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
            with bar(room=name, progress=self.progress):
                yield
        except GateLensError:
            raise
        except Exception as error:
            if sys.version_info >= (3, 11):
                error.add_note(f"this happened in the room {name!r} of the run {self.config.name!r} ({self.out})")
            raise
        finally:
            self.timing_s[name] = self.timing_s.get(name, 0.0) + time.perf_counter() - began


def _read_report(path: Path) -> Report:
    with store.understood(path):
        return Report.from_dict(store.parse_json(store.read_file(path, store.MAX_BYTES), path))


def _loaded(load: Callable[[Path], T], folder: Path) -> T | None:
    """What is stored there; a damaged artefact counts as missing and is made again."""
    try:
        return load(folder)
    except store.NewerFormatError:
        raise
    except StoreError:
        return None
