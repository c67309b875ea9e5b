"""Pictures inside a page: strips of thumbnails and signed pixel fields, as small PNGs."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..models import device_of

POSITIVE, NEGATIVE = (0x21, 0x66, 0xAC), (0xB3, 0x58, 0x06)
_LEVELS = 15


def side_of(width: int) -> int | None:
    """The side of a square image with `width` pixels; None when it is not square."""
    side = math.isqrt(width)
    return side if side * side == width and side > 1 else None


def strip(images: Any) -> str:
    """Grey images [n, side, side] beside one another as one PNG of 16 greys, as a data address.

    Dark is high, as ink on paper; each image on its own scale, zero white. A pixel that is not finite is shown white.
    """
    stack = np.nan_to_num(np.asarray(images, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    top = np.maximum(stack.max(axis=(1, 2), keepdims=True), 1e-12)
    level = np.rint(_LEVELS * np.clip(stack / top, 0, 1)).astype(np.uint8)
    row = np.concatenate([np.pad(image, ((0, 0), (0, 1))) for image in level], axis=1)[:, :-1]
    greys = [255 - round(255 * i / _LEVELS) for i in range(_LEVELS + 1)]
    return _png(row, [(g, g, g) for g in greys])


def field(values: Any, size: int = 112, top: float | None = None) -> tuple[str, float, int]:
    """A signed field [side, side] as a PNG: blue for plus, orange-brown with a dot in each pixel for minus, white for zero.

    Args:
        size: of the picture in pixels, about.
        top: the magnitude at full strength; None for the largest there is.

    Returns:
        The data address, the magnitude at full strength, and the number of pixels that are not finite (hatched).
    """
    values = np.asarray(values, dtype=np.float64)
    bad = ~np.isfinite(values)
    clean = np.where(bad, 0.0, values)
    top = float(np.abs(clean).max()) if top is None else top
    level = np.rint(_LEVELS * np.minimum(np.abs(clean) / max(top, 1e-300), 1)).astype(int)
    index = np.where(clean < 0, _LEVELS + level, level)
    scale = max(size // max(values.shape), 3 if (clean < 0).any() else 1)
    big = np.kron(index, np.ones((scale, scale), int)).astype(np.uint8)
    big = _dots(big, (clean < 0) & (level >= 2), scale)
    big = _hatch(big, bad, scale)
    shades = [_shade(POSITIVE, i / _LEVELS) for i in range(_LEVELS + 1)] + [
        _shade(NEGATIVE, i / _LEVELS) for i in range(1, _LEVELS + 1)
    ]
    return _png(big, [*shades, (0x4A, 0x22, 0x00), (0x77, 0x77, 0x77)]), top, int(bad.sum())


def _dots(big: np.ndarray, where: np.ndarray, scale: int) -> np.ndarray:
    """A dark dot in the middle of each marked pixel: the sign must survive a grey print."""
    wide = max(scale // 5, 1)
    start = (scale - wide) // 2
    for y, x in zip(*np.nonzero(where), strict=True):
        big[y * scale + start : y * scale + start + wide, x * scale + start : x * scale + start + wide] = (
            2 * _LEVELS + 1
        )
    return big


def _hatch(big: np.ndarray, where: np.ndarray, scale: int) -> np.ndarray:
    y, x = np.indices(big.shape)
    striped = np.kron(where, np.ones((scale, scale), bool)) & ((x + y) % 4 == 0)
    return np.where(striped, 2 * _LEVELS + 2, big).astype(np.uint8)


def _shade(colour: tuple[int, int, int], strength: float) -> tuple[int, ...]:
    return tuple(round(255 + (c - 255) * strength) for c in colour)


def _png(index: np.ndarray, palette: Sequence[tuple[int, ...]]) -> str:
    image = Image.fromarray(index, mode="P")
    image.putpalette([part for colour in palette for part in colour])
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True, bits=4 if len(palette) <= 16 else 8)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def pixel_field(model: Any, read: Any, images: Tensor, hook: str, feature: int) -> Tensor | None:
    """Mean gradient of a feature with respect to the pixels, over the images given.

    Args:
        model: called on images [n, d] with hooks.
        read: activations at `hook` -> features: a basis's `encode`.
        images: [n, d], the images on which the feature is strongest.

    Returns:
        [d], or None where the feature cannot be differentiated (a basis that works without gradients).
    """
    kept: list[Tensor] = []

    def keep(value: Tensor, hook: Any = None) -> None:
        kept.append(value.cpu())  # where the basis rests

    inputs = images.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        model.run_with_hooks(inputs.to(device_of(model)), fwd_hooks=[(hook, keep)])
        value = read(kept[0])[:, feature].sum()
        if not value.requires_grad:
            return None
        return torch.autograd.grad(value, inputs)[0].mean(0)
