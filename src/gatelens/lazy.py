"""Names: imported on first use, and old ones that are understood for one version more."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any, TypeVar

T = TypeVar("T", bound=type)


def lazy_names(
    package: str, files: dict[str, tuple[str, ...]], old: dict[str, str] | None = None
) -> Callable[[str], Any]:
    """A module `__getattr__` for `package`: the name's file is imported when the name is first asked for.

    Args:
        files: which file holds which names. old: names of the version before -> today's.

    Transformer-lens, sae-lens and circuitsvis take seconds to import; a room that offers them pays only when used.
    """
    home = {name: file for file, names in files.items() for name in names}
    same = sorted(set(home) & set(files))
    if same:  # once imported, the file would hide the name
        raise ImportError(f"{package}: {', '.join(same)} is both a file and a name in it; call the file something else")

    def __getattr__(name: str) -> Any:
        if name in (old or {}):
            name = _told(f"{package}.{name}", (old or {})[name])
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}; it has {', '.join(home)}")
        return getattr(import_module(f"{package}.{home[name]}"), name)

    return __getattr__


def renamed(**old: str) -> Callable[[T], T]:
    """A class decorator: keywords of the version before (old = "new") are taken, with a warning."""

    def decorate(cls: T) -> T:
        init = cls.__init__

        @wraps(init)
        def __init__(self: Any, *values: Any, **keywords: Any) -> None:
            for name in [name for name in keywords if name in old]:
                keywords[_told(f"{cls.__name__}({name}=...)", old[name])] = keywords.pop(name)
            init(self, *values, **keywords)

        cls.__init__ = __init__
        cls.renamed = old  # pyright: ignore[reportAttributeAccessIssue]  # configs ask for it too
        return cls

    return decorate


def understood(name: str, old: dict[str, str], what: str) -> str:
    """Today's name of a choice; that of the version before (old -> new) is taken, with a warning."""
    if name not in old:
        return name
    _told(f"{what} {name!r}", repr(old[name]))
    return old[name]


def _told(name: str, new: str) -> str:
    warnings.warn(f"{name} is called {new} now; the old name goes with the next version", DeprecationWarning, 4)
    return new


#: what values do with rooms that come after their own (drawing themselves): filled in by `bound`, at the corridor's end
LATER: dict[str, Callable[..., Any]] = {}


def shows_itself(cls: T) -> T:
    """A class decorator: in a notebook the value is drawn by `views`, which is imported only then."""

    def _repr_html_(self: Any) -> str:
        return LATER["show"](self)

    cls._repr_html_ = _repr_html_  # pyright: ignore[reportAttributeAccessIssue]
    return cls
