"""Rank of a segment, input by input: how many directions its Jacobian uses at each point.

Only exact rank is the same in all coordinates. Effective ranks depend on the metric: raw (as stored) or whitened, where
both ends are scaled to unit covariance of their activations. Entropy rank: Roy and Vetterli, "The effective rank", 2007.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import DataError, GateLensWarning, NonFiniteError, TooLargeError
from ..segments import Segment

MAX_ENTRIES = 2**28  # of a stack of Jacobians; 1 GiB in float32


@dataclass(frozen=True)
class Ranks:
    """Ranks of N Jacobians.

    Attributes:
        singular: [N, s] singular values, descending; s = min(o, i), or fewer when they were sketched.
        energy: [N] sum of their squares (of all of them, estimated when sketched).
        metric: "raw" or "whitened"; all figures but `exact` depend on it.
        active: [N] units that are on at each input, a bound on the exact rank of a ReLU layer; None where there are none.
        zero: inputs whose Jacobian is zero; they are left out of every figure.
        sketched: whether only the leading singular values are known; then rank figures are lower bounds.
    """

    singular: Float[Tensor, "N s"]
    energy: Float[Tensor, " N"]
    metric: str = "raw"
    active: Int[Tensor, " N"] | None = None
    zero: int = 0
    sketched: bool = False

    def energy_rank(self, share: float = 0.95) -> Int[Tensor, " N"]:
        """[N] how many singular values hold `share` of the squared mass; s + 1 where even s do not."""
        held = (self.singular**2).cumsum(1) / self.energy[:, None]
        return (held < share - 1e-9).sum(1) + 1

    @property
    def entropy_rank(self) -> Float[Tensor, " N"]:
        """[N] exp of the entropy of the singular values, normalised to sum 1."""
        p = self.singular / self.singular.sum(1, keepdim=True)
        return torch.exp(-torch.xlogy(p, p).sum(1))

    @property
    def participation(self) -> Float[Tensor, " N"]:
        """[N] (sum s^2)^2 / sum s^4: how many equal singular values would spread the squared mass as widely."""
        return self.energy**2 / (self.singular**4).sum(1)

    @property
    def exact(self) -> Int[Tensor, " N"]:
        """[N] singular values above rounding: eps of the precision times s times the largest."""
        eps = torch.finfo(self.singular.dtype).eps * max(self.singular.shape[1], 16)
        return (self.singular > eps * self.singular[:, :1]).sum(1)

    def to_dict(self) -> dict[str, float | int | str | bool | None]:
        """Medians over the inputs, for reports."""
        median = lambda x: float(x.double().median())  # noqa: E731
        return {
            "metric": self.metric,
            "inputs": len(self.singular),
            "zero_jacobians": self.zero,
            "energy95": median(self.energy_rank()),
            "entropy_rank": median(self.entropy_rank),
            "participation": median(self.participation),
            "exact": median(self.exact),
            "active_units": None if self.active is None else median(self.active),
            "lower_bounds": self.sketched,
        }

    def __repr__(self) -> str:
        d = self.to_dict()
        bound = "" if d["active_units"] is None else f" (bound: {d['active_units']:.0f} active units)"
        zero = f"; {self.zero} inputs with a zero Jacobian left out" if self.zero else ""
        least = "at least " if self.sketched else ""
        return (
            f"Ranks({self.metric}, medians over {d['inputs']} inputs: energy-95 {least}{d['energy95']:.0f}, "
            f"entropy {least}{d['entropy_rank']:.1f}, participation {d['participation']:.1f}, "
            f"exact {least}{d['exact']:.0f}{bound}{zero})"
        )


def ranks(jacobians: Float[Tensor, "N o i"], metric: str = "raw", active: Int[Tensor, " N"] | None = None) -> Ranks:
    """Ranks from whole Jacobians.

    Raises:
        DataError: every Jacobian is zero (rank 0: no effective rank is defined).
        NonFiniteError: NaN or infinity.
    """
    if not torch.isfinite(jacobians).all():
        raise NonFiniteError("the Jacobians hold NaN or infinity; look at the model's weights and at the inputs")
    singular = torch.linalg.svdvals(jacobians)
    return ranks_of(singular, (singular**2).sum(1), metric, active)


def ranks_of(
    singular: Float[Tensor, "N s"],
    energy: Float[Tensor, " N"],
    metric: str = "raw",
    active: Int[Tensor, " N"] | None = None,
    sketched: bool = False,
) -> Ranks:
    """Ranks from singular values, the zero Jacobians left out and counted."""
    alive = energy > 0
    if not alive.any():
        raise DataError(
            f"all {len(energy)} Jacobians are zero (rank 0), so no effective rank is defined. The segment does not depend on "
            "these inputs: dead units, or a function that is constant here"
        )
    active = None if active is None else active[alive]
    return Ranks(singular[alive], energy[alive], metric, active, int((~alive).sum()), sketched)


def segment_jacobians(
    function: Segment | Callable[[Tensor], Tensor], x: Float[Tensor, "N i"], chunk: int = 64
) -> Float[Tensor, "N o i"]:
    """Whole Jacobians [out, in] of a rowwise function, exact.

    Through forward- or reverse-mode autograd, whichever needs fewer passes.

    Raises:
        TooLargeError: when they would not fit in memory; sketch them instead.
    """
    if isinstance(function, Segment):
        forward, x = function.forward, function.taken(x)
    else:
        forward = function
    with torch.no_grad():
        o = forward(x[:1]).shape[1]
    n, i = x.shape
    if n * o * i > MAX_ENTRIES:
        raise TooLargeError(
            f"{n} Jacobians of {o} x {i} hold {n * o * i:,} numbers, more than {MAX_ENTRIES:,}. "
            "Take fewer inputs, or `randomised_singular_values`"
        )
    differentiate = torch.func.jacrev if o <= i else torch.func.jacfwd
    one = differentiate(lambda row: forward(row[None])[0])
    return torch.cat([torch.func.vmap(one)(part).detach() for part in x.split(chunk)])


def segment_ranks(
    segment: Segment, x: Float[Tensor, "N i"], metric: str = "raw", covariance_of: Float[Tensor, "rows i"] | None = None
) -> Ranks:
    """Ranks of a segment at inputs x, with the units that are active at each.

    Args:
        metric: "raw", or "whitened" by the covariance of `covariance_of` (default: x) and of what the segment makes of it.
    """
    x = segment.taken(x)
    jacobians = segment_jacobians(segment, x)
    if metric == "whitened":
        rows = x if covariance_of is None else segment.taken(covariance_of)
        with torch.no_grad():
            jacobians, _ = whiten_jacobians(jacobians, rows, segment.forward(rows))
    elif metric != "raw":
        raise DataError(f'unknown metric {metric!r}: expected "raw" or "whitened"')
    return ranks(jacobians, metric, active_units(segment, x))


def active_units(segment: Segment, x: Float[Tensor, "N i"]) -> Int[Tensor, " N"] | None:
    """[N] hidden units with a positive pre-activation; None for a segment that is not one ReLU MLP."""
    mlp = segment.mlp
    if mlp is None or mlp.act != "relu" or mlp.W_gate is not None:
        return None
    with torch.no_grad():
        inside = x if segment.prenorm is None else segment.prenorm(x)
        return ((inside @ mlp.W_in + mlp.b_in) > 0).sum(1)


def whiten_jacobians(
    jacobians: Float[Tensor, "N o i"], x: Float[Tensor, "rows_in i"], y: Float[Tensor, "rows_out o"]
) -> tuple[Float[Tensor, "N o i"], str]:
    """C_y^{-1/2} J C_x^{1/2}: the Jacobians between unit-covariance coordinates; and a note on what was regularised."""
    root, _, note_in = covariance_roots(x, "input")
    _, inverse, note_out = covariance_roots(y, "output")
    note = "; ".join(n for n in (note_in, note_out) if n)
    return inverse.to(jacobians.dtype) @ jacobians @ root.to(jacobians.dtype), note


def covariance_roots(
    x: Float[Tensor, "rows d"], what: str = "activation", ridge: float = 1e-6
) -> tuple[Float[Tensor, "d d"], Float[Tensor, "d d"], str]:
    """C^{1/2}, C^{-1/2} (symmetric, float64) of the rows' covariance, and a note where it had to be regularised.

    Eigenvalues below `ridge` times their mean are raised to that; a warning says how many.

    Raises:
        DataError: fewer than two rows, or rows that are all the same. NonFiniteError: NaN or infinity among them.
    """
    if not torch.isfinite(x).all():
        raise NonFiniteError(f"the {what} rows hold NaN or infinity, of which no covariance can be taken")
    if len(x) < 2:
        raise DataError(f"a covariance needs at least two rows, got {len(x)}. Collect more activations")
    centred = x.double() - x.double().mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(x))
    mean = float(values.clamp_min(0).mean())
    if not mean > 1e-14 * float((x.double() ** 2).mean()):
        raise DataError(
            f"the {what} activations are constant over {len(x)} rows, so they have no covariance. Give varied inputs"
        )
    low = values < ridge * mean
    note = ""
    if low.any():
        note = f"{what} covariance is singular: {int(low.sum())} of {len(values)} eigenvalues raised to {ridge:g} of their mean"
        warnings.warn(note, GateLensWarning, stacklevel=2)
    values = values.clamp_min(ridge * mean)
    return (vectors * values.sqrt()) @ vectors.T, (vectors * values.rsqrt()) @ vectors.T, note
