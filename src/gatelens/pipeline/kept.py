"""Bases that are fitted already, as recipes: a walk takes them as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..bases.sae.fitness import check_at_hand
from ..bases.sae.pretrained import PretrainedSAE
from ..basis.linear import Basis, basis_width
from ..basis.output import at_output
from ..basis.recipe import RecipeDefaults, is_recipe
from ..gate_dictionaries.doors import taken_in
from ..segments import Segment


@dataclass(frozen=True)
class Kept(RecipeDefaults):
    """A basis at hand."""

    basis: Any
    apart = True

    def fit(self, segments: Sequence[Segment], acts: Mapping[str, Tensor]) -> dict[str, Basis]:
        return {hook: self.fit_at(hook, segments, acts) for s in segments for hook in (s.hook_in, s.hook_out)}

    def fit_at(self, hook: str, segments: Sequence[Segment], acts: Mapping[str, Tensor]) -> Basis:
        if at_output(self.basis).reads_output:
            check_at_hand(self.basis, hook, acts[hook])
        return self.basis

    def shape_at(self, hook: str, width: int) -> tuple[int, float]:
        features = basis_width(self.basis, width)
        return features, float(features)

    def for_null(self, hook: str, width: int, features: int, active: float, seed: int) -> Any | None:
        """An SAE as wide and as active, trained on the other model; none stands in for a dictionary of a pair."""
        if not at_output(self.basis).reads_output:
            return None
        if active > features / 2:  # a rotation, neurons: the same coordinates serve
            return self
        return PretrainedSAE(self.basis).for_null(hook, width, features, active, seed)


def kept(bases: Any, segments: Sequence[Segment]) -> dict[str, Any]:
    """ "" or hook name -> recipe, from a recipe, or from a mapping whose values are bases or recipes.

    Raises:
        BasisError: a basis that is none, or of another width.
    """
    if not isinstance(bases, Mapping):
        return {"": bases}
    recipes = {hook: value for hook, value in bases.items() if is_recipe(value)}
    fitted = taken_in({hook: value for hook, value in bases.items() if hook not in recipes}, segments)
    return recipes | {hook: Kept(basis) for hook, basis in fitted.items()}
