"""Checking: activations that a user gave, before anything is computed from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ..errors import DataError


def rows_at(acts: Mapping[str, Any], hook: str, width: int) -> Float[Tensor, "rows width"]:
    """The rows at a hook point.

    Raises:
        DataError: not collected there, another width, no floating-point numbers, no values.
    """
    if not isinstance(acts, Mapping):
        raise DataError(
            f"acts: expected activations, hook name -> [rows, width], got {type(acts).__name__}. Give collect(model, ...)"
        )
    if hook not in acts:
        raise DataError(
            f"no activations were collected at {hook!r}; there are {', '.join(map(str, acts)) or 'none'}. "
            "Give `collect` the segments or hook names that you need"
        )
    rows = acts[hook]
    fits = isinstance(rows, Tensor) and rows.ndim == 2 and rows.shape[1] == width and rows.is_floating_point()
    if not fits or rows.device.type == "meta" or not len(rows):
        found = (
            f"{rows.dtype} of shape {list(rows.shape)}, {rows.device}"
            if isinstance(rows, Tensor)
            else type(rows).__name__
        )
        raise DataError(
            f"acts[{hook!r}]: expected floating-point rows [rows, {width}], at least one; got {found}. "
            "Give collect(model, batches, segments)"
        )
    return rows


def check_together(acts: Mapping[str, Tensor], hooks: tuple[str, str]) -> None:
    """Both ends of a segment over the same rows.

    Raises:
        DataError: with both numbers.
    """
    first, second = (len(acts[hook]) for hook in hooks)
    if first != second:
        raise DataError(
            f"acts: {first} rows at {hooks[0]}, {second} at {hooks[1]}; expected the same rows at both. "
            "Collect both in one call"
        )
