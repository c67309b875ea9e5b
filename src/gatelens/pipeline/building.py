"""From a config's section to an object: `use: Name` (ours, or `module:Name` of the user's) and its keywords."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from pydantic import ConfigDict, ValidationError, create_model

import gatelens

from ..errors import ECHOED, ConfigError, nearest, shown, unknown

#: recipes beside the front door that a config names as they are called
BY_NAME = {
    "SegmentSAE": "gatelens.bases.sae",
    "InputTuning": "gatelens.gate_dictionaries",
}


def find(name: Any, where: str) -> Callable[..., Any]:
    """What `use:` names: a front-door name, or `module:Name`.

    Raises:
        ConfigError: an unknown name, with the nearest; a module that cannot be imported.
    """
    if not isinstance(name, str):
        raise ConfigError(f"{where}: `use:` takes a name, `Neurons` or `your_module:YourName`; got {shown(name)}")
    if ":" not in name:
        known = [n for n in gatelens.__all__ if n not in gatelens.SUBMODULES] + list(BY_NAME)
        if name not in known:
            raise ConfigError(
                f"{where}: {unknown('name', name, known)}. Your own goes as `use: your_module:YourName`, which is imported "
                "and called: a config is code"
            )
        return getattr(import_module(BY_NAME[name]), name) if name in BY_NAME else getattr(gatelens, name)
    module, _, attribute = name.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{where}: the module of {shown(name)} cannot be imported ({str(error)[:ECHOED]}). Is it installed, or in the current folder?"
        ) from error
    except AttributeError as error:
        raise ConfigError(f"{where}: {module[:ECHOED]} has no {shown(attribute)}") from error
    if not callable(found):
        raise ConfigError(f"{where}: {shown(name)} is a {type(found).__name__}; expected a class or function to call")
    return found


def keywords(
    use: Callable[..., Any], given: Mapping[str, Any], where: str, reserved: tuple[str, ...] = ()
) -> dict[str, Any]:
    """`given` checked against the callable's own keywords: names, then types.

    Args:
        reserved: parameters that the walk fills in itself and a config may not give.

    Raises:
        ConfigError: naming the key, the nearest known one, what was expected and what came.
    """
    declared = inspect.signature(use).parameters
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in declared.values())
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    known = [n for n, p in declared.items() if p.kind in named and n not in reserved]
    old = getattr(use, "renamed", {})
    given = {old.get(key, key): value for key, value in given.items()}
    for key in given:
        if key not in known and not open_ended:
            raise ConfigError(f"{where}: {unknown('key', str(key), known)}")
    missing = [n for n in known if declared[n].default is inspect.Parameter.empty and n not in given]
    if missing:
        raise ConfigError(
            f"{where}: {getattr(use, '__name__', use)} needs {', '.join(missing)}; add {missing[0]}: ... to the config"
        )
    return _typed(use, dict(given), where)


def build(section: Mapping[str, Any], where: str, given: Mapping[str, Any] | None = None, **defaults: Any) -> Any:
    """The object that a section describes.

    Args:
        given: keywords that the walk fills in (the model) and a config may not.
        defaults: keywords filled in where the callable has them and the section leaves them open (the run's seed).
    """
    given = dict(given or {})
    use, settings = check(section, where, tuple(given), defaults)
    return use(**settings, **given)


def check(
    section: Mapping[str, Any], where: str, reserved: tuple[str, ...] = (), defaults: Mapping[str, Any] | None = None
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """What `use:` names and its checked keywords, without calling it."""
    section = dict(section)
    if "use" not in section:
        raise ConfigError(
            f"{where}: expected `use: Name` and its keywords, got keys {', '.join(map(str, section))[:ECHOED] or 'none'}"
        )
    use = find(section.pop("use"), where)
    for key, value in (defaults or {}).items():
        if key in parameters(use):
            section.setdefault(key, value)
    section = {key: _nested(value, f"{where}.{key}", defaults or {}) for key, value in section.items()}
    return use, keywords(use, section, where, reserved)


def _nested(value: Any, where: str, defaults: Mapping[str, Any]) -> Any:
    """A recipe that a recipe takes, and so on inwards: a section with `use:`, or a mapping of names to such sections."""
    if not isinstance(value, Mapping):
        return value
    if "use" in value:
        return build(value, where, **defaults)
    return {key: _nested(below, f"{where}.{key}", defaults) for key, below in value.items()}


def parameters(use: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(use).parameters)


def _typed(use: Callable[..., Any], given: dict[str, Any], where: str) -> dict[str, Any]:
    """`given` through pydantic: "3" is no integer, 3 is a float, a list becomes a tuple where one is declared."""
    hints = _hints(use)
    checkable = {k: hints[k] for k in given if k in hints}
    try:
        fields: dict[str, Any] = {k: (t, ...) for k, t in checkable.items()}
        schema = create_model("Keywords", __config__=ConfigDict(arbitrary_types_allowed=True), **fields)
    except Exception:  # an annotation that pydantic has no schema for: the callable itself judges
        return given
    try:
        checked = schema(**{k: given[k] for k in checkable})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{where}.{wrong(first)}") from error
    return given | {k: getattr(checked, k) for k in checkable}


def wrong(problem: Mapping[str, Any]) -> str:
    """What pydantic found: the key without the names of its own machinery, what was expected and what came."""
    place = ".".join(part for part in map(str, problem["loc"]) if "[" not in part)
    expected = problem["msg"][:1].lower() + problem["msg"][1:]
    close = (
        nearest(str(problem["input"]), problem["ctx"]["expected"].split("'")[1::2], 1)
        if problem["type"] == "literal_error"
        else []
    )
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{place[:ECHOED]}: {expected[:ECHOED]}, got {shown(problem['input'])}{hint}"


def _hints(use: Callable[..., Any]) -> dict[str, Any]:
    target = use.__init__ if inspect.isclass(use) and not hasattr(use, "__dataclass_fields__") else use
    try:
        return typing.get_type_hints(target)
    except Exception:  # names that exist only for type checkers
        return {}
