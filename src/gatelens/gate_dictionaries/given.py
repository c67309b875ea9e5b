"""The dictionaries that a recipe of this room is given: objects, recipes, or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ..activations.collecting import hook_names
from ..basis.linear import Basis, basis_width
from ..basis.recipe import as_recipe, check_there, is_recipe
from ..errors import BasisError
from ..segments import Segment
from .doors import taken_in
from .gate_basis import GateBasis


def fitted(
    segments: Sequence[Segment],
    acts: Mapping[str, Tensor],
    inputs: Any,
    train: Callable[[Segment, Basis, Tensor, Tensor], GateBasis],
) -> dict[str, Basis]:
    """hook_in -> input dictionary, hook_out -> gates, for each segment, by `train(segment, basis_in, x, y)`.

    Raises:
        BasisError: segments that meet. DataError: no activations at an end of a segment.
    """
    meeting = {s.hook_in for s in segments} & {s.hook_out for s in segments}
    if meeting:
        raise BasisError(
            f"segments meet at {', '.join(sorted(meeting))}: a gate dictionary stands at the end of its own segment and cannot encode "
            "for the next. Fit each segment by itself"
        )
    check_there(acts, hook_names(segments))
    found: dict[str, Basis] = {}
    for segment in segments:
        basis_in = dictionary_at(inputs, segment, segment.hook_in, acts)
        gates = train(segment, basis_in, acts[segment.hook_in], acts[segment.hook_out])
        found[segment.hook_in], found[segment.hook_out] = gates.basis_in, gates
    return found


def dictionary_at(given: Any, segment: Segment, hook: str, acts: Mapping[str, Tensor]) -> Any:
    """The dictionary at a hook point: given, fitted by the given recipe, or a sparse autoencoder of our own; through the one gate."""
    if isinstance(given, Mapping):
        if hook not in given:
            raise BasisError(
                f"no dictionary for {hook}; there are dictionaries for {', '.join(map(str, given)) or 'nothing'}"
            )
        found = given[hook]
    elif given is None:
        return own(acts[hook].shape[1]).train(acts[hook], hook)
    else:
        found = given.fit([segment], acts)[hook] if is_recipe(given) else given
    return taken_in({hook: found}, [segment], acts)[hook]


def shape_of(given: Any, hook: str, width: int, active: float) -> tuple[int, float]:
    """How many features the dictionary at a hook point has or will have, and how many are active; `active`: where it does not say."""
    if given is None or is_recipe(given):
        return as_recipe(own(width) if given is None else given).shape_at(hook, width)
    basis = given.get(hook) if isinstance(given, Mapping) else given
    return (0 if basis is None else basis_width(basis, width)), active


def own(width: int) -> Any:
    """The recipe of the dictionaries that nobody gave."""
    from ..bases.sae.trained import TrainedSAE

    return TrainedSAE(expansion=8, k=min(32, 4 * width))
