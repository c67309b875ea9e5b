"""Ctrl-C: whoever knows what is kept says it in one sentence, and the interrupt goes on its way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: where nobody knows better
NOTHING = "nothing of it is kept"


@contextmanager
def keeping(what: Callable[[], str]) -> Iterator[None]:
    """Where Ctrl-C comes within the block, `what()` is said of it in the place of what was said further inside.

    Examples:
        >>> from gatelens.errors.interrupt import keeping, kept
        >>> try:
        ...     with keeping(lambda: "two of five shards are kept"):
        ...         raise KeyboardInterrupt
        ... except KeyboardInterrupt as stopped:
        ...     print(kept(stopped))
        two of five shards are kept
    """
    try:
        yield
    except KeyboardInterrupt as stopped:
        stopped.__notes__ = [what()]
        raise


def kept(stopped: KeyboardInterrupt) -> str:
    """What was said to be kept."""
    return "; ".join(stopped.__dict__.get("__notes__", [])) or NOTHING
