"""Further questions to rotations: do neighbours' bases match, is the basis unique, are the first and the last the neurons?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from _rotation_matching import match_rotations, random_match, row_energy
from jaxtyping import Float
from torch import Tensor

from gatelens.bases.rotation.baselines import Answer
from gatelens.bases.rotation.checks import quiet
from gatelens.bases.rotation.fit import fit_rotation
from gatelens.bases.rotation.recipe import JacobianRotation
from gatelens.bases.rotation.starts import random_rotation, svd_rotation
from gatelens.errors import BasisError
from gatelens.jacobians import sparsity
from gatelens.segments import Segment


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
        outs = [_fitted(first, "out", h[first.hook_in], recipe) for h in halves]
        ins = [_fitted(second, "in", h[second.hook_in], recipe) for h in halves]
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
        columns = recipe.columns_of(segment, "out", acts[segment.hook_in], count=recipe.inputs)
        eye = torch.eye(segment.d_out)
        with quiet():
            cold = recipe.fit_columns(columns).matrix  # pyright: ignore
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


def _fitted(segment: Segment, side: str, x: Tensor, recipe: JacobianRotation) -> Tensor:
    return recipe.fit_columns(recipe.columns_of(segment, side, x, count=recipe.inputs)).matrix  # pyright: ignore


def _half(acts: Mapping[str, Tensor], first: Segment, second: Segment, which: int) -> dict[str, Tensor]:
    return {h: acts[h][which::2] for h in (first.hook_in, second.hook_in)}
