"""A config is code: `use: module:Name` imports that module and calls that name. What is not ours is found here, unrun.

`--safe` refuses a config that names anything else than gatelens' own; `--estimate` neither imports nor calls it.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeVar

from pydantic import BaseModel

import gatelens

from ..errors import ConfigError

C = TypeVar("C", bound=BaseModel)

#: what stands in for somebody else's bases and solver in an estimate
STAND_INS = {"bases": {"use": "Neurons"}, "solver": {"use": "GramLasso"}}


def foreign(config: BaseModel) -> dict[str, str]:
    """place in the config -> the name there that is not one of our own."""
    return {place: name for place, name in _uses(config.model_dump(), "") if not _ours(name)}


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


def _uses(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """Every `use:` of a config, wherever it is nested."""
    if isinstance(value, dict):
        for key, below in value.items():
            at = f"{place}.{key}".lstrip(".")
            if key == "use":
                yield place, str(below)
            else:
                yield from _uses(below, at)
    elif isinstance(value, list | tuple):
        for i, below in enumerate(value):
            yield from _uses(below, f"{place}[{i}]")


def _ours(name: str) -> bool:
    """A bare name is looked up among ours alone; `gatelens.room:Name` must be a class that is defined here, not a module's import."""
    module, colon, attribute = name.partition(":")
    if not colon:
        return True
    if module.split(".")[0] != "gatelens":
        return False
    found = getattr(import_module(module), attribute, None) if find_spec(module) else None
    return isinstance(found, type) and found.__module__.split(".")[0] == "gatelens"


def _names() -> list[str]:
    return [name for name in gatelens.__all__ if name not in gatelens.SUBMODULES]
