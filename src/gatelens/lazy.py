"""Names that are imported on first use: a package room lists which of its files holds which name."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

T = TypeVar("T", bound=type)


def lazy_names(package: str, files: dict[str, tuple[str, ...]]) -> Callable[[str], Any]:
    """A module `__getattr__` for `package`: the name's file is imported when the name is first asked for.

    Transformer-lens, sae-lens and circuitsvis take seconds to import; a room that offers them pays only when used.
    """
    home = {name: file for file, names in files.items() for name in names}
    same = sorted(set(home) & set(files))
    if same:  # once imported, the file would hide the name
        raise ImportError(f"{package}: {', '.join(same)} is both a file and a name in it; call the file something else")

    def __getattr__(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}; it has {', '.join(home)}")
        return getattr(import_module(f"{package}.{home[name]}"), name)

    return __getattr__


#: what values do with rooms that come after their own (drawing themselves): filled in by `bound`, at the corridor's end
LATER: dict[str, Callable[..., Any]] = {}


def shows_itself(cls: T) -> T:
    """A class decorator: in a notebook the value is drawn by `views`, which is imported only then."""

    def _repr_html_(self: Any) -> str:
        return LATER["show"](self)

    cls._repr_html_ = _repr_html_  # pyright: ignore[reportAttributeAccessIssue]
    return cls
