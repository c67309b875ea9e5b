"""Ctrl-C: whoever knows what is kept says it in one sentence, and the interrupt goes on its way."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

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


@contextmanager
def at_once(who: str) -> Iterator[None]:
    """For imports: Ctrl-C within the block ends the process with one sentence.

    Nothing is begun yet, and a library that is half imported answers an interrupt with anything, or swallows it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        sys.stderr.write(f"{who}: stopped; {NOTHING}\n")
        sys.stderr.flush()
        os._exit(130)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def noticed() -> Iterator[list[int]]:
    """Within the block each Ctrl-C is noted in the list too: a library may make another exception of it on its way."""
    pressed: list[int] = []
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) in (
        signal.SIG_IGN,
        None,
    ):
        yield pressed
        return
    before: Any = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: Any) -> None:
        pressed.append(number)
        (before if callable(before) else signal.default_int_handler)(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)
