"""Door: what comes in from outside is held against the signature once, here; inside the house nobody asks again.

The annotations of the front door's functions, and of the recipes' settings, say what they take; a value of another kind is
refused in a sentence of ours before any work is done.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from jaxtyping import jaxtyped

from . import ConfigError, DataError, GateLensError
from .ground import level
from .interrupt import NOTHING, kept
from .system import refused

T = TypeVar("T")

#: what `functools.cache` makes of a function
_CACHED = type(functools.cache(len))
#: classes that are held against their annotations already
_CHECKED: set[type] = set()


def at_the_door(thing: T) -> T:
    """What a user reaches: a function whose arguments are checked, a class whose making and methods are, those of our bases too."""
    if inspect.isfunction(thing) or isinstance(thing, _CACHED):
        return checked(thing)
    if isinstance(thing, type) and not issubclass(thing, BaseException | Enum) and thing not in _CHECKED:
        _CHECKED.add(thing)
        for base in thing.__bases__:
            if base.__module__.split(".")[0] == __package__.split(".")[0]:
                at_the_door(base)
        _check_made(thing)
        for name, method in _own_methods(thing).items():
            setattr(thing, name, method)
    return thing  # pyright: ignore[reportReturnType]


def behind(find: Callable[[str], Any]) -> Callable[[str], Any]:
    """A room's `__getattr__` whose names come through the door."""
    return lambda name: at_the_door(find(name))


@functools.cache
def checked(function: Callable[..., Any], name: str | None = None) -> Any:
    """The function, with its arguments held against its annotations."""

    @functools.wraps(function)
    def door(*args: Any, **kwargs: Any) -> Any:
        _check(function, _hints(function), args, kwargs, name or function.__name__)
        try:
            with level(name or function.__name__, gradients=name is None or name.endswith(".fit")):
                return function(*args, **kwargs)
        except OSError as error:
            said = refused(error, name or function.__name__)
            if said is None:
                raise
            raise said from error
        except KeyboardInterrupt as stopped:  # who knows more has said it already
            if kept(stopped) == NOTHING:
                stopped.add_note(f"{name or function.__name__} was stopped: {NOTHING}")
            raise

    return door


def _own_methods(cls: type) -> dict[str, Any]:
    """The public methods that a class defines itself, checked; properties and operators stay as they are."""
    found: dict[str, Any] = {}
    for name, method in vars(cls).items():
        if name.startswith("_"):
            continue
        if inspect.isfunction(method):
            found[name] = checked(method, f"{cls.__name__}.{name}")
        elif isinstance(method, classmethod | staticmethod) and inspect.isfunction(method.__func__):
            found[name] = type(method)(checked(method.__func__, f"{cls.__name__}.{name}"))
    return found


def _check_made(cls: type) -> None:
    """Hold what a class is made of against its annotations: a dataclass's fields, or the arguments of its `__init__`."""
    init = vars(cls).get("__init__")
    if not inspect.isfunction(init):
        return

    @functools.wraps(init)
    def door(self: Any, *args: Any, **kwargs: Any) -> None:
        old: Mapping[str, str] = getattr(cls, "renamed", {})  # names of the version before, which still do
        hints = _hints(cls if dataclasses.is_dataclass(cls) else init)
        _check(init, hints, (self, *args), {old.get(k, k): v for k, v in kwargs.items()}, cls.__name__)
        with level(cls.__name__):
            init(self, *args, **kwargs)

    cls.__init__ = door  # pyright: ignore[reportAttributeAccessIssue]


@functools.cache
def _signature(function: Any) -> inspect.Signature:
    return inspect.signature(function)


def _check(function: Any, hints: Mapping[str, Any], args: Any, kwargs: Any, name: str) -> None:
    try:
        given = _signature(function).bind(*args, **kwargs).arguments
    except TypeError as error:
        raise ConfigError(f"{name}: {error}. It takes {_signature(function)}") from error
    for what, value in given.items():
        if what == "seed" and value is not None and not (fits(value, int) and 0 <= value < 2**63):
            raise ConfigError(f"{name}: `seed` must be a whole number from 0 on, of 63 bits; got {found(value)}")
        if what in hints and not (fits(value, hints[what]) and _names_a_path(value, hints[what])):
            raise _error(hints[what])(f"{name}: `{what}` must be {spelled(hints[what])}; got {found(value)}")
    with jaxtyped("context"):  # sizes with one name are one size over all arguments
        for what, value in given.items():
            hint: Any = hints.get(what)
            sized = [one for one in (hint, *get_args(hint)) if hasattr(one, "dim_str")]  # also `Tensor | None`
            if sized and hasattr(value, "shape") and not any(isinstance(value, one) for one in sized):
                others = ", ".join(
                    f"`{k}` is {found(v)}" for k, v in given.items() if k != what and hasattr(v, "shape")
                )
                raise DataError(f"{name}: `{what}` must be {spelled(hint)}; got {found(value)}, while {others}")


@functools.cache
def _hints(thing: Any) -> dict[str, Any]:
    """The annotations that can be read while running; names that only type checkers import are left out."""
    found: dict[str, Any] = {}
    for one in reversed(thing.__mro__) if isinstance(thing, type) else [thing]:
        where = vars(sys.modules[one.__module__])
        for name, hint in inspect.get_annotations(one).items():
            try:
                found[name] = get_type_hints(_Holder({name: hint}), where)[name]
            except NameError:
                found.pop(name, None)
    return found


class _Holder:
    """One annotation, as `get_type_hints` reads it."""

    def __init__(self, annotations: dict[str, Any]):
        self.__annotations__ = annotations


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
    if hint is int or hint is float:  # more than 63 bits are no number of anything here
        kind = isinstance(value, Integral if hint is int else Real) and not isinstance(value, bool)
        return kind and not (isinstance(value, Integral) and abs(int(value)) >= 2**63)
    return _fits_container(value, origin or hint, inner)


def _fits_container(value: Any, kind: Any, inner: tuple[Any, ...]) -> bool:
    if kind in (list, tuple, Sequence, Iterable, set, frozenset):
        if isinstance(value, str | bytes) or not isinstance(value, kind if kind is not Iterable else Iterable):
            return False
        if kind is tuple and inner and inner[-1] is not Ellipsis:
            return len(list(value)) == len(inner) and all(map(fits, value, inner))
        readable = isinstance(value, list | tuple | set | frozenset | dict)  # a stream is read once, by whom it is for
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
        with jaxtyped("context"):  # not in that of a caller whose own sizes have the same names
            there = isinstance(value, kind)
    except TypeError:  # an annotation that cannot be asked
        return True
    scattered = "sparse_coo" in str(
        getattr(value, "layout", "")
    )  # of the sparse forms, rows (CSR) alone are computed with
    return there and not scattered and getattr(getattr(value, "device", None), "type", "") != "meta"


def _names_a_path(value: Any, hint: Any) -> bool:
    """Whether a text that is given for a path can be one."""
    if not isinstance(value, str | Path) or Path not in (hint, *get_args(hint)):
        return True
    try:
        return value != "" and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


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
        form = ", sparse in another form than CSR" if "sparse_coo" in str(getattr(value, "layout", "")) else ""
        return f"{value.dtype} of shape {list(value.shape)} on {getattr(value, 'device', 'cpu')}{form}"
    kind = type(value).__name__
    return f"{kind} {value!r:.60}" if isinstance(value, str | bool | int | float | Path) or value is None else kind
