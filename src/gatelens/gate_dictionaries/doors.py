"""The bases of a walk as a user gives them: objects, folders, releases, transcoders; each goes through the one gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..bases.sae.admission import admitted, is_transcoder
from ..bases.sae.pretrained import PretrainedSAE
from ..basis.linear import Basis, check_width
from ..basis.pair import PairBasis
from ..basis.trial import tried_from_input
from ..errors import BasisError
from ..segments import Segment
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
