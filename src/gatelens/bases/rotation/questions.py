"""What readers of such rotations asked, as functions: each gives figures, the nulls beside them, and a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from ...errors import BasisError
from ...jacobians import jacobian_columns, sparsity
from ...jacobians.sparsity import EPS
from ...segments import Segment
from .baselines import NEURONS, baseline_table, verdict
from .checks import quiet
from .fit import fit_rotation
from .recipe import JacobianRotation, chosen_rows

#: so close to the best counts as enough
_TOLERANCE = 0.02


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
    held = _columns(segment, held_out, recipe, len(held_out))
    curve, train, columns = {}, {}, held
    for count in counts:
        columns = _columns(segment, fit, recipe, count)
        with quiet():  # too few columns is the point
            rotation = _matrix(columns, recipe)
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
    table = baseline_table(columns, held_out, fit_rotation(columns), EPS)

    def flat(name: str) -> dict[str, float]:
        return {"mean |y|": table[name].l1} | {
            f"reciprocal measure, eps {e:g}": v for e, v in table[name].reciprocal.items()
        }

    beside = {f"{name}, {k}": v for name in table if name != "rotation" for k, v in flat(name).items()}
    return Answer("Does it beat the neuron basis?", verdict(table), flat("rotation"), beside)


def _columns(
    segment: Segment, x: Tensor, recipe: JacobianRotation, count: int | None = None, side: str = "out"
) -> Tensor:
    rows = chosen_rows(x, recipe.inputs if count is None else count, recipe.seed)
    return jacobian_columns(
        segment, rows, recipe.per_input(segment, side, max(len(rows), recipe.inputs)), side, seed=recipe.seed
    )


def _matrix(columns: Tensor, recipe: JacobianRotation) -> Tensor:
    return recipe.fit_columns(columns).matrix  # pyright: ignore[reportAttributeAccessIssue]
