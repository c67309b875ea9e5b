"""Clusters of neurons from a stack of matrices: reduce, take the neurons that the projection keeps, reduce the rest."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import DataError
from .lsrdr import LSRDR, Reduction, checked_stack


@dataclass(frozen=True)
class Clusters:
    """Groups of neurons, the one of the strongest joint spectrum first.

    Attributes:
        label: [n] cluster of each neuron, -1 for the rest.
        share: for each cluster, the share of the projection's diagonal (in absolute value) that lies on its neurons; 1 for
            neurons that interact with no others.
        reductions: one a cluster, over the neurons that were left then.
        random_share, random: the first share and the first reduction of a stack whose entries were shuffled: the null.
    """

    label: Int[Tensor, " n"]
    share: tuple[float, ...]
    reductions: tuple[Reduction, ...]
    random_share: float
    random: Reduction

    @property
    def evidence(self) -> str:
        """What speaks for structure and what does not, in one sentence with the null's figures."""
        return (
            f"The share says whether there is structure ({self.share[0]:.2f}, entries shuffled {self.random_share:.2f}); that "
            f"starts agree does not ({_agreement(self.reductions[0])}, entries shuffled {_agreement(self.random)})."
        )

    def __repr__(self) -> str:
        lines = [
            f"  {i}: {int((self.label == i).sum())} neurons, share {share:.2f} (shuffled {self.random_share:.2f}), "
            f"similarity {reduction.similarity:.3f}"
            for i, (share, reduction) in enumerate(zip(self.share, self.reductions, strict=True))
        ]
        return "\n".join([f"Clusters({len(self.share)} of {len(self.label)} neurons)", *lines, f"  {self.evidence}"])


def neuron_clusters(stack: Float[Tensor, "r n n"], recipe: LSRDR, count: int) -> Clusters:
    """`count` clusters of `recipe.d` neurons each, by reducing and setting aside the neurons on P's diagonal.

    Raises:
        DataError: more clusters asked for than the neurons allow.
    """
    a = checked_stack(stack)
    n, d = a.shape[1], recipe.d
    if count < 1 or count * d > n:
        raise DataError(f"{count} clusters of {d} need at least {count * d} neurons, the stack has {n}. Ask for fewer")
    left = torch.arange(n)
    label = torch.full((n,), -1)
    shares: list[float] = []
    reductions: list[Reduction] = []
    for cluster in range(count):
        if len(left) == d:  # nothing to choose among the last d
            label[left] = cluster
            reductions.append(_whole(a[:, left][:, :, left]))
            shares.append(1.0)
            break
        reduction = recipe.fit(a[:, left][:, :, left])
        chosen, share = _chosen(reduction.projection, d)
        label[left[chosen]] = cluster
        shares.append(share)
        reductions.append(reduction)
        rest = torch.ones(len(left), dtype=torch.bool)
        rest[chosen] = False
        left = left[rest]
    random = _shuffled(a, recipe)
    return Clusters(label, tuple(shares), tuple(reductions), _chosen(random.projection, d)[1], random)


def _chosen(projection: Float[Tensor, "n n"], d: int) -> tuple[Int[Tensor, " d"], float]:
    weight = projection.diagonal().abs()
    chosen = weight.topk(d).indices
    return chosen, float(weight[chosen].sum() / weight.sum())


def _shuffled(a: Float[Tensor, "r n n"], recipe: LSRDR) -> Reduction:
    """The reduction of the stack with all its entries in random order."""
    order = torch.randperm(a.numel(), generator=torch.Generator().manual_seed(recipe.seed))
    return recipe.fit(a.flatten()[order].view_as(a))


def _agreement(reduction: Reduction) -> str:
    tied = reduction.agreement
    return f"{min(tied):.3f} over {len(tied) + 1} starts" if tied else "one start at the optimum"


def _whole(a: Float[Tensor, "r d d"]) -> Reduction:
    return Reduction(a, torch.eye(a.shape[1], dtype=a.dtype), 1.0, (), (1.0,), True)
