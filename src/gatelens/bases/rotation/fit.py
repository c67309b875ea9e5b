"""fit_rotation: one rotation that makes many columns sparse at once (complete orthogonal dictionary learning)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import BasisError, unknown
from .checks import Reduced, check_columns, reduce, warn_of_few
from .invertible import fit_oblique
from .quasi_newton import ascend, column_blocks
from .result import FittedRotation, Invertible, Watch, Watcher
from .stages import objective_named, stages
from .starts import polar, start_rotation

METHODS = ("chain", "lbfgs", "svd", "qr", "identity", "random", "invertible")
_SPECIAL = 0.95  # neurons whose mean |y| is under this share of a random basis' are worth a start


@dataclass(frozen=True)
class Settings:
    """How to fit; the keywords of `fit_rotation`, where they are explained."""

    method: str = "chain"
    objective: str = "l1"
    zeros: bool = False
    start: str | Tensor | None = None
    eps: float = 0.1
    iterations: int = 150
    seconds: float | None = None
    restarts: int = 1
    seed: int = 0

    def __post_init__(self):
        if self.method not in METHODS:
            raise BasisError(unknown("rotation method", self.method, METHODS))
        if self.iterations < 0 or self.restarts < 1 or (self.seconds is not None and self.seconds <= 0):
            raise BasisError(
                "expected iterations >= 0, restarts >= 1 and seconds > 0 (or None); "
                f"got {self.iterations}, {self.restarts} and {self.seconds}"
            )
        stages(self.objective, self.eps, self.zeros, 1)


def fit_rotation(
    columns: Float[Tensor, "d m"],
    method: str = "chain",
    *,
    near: Float[Tensor, "e k"] | None = None,
    objective: str = "l1",
    zeros: bool = False,
    start: str | Tensor | None = None,
    eps: float = 0.1,
    iterations: int = 150,
    seconds: float | None = None,
    restarts: int = 1,
    lr: float | None = None,
    barrier: float = 0.03,
    seed: int = 0,
    progress: bool | None = None,
    watcher: Watcher | None = None,
) -> FittedRotation | Invertible:
    """The rotation R for which R A is sparse, A being columns of many Jacobians side by side.

    Args:
        columns: A, [d, M]; at least 16 d of them from at least 64 inputs, each input's scaled to a root mean square of 1.
        method: "chain" (L-BFGS on smooth L1 with mu lowered 1, .3, .02: the best measured),
            "lbfgs" (the objective alone: stays near a good start), "invertible" (oblique, starts from the chain's rotation);
            "svd", "qr", "identity", "random" (no fit at all).
        near: [d, k], columns at points near the inputs (`jacobians.points_near`), scaled likewise. The chain ends with an ascent that
            sees them beside the others: the rotation then hangs less on the slopes that these inputs happen to have.
        objective: "l1", or "reciprocal" (mean 1 / (|y| + eps), its eps lowered in steps from 1).
        zeros: polish on the smoothed reciprocal measure at eps .3, then `eps`: more exact zeros for a little L1.
        start: "svd", "random", "identity", "qr", or a rotation [d, d]; for the methods that search. None for the SVD, and where
            the neurons are sparser than a random basis, for the chain on "l1" another run from them; the better one is kept,
            or the neurons as they are where neither is sparser.
        eps: sharpness of the reciprocal measure, in units of the root mean square.
        iterations: at most, in each stage. seconds: at most, of elapsed time, over all stages and restarts.
        restarts: runs from random rotations beyond the first; the one with the best L1 on the columns is kept.
        seed: of random starts.
        progress: a bar on standard error. watcher: called with (stage, value, rotation) after every iteration.

    Returns:
        A FittedRotation, whose rows for dead coordinates come last; for "invertible" an Invertible.

    Raises:
        BasisError: not a matrix of columns, all zero, unknown names, eps <= 0; `near` of other rows, or for another method.
        NonFiniteError: NaN or infinity among the columns.

    Warns:
        GateLensWarning: fewer than 4 d columns, rank-deficient columns, or so few directions that zeros come for nothing.
    """
    objective = objective_named(objective)
    settings = Settings(method, objective, zeros, start, eps, iterations, seconds, restarts, seed)
    watch = Watch(seconds, progress, watcher)
    scaled = check_columns(columns)
    if near is not None:
        near = _check_near(near, scaled, method)
    reduced = reduce(scaled)
    if method not in ("identity", "random"):
        warn_of_few(reduced.columns)
    watch.embed = reduced.embed
    with torch.no_grad():
        if method in ("identity", "random"):
            found = start_rotation(method, scaled, seed)
            return FittedRotation(found.to(scaled), label=method, dead=reduced.dead, columns=scaled.shape[1])
        if method == "invertible":
            return _fit_invertible(reduced, settings, watch)
        found = _best_of(reduced, settings, watch)
        if near is not None:
            found = _beside(reduced, near, found, settings, watch)
        matrix = reduced.embed(polar(found)).to(scaled.dtype)
    return FittedRotation(matrix, label=method, trace=watch.trace(), dead=reduced.dead, columns=scaled.shape[1])


def _best_of(reduced: Reduced, settings: Settings, watch: Watch) -> Tensor:
    """The run from its start, what the neurons give, and `restarts - 1` runs from random starts; the best L1 wins."""
    columns = reduced.columns
    runs = [_run(columns, settings, _start(reduced, settings), watch)]
    if settings.start is None and settings.method == "chain" and settings.objective == "l1":
        runs += _from_neurons(reduced, settings, watch)
    for extra in range(1, settings.restarts):
        if not watch.spent:
            with watch.run(f"restart {extra}"):
                start = start_rotation("random", columns, settings.seed + extra)
                runs.append(_run(columns, settings, start, watch))
    return runs[0] if len(runs) == 1 else min(runs, key=lambda r: _mean_abs(columns, r))


def _from_neurons(reduced: Reduced, settings: Settings, watch: Watch) -> list[Tensor]:
    """Where the neurons are sparser than a random basis: they themselves, and a run from them."""
    columns = reduced.columns
    neurons = reduced.restrict(torch.eye(reduced.span.shape[1], dtype=columns.dtype, device=columns.device))
    random = start_rotation("random", columns, settings.seed)
    if _mean_abs(columns, neurons) > _SPECIAL * _mean_abs(columns, random):
        return []
    if watch.spent:
        return [neurons]
    with watch.run("from the neurons"):
        return [neurons, _run(columns, settings, neurons, watch, near=True)]


def _mean_abs(columns: Tensor, rotation: Tensor) -> float:
    return sum(float((rotation @ b).abs().sum(dtype=torch.float64)) for b in column_blocks(columns)) / columns.numel()


def _start(reduced: Reduced, settings: Settings) -> Tensor:
    if isinstance(settings.start, Tensor):
        return reduced.restrict(settings.start)
    name = settings.method if settings.method in ("svd", "qr") else settings.start or "svd"
    if name == "svd":
        return reduced.principal
    return start_rotation(name, reduced.columns, settings.seed)


def _run(columns: Tensor, settings: Settings, rotation: Tensor, watch: Watch, near: bool = False) -> Tensor:
    """One run of a method from a rotation; with `near`, the chain leaves out its first stage, which forgets the start."""
    if settings.method in ("svd", "qr"):
        return rotation
    lead = settings.method == "chain"
    plan = stages(settings.objective, settings.eps, settings.zeros, len(columns), lead)
    for stage in plan[1:] if near else plan:
        seen = stage.sample(columns, settings.seed)
        rotation = ascend(seen, rotation, stage.objective, settings.iterations, watch, stage.tolerance)
    return rotation


def _beside(reduced: Reduced, near: Tensor, found: Tensor, settings: Settings, watch: Watch) -> Tensor:
    """The last ascent of the chain once more, on the columns and those at points near their inputs."""
    both = torch.cat([reduced.columns, reduced.span.to(near) @ near], 1)
    last = stages(settings.objective, settings.eps, settings.zeros, len(both))[-1]
    with watch.run("with points nearby"):
        return ascend(both, found, last.objective, settings.iterations, watch, last.tolerance)


def _check_near(near: Tensor, columns: Tensor, method: str) -> Tensor:
    """Columns at points nearby, at a root mean square of 1."""
    if method != "chain":
        raise BasisError(f'columns at points nearby are for the method "chain"; got them with {method!r}')
    scaled = check_columns(near)
    if len(scaled) != len(columns):
        raise BasisError(
            f"columns at points nearby must have the {len(columns)} rows of the others; got {len(scaled)}. "
            "Take both from one segment, at the same side"
        )
    return scaled.to(columns)


def _fit_invertible(reduced: Reduced, settings: Settings, watch: Watch) -> Invertible:
    chain = replace(settings, method="chain", objective="l1", zeros=False)
    start = _run(reduced.columns, chain, reduced.principal, watch)
    oblique = fit_oblique(reduced.columns, start, 2 * settings.iterations, watch)
    return Invertible.from_matrix(reduced.embed(oblique), label="invertible", trace=watch.trace())
