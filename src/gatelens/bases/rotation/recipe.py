"""JacobianRotation: rotations at the hook points of a chain of segments, each seen from its neighbour's coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...activations.collecting import hook_names
from ...basis.linear import Basis, neurons
from ...basis.recipe import AtWork, RecipeDefaults
from ...errors import BasisError
from ...jacobians import jacobian_columns, points_near
from ...models import host
from ...segments import Segment
from ...store.estimate import Estimate, in_all, only_the_largest, reading
from .checks import quiet
from .fit import Settings, fit_rotation
from .result import FittedRotation, Invertible
from .stages import objective_named

Fitted = dict[str, FittedRotation | Invertible]


@dataclass(frozen=True)
class JacobianRotation(RecipeDefaults):
    """Coordinates in which local changes have local effects, for many inputs at once.

    With D the slopes of the nonlinearity NL and M_k the weights, "forward" fits R1 to the Jacobians J(NL M1), R2 to
    J(NL M2 R1^-1), R3 to J(NL M3 R2^-1) and so on: the input's coordinates are taken as they are. "backward" starts at the
    output and rotates the inputs of each segment. "both" begins with "forward" and then fits every hook point again to
    the segment before it and the one behind it, in their current coordinates, `sweeps` times; for one segment that is
    the two-sided fit. Input sides of gated linear maps are degenerate (a warning says so, with the QR baseline).

    Attributes:
        direction: "forward", "backward" or "both".
        method, objective, zeros, eps, iterations, seconds, restarts: as in `fit_rotation`; `seconds` for each fit.
        inputs: rows at which Jacobians are taken. One does not carry over to other inputs; 64 do.
        neighbours: points around each input at which the chain sees Jacobians too, in its last ascent: what it finds then
            carries over better to other inputs, and takes longer (at 768 dimensions three times as long). None for 3 up to 256
            dimensions and 0 above; the sweeps of "both" use none. spread: how far they lie from the input, in standard
            deviations of the inputs.
        columns: Jacobian columns for each dimension; None for 64 up to 256 dimensions, 32 up to 512, 16 above.
        sweeps: of "both".
        seed: of the choice of inputs and columns, and of random starts.
        progress: bars on standard error; None: where somebody watches.

    Source: "Faster ICA under Orthogonal Constraint", whose steps are used.

    Raises:
        BasisError: settings out of range; from `fit`, segments that are not in the order in which data flows.

    Examples:
        >>> images, _ = gl.image_batches("digits", rows=200)
        >>> mlp = gl.HookedMLP((64, 16, 16, 10))
        >>> maps = gl.mlp_segments(mlp)
        >>> gl.JacobianRotation(inputs=8).fit(maps, gl.collect(mlp, images, maps))["hook_post.1"]
        Rotation(chain: 16 -> 16, fitted to 128 columns, ...)
    """

    direction: str = "forward"
    method: str = "chain"
    objective: str = "l1"
    zeros: bool = False
    inputs: int = 64
    neighbours: int | None = None
    spread: float = 0.35
    columns: int | None = None
    sweeps: int = 2
    eps: float = 0.1
    iterations: int = 150
    seconds: float | None = None
    restarts: int = 1
    seed: int = 0
    progress: bool | None = None

    def __post_init__(self):
        if self.direction not in ("forward", "backward", "both"):
            raise BasisError(f'direction must be "forward", "backward" or "both", got {self.direction!r}')
        if self.inputs < 1 or self.sweeps < 1 or (self.columns is not None and self.columns < 1):
            raise BasisError(
                f"inputs, columns and sweeps must be positive, got {self.inputs}, {self.columns} and {self.sweeps}"
            )
        if (self.neighbours or 0) < 0 or not self.spread > 0:
            raise BasisError(
                f"neighbours must be 0 or more and spread positive, got {self.neighbours} and {self.spread}"
            )
        object.__setattr__(self, "objective", objective_named(self.objective))
        Settings(self.method, self.objective, self.zeros, None, self.eps, self.iterations, self.seconds, self.restarts)

    is_rotation = True

    def estimate(self, hook: str, rows: int, width: int) -> Estimate:
        """The columns of one hook point as drawn, scaled, in blocks and in the optimiser, with those at points nearby; or the
        activations, of which few rows are kept."""
        near = replace(self, method="chain").points_each(width)
        drawn = 4 * width * width * min(self.columns or columns_for(width), self.inputs)
        work = {"the activations": reading(rows, [width]), "the columns and their copies": (7 + 4 * near) * drawn}
        return in_all("bases", only_the_largest(work), disk=4 * width * width)

    def fit(self, segments: Sequence[Segment], acts: Mapping[str, Tensor]) -> dict[str, Basis]:
        """A basis for every hook point of the segments; those that the direction leaves alone get the neurons'.

        Args:
            segments: in the order in which data flows.
            acts: activations at each segment's input.
        """
        check_chain(segments)
        fitted: Fitted = {}
        acts = AtWork(segments, acts)
        if self.direction in ("forward", "both"):
            for segment in segments:
                fitted[segment.hook_out] = self._fit_end(segment, "out", fitted, acts)
        else:
            for segment in reversed(segments):
                fitted[segment.hook_in] = self._fit_end(segment, "in", fitted, acts)
        if self.direction == "both":
            for _ in range(self.sweeps):
                self._sweep(segments, fitted, acts)
        widths = {s.hook_in: s.d_in for s in segments} | {s.hook_out: s.d_out for s in segments}
        like = acts[segments[0].hook_in]
        return host({h: fitted[h] if h in fitted else neurons(widths[h], like) for h in hook_names(segments)})

    def _fit_end(
        self, segment: Segment, side: str, fitted: Fitted, acts: Mapping[str, Tensor]
    ) -> FittedRotation | Invertible:
        """A basis for one end of a segment, in the coordinates so far of the other."""
        x = chosen_rows(acts[segment.hook_in], self.inputs, self.seed)
        columns, near = self._columns(segment, side, fitted, x, len(x)), None
        if each := self.points_each(segment.d_out if side == "out" else segment.d_in):
            points = points_near(x, each, self.spread, self.seed)
            with quiet():  # that Jacobians are zero was said of the inputs
                near = self._columns(segment, side, fitted, points, len(x))
        return self.fit_columns(columns, near=near)

    def _sweep(self, segments: Sequence[Segment], fitted: Fitted, acts: Mapping[str, Tensor]) -> None:
        """Fit every hook point again, from where it is, to the segments on both of its sides."""
        for hook in hook_names(segments):
            before = [self.columns_of(s, "out", acts[s.hook_in], fitted) for s in segments if s.hook_out == hook]
            behind = [self.columns_of(s, "in", acts[s.hook_in], fitted) for s in segments if s.hook_in == hook]
            current = fitted.get(hook)
            start = current.matrix if isinstance(current, FittedRotation) else None
            fitted[hook] = self.fit_columns(torch.cat(before + behind, dim=1), start)

    def per_input(self, segment: Segment, side: str, inputs: int) -> int:
        """How many columns to take of each input's Jacobian."""
        dimensions = segment.d_out if side == "out" else segment.d_in
        return -(-dimensions * (self.columns or columns_for(dimensions)) // inputs)

    def points_each(self, dimensions: int) -> int:
        """How many points around each input the fit sees."""
        if self.method != "chain":
            return 0
        return (3 if dimensions <= 256 else 0) if self.neighbours is None else self.neighbours

    def fit_columns(
        self,
        columns: Float[Tensor, "d m"],
        start: Float[Tensor, "d d"] | None = None,
        near: Float[Tensor, "d k"] | None = None,
    ) -> FittedRotation | Invertible:
        """`fit_rotation` with these settings; with a start, L-BFGS from there instead of the chain."""
        method = "lbfgs" if start is not None and self.method == "chain" else self.method
        shared = ("objective", "zeros", "eps", "iterations", "seconds", "restarts", "seed", "progress")
        return fit_rotation(columns, method, near=near, start=start, **{name: getattr(self, name) for name in shared})

    def columns_of(
        self,
        segment: Segment,
        side: str,
        x: Float[Tensor, "rows d_in"],
        bases: Mapping[str, Any] | None = None,
        count: int | None = None,
    ) -> Float[Tensor, "d m"]:
        """Columns at one end of a segment for some of the rows, in the coordinates that `bases` have for the other end.

        Args:
            count: how many rows, if not `inputs`; each is given no more columns for that.
        """
        rows = chosen_rows(x, self.inputs if count is None else count, self.seed)
        return self._columns(
            segment, side, bases or {}, rows, len(rows) if count is None else max(len(rows), self.inputs)
        )

    def _columns(
        self, segment: Segment, side: str, bases: Mapping[str, Any], x: Float[Tensor, "rows d_in"], inputs: int
    ) -> Float[Tensor, "d m"]:
        """So many columns of each row as make enough of them with so many inputs."""
        each = self.per_input(segment, side, inputs)
        basis_in = bases.get(segment.hook_in) if side == "out" else None
        basis_out = bases.get(segment.hook_out) if side == "in" else None
        return jacobian_columns(segment, x, each, side, basis_in, basis_out, self.seed)


def columns_for(dimensions: int) -> int:
    """Columns for each dimension: as many as a fit of minutes can use. Under 16 a fit begins to follow its sample."""
    return 64 if dimensions <= 256 else 32 if dimensions <= 512 else 16


def chosen_rows(x: Float[Tensor, "rows d"], count: int, seed: int) -> Float[Tensor, "kept d"]:
    """`count` rows at random, or all of them."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed), device="cpu")[:count]
    return x[order.to(x.device)]


def check_chain(segments: Sequence[Segment]) -> None:
    """Refuse no segments, two that end at one hook point, and segments against the order of the data."""
    ends = [s.hook_out for s in segments]
    if not segments or len(set(ends)) < len(ends):
        raise BasisError(f"expected one or more segments with different ends, got ends at {', '.join(ends) or 'none'}")
    for place, segment in enumerate(segments):
        if segment.hook_in in ends[place:]:
            raise BasisError(
                f"segment {segment.name} begins where a later one ends: give the segments in the order in which data flows"
            )
