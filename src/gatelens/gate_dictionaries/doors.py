"""The bases of a walk as a user gives them: objects, folders, releases, transcoders; each goes through the one gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..bases.sae.admission import admitted, is_transcoder
from ..bases.sae.pretrained import PretrainedSAE
from ..basis.linear import Basis, check_width
from ..segments import Segment
from .transcoder_basis import TranscoderBasis


def taken_in(bases: Mapping[str, Any], segments: Sequence[Segment]) -> dict[str, Basis]:
    """hook name -> basis, each checked against its own weights and the width of its hook point.

    Args:
        bases: an object with encode and decode, a sae-lens SAE, a sae-lens transcoder (at a segment's output), a folder or
            file on disk, the name of a release, or a pair (release, sae_id).

    Raises:
        BasisError: naming the hook point, what was given and what is wrong with it.
    """
    widths = {s.hook_in: s.d_in for s in segments} | {s.hook_out: s.d_out for s in segments}
    return {hook: _taken(basis, hook, widths.get(hook), segments) for hook, basis in bases.items()}


def _taken(basis: Any, hook: str, width: int | None, segments: Sequence[Segment]) -> Any:
    if isinstance(basis, str | Path | tuple | list):
        basis = PretrainedSAE(basis).raw(hook)
    ending = next((s for s in segments if s.hook_out == hook), None)
    if is_transcoder(basis) and ending is not None:
        basis = TranscoderBasis(basis, ending.hook_in, hook)
        basis.check(ending)
    basis = admitted(basis, hook, width)
    if width is not None:
        check_width(basis, hook, width)
    return basis
