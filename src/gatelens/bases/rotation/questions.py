"""What readers of such rotations asked, as functions: each gives figures, the nulls beside them, and a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import BasisError
from ...jacobians import jacobian_columns, sparsity
from ...jacobians.sparsity import EPS
from ...segments import Segment
from .baselines import NEURONS, baseline_table, verdict
from .checks import quiet
from .fit import fit_rotation
from .matching import match_rotations, random_match, row_energy
from .recipe import JacobianRotation, chosen_rows
from .starts import random_rotation, svd_rotation


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
    recipe: JacobianRotation | None = None,
    tolerance: float = 0.02,
) -> Answer:
    """How many inputs must be fitted until the rotation serves inputs that it has not seen? Mean |y|, lower is better."""
    recipe = recipe or JacobianRotation()
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
    enough = min(c for c in counts if curve[c] <= best * (1 + tolerance))
    helps = [c for c in counts if curve[c] < table[NEURONS]]
    if helps:
        said = f"{enough} inputs come within {tolerance:.0%} of the best of {counts[-1]}; the neuron basis is beaten from {helps[0]} on"
    else:
        said = f"no count up to {counts[-1]} beats the neuron basis on held-out inputs"
    figures = {f"held out, {c} inputs": v for c, v in curve.items()} | {
        f"fitted, {c} inputs": v for c, v in train.items()
    }
    return Answer("How many inputs are needed?", said, figures, table)


def composition_match(
    first: Segment, second: Segment, acts: Mapping[str, Tensor], recipe: JacobianRotation | None = None
) -> Answer:
    """Does the output basis of X -> Y match the input basis of Y -> Z? Mean |cos| of matched rows.

    Beside it: pairs of random rotations (the floor), and each of the two fitted again to other inputs (what agreement
    with itself such a fit reaches: the ceiling).
    """
    recipe = recipe or JacobianRotation()
    if first.hook_out != second.hook_in:
        raise BasisError(f"{first.name} and {second.name} do not meet: the first must end where the second begins")
    halves = [_half(acts, first, second, k) for k in (0, 1)]
    with quiet():  # the input side of a gated map is degenerate: the verdict says what that means
        outs = [_matrix(_columns(first, h[first.hook_in], recipe), recipe) for h in halves]
        ins = [_matrix(_columns(second, h[second.hook_in], recipe, side="in"), recipe) for h in halves]
    found = (match_rotations(outs[0], ins[0]) + match_rotations(outs[1], ins[1])) / 2
    floor = random_match(first.d_out, seed=recipe.seed)
    refit = {"output side, refitted": match_rotations(*outs), "input side, refitted": match_rotations(*ins)}
    ceiling = min(refit.values())
    share = (found - floor) / max(ceiling - floor, 1e-9)
    said = f"{found:.3f} lies {share:.0%} of the way from random pairs ({floor:.3f}) to a refit ({ceiling:.3f}): "
    said += "no match" if share < 0.2 else "they match" if share > 0.8 else "a partial match"
    if ceiling - floor < 0.1:
        said += ". One of the two bases is hardly more like itself than a random one, so the question has no sharp answer here"
    return Answer(
        "Does the output basis match the next input basis?", said, {"match": found}, {"random pairs": floor, **refit}
    )


def uniqueness(columns: Float[Tensor, "d m"], starts: int = 4, seed: int = 0, iterations: int = 150) -> Answer:
    """Is the sparsest basis unique? The default chain from random starts, its fits matched in pairs (rows alike, by energy)."""
    if starts < 2:
        raise BasisError(f"uniqueness compares fits from two or more starts, got {starts}")
    fits = []
    for k in range(starts):
        found = fit_rotation(columns, start="random", seed=seed + k, iterations=iterations)
        fits.append(found.matrix)  # pyright: ignore[reportAttributeAccessIssue]
    pairs = list(combinations(fits, 2))
    alike = sum(match_rotations(a, b) for a, b in pairs) / len(pairs)
    weighted = sum(match_rotations(a, b, row_energy(a, columns)) for a, b in pairs) / len(pairs)
    values = [sparsity(r @ columns).l1 for r in fits]
    spread = (max(values) - min(values)) / min(values)
    floor = random_match(len(columns), seed=seed)
    figures = {
        "match over starts": alike,
        "weighted by energy": weighted,
        "lowest mean |y|": min(values),
        "highest mean |y|": max(values),
    }
    if alike > 0.95:
        said = f"the fits agree ({alike:.3f}): the basis does not hang on the start"
    elif spread < 0.01:
        said = f"no: equally sparse fits (mean |y| within {spread:.2%}) are different bases ({alike:.3f}, random pairs {floor:.3f})"
    else:
        said = f"no: fits from other starts differ in value by {spread:.1%} and as bases ({alike:.3f}, random pairs {floor:.3f})"
    beside = {
        "random pairs": floor,
        "neurons, mean |y|": sparsity(columns).l1,
        "svd, mean |y|": sparsity(svd_rotation(columns) @ columns).l1,
    }
    return Answer("Is the basis unique?", said, figures, beside)


def ends_are_neurons(
    segments: Sequence[Segment], acts: Mapping[str, Tensor], recipe: JacobianRotation | None = None
) -> Answer:
    """Is the output rotation of the first and the last map the identity? Mean |cos| with the neurons, and the L1 gained.

    Each map is read in the neurons' coordinates of its input. A start at the identity is given as well: where even that
    leaves, the neurons are no optimum.
    """
    recipe = recipe or JacobianRotation()
    figures: dict[str, float] = {}
    beside: dict[str, float] = {}
    near: list[bool] = []
    for segment in segments:
        columns = _columns(segment, acts[segment.hook_in], recipe)
        eye = torch.eye(segment.d_out)
        with quiet():
            cold = _matrix(columns, recipe)
            warm = fit_rotation(columns, "lbfgs", start="identity", iterations=recipe.iterations).matrix  # pyright: ignore
        best = min((cold, warm), key=lambda r: sparsity(r @ columns).l1)
        match = match_rotations(best, eye.to(best))
        figures[f"{segment.hook_out}: match with the neurons"] = match
        figures[f"{segment.hook_out}: from the identity"] = match_rotations(warm, eye.to(warm))
        figures[f"{segment.hook_out}: mean |y| gained"] = 1 - sparsity(best @ columns).l1 / sparsity(columns).l1
        beside[f"{segment.hook_out}: random rotation"] = match_rotations(
            random_rotation(segment.d_out, recipe.seed), eye
        )
        near.append(match > 0.9)
    ends = {"first": near[0], "last": near[-1]}
    yes = [name for name, is_near in ends.items() if is_near]
    said = (
        f"the identity is found for the {' and '.join(yes)} map"
        if yes
        else "not the identity, neither for the first nor for the last map"
    )
    return Answer("Is the rotation the identity for the first and last layers?", said, figures, beside)


def rotation_against_neurons(
    columns: Float[Tensor, "d m"],
    held_out: Float[Tensor, "d k"],
    eps: Sequence[float] = EPS,
    seed: int = 0,
    zeros: bool = False,
) -> Answer:
    """Does the rotation beat the neuron basis, and at which sharpness of the seed measure? On held-out columns."""
    fitted = fit_rotation(columns, zeros=zeros, seed=seed)
    table = baseline_table(columns, held_out, fitted, eps, seed)

    def flat(name: str) -> dict[str, float]:
        return {"mean |y|": table[name].l1} | {f"seed measure, eps {e:g}": v for e, v in table[name].seed.items()}

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


def _half(acts: Mapping[str, Tensor], first: Segment, second: Segment, which: int) -> dict[str, Tensor]:
    return {h: acts[h][which::2] for h in (first.hook_in, second.hook_in)}
