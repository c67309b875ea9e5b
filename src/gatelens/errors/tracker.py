"""Tracking: training curves and a report's figures go to wandb, trackio or anything with `log`, where that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, runtime_checkable

from . import ConfigError

#: steps between two points of a training curve
EVERY = 50


@runtime_checkable
class Tracker(Protocol):
    """What is told figures: a wandb run, the module trackio, or an object of yours."""

    def log(self, figures: dict[str, Any], /) -> Any:
        """Keep some figures, as they stand now."""
        ...


_TOLD: ContextVar[Tracker | None] = ContextVar("tracker", default=None)


@contextmanager
def tracking(tracker: Tracker) -> Iterator[Tracker]:
    """Within the block, training curves and reports are told to `tracker.log(...)`.

    Args:
        tracker: anything with `log(figures)`: a wandb run, trackio, one of your own.

    Returns:
        A context that gives the tracker.

    Raises:
        ConfigError: it has no `log`.

    Examples:
        >>> class Kept(list):
        ...     log = list.append
        >>> with gl.tracking(Kept()) as kept:
        ...     gl.errors.tracker.tell({"faithfulness": 0.9})
        >>> kept
        [{'faithfulness': 0.9}]
    """
    if not callable(getattr(tracker, "log", None)):
        raise ConfigError(
            f"tracking: expected something with log(figures), got {type(tracker).__name__}. Give wandb.init()"
        )
    before = _TOLD.set(tracker)
    try:
        yield tracker
    finally:
        _TOLD.reset(before)


def tell(figures: Mapping[str, Any]) -> None:
    """Tell the tracker, if there is one."""
    tracker = _TOLD.get()
    if tracker is not None:
        tracker.log(dict(figures))


def tell_curve(name: str, step: int, loss: Callable[[], float]) -> None:
    """A point of a training curve: `loss` is asked for only where somebody keeps it, every `EVERY` steps."""
    if _TOLD.get() is not None and step % EVERY == 0:
        tell({f"{name}/loss": loss(), f"{name}/step": step})
