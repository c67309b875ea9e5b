"""The features at both ends of segments: each hook point is encoded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..activations.checking import check_together, rows_at
from ..errors.progress import bar
from ..models import there
from ..segments import Segment
from .features import encode_rows
from .linear import Basis
from .output import output_features


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
