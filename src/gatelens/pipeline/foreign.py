"""A config is code: `use: module:Name` imports that module and calls that name. What is not ours is found here, unrun.

`--safe` refuses a config that names anything else than gatelens' own; `--estimate` neither imports nor calls it.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any, TypeVar

from pydantic import BaseModel

import gatelens

from ..errors import ConfigError, shown

C = TypeVar("C", bound=BaseModel)

#: rooms whose classes a config may name; no module outside them is imported to see what a name is
ROOMS = ("basis", "bases", "solvers", "edits", "gate_dictionaries", "models", "segments")
#: settings that are a folder to write in
PLACES = ("store",)
#: what stands in for somebody else's bases and solver in an estimate
STAND_INS = {"bases": {"use": "Neurons"}, "solver": {"use": "GramLasso"}}


def foreign(config: BaseModel) -> dict[str, str]:
    """place in the config -> the name there that is not one of our own."""
    return {place: name for place, name in _uses(config.model_dump()) if not _ours(name)}


def check_safe(config: C) -> C:
    """The config, when all that it names is ours.

    Raises:
        ConfigError: naming what is not, and where.
    """
    for place, name in foreign(config).items():
        raise ConfigError(
            f"{place}: {name[:200]!r} is not one of gatelens' own names, and --safe runs nothing else: a config is code, it "
            "imports and calls what it names. Read that code, then leave --safe out; or use one of "
            + ", ".join(_names())
        )
    for place, value in _settings(config.model_dump(), ""):
        if place.rpartition(".")[2] in PLACES and value is not None:
            raise ConfigError(
                f"{place}: --safe writes below the run folder alone, and {shown(value)} is another place. Leave the setting out"
            )
    return config


def unrun(config: C) -> tuple[C, list[str]]:
    """The config for an estimate, in which nothing of somebody else's is imported or called, and what was left out.

    Raises:
        ConfigError: for a model, data or segments of somebody else's, without which nothing can be estimated.
    """
    notes, changed = [], {}
    for place, name in foreign(config).items():
        section = place.split(".")[0]
        if section not in STAND_INS:
            raise ConfigError(
                f"{place}: an estimate runs nothing of somebody else's, and {name[:200]!r} gives the {section} that it rests on. "
                "Run the walk up to its first room instead: gatelens collect CONFIG"
            )
        stand_in = STAND_INS[section]
        changed[section] = stand_in
        notes.append(f"{place}: {name[:200]} is not run for an estimate; {stand_in['use']} stands in for it")
    return config.model_copy(update=changed), notes


def _uses(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Every `use:` of a config, wherever it is nested, with the place of its section."""
    for place, value in _settings(config, ""):
        section, _, key = place.rpartition(".")
        if key == "use":
            yield section, str(value)


def _settings(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Every key below a value, however deep, and what it is set to."""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, inner in below:
        at = f"{place}.{key}".lstrip(".") if isinstance(value, dict) else f"{place}[{key}]"
        yield at, inner
        yield from _settings(inner, at)


def _ours(name: str) -> bool:
    """A bare name is looked up among ours alone; `gatelens.room:Name` must be a class that is defined here, not a module's import."""
    module, colon, attribute = name.partition(":")
    if not colon or module == "gatelens":
        return not colon or attribute in _names()
    top, _, rest = module.partition(".")
    if top != "gatelens" or rest.split(".")[0] not in ROOMS:
        return False
    try:
        found = getattr(import_module(module), attribute, None)
    except ImportError:
        return False
    return isinstance(found, type) and found.__module__.split(".")[0] == "gatelens"


def _names() -> list[str]:
    return [name for name in gatelens.__all__ if name not in gatelens.SUBMODULES]
