"""What stands at the ends of segments: bases, fitted by one recipe for all hook points or by one for each, and features, encoded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..activations.checking import check_together, rows_at
from ..activations.collecting import hook_names
from ..errors import ConfigError, unknown
from ..errors.progress import bar
from ..models import there
from ..segments import Segment
from .features import encode_rows
from .linear import Basis
from .output import output_features
from .recipe import as_recipe


def features_at(
    segments: Sequence[Segment], bases: Mapping[str, Basis], acts: Mapping[str, Any], progress: bool | None = None
) -> dict[str, Tensor]:
    """hook name -> features; each hook point is encoded once."""
    features: dict[str, Tensor] = {}
    bases = there(dict(bases), segments[0].device) if segments else bases
    for segment in bar(segments, "features", progress):
        hook_in, hook_out = segment.hook_in, segment.hook_out
        if hook_in in features and hook_out in features:
            continue
        x, y = rows_at(acts, hook_in, segment.d_in), rows_at(acts, hook_out, segment.d_out)
        if hook_in not in features:
            features[hook_in] = encode_rows(bases[hook_in], x)
        if hook_out not in features:
            features[hook_out] = output_features(bases[hook_out], x, y)
        check_together(features, (hook_in, hook_out))
    return features


def completed(recipes: Mapping[str, Any], segments: Sequence[Segment]) -> dict[str, Any]:
    """The recipes with the whole protocol, one for each hook point of the segments or "" for all.

    Raises:
        ConfigError: a hook point of the segments without a recipe, a recipe for another one, or one without `fit`.
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
    return {hook: as_recipe(recipe) for hook, recipe in recipes.items()}


def preflight(recipes: Mapping[str, Any], segments: Sequence[Segment]) -> None:
    """Let every recipe refuse what it can refuse without activations: before any forward pass over the data."""
    widths = {s.hook_in: s.d_in for s in segments} | {s.hook_out: s.d_out for s in segments}
    for hook, recipe in recipes.items():
        for name in [hook] if hook else widths:
            if name in widths:
                as_recipe(recipe).preflight(name, widths[name])


def fit_bases(
    recipes: Mapping[str, Any], segments: Sequence[Segment], acts: Mapping[str, Tensor], progress: bool | None = None
) -> dict[str, Any]:
    """hook name -> basis.

    Args:
        recipes: {"": recipe} for all hook points, or hook name -> recipe; a recipe has `fit(segments, acts)`.

    Raises:
        ConfigError: a hook point of the segments without a recipe, or a recipe for another one.
    """
    bases: dict[str, Any] = {}
    for hook, recipe in completed(recipes, segments).items():
        recipe = recipe if progress is None else recipe.watched(progress)
        bases |= recipe.fit(segments, acts) if not hook else {hook: recipe.fit_at(hook, segments, acts)}
    return bases
