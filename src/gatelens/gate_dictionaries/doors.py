"""Bases as a user gives them: objects, folders, releases, transcoders, each through the one gate; and what recipes here are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..activations.collecting import hook_names
from ..bases.sae.admission import admitted, is_transcoder
from ..bases.sae.pretrained import PretrainedSAE
from ..bases.sae.trained import TrainedSAE
from ..basis.linear import Basis, basis_width, check_width
from ..basis.pair import PairBasis
from ..basis.recipe import as_recipe, check_there, is_recipe
from ..basis.trial import tried_from_input
from ..errors import BasisError
from ..segments import Segment
from .gate_basis import GateBasis
from .transcoder import TranscoderBasis


def taken_in(
    bases: Mapping[str, Any], segments: Sequence[Segment], acts: Mapping[str, Tensor] | None = None
) -> dict[str, Basis]:
    """hook name -> basis, each checked against its own weights and the width of its hook point.

    Args:
        bases: an object with encode and decode, a sae-lens SAE, a sae-lens transcoder (at a segment's output), a folder or
            file on disk, the name of a release, or a pair (release, sae_id).
        acts: rows at the hook points, where they are at hand: each basis is tried on some of them too.

    Raises:
        BasisError: naming the hook point, what was given and what is wrong with it.
    """
    widths = {s.hook_in: s.d_in for s in segments} | {s.hook_out: s.d_out for s in segments}
    rows = {hook: acts[hook] for hook in bases if acts is not None and hook in acts}
    return {hook: _taken(basis, hook, widths.get(hook), segments, rows.get(hook)) for hook, basis in bases.items()}


def _taken(basis: Any, hook: str, width: int | None, segments: Sequence[Segment], rows: Tensor | None) -> Any:
    if isinstance(basis, str | Path | tuple | list):
        basis = PretrainedSAE(basis).raw(hook)
    ending = next((s for s in segments if s.hook_out == hook), None)
    if is_transcoder(basis) and ending is not None:
        basis = TranscoderBasis(basis, ending.hook_in, hook)
        basis.check(ending)
    if callable(getattr(basis, "features_from", None)) and not isinstance(basis, PairBasis) and width is not None:
        return _from_input(basis, hook, ending)
    basis = admitted(basis, hook, width, rows)
    if width is not None:
        check_width(basis, hook, width)
    return basis


def _from_input(basis: Any, hook: str, ending: Segment | None) -> Any:
    """An object of a user's whose features are computed from a segment's input, tried as any other is."""
    name = type(basis).__name__
    if ending is None:
        raise BasisError(
            f"the basis for {hook} ({name}) computes features from a segment's input (features_from), and no segment ends there. "
            "Give it at a segment's output, or one that encodes the hook point itself"
        )
    if not callable(getattr(basis, "decode", None)):
        raise BasisError(
            f"the basis for {hook} ({name}) has features_from and no decode. Give decode([rows, f]) -> [rows, d]"
        )
    return tried_from_input(basis, f" for {hook}", ending.d_in, ending.d_out)


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
    return TrainedSAE(expansion=8, k=min(32, 4 * width))
