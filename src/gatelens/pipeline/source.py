"""What a walk starts from: model, data, recipes and settings, by a config or by Python objects. Both doors of one engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..data import Batches
from ..data.told import setting
from ..models import device_named
from ..segments import Segment, like_segments, mlp_segments
from ..solvers.protocol import as_solver
from .building import build, find, keywords, parameters
from .config import Config, Evaluation, Views
from .loading import model_from, training_of


class Source:
    """Everything a walk asks for; each part is made when it is first asked for.

    Attributes:
        name, seed: of the run. evaluation, views: sections of a config, or their defaults.
        model, model_name: hooked, and what it calls itself.
        batches: the fitting part and the held-out part.
        recipes: hook name -> recipe; "" for one recipe for all.
        solver: None where the bases decide (`default_solver`).
        gate_options: keywords of `type_gates`.
    """

    name: str
    seed: int
    evaluation: Evaluation
    views: Views
    model: Any
    model_name: str
    batches: tuple[Batches, Batches]
    recipes: Mapping[str, Any]
    solver: Any | None
    gate_options: Mapping[str, Any]

    def segments_of(self, model: Any) -> list[Segment]:
        """The segments in this model: the source's own, or another of the same shape."""
        return like_segments(model, mlp_segments(self.model))

    def shapes_of_model(self) -> Any:
        """A model of the same shapes, not trained where training would take time."""
        return self.model

    def with_seed(self, seed: int) -> Any:
        """The same with another seed."""
        return replace(self, seed=seed)  # pyright: ignore[reportArgumentType]  # sources are dataclasses

    def retrained(self, folder: Path | None) -> Any | None:
        """The model trained again from another seed; None where it is not trained here."""
        return None


@dataclass
class FromConfig(Source):
    """A config.

    Attributes:
        config: checked.
        folder: where a model that is trained here is kept.
    """

    config: Config
    folder: Path
    progress: bool | None = None

    def __post_init__(self):
        self.name, self.seed = self.config.name, self.config.seed
        self.evaluation, self.views = self.config.evaluation, self.config.views

    @cached_property
    def model(self) -> Any:
        return model_from(self.config, self.folder / "model", self.progress)

    @property
    def model_name(self) -> str:
        return str(named(self.model) or self.config.model.get("name") or self.config.name)

    @cached_property
    def batches(self) -> tuple[Batches, Batches]:
        section = {"use": "image_batches"} | self.config.data
        model = {"model": self.model} if "model" in parameters(find(section["use"], "data")) else {}
        return build(section, "data", given=model, seed=self.seed)

    @cached_property
    def recipes(self) -> dict[str, Any]:
        section = self.config.bases
        if "use" in section:
            return {"": build(section, "bases", seed=self.seed)}
        return {hook: build(recipe, f"bases.{hook}", seed=self.seed) for hook, recipe in section.items()}

    @cached_property
    def solver(self) -> Any | None:
        section = self.config.solver
        return None if section is None else as_solver(build(section, "solver", seed=self.seed))

    @cached_property
    def gate_options(self) -> dict[str, Any]:
        return checked_gate_options({"seed": self.seed} | self.config.gates, "gates")

    def segments_of(self, model: Any) -> list[Segment]:
        section = {"use": "mlp_segments"} | self.config.segments
        return list(build(section, "segments", given={"model": model}))

    def shapes_of_model(self) -> Any:
        device_named(self.config.device)  # whether it is there
        if self.config.model.get("use") != "HookedMLP":
            return self.model
        section = dict(self.config.model)
        section.pop("weights", None)
        training_of(section.pop("train", {}))  # whether it is one
        return build(section, "model", seed=self.seed)

    def with_seed(self, seed: int) -> FromConfig:
        return FromConfig(self.config.model_copy(update={"seed": seed}), self.folder, self.progress)

    def retrained(self, folder: Path | None) -> Any | None:
        section = self.config.model
        if section.get("use") != "HookedMLP" or section.get("weights") is not None:
            return None
        return model_from(
            self.with_seed(self.seed + 1).config, (folder or self.folder) / "model-retrained", self.progress
        )


@dataclass(frozen=True)
class Given(Source):
    """Objects at hand.

    Attributes:
        segments: of `model`; the same hook points are looked for in another model.
        recipes, solver, gate_options, evaluation, views: as a config would say them.
    """

    model: Any
    batches: tuple[Batches, Batches]
    segments: Sequence[Segment]
    recipes: Mapping[str, Any]
    solver: Any | None = None
    gate_options: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Evaluation = field(default_factory=Evaluation)
    views: Views = field(default_factory=Views)
    seed: int = 0
    name: str = "circuit"

    @property
    def model_name(self) -> str:
        return str(named(self.model) or type(self.model).__name__)

    def segments_of(self, model: Any) -> list[Segment]:
        return list(self.segments) if model is self.model else like_segments(model, self.segments)


def named(model: Any) -> str | None:
    """What a model calls itself."""
    return setting(model, "model_name")


def checked_gate_options(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Keywords of `type_gates` that a user may give, checked."""
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
    return keywords(type_gates, given, where, reserved)
