"""Relations: how many gates need more than one concept, where copies of a feature count as one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from _copies import CopyGroups
from jaxtyping import Int
from torch import Tensor

from gatelens.codes.csr import blocks
from gatelens.connectors import Connector

_ROWS = 1_024
_MIN_FIRINGS = 20


@dataclass(frozen=True)
class Relations:
    """Shares of the gates that fire often enough; None where none does.

    Attributes:
        share: gates that, in at least half of their firings, no single group of copies would open with all other parents off.
        apart: the same with every feature a group of its own: what counting copies as different would claim.
        shuffled: the same with groups of the same sizes drawn at random: what merging anything would take away.
        several: gates with wires from more than one group, which says little at a fan-in of 8.
        gates: how many were counted.
    """

    share: float | None
    apart: float | None
    shuffled: float | None
    several: float | None
    gates: int


def relations(
    connector: Connector, groups: CopyGroups, f_in: Tensor, min_firings: int = _MIN_FIRINGS, seed: int = 0
) -> Relations:
    """How many gates relate different groups, on rows of input features ([rows, m], dense or CSR), beside two nulls."""
    m = len(groups.group)
    order = torch.randperm(m, generator=torch.Generator().manual_seed(seed))
    labels = (groups.group, torch.arange(m), groups.group[order])
    firings, lonely = torch.zeros(len(connector.bias), dtype=torch.long), []
    for label in labels:
        firings, opened = single_group_openings(connector, label, f_in)
        lonely.append(opened)
    counted = firings >= min_firings
    if not counted.any():
        return Relations(None, None, None, groups.relations(connector), 0)
    share, apart, shuffled = (float((2 * o <= firings)[counted].float().mean()) for o in lonely)
    return Relations(share, apart, shuffled, groups.relations(connector), int(counted.sum()))


def single_group_openings(
    connector: Connector, group: Int[Tensor, " m"], f_in: Tensor
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """How often each gate fires, and in how many of those rows one group of its parents, the others off, would open it too."""
    parents, weights = connector.padded()
    same = (group[parents][:, :, None] == group[parents][:, None, :]).float()
    level = torch.zeros_like(connector.bias) if connector.threshold is None else connector.threshold
    firings = torch.zeros(len(connector.bias), dtype=torch.long)
    opened = torch.zeros_like(firings)
    for f in blocks(f_in, _ROWS):
        rows, cols = (connector(f) != 0).nonzero(as_tuple=True)
        drive = f[rows[:, None], parents[cols]] * weights[cols]
        alone = torch.einsum("eab,eb->ea", same[cols], drive).amax(1).clamp_min(0)
        firings += torch.bincount(cols, minlength=len(firings))
        opened += torch.bincount(cols[connector.bias[cols] + alone > level[cols]], minlength=len(firings))
    return firings, opened
