"""Leading singular values of large Jacobians from a few products with them.

Source: "Finding Structure with Randomness: Probabilistic Algorithms for Constructing Approximate Matrix Decompositions".
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import DataError
from ..segments import Segment
from .rank import Ranks, ranks_of


def randomised_singular_values(
    function: Segment | Callable[[Tensor], Tensor],
    x: Float[Tensor, "N i"],
    count: int,
    oversample: int = 8,
    passes: int = 1,
    seed: int = 0,
) -> Ranks:
    """The `count` largest singular values of a rowwise function's Jacobian at each row, never forming a Jacobian.

    The total squared mass is estimated from the same random products (unbiased), so energy ranks remain comparable; the
    rest are lower bounds, and the result says so.

    Args:
        passes: power passes; one is enough unless the spectrum is flat.

    Raises:
        DataError: `count` is not between 1 and the smaller width.
    """
    forward = function.forward if isinstance(function, Segment) else function
    with torch.no_grad():
        o = forward(x[:1]).shape[1]
    n, i = x.shape
    if not 1 <= count <= min(o, i):
        raise DataError(f"expected 1 to {min(o, i)} singular values of a map {i} -> {o}, got count = {count}")
    width = min(count + oversample, o, i)
    probe = torch.randn(i, width, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)
    image = _times(forward, x, probe.expand(n, i, width))
    energy = (image**2).sum(1).mean(1)
    for _ in range(passes):
        back = _transposed_times(forward, x, torch.linalg.qr(image).Q)
        image = _times(forward, x, torch.linalg.qr(back).Q)
    small = _transposed_times(forward, x, torch.linalg.qr(image).Q)
    singular = torch.linalg.svdvals(small)[:, :count]
    energy = torch.maximum(energy, (singular**2).sum(1))
    return ranks_of(singular, energy, "raw", sketched=count < min(o, i))


def _times(
    forward: Callable[[Tensor], Tensor], x: Float[Tensor, "N i"], columns: Float[Tensor, "N i c"]
) -> Float[Tensor, "N o c"]:
    """J(x_n) @ columns_n for every row n."""
    images = [torch.func.jvp(forward, (x,), (columns[:, :, c],))[1] for c in range(columns.shape[2])]
    return torch.stack(images, 2).detach()


def _transposed_times(
    forward: Callable[[Tensor], Tensor], x: Float[Tensor, "N i"], columns: Float[Tensor, "N o c"]
) -> Float[Tensor, "N i c"]:
    """J(x_n)^T @ columns_n for every row n."""
    pull = torch.func.vjp(forward, x)[1]
    return torch.stack([pull(columns[:, :, c].contiguous())[0] for c in range(columns.shape[2])], 2).detach()
