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


def forward_selection(
    covariance: Float[Tensor, "m m"], products: Float[Tensor, "m n"], budget: int, cap: int, tolerance: float = 1e-8
) -> Path:
    """Orthogonal least squares (Chen, Billings and Luo 1989), all outputs at once.

    Each step adds to each output the input that lowers its squared error most, given those that it has: a partial
    Cholesky factorisation of the covariance, O(n m) numbers and O(n m steps) work a step. An output stops when its next
    gain cannot be among the `budget` best of all; so no cap costs little more than a small one.

    Args:
        covariance, products: centred sums of squares and products, as in `Gram.covariance`.
        budget: wires wanted over all outputs.
        cap: most inputs of any output.
    """
    n, m = products.shape[1], len(covariance)
    left = covariance.diagonal().clone().expand(n, m).clone()  # what is left of each input's own variance, per output
    smallest = tolerance * covariance.diagonal().clamp_min(tolerance)
    residual = products.T.clone()  # covariance of each output's residual with each input
    factors: list[Float[Tensor, "live m"]] = []
    live = torch.arange(n)
    chosen, gains = [], []
    for _ in range(min(cap, m)):
        score = torch.where(left > smallest, residual.square() / left, 0.0)
        gain, best = score.max(dim=1)
        worthy = gain > _least_worth(gains, budget)
        if not worthy.any():
            break
        if not worthy.all():
            live, left, residual = live[worthy], left[worthy], residual[worthy]
            factors = [f[worthy] for f in factors]
            gain, best = gain[worthy], best[worthy]
        chosen.append(torch.full((n,), -1).index_copy_(0, live, best))
        gains.append(torch.zeros(n, dtype=gain.dtype).index_copy_(0, live, gain))
        factor = _orthogonalised(covariance[best], factors, best) / _at(left, best).sqrt()[:, None]
        residual = residual - (_at(residual, best) / _at(left, best).sqrt())[:, None] * factor
        left = left - factor.square()
        left[torch.arange(len(live)), best] = 0.0
        factors.append(factor)
    if not chosen:
        return Path(torch.empty(n, 0, dtype=torch.long), torch.empty(n, 0, dtype=products.dtype))
    return Path(torch.stack(chosen, 1), torch.stack(gains, 1))


def _least_worth(gains: list[Float[Tensor, " n"]], budget: int) -> float:
    """The gain that a wire needs to be among the best `budget` of those found so far."""
    found = torch.cat(gains) if gains else torch.empty(0)
    if len(found) <= budget:
        return 0.0
    return float(found.topk(budget).values[-1])


def _at(values: Float[Tensor, "live m"], column: Int[Tensor, " live"]) -> Float[Tensor, " live"]:
    return values.gather(1, column[:, None]).squeeze(1)


def _orthogonalised(
    rows: Float[Tensor, "live m"], factors: list[Tensor], best: Int[Tensor, " live"]
) -> Float[Tensor, "live m"]:
    """The covariance with each new input, less what the inputs before it account for."""
    for factor in factors:
        rows = rows - _at(factor, best)[:, None] * factor
    return rows


def lasso_path(
    covariance: Float[Tensor, "m m"],
    products: Float[Tensor, "m n"],
    budget: int,
    cap: int,
    shrink: float = 0.75,
    iterations: int = 40,
    slack: float = 1.15,
) -> Path:
    """Lasso for all outputs at once by FISTA (Beck and Teboulle 2009), the penalty lowered until there are enough wires.

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
        penalty = penalty * shrink
        W = _fista(G, C, W, penalty, step, iterations)
        if min_count((W != 0).sum(0), cap) >= slack * budget:
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
