"""Arrays: what users hold their numbers in, as tensors on the host; the one place that looks at the kind of a value."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError


def is_numbers(value: Any) -> bool:
    """Whether it is a tensor or an array of numbers, and not one of texts or objects."""
    return isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "biufc")


def tensor_of(value: Any, what: str) -> Tensor:
    """A tensor, an array or nested lists of numbers as a tensor on the host.

    Raises:
        DataError: something else, rows of several lengths, or a tensor without values.
    """
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        hidden = int(np.ma.count_masked(value))
        raise DataError(
            f"{what}: the array hides {hidden} of its values by a mask. Give `.filled(...)`, or rows without them"
        )
    try:
        found = value if isinstance(value, Tensor) else torch.from_numpy(_array(value))
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise DataError(
            f"{what}: expected a tensor, an array or lists of numbers, all of one length; got {type(value).__name__} "
            f"({str(error)[:120]})"
        ) from error
    if found.is_nested or found.device.type == "meta" or found.layout != torch.strided or found.is_quantized:
        form = "a nested one" if found.is_nested else found.layout
        raise DataError(
            f"{what}: expected a dense tensor on the CPU or a GPU; got {form} on {found.device.type}. "
            "Give `.to_dense()`, or values that are loaded"
        )
    if found.ndim == 0:
        raise DataError(f"{what}: expected one row an example, got the single value {found.item()!r:.40}")
    found = found.detach().cpu()
    return found.clone() if found.is_inference() else found  # gradients flow through no tensor of inference mode


def _array(value: Any) -> np.ndarray:
    if isinstance(value, list | tuple) and value and isinstance(value[0], Tensor):
        value = torch.stack([v.detach().cpu() for v in value]).numpy()
    array = np.ascontiguousarray(value) if isinstance(value, np.ndarray | list | tuple) else np.asarray(value)
    if array.ndim == 0 and not isinstance(value, np.ndarray):
        raise TypeError("a single value")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:  # torch has next to nothing for these
        array = array.astype(np.int64)
    return np.array(array, dtype=array.dtype.newbyteorder("="))  # a copy that may be written to


def pixels_or_ids(value: Any, name: str, labels: tuple[int, ...]) -> Tensor:
    """Inputs of a model: float32 features, or int64 token ids.

    Half precision is kept, float64 is not. What is uint8 is pixels, and becomes [0, 1], unless there is a label for each
    value, as there is for token ids.
    """
    found = tensor_of(value, f"{name}: inputs")
    if found.ndim < 2:
        raise DataError(
            f"{name}: expected inputs [n, ...], one row an example; got shape {list(found.shape)}. One example is x[None]"
        )
    if found.dtype == torch.uint8 and found.shape != labels:
        return found.float() / 255
    if found.is_floating_point():
        return found.float() if found.dtype == torch.float64 else found
    if found.dtype == torch.bool:
        return found.float()
    if found.is_complex():
        raise DataError(f"{name}: inputs are complex; expected pixels or features (float) or token ids (integers)")
    return found.long()


def whole_numbers(value: Any, what: str) -> Tensor:
    """Labels or document numbers of any integer type as int64."""
    found = tensor_of(value, what)
    if found.is_floating_point() or found.is_complex():
        raise DataError(
            f"{what}: expected whole numbers, got {found.dtype} of shape {list(found.shape)}. Class labels are given by "
            "number: labels.long(), or one_hot.argmax(1)"
        )
    return found.long()


def flags(value: Any, what: str) -> Tensor:
    """True and false, or 1 and 0, as bool."""
    found = tensor_of(value, what)
    if found.is_complex() or not bool(((found == 0) | (found == 1)).all()):
        raise DataError(f"{what}: expected true and false, or 1 and 0; got {found.dtype} of shape {list(found.shape)}")
    return found.bool()
