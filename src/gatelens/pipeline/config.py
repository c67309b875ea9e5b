"""Configs: a YAML file, checked whole before any work is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import ECHOED, ConfigError, shown, unknown
from .building import wrong
from .shipped_configs import config_file, shipped_configs
from .yaml_files import read_yaml

Baseline = Literal["neurons", "virtual_weights", "shuffled", "random_weights"]


class Evaluation(BaseModel):
    """What is measured beside the circuit itself, and whether its wires are polished at the model's output first.

    `curve_rows`: held-out rows for the curves of faithfulness against wires kept; 0 for no curves. `ladder`: keywords of
    `Measure` ({} for its defaults): each segment's circuit between ceilings, gate-free rivals and null; null for none. `coverage`:
    what share of the layer's output verified gates explain. `removals`: gates a segment, the first ones, whose removal is held
    against another direction's by what the predictions make of it; 0 for none. `tokens`: held-out ones for cross-entropies.
    """

    model_config = ConfigDict(extra="forbid")
    baselines: list[Baseline] = list(get_args(Baseline))
    polish: dict[str, Any] | None = None
    ladder: dict[str, Any] | None = None
    curve_rows: int = Field(default=2000, ge=0)
    coverage: bool = True
    removals: int = Field(default=0, ge=0)
    tokens: int = Field(default=4_096, ge=1)


class Views(BaseModel):
    """What the page shows. `token_panels` draws contexts with circuitsvis too, `prompts` are texts of which it holds a reading;
    either adds 1.3 MB to the page."""

    model_config = ConfigDict(extra="forbid")
    max_cards: int = Field(default=50, ge=1)
    title: str | None = None
    token_panels: bool = False
    prompts: list[str] = []


class Config(BaseModel):
    """One run. Sections `model`, `data`, `segments`, `bases` and `solver` say `use: Name` and that name's keywords.

    `bases` is one recipe for all hook points, or a mapping hook name -> recipe. `model` may add `train` (keywords of
    `Training`) and `weights` (a safetensors file of the user's own) for a HookedMLP.
    """

    model_config = ConfigDict(extra="forbid")
    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}$")
    seed: int = Field(default=0, ge=0, lt=2**63)
    device: str = "cpu"
    model: dict[str, Any]
    data: dict[str, Any]
    segments: dict[str, Any] = {}
    bases: dict[str, Any]
    solver: dict[str, Any] | None = None
    gates: dict[str, Any] = {}
    evaluation: Evaluation = Evaluation()
    views: Views = Views()


def read_config(path: str | Path, changes: Sequence[str] = (), safe: bool = False, only_model: bool = False) -> Config:
    """The config at `path`, or the shipped one of that name, with `key.sub=value` changes applied (values are YAML).

    A config is code: `use: module:Name` imports that module and calls that name. `safe` refuses names that are not ours.
    `only_model` asks for no `data` and no `bases`: for what looks at the model alone.

    Raises:
        ConfigError: no such file, not YAML, an unknown key (with the nearest known one) or a value of another type.
    """
    path = config_file(path)
    if not path.is_file():
        near = ", ".join(sorted(p.name for p in path.parent.glob("*.yaml"))) if path.parent.is_dir() else ""
        raise ConfigError(
            f"there is no config {path}"
            + (f"; that folder has {near}" if near else "")
            + f". Give a YAML file, or one of those that come with gatelens by its name: {', '.join(shipped_configs())}"
        )
    if path.stat().st_size > 1_000_000:
        raise ConfigError(
            f"{path} is {path.stat().st_size:,} bytes; a config has at most a million. Is it the right file?"
        )
    try:
        values = read_yaml(path.read_text(encoding="utf-8-sig"), path)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not YAML: {error}. Save it as UTF-8") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} should be a mapping with the keys {', '.join(Config.model_fields)}")
    values.pop("versions", None)  # what a run folder's own config.yaml says beside the settings
    with_changes(values, changes)
    values.setdefault("name", path.stem)
    if only_model:
        values = {"data": {}, "bases": {}} | values
    config = check_config(values, str(path))
    if safe:
        from .foreign import check_safe

        check_safe(config)
    return config


def check_evaluation(values: Mapping[str, Any]) -> Evaluation:
    """Keywords of the section `evaluation`, checked."""
    try:
        return Evaluation(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"evaluation: {unknown('key', key, Evaluation.model_fields)}") from error
        raise ConfigError(f"evaluation.{wrong(first)}") from error


def check_config(values: Mapping[str, Any], source: str = "config") -> Config:
    """The config with these values; `source` names it in errors."""
    try:
        return Config(**{str(k): v for k, v in values.items()})
    except ValidationError as error:
        first = error.errors()[0]
        place = [str(p) for p in first["loc"]]
        if first["type"] == "extra_forbidden":
            fields = (
                {"evaluation": Evaluation, "views": Views}.get(place[0], Config).model_fields
                if len(place) > 1
                else Config.model_fields
            )
            raise ConfigError(f"{source}: {unknown('key', place[-1], fields)}") from error
        if first["type"] == "missing":
            raise ConfigError(
                f"{source}: the key {'.'.join(place)[:ECHOED]!r} is missing; a config has {', '.join(Config.model_fields)}"
            ) from error
        raise ConfigError(f"{source}: {wrong(first)}") from error


def with_changes(values: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """The values with each `key.sub=value` put into them.

    Raises:
        ConfigError: a change that is no such text, or goes into what is no section.
    """
    for change in changes:
        _change(values, change)
    return values


def _change(values: dict[str, Any], change: str) -> None:
    key, sign, text = change.partition("=")
    if not sign or not key:
        raise ConfigError(f"--set takes key=value, for instance solver.mean_wires=8; got {shown(change)}")
    *path, last = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {change[:ECHOED]}: {part[:ECHOED]!r} is not a section")
    values[last] = read_yaml(text, f"--set {change[:ECHOED]}: the value")


def preflight(config: Config) -> None:
    """What can be known to fail before anything heavy is imported: data that is neither here nor in reach."""
    from ..data.hub import find_mnist

    if config.data.get("use", "image_batches") == "image_batches" and config.data.get("source") == "mnist":
        find_mnist(config.data.get("path"))
