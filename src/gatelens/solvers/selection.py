"""Which wires to keep: a path of candidates for every output, then one budget over all outputs.

Wires are allotted by the squared error that each explains (features have unit decoder rows, so this is error in the space
of the activations). Giving every output the same number costs several points of accuracy: outputs differ in how much they
matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..distributed import shared
from ..models import host

#: so many outputs are searched at once; more go in blocks of so many numbers, with room for so many times the budget
_TOGETHER, _CACHED, _ROOM = 512, 2**19, 1.5
#: groups of the sample from which it is known what a gain must be, each spread over all outputs
_GROUPS = 8
#: inputs of an output that there is room for at first
_FACTORS = 8
#: an input of which a smaller share is left, given those before it, is a copy of them
_TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-8}


@dataclass(frozen=True)
class Path:
    """For each output, inputs in the order in which a selection added them, and the squared error each explained.

    Attributes:
        inputs: [n, steps]; -1 where an output's path ended early.
        gains: [n, steps]; 0 there.
    """

    inputs: Int[Tensor, "n steps"]
    gains: Float[Tensor, "n steps"]

    def allot(self, budget: int) -> list[Int[Tensor, " _"]]:
        """The first inputs of every path, as many as make `budget` wires in all explain the most.

        A path is cut where it is: an input is kept only with all before it. So each gain counts at most as much as the
        least before it.
        """
        worth = torch.where(self.inputs >= 0, self.gains, 0.0).cummin(dim=1).values
        order = torch.sort(worth.flatten(), descending=True, stable=True).indices[:budget]
        order = order[worth.flatten()[order] > 0]
        kept = torch.zeros_like(worth, dtype=torch.bool).flatten().index_fill_(0, order, True).view_as(worth)
        return [inputs[keep] for inputs, keep in zip(self.inputs, kept, strict=True)]


def forward_selection(covariance: Float[Tensor, "m m"], products: Float[Tensor, "m n"], budget: int, cap: int) -> Path:
    """Orthogonal least squares, many outputs at once ("Orthogonal Least Squares Methods and Their Application to Non-linear System
    Identification").

    Each step adds to each output the input that lowers its squared error most, given those that it has: a partial
    Cholesky factorisation of the covariance, O(m) numbers and O(m steps) work an output and step. An output stops when its next
    gain cannot be among the `budget` best of all; so no cap costs little more than a small one.

    Outputs go in blocks that stay in the processor's cache. What a gain must be is known beforehand from a sample of the
    outputs, with room to spare; where there are no more outputs than that, all go together.

    Args:
        covariance, products: centred sums of squares and products, as in `Gram.covariance`.
        budget: wires wanted over all outputs.
        cap: most inputs of any output.
    """
    n = products.shape[1]
    if n <= _TOGETHER:
        return _selected(covariance, products, budget, cap)
    least = _least_gain(covariance, products, budget, cap)
    width = max(8, _CACHED // max(1, len(covariance)))
    parts = products.split(width, dim=1)

    def selected(i: int) -> Path:
        return host(_selected(covariance, parts[i], parts[i].shape[1] * cap, cap, least))

    return _stacked(shared(len(parts), selected))


def _least_gain(covariance: Float[Tensor, "m m"], products: Float[Tensor, "m n"], budget: int, cap: int) -> float:
    """What a gain must be to be among the best, from a sample of the outputs with room to spare.

    Groups of the sample are searched apart. One in which more than its share are among the best makes this smaller, never larger: that
    costs work, and no wire.
    """
    n = products.shape[1]
    sample = torch.linspace(0, n - 1, _TOGETHER, dtype=torch.float64).long()
    groups = [sample[i::_GROUPS] for i in range(_GROUPS)]

    def gains(i: int) -> Tensor:
        room = -(-round(_ROOM * budget * len(groups[i])) // n)
        return host(_selected(covariance, products[:, groups[i]], room, cap).gains.flatten())

    tried = torch.cat(shared(_GROUPS, gains))
    room = min(round(_ROOM * budget * _TOGETHER / n), len(tried))
    return float(tried.topk(room).values[-1]) if room else 0.0


def selection_bytes(m: int, cap: int) -> int:
    """What the search of so many outputs at once holds in float64: what is left, residuals, and factors while one is added."""
    return 8 * _TOGETHER * m * (2 * cap + 4)


def _selected(
    covariance: Float[Tensor, "m m"], products: Float[Tensor, "m n"], budget: int, cap: int, least: float = 0.0
) -> Path:
    """`forward_selection` of outputs that are held at once; wires must be worth more than `least`."""
    n, m = products.shape[1], len(covariance)
    tolerance = _TOLERANCE[covariance.dtype]
    left = covariance.diagonal().repeat(n, 1)  # what is left of each input's own variance, per output
    smallest = tolerance * covariance.diagonal().clamp_min(tolerance)
    residual = products.T.clone(
        memory_format=torch.contiguous_format
    )  # covariance of each output's residual with each input
    factors = residual.new_empty(n, min(cap, m, _FACTORS), m)  # room for more than there are: doubled when it is full
    live = torch.arange(n, device=residual.device)
    chosen, gains = [], []
    for _ in range(min(cap, m)):
        score = residual.square().div_(left).masked_fill_(left <= smallest, 0.0)
        gain, best = score.max(dim=1)
        worthy = gain > max(least, _least_worth(gains, budget))
        if not worthy.any():
            break
        if not worthy.all():
            live, left, residual, factors = live[worthy], left[worthy], residual[worthy], factors[worthy]
            gain, best = gain[worthy], best[worthy]
        chosen.append(best.new_full((n,), -1).index_copy_(0, live, best))
        gains.append(gain.new_zeros(n).index_copy_(0, live, gain))
        size = _at(left, best).sqrt()[:, None]
        factor = _orthogonalised(covariance[best], factors[:, : len(gains) - 1], best).div_(size)
        residual.addcmul_(factor, _at(residual, best)[:, None] / size, value=-1)
        left.addcmul_(factor, factor, value=-1)
        left[torch.arange(len(live), device=live.device), best] = 0.0
        if len(gains) > factors.shape[1]:
            factors = torch.cat([factors, torch.empty_like(factors)], 1)
        factors[:, len(gains) - 1] = factor
    if not chosen:
        return Path(live.new_empty(n, 0), products.new_empty(n, 0))
    return Path(torch.stack(chosen, 1), torch.stack(gains, 1))


def _stacked(parts: list[Path]) -> Path:
    """The paths of several blocks of outputs, as long as the longest."""
    steps = max(p.inputs.shape[1] for p in parts)
    inputs = [torch.nn.functional.pad(p.inputs, (0, steps - p.inputs.shape[1]), value=-1) for p in parts]
    gains = [torch.nn.functional.pad(p.gains, (0, steps - p.gains.shape[1])) for p in parts]
    return Path(torch.cat(inputs), torch.cat(gains))


def _least_worth(gains: list[Float[Tensor, " n"]], budget: int) -> float:
    """The gain that a wire needs to be among the best `budget` of those found so far."""
    found = torch.cat(gains) if gains else torch.empty(0)
    if len(found) <= budget:
        return 0.0
    return float(found.topk(budget).values[-1])


def _at(values: Float[Tensor, "live m"], column: Int[Tensor, " live"]) -> Float[Tensor, " live"]:
    return values.gather(1, column[:, None]).squeeze(1)


def _orthogonalised(
    rows: Float[Tensor, "live m"], factors: Float[Tensor, "live steps m"], best: Int[Tensor, " live"]
) -> Float[Tensor, "live m"]:
    """The covariance with each new input, less what the inputs before it account for."""
    live, steps, _ = factors.shape
    if not steps:
        return rows
    shares = factors.gather(2, best[:, None, None].expand(live, steps, 1))
    return torch.baddbmm(rows[:, None], shares.transpose(1, 2), factors, alpha=-1).squeeze(1)


#: each penalty relative to the one before; FISTA steps at each; how many more wires than the budget are enough
_SHRINK, _STEPS, _SLACK = 0.75, 40, 1.15


def lasso_path(
    covariance: Float[Tensor, "m m"],
    products: Float[Tensor, "m n"],
    budget: int,
    cap: int,
) -> Path:
    """Lasso for all outputs at once by FISTA, the penalty lowered until there are enough wires.

    Source: "A Fast Iterative Shrinkage-Thresholding Algorithm for Linear Inverse Problems".

    Inputs are scaled to unit variance; the penalty is the same for all outputs, so that those with more to explain get
    more wires. The path orders each output's inputs by |weight| (in units of the input's deviation) at the last penalty.
    """
    scale = covariance.diagonal().clamp_min(1e-12).sqrt()
    G = covariance / torch.outer(scale, scale)
    C = products / scale[:, None]
    step = 1.0 / torch.linalg.eigvalsh(G)[-1]
    W = torch.zeros_like(C)
    penalty = C.abs().max()
    for _ in range(80):
        penalty = penalty * _SHRINK
        W = _fista(G, C, W, penalty, step, _STEPS)
        if min_count((W != 0).sum(0), cap) >= _SLACK * budget:
            break
    size = min(cap, len(W))
    weight, inputs = W.abs().topk(size, dim=0)
    inputs = torch.where(weight > 0, inputs, -1)
    return Path(inputs.T.contiguous(), weight.square().T.contiguous())


def min_count(counts: Int[Tensor, " n"], cap: int) -> int:
    return int(counts.clamp_max(cap).sum())


def _fista(G: Tensor, C: Tensor, W: Tensor, penalty: Tensor, step: Tensor, iterations: int) -> Tensor:
    momentum, Z = 1.0, W
    for _ in range(iterations):
        V = Z - step * (G @ Z - C)
        new = torch.sign(V) * (V.abs() - step * penalty).clamp_min(0)
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        Z = new + (momentum - 1) / following * (new - W)
        W, momentum = new, following
    return W
