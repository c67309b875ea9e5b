"""A multilayer perceptron with hook points before and after every nonlinearity."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import pairwise
from operator import index
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from ..errors import ModelError, TooLargeError
from ..store.estimate import available_memory
from ..store.files import readable

#: rows on which a network that is copied is compared, and how far its copy may be off, relative
_PROOF, _SAME, _SAME_IN_HALF = 16, 1e-4, 4e-2


class HookedMLP(HookedRootModule):
    """A ReLU network `sizes[0] -> ... -> sizes[-1]`.

    Hook points: `hook_in` (the input), `hook_pre.i` and `hook_post.i` for hidden layer i, `hook_logits`.

    Args:
        sizes: widths from input to output, at least one hidden layer: (784, 128, 128, 128, 10). Or an `nn.Sequential` of
            Linear and ReLU in turn (Flatten, Dropout and Identity may stand between), whose weights are copied.
        seed: of the initial weights (PyTorch's own `nn.Linear` initialisation).

    Raises:
        ModelError: fewer than three widths, or layers of another kind.

    Examples:
        >>> mlp = gl.HookedMLP((784, 128, 128, 10))
        >>> list(mlp.hook_dict)
        ['hook_in', 'hook_pre.0', 'hook_pre.1', 'hook_post.0', 'hook_post.1', 'hook_logits']
    """

    def __init__(self, sizes: Sequence[int] | nn.Sequential, seed: int = 0):
        super().__init__()
        given = linear_layers(sizes) if isinstance(sizes, nn.Module) else None
        self.sizes = _widths(sizes if given is None else [given[0].in_features, *(m.out_features for m in given)])
        _check_room(self.sizes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(self.sizes))
        for ours, theirs in zip(self.layers, given or (), strict=False):
            _copy(theirs, ours)
        hidden = len(self.sizes) - 2
        self.hook_in = HookPoint()
        self.hook_pre = nn.ModuleList(HookPoint() for _ in range(hidden))
        self.hook_post = nn.ModuleList(HookPoint() for _ in range(hidden))
        self.hook_logits = HookPoint()
        self.setup()
        if given is not None:
            _prove(self, sizes)

    @property
    def n_hidden(self) -> int:
        return len(self.sizes) - 2

    def forward(self, x: Shaped[Tensor, "rows *d_in"]) -> Float[Tensor, "rows d_out"]:
        # images come as [n, 1, 28, 28] too, and numbers of any type
        x = self.hook_in(x.flatten(1).to(next(self.parameters()).dtype))
        for layer, pre, post in zip(self.layers, self.hook_pre, self.hook_post, strict=False):
            x = post(torch.relu(pre(layer(x))))
        return self.hook_logits(self.layers[-1](x))


def linear_layers(network: nn.Module) -> list[nn.Linear]:
    """The linear layers of a chain of Linear and ReLU.

    Raises:
        ModelError: anything else in it, by name and place.
    """
    found: list[nn.Linear] = []
    expected = nn.Linear
    for place, module in enumerate(_each(network)):
        if isinstance(module, nn.Flatten | nn.Dropout | nn.Identity):
            continue
        if type(module) is not expected:
            raise ModelError(
                f"layer {place} of the network is {type(module).__name__}; expected {expected.__name__}: a HookedMLP is Linear and "
                "ReLU in turn, and ends in a Linear. Derive any other model from transformer_lens.HookedRootModule"
            )
        if isinstance(module, nn.Linear):
            found.append(module)
        expected = nn.ReLU if expected is nn.Linear else nn.Linear
    if not found or expected is nn.Linear:
        raise ModelError(
            f"the network has {len(found)} linear layers and does not end in one; expected Linear, ReLU, ..., Linear"
        )
    return found


def _each(network: nn.Module) -> Iterator[nn.Module]:
    if not isinstance(network, nn.Sequential):
        yield network
        return
    for module in network:
        yield from _each(module)


def _widths(sizes: Any) -> tuple[int, ...]:
    example = "Give `sizes: [784, 128, 128, 10]`, for instance"
    try:
        found = tuple(index(s) for s in sizes)
    except TypeError as error:
        raise ModelError(f"the sizes of a HookedMLP are whole numbers, got {sizes!r:.80}. {example}") from error
    if len(found) < 3 or min(found) < 1:
        raise ModelError(
            f"a HookedMLP needs at least three positive widths (input, hidden, output); got {list(found)}. {example}"
        )
    return found


def _copy(theirs: nn.Linear, ours: Any) -> None:
    if theirs.weight.device.type == "meta":
        raise ModelError("the network is on the device meta and has no weights: load them first")
    if theirs.weight.shape != ours.weight.shape:
        raise ModelError(
            f"a linear layer reads {theirs.in_features} numbers where the one before it writes {ours.weight.shape[1]}: "
            "the network cannot run. Give layers that fit"
        )
    with torch.no_grad():
        ours.weight.copy_(theirs.weight)
        ours.bias.zero_() if theirs.bias is None else ours.bias.copy_(theirs.bias)


def _prove(ours: HookedMLP, theirs: Any) -> None:
    """The copy against the network on a few rows: hooks, another forward and settings of its layers are not copied."""
    with torch.no_grad():
        x = torch.rand(_PROOF, ours.sizes[0], generator=torch.Generator().manual_seed(0))
        like = next(theirs.parameters())
        try:
            # a copy, whose dropout can be turned off
            wanted = copy.deepcopy(theirs).eval()(x.to(like)).float().cpu()
        except Exception as error:  # whatever somebody's layers make of it
            raise ModelError(
                f"the network cannot be run on rows {list(x.shape)} ({type(error).__name__}: {error}). "
                f"Give one that reads [n, {ours.sizes[0]}]"
            ) from error
        found = ours(x)
    same = found.shape == wanted.shape
    off = float((found - wanted).norm() / wanted.norm().clamp_min(1e-12)) if same else float("inf")
    if not off <= (_SAME if like.dtype in (torch.float32, torch.float64) else _SAME_IN_HALF):
        raise ModelError(
            f"the network computes something else than its linear layers and ReLU, by a relative {off:.2g}: hooks on it, a forward of its "
            "own, or weights that are not finite. Take them off, or derive the model from transformer_lens.HookedRootModule"
        )


def _check_room(sizes: Sequence[int]) -> None:
    """Refuse weights that memory cannot hold, before they are made."""
    needed, free = 4 * sum(a * b + b for a, b in pairwise(sizes)), available_memory()
    if free is not None and needed > free:
        raise TooLargeError(
            f"the weights of a HookedMLP of {list(sizes)} would take {readable(needed)}, {readable(free)} of memory are available. "
            "Give smaller widths"
        )
