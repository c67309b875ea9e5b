"""Watching a fit: time and iteration budgets, the trace, a progress bar, a caller's own function."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor

from ...errors.progress import bar
from .result import Trace

#: called after every iteration with the stage's name, the objective's value and the rotation so far
Watcher = Callable[[str, float, Tensor], None]


class Watch:
    """Told of every iteration; says when the budget is spent.

    Args:
        seconds: budget of elapsed time; None for none.
        progress: bars on standard error; None: where somebody watches.
        watcher: called after every iteration, with the rotation in full coordinates.
    """

    def __init__(self, seconds: float | None = None, progress: bool | None = None, watcher: Watcher | None = None):
        self.seconds, self.watcher, self.began = seconds, watcher, time.perf_counter()
        self.seen: list[tuple[str, float, float]] = []
        self.embed: Callable[[Tensor], Tensor] = lambda rotation: rotation
        self.prefix = ""
        self.bar = bar(room="rotation", progress=progress)

    @contextmanager
    def run(self, name: str) -> Iterator[None]:
        """Stages within are named after this run too, so that the trace tells two runs apart."""
        self.prefix = f"{name}: "
        yield
        self.prefix = ""

    def step(self, stage: str, value: float, rotation: Tensor) -> None:
        stage = self.prefix + stage
        self.seen.append((stage, value, time.perf_counter() - self.began))
        self.bar.update()
        self.bar.set_postfix_str(f"{stage} {value:.4f}", refresh=False)
        if self.watcher is not None:
            self.watcher(stage, value, self.embed(rotation))

    @property
    def spent(self) -> bool:
        return self.seconds is not None and time.perf_counter() - self.began >= self.seconds

    def trace(self) -> Trace:
        self.bar.close()
        return Trace(*zip(*self.seen, strict=True))
