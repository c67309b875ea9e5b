"""A multilayer perceptron with hook points before and after every nonlinearity."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from ..errors import ModelError


class HookedMLP(HookedRootModule):
    """A ReLU network `sizes[0] -> ... -> sizes[-1]`.

    Hook points: `hook_in` (the input), `hook_pre.i` and `hook_post.i` for hidden layer i, `hook_logits`.

    Args:
        sizes: widths from input to output, at least one hidden layer: (784, 128, 128, 128, 10).
        seed: of the initial weights (PyTorch's own `nn.Linear` initialisation).
    """

    def __init__(self, sizes: tuple[int, ...], seed: int = 0):
        super().__init__()
        sizes = tuple(int(s) for s in sizes)
        if len(sizes) < 3 or min(sizes) < 1:
            raise ModelError(
                f"a HookedMLP needs at least three positive widths (input, hidden, output); got {list(sizes)}. "
                "Give `sizes: [784, 128, 128, 10]`, for instance"
            )
        self.sizes = sizes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        hidden = len(sizes) - 2
        self.hook_in = HookPoint()
        self.hook_pre = nn.ModuleList(HookPoint() for _ in range(hidden))
        self.hook_post = nn.ModuleList(HookPoint() for _ in range(hidden))
        self.hook_logits = HookPoint()
        self.setup()

    @property
    def n_hidden(self) -> int:
        return len(self.sizes) - 2

    def forward(self, x: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows d_out"]:
        x = self.hook_in(x)
        for layer, pre, post in zip(self.layers, self.hook_pre, self.hook_post, strict=False):
            x = post(torch.relu(pre(layer(x))))
        return self.hook_logits(self.layers[-1](x))
