"""Door: what comes in from outside is held against the signature once, here; inside the house nobody asks again.

The annotations of the front door's functions, and of the recipes' settings, say what they take; a value of another kind is
refused in a sentence of ours before any work is done.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from . import ConfigError, DataError, GateLensError


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with its arguments held against its annotations."""

    @functools.wraps(function)
    def door(*args: Any, **kwargs: Any) -> Any:
        _check(function, _hints(function), args, kwargs, function.__name__)
        return function(*args, **kwargs)

    return door


def check_settings(recipe: type) -> type:
    """The recipe, a dataclass of settings, with them held against its fields' annotations whenever one is made."""
    init = recipe.__init__
    if not dataclasses.is_dataclass(recipe) or hasattr(init, "at_the_door"):
        return recipe

    @functools.wraps(init)
    def door(self: Any, *args: Any, **kwargs: Any) -> None:
        old: Mapping[str, str] = getattr(recipe, "renamed", {})  # names of the version before, which still do
        _check(init, _hints(recipe), (self, *args), {old.get(k, k): v for k, v in kwargs.items()}, recipe.__name__)
        init(self, *args, **kwargs)

    door.at_the_door = True  # pyright: ignore[reportFunctionMemberAccess]
    recipe.__init__ = door
    return recipe


def _check(function: Any, hints: Mapping[str, Any], args: Any, kwargs: Any, name: str) -> None:
    try:
        given = inspect.signature(function).bind(*args, **kwargs).arguments
    except TypeError as error:
        raise ConfigError(f"{name}: {error}. It takes {inspect.signature(function)}") from error
    for what, value in given.items():
        if what == "seed" and value is not None and not (fits(value, int) and 0 <= value < 2**63):
            raise ConfigError(f"{name}: `seed` must be a whole number from 0 on, of 63 bits; got {found(value)}")
        if what in hints and not fits(value, hints[what]):
            raise _error(hints[what])(f"{name}: `{what}` must be {spelled(hints[what])}; got {found(value)}")


@functools.cache
def _hints(thing: Any) -> dict[str, Any]:
    try:
        return get_type_hints(thing)
    except NameError:  # a name that only type checkers import
        return {}


def _error(hint: Any) -> type[GateLensError]:
    return DataError if "Tensor" in spelled(hint) else ConfigError


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the kind that an annotation names; an annotation that says nothing takes everything."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any or hint is inspect.Parameter.empty or isinstance(hint, str):
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return any(value is one or (type(value) is type(one) and value == one) for one in inner)
    if hint is None or hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, Real) and not isinstance(value, bool)
    return _fits_container(value, origin or hint, inner)


def _fits_container(value: Any, kind: Any, inner: tuple[Any, ...]) -> bool:
    if kind in (list, tuple, Sequence, Iterable, set, frozenset):
        if isinstance(value, str | bytes) or not isinstance(value, kind if kind is not Iterable else Iterable):
            return False
        if kind is tuple and inner and inner[-1] is not Ellipsis:
            return len(list(value)) == len(inner) and all(map(fits, value, inner))
        readable = isinstance(value, list | tuple)  # a stream is read once, by whom it is for
        return not inner or not readable or all(fits(v, inner[0]) for v in value)
    if kind in (dict, Mapping):
        # what is no dict may read each value from the disk
        deep = len(inner) == 2 and isinstance(value, dict)
        return isinstance(value, Mapping) and (
            not deep or all(fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items())
        )
    if kind is Callable or getattr(kind, "__name__", "") == "Callable":
        return callable(value)
    return _is(value, kind)


def _is(value: Any, kind: Any) -> bool:
    if getattr(kind, "_is_protocol", False):
        members = {name for name in (*vars(kind), *inspect.get_annotations(kind)) if not name.startswith("_")}
        return all(hasattr(value, name) for name in members)
    try:
        there = isinstance(value, kind)
    except TypeError:  # an annotation that cannot be asked
        return True
    return there and getattr(getattr(value, "device", None), "type", "") != "meta"


def spelled(hint: Any) -> str:
    """An annotation as a reader knows it."""
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(spelled(one) for one in get_args(hint))
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    if hint is type(None):
        return "None"
    if isinstance(hint, type) and not get_args(hint):
        return {"int": "a whole number", "float": "a number", "bool": "True or False", "str": "a text"}.get(
            hint.__name__, hint.__name__
        )
    text = str(hint)
    for part in ("collections.abc.", "typing.", "jaxtyping.", "torch.", "pathlib."):
        text = text.replace(part, "")
    return text


def found(value: Any) -> str:
    """A value in a few words."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype} of shape {list(value.shape)} on {getattr(value, 'device', 'cpu')}"
    kind = type(value).__name__
    return f"{kind} {value!r:.60}" if isinstance(value, str | bool | int | float | Path) or value is None else kind
