"""The type checker of the tests: beartype with jaxtyping's shapes, on every function and dataclass of the library.

jaxtyping's own wrapper binds the arguments, checks them, and checks them again beside the result, in functions without any shape
too: gates are read by many small calls, and it took as long as these. `install` puts one in its place that checks each call once.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

#: an int is taken where a float is asked for, as Python does, and what is refused is refused as Python does
shapes = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=TypeError))
_jaxtyped = jaxtyping.jaxtyped


def install() -> None:
    """Let jaxtyping's import hook decorate with `checked`; before anything that it checks is imported."""
    jaxtyping.jaxtyped = lambda *given, **how: checked if how and not given else _jaxtyped(*given, **how)


def checked(thing: Any) -> Any:
    """A function that checks what it is given and gives, or a dataclass whose fields are checked."""
    if not inspect.isclass(thing):
        return _checked(thing)
    if dataclasses.is_dataclass(thing) and not hasattr(thing.__init__, "is_checked"):
        thing.__init__ = _checked(thing.__init__)
    return thing


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.isgeneratorfunction(function):
        return _jaxtyped(function, typechecker=shapes)
    written = function.__annotations__
    hints = {name: _hint(annotation, function.__globals__) for name, annotation in written.items()}
    function.__annotations__ = hints
    plain = shapes(function)
    function.__annotations__ = plain.__annotations__ = written
    if any(map(_has_shape, hints.values())):
        scoped = functools.wraps(function)(lambda *args, **kwargs: _scoped(plain, args, kwargs))
    else:
        scoped = plain
    scoped.is_checked = True
    return scoped


def _scoped(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    with _jaxtyped("context"):  # sizes with one name are one size in one call
        return function(*args, **kwargs)


def _hint(annotation: Any, names: Mapping[str, Any]) -> Any:
    """What an annotation says; anything, as for jaxtyping, where it names what is not defined yet."""

    def asked(x: Any) -> None: ...

    asked.__annotations__ = {"x": annotation}
    try:
        return typing.get_type_hints(asked, dict(names), include_extras=True)["x"]
    except Exception:
        return Any


def _has_shape(hint: Any) -> bool:
    return hasattr(hint, "dim_str") or any(map(_has_shape, typing.get_args(hint)))
