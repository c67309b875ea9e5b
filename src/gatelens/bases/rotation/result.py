"""What a fit returns, a rotation (or an invertible map) that remembers how it was found, and who watches it: budgets, a bar, the trace."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...basis.linear import Rotation
from ...errors.progress import bar
from ...store import Reading, Writing


@dataclass(frozen=True)
class Trace:
    """The objective along a fit, one entry for each iteration; the objectives of two stages are not comparable.

    Attributes:
        stage: the objective's name.
        value: its mean over the entries; higher is better.
        seconds: elapsed since the fit began.
    """

    stage: tuple[str, ...] = ()
    value: tuple[float, ...] = ()
    seconds: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.value)

    def record(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {"stage": list(self.stage), "value": list(self.value), "seconds": list(self.seconds)}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Trace:
        return cls(tuple(record["stage"]), tuple(record["value"]), tuple(record["seconds"]))

    def __repr__(self) -> str:
        steps = [f"{s}: {sum(t == s for t in self.stage)} iterations" for s in dict.fromkeys(self.stage)]
        return f"Trace({'; '.join(steps) or 'no iterations'})"


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


@dataclass(frozen=True)
class FittedRotation(Rotation):
    """A rotation with the trace of its fit.

    Attributes:
        trace: the objective by iteration.
        dead: coordinates that were zero in every column: they are left as they are, as the last `dead` rows.
        columns: how many it was fitted to.
    """

    trace: Trace = field(default_factory=Trace)
    dead: int = 0
    columns: int = 0

    def record(self) -> dict[str, Any]:
        """How it was found, as plain values; the matrix and the label are stored beside."""
        return {"trace": self.trace.record(), "dead": self.dead, "columns": self.columns}

    @classmethod
    def from_record(cls, matrix: Float[Tensor, "f d"], label: str, record: dict[str, Any]) -> FittedRotation:
        return cls(matrix, None, label, Trace.from_record(record["trace"]), record["dead"], record["columns"])

    def __repr__(self) -> str:
        f, d = self.matrix.shape
        return f"Rotation({self.label}: {d} -> {f}, fitted to {self.columns} columns, {self.dead} dead; {self.trace})"


@dataclass(frozen=True)
class Invertible:
    """A change of coordinates that need not be orthogonal: f = M x, x = M^-1 f.

    Attributes:
        W_enc: M transposed, [d, f]. W_dec: the transposed inverse, [f, d]; row i is what a unit of feature i adds.
    """

    W_enc: Float[Tensor, "d d"]
    W_dec: Float[Tensor, "d d"]
    label: str = "invertible"
    trace: Trace = field(default_factory=Trace)
    is_linear: bool = True

    @classmethod
    def from_matrix(cls, matrix: Float[Tensor, "d d"], **rest) -> Invertible:
        """From M; its inverse is taken in float64."""
        return cls(matrix.T.contiguous(), torch.linalg.inv(matrix.double()).T.to(matrix.dtype).contiguous(), **rest)

    def encode(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        return x @ self.W_enc

    def decode(self, f: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        return f @ self.W_dec

    def save_into(self, out: Writing) -> None:
        """Add to a folder of the store that is being written."""
        out.json("invertible.json", {"label": self.label, "trace": self.trace.record()})
        out.tensors("invertible.safetensors", {"W_enc": self.W_enc, "W_dec": self.W_dec})

    @classmethod
    def load_from(cls, stored: Reading, parts: Mapping[str, Any]) -> Invertible:
        """What `save_into` wrote."""
        tensors, about = stored.tensors("invertible.safetensors"), stored.json("invertible.json")
        return cls(tensors["W_enc"], tensors["W_dec"], about["label"], Trace.from_record(about["trace"]))

    @property
    def condition(self) -> float:
        """The ratio of the largest to the smallest stretch; 1 for a rotation."""
        return float(torch.linalg.cond(self.W_enc.double()))

    def __repr__(self) -> str:
        d = len(self.W_enc)
        return f"Invertible({self.label}: {d} -> {d}, condition {self.condition:.1f}; {self.trace})"
