"""Progress: a bar for a room, with rate and time left, where somebody watches; it goes on ticking while one item takes long."""

from __future__ import annotations

import inspect
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterable
from types import CodeType, FrameType
from typing import Any

from tqdm import tqdm

#: seconds of work that are not worth a bar; and between two signs of life after that
AFTER, EVERY = 2.0, 2.0


def watched(progress: bool | None) -> bool:
    """Whether bars are shown: as was said, or, for None, where standard error is a terminal or a notebook's."""
    if progress is not None:
        return progress
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def bar(
    items: Iterable[Any] | None = None,
    room: str = "",
    progress: bool | None = None,
    total: int | None = None,
    unit: str = "it",
) -> Bar:
    """A bar on standard error around `items`; without, one to `update` up to `total`; without either, a clock.

    Args:
        room: what is being done, in a word or two.
        progress: show it; None: where somebody watches.

    Examples:
        >>> [row * 2 for row in bar(range(3), "double", progress=False)]
        [0, 2, 4]
    """
    return Bar(items, room, watched(progress), total, unit)


class Bar(tqdm):
    """tqdm's bar that shows the time as it passes, whether or not its count moves. A context manager, as tqdm's is."""

    def __init__(self, items: Iterable[Any] | None, room: str, shown: bool, total: int | None, unit: str):
        clock = total is None and items is None
        how: dict[str, Any] = {"bar_format": "{desc}: {elapsed}{postfix}"} if clock else {}
        how |= {"dynamic_ncols": True} if _columns() else {"ncols": 80, "nrows": 24}
        if not sys.stderr.isatty():  # bars within bars take turns in one line: notebooks know no way up
            how["position"] = 0
        super().__init__(items, room, total, disable=not shown, unit=unit, delay=AFTER, file=sys.stderr, **how)
        self._over = threading.Event()
        if shown:
            owner = sys._getframe(2)  # the code that asked `bar` for it
            while owner.f_back is not None and _passes(owner.f_code):
                owner = owner.f_back
            at = (weakref.ref(self), self._over, threading.get_ident(), _stack(owner))
            threading.Thread(target=_tick, args=at, daemon=True).start()

    def show(self) -> None:
        """Show it as it stands, if it is old enough."""
        if not self.disable and time.time() - self.start_t >= self.delay:
            self.delay = 0  # once shown, it is also ended as a bar that was shown
            self.refresh()

    def close(self) -> None:
        """End it; safe to call twice."""
        over = self.__dict__.get("_over")  # absent when tqdm itself refused the arguments
        if over is not None:
            over.set()
        super().close()


def _columns() -> int:
    """How wide the terminal says it is; 0 where it does not know, or is none."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        return 0


def _passes(code: CodeType) -> bool:
    """Whether such code is left, or sleeps, while the work that a bar stands for goes on: constructors, generators, contexts."""
    return code.co_name in ("__init__", "__enter__") or bool(code.co_flags & inspect.CO_GENERATOR)


def _stack(frame: FrameType | None) -> list[CodeType]:
    """What is running, from the outermost caller to the frame itself; frames would keep alive all that they hold."""
    codes: list[CodeType] = []
    while frame is not None:
        codes.append(frame.f_code)
        frame = frame.f_back
    return codes[::-1]


def _tick(bar: weakref.ref[Bar], over: threading.Event, thread: int, owner: list[CodeType]) -> None:
    """Show a bar again and again, while the code that made it runs: an error or an interrupt may leave it open."""
    while not over.wait(EVERY):
        shown = bar()
        if shown is None:
            return
        if _stack(sys._current_frames().get(thread))[: len(owner)] == owner:
            shown.show()
        del shown
