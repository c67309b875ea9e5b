"""The dictionaries that a recipe of this room is given: objects, recipes, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..basis.recipe import is_recipe
from ..errors import BasisError
from ..segments import Segment


def refuse_meeting(segments: Sequence[Segment]) -> None:
    """Refuse segments of which one begins where another ends.

    Raises:
        BasisError: naming where they meet.
    """
    meeting = {s.hook_in for s in segments} & {s.hook_out for s in segments}
    if meeting:
        raise BasisError(
            f"segments meet at {', '.join(sorted(meeting))}: a gate dictionary stands at the end of its own segment and cannot encode "
            "for the next. Fit each segment by itself"
        )


def dictionary_at(given: Any, segment: Segment, hook: str, acts: Mapping[str, Tensor]) -> Any:
    """The dictionary at a hook point: given, fitted by the given recipe, or a sparse autoencoder of our own."""
    if isinstance(given, Mapping):
        if hook not in given:
            raise BasisError(
                f"no dictionary for {hook}; there are dictionaries for {', '.join(map(str, given)) or 'nothing'}"
            )
        return given[hook]
    if given is None:
        from ..bases.sae.trained import TrainedSAE

        recipe = TrainedSAE(expansion=8, k=min(32, 4 * acts[hook].shape[1]))
        return recipe.train(acts[hook], hook)
    return given.fit([segment], acts)[hook] if is_recipe(given) else given
