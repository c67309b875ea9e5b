"""Fitting bases at all hook points of a walk: one recipe for all, or one for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass, replace
from typing import Any

from torch import Tensor

from ..activations.collecting import hook_names
from ..errors import ConfigError, unknown
from ..segments import Segment
from .linear import Basis


def preflight(recipes: Mapping[str, Any], segments: Sequence[Segment]) -> None:
    """Let every recipe refuse what it can refuse without activations: before any forward pass over the data."""
    widths = {s.hook_in: s.d_in for s in segments} | {s.hook_out: s.d_out for s in segments}
    for hook, recipe in recipes.items():
        if hasattr(recipe, "preflight"):
            for name in [hook] if hook else widths:
                if name in widths:
                    recipe.preflight(name, widths[name])


def fit_bases(
    recipes: Mapping[str, Any], segments: Sequence[Segment], acts: Mapping[str, Tensor], progress: bool | None = None
) -> dict[str, Basis]:
    """hook name -> basis.

    Args:
        recipes: {"": recipe} for all hook points, or hook name -> recipe; a recipe has `fit(segments, acts)`.

    Raises:
        ConfigError: a hook point of the segments without a recipe, or a recipe for another one.
    """
    hooks = hook_names(segments)
    for hook in recipes:
        if hook and hook not in hooks:
            raise ConfigError(
                f"bases: {unknown('hook point', hook, hooks)}; bases are wanted at the ends of the segments"
            )
    missing = [] if "" in recipes else [h for h in hooks if h not in recipes]
    if missing:
        raise ConfigError(f"bases: no recipe for {missing[0]}; give one, or one `use:` for all")
    bases: dict[str, Basis] = {}
    for hook, recipe in recipes.items():
        if is_dataclass(recipe) and hasattr(recipe, "progress") and progress is not None:
            recipe = replace(recipe, progress=progress)  # pyright: ignore[reportArgumentType]
        bases |= recipe.fit(segments, acts) if not hook else {hook: _at_one(recipe, hook, segments, acts)}
    return bases


def _at_one(recipe: Any, hook: str, segments: Sequence[Segment], acts: Mapping[str, Tensor]) -> Basis:
    """One hook point's basis; a recipe that treats hook points one by one does only this one."""
    if hasattr(recipe, "load_for"):
        return recipe.load_for(hook, acts[hook])
    if hasattr(recipe, "train"):
        return recipe.train(acts[hook], hook)
    return recipe.fit(segments, acts)[hook]
