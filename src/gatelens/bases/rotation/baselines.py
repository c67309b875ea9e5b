"""What a rotation has to beat: the neurons' basis, a random rotation, SVD, QR, and sparsity fitted to nothing but noise.

At the end what readers of such rotations asked, as functions: each gives figures, the nulls beside them, and a verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...activations.collecting import hook_names
from ...basis.linear import Basis
from ...errors import BasisError
from ...jacobians import Sparsity, sparsity
from ...jacobians.sparsity import EPS
from ...segments import Segment
from .checks import quiet
from .fit import fit_rotation
from .recipe import JacobianRotation
from .result import FittedRotation, Invertible
from .starts import qr_rotation, random_rotation, svd_rotation

NEURONS, NOISE = "neurons", "fitted to noise"
#: so close to the best counts as enough
_TOLERANCE = 0.02
_SAME = 1e-6  # relative difference of two mean |y| that is rounding: the rotation is the neurons in another order


def baseline_table(
    columns: Float[Tensor, "d m"],
    held_out: Float[Tensor, "d k"],
    fitted: Basis | None = None,
    eps: Sequence[float] = EPS,
    seed: int = 0,
    noise: bool = True,
) -> dict[str, Sparsity]:
    """The sparsity of held-out columns in each basis.

    Args:
        columns: what was fitted to; SVD and QR are taken from them as well.
        held_out: columns of other inputs.
        fitted: the basis in question, reported as "rotation".
        noise: also fit a rotation to Gaussian columns of the shape of `columns` and report how sparse it makes those
            very columns: sparsity that a search finds in nothing.
    """
    n = len(columns)
    random = random_rotation(n, seed).to(columns)
    table = {} if fitted is None else {"rotation": sparsity(fitted.encode(held_out.T), eps)}
    table |= {
        NEURONS: sparsity(held_out, eps),
        "random": sparsity(random @ held_out, eps),
        "svd": sparsity(svd_rotation(columns) @ held_out, eps),
        "qr": sparsity(qr_rotation(columns) @ held_out, eps),
    }
    if noise:
        gaussian = torch.randn(columns.shape, generator=torch.Generator().manual_seed(seed), device="cpu").to(columns)
        with quiet():
            table[NOISE] = sparsity(_matrix(fit_rotation(gaussian)) @ gaussian, eps)
    return table


def rotation_report(
    segments: Sequence[Segment],
    bases: Mapping[str, Basis],
    acts: Mapping[str, Tensor],
    held_out: Mapping[str, Tensor],
    recipe: JacobianRotation | None = None,
) -> dict[str, dict[str, Any]]:
    """hook -> the rotation there with its baselines on held-out inputs, as plain values; fitted rotations only.

    Each is measured on what it was fitted to: the columns of the Jacobian that ends at its hook point, or the rows of the
    one that begins there ("backward", and a hook point where nothing ends). The other end is read as `bases` has it.
    """
    recipe = recipe or JacobianRotation()
    report: dict[str, dict[str, Any]] = {}
    sides = ("in", "out") if recipe.direction == "backward" else ("out", "in")
    for side in sides:
        for segment in segments:
            hook = segment.hook_out if side == "out" else segment.hook_in
            basis = bases.get(hook)
            if hook not in report and isinstance(basis, FittedRotation | Invertible):
                report[hook] = _entry(segment, side, basis, bases, acts, held_out, recipe)
    return {hook: report[hook] for hook in hook_names(segments) if hook in report}


def _entry(
    segment: Segment,
    side: str,
    basis: FittedRotation | Invertible,
    bases: Mapping[str, Basis],
    acts: Mapping[str, Tensor],
    held_out: Mapping[str, Tensor],
    recipe: JacobianRotation,
) -> dict[str, Any]:
    fit, held = (recipe.columns_of(segment, side, a[segment.hook_in], bases) for a in (acts, held_out))
    table = baseline_table(fit, held, basis, seed=recipe.seed)
    return {
        "segment": segment.name,
        "side": side,
        "label": basis.label,
        "dead": getattr(basis, "dead", 0),
        "iterations": len(basis.trace),
        "seconds": basis.trace.seconds[-1] if len(basis.trace) else 0.0,
        "sparsity": {name: s.to_dict() for name, s in table.items()},
        "verdict": verdict(table),
    }


def verdict(table: Mapping[str, Sparsity]) -> str:
    """Two or three clauses on the rotation: against the neurons by L1 and by the reciprocal measure, and against what needs no search."""
    rotation, neurons = table["rotation"], table[NEURONS]
    change = 1 - rotation.l1 / neurons.l1
    if abs(change) < _SAME:
        return "the neurons are kept: on the inputs fitted no rotation that was found is sparser"
    said = [f"held out, mean |y| is {abs(change):.1%} {'lower' if change > 0 else 'higher'} than in the neuron basis"]
    lost = ", ".join(f"{e:g}" for e in rotation.reciprocal if neurons.reciprocal[e] >= rotation.reciprocal[e])
    won = ", ".join(f"{e:g}" for e in rotation.reciprocal if neurons.reciprocal[e] < rotation.reciprocal[e])
    if lost and won:
        said.append(f"on the reciprocal measure the neuron basis wins at eps {lost} RMS, the rotation at eps {won} RMS")
    elif rotation.reciprocal:
        said.append(
            f"on the reciprocal measure the {'neuron basis' if lost else 'rotation'} wins at every eps ({lost or won} RMS)"
        )
    better = [name for name in ("random", "svd", "qr") if name in table and table[name].l1 <= rotation.l1]
    if better:
        said.append(f"{' and '.join(better)}, which need no search, have as low a mean |y|")
    return "; ".join(said)


@dataclass(frozen=True)
class Answer:
    """A question with what was measured.

    Attributes:
        verdict: the answer in one sentence, negative ones included.
        figures: name -> value. baselines: name -> the same figure for nulls and ceilings.
    """

    question: str
    verdict: str
    figures: dict[str, float] = field(default_factory=dict)
    baselines: dict[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        def show(values: Mapping[str, float]) -> str:
            return "  ".join(f"{name}: {value:.3f}" for name, value in values.items())

        return f"{self.question}\n  {self.verdict}\n  {show(self.figures)}\n  beside: {show(self.baselines)}"


def inputs_needed(
    segment: Segment,
    fit: Float[Tensor, "rows d_in"],
    held_out: Float[Tensor, "others d_in"],
    counts: Sequence[int] = (1, 4, 16, 64, 256),
) -> Answer:
    """How many inputs must be fitted until the rotation serves inputs that it has not seen? Mean |y|, lower is better."""
    recipe = JacobianRotation()
    counts = sorted({c for c in counts if 1 <= c <= len(fit)})
    if not counts:
        raise BasisError(f"every count must lie between 1 and the {len(fit)} rows that were given")
    held = recipe.columns_of(segment, "out", held_out, count=len(held_out))
    curve, train, columns = {}, {}, held
    for count in counts:
        columns = recipe.columns_of(segment, "out", fit, count=count)
        with quiet():  # too few columns is the point
            rotation = _matrix(recipe.fit_columns(columns))
        curve[count], train[count] = sparsity(rotation @ held).l1, sparsity(rotation @ columns).l1
    table = {k: v.l1 for k, v in baseline_table(columns, held, seed=recipe.seed).items()}
    best = min(curve.values())
    enough = min(c for c in counts if curve[c] <= best * (1 + _TOLERANCE))
    helps = [c for c in counts if curve[c] < table[NEURONS]]
    if helps:
        said = f"{enough} inputs come within {_TOLERANCE:.0%} of the best of {counts[-1]}; the neuron basis is beaten from {helps[0]} on"
    else:
        said = f"no count up to {counts[-1]} beats the neuron basis on held-out inputs"
    figures = {f"held out, {c} inputs": v for c, v in curve.items()} | {
        f"fitted, {c} inputs": v for c, v in train.items()
    }
    return Answer("How many inputs are needed?", said, figures, table)


def rotation_against_neurons(
    columns: Float[Tensor, "d m"],
    held_out: Float[Tensor, "d k"],
) -> Answer:
    """Does the rotation beat the neuron basis, and at which sharpness of the reciprocal measure? On held-out columns."""
    table = baseline_table(columns, held_out, fit_rotation(columns))

    def flat(name: str) -> dict[str, float]:
        return {"mean |y|": table[name].l1} | {
            f"reciprocal measure, eps {e:g}": v for e, v in table[name].reciprocal.items()
        }

    beside = {f"{name}, {k}": v for name in table if name != "rotation" for k, v in flat(name).items()}
    return Answer("Does it beat the neuron basis?", verdict(table), flat("rotation"), beside)


def _matrix(fitted: FittedRotation | Invertible) -> Tensor:
    return fitted.matrix if isinstance(fitted, FittedRotation) else fitted.W_enc.T
