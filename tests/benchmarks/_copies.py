"""Copies of one feature: input features that are pieces of one direction, and what they do to the reading of gates.

A wide dictionary splits a direction into several features that point the same way and come together. "Two of three of them"
looks like a gate and says only that the direction is strong. A gate is a relation only between different groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gatelens.basis.linear import directions
from gatelens.codes.rows import Codes, scipy_csr
from gatelens.connectors import Connector
from gatelens.errors import BasisError
from gatelens.segments import Segment

_EFFECT_ROWS = 32
_BLOCK = 2_048
_LIFT = 2.0  # features that are on in many rows meet by chance: copies meet more often than that


@dataclass(frozen=True)
class CopyGroups:
    """Which input features are copies of one another.

    Attributes:
        group: [m], the number of each feature's group; a feature without copies is a group of its own.
        leader: [groups], the feature of each group that is on most often.
        share: [m], how much of the leader's direction one unit of each feature is: cosine times ratio of lengths; 1 for leaders.
        power: [m], mean square of each feature over the rows, for wires from groups.
    """

    group: Int[Tensor, " m"]
    leader: Int[Tensor, " groups"]
    share: Float[Tensor, " m"]
    power: Float[Tensor, " m"]

    @property
    def sizes(self) -> Int[Tensor, " groups"]:
        return torch.bincount(self.group, minlength=len(self.leader))

    def merged(self, f: Float[Tensor, "rows m"]) -> Float[Tensor, "rows groups"]:
        """One feature a group, in units of its leader: the sum of what its members are of that direction."""
        return f.new_zeros(len(f), len(self.leader)).index_add_(1, self.group, f * self.share)

    def parents(self, connector: Connector, out: int) -> dict[int, list[int]]:
        """leader -> the members of its group that feed output `out`, the strongest wire first."""
        found: dict[int, list[int]] = {}
        for parent in connector.parents(out)[0].tolist():
            found.setdefault(int(self.leader[self.group[parent]]), []).append(parent)
        return found

    def groups_read(self, connector: Connector) -> Int[Tensor, " n"]:
        """How many different groups feed each output."""
        crow, col = connector.weight.crow_indices(), connector.weight.col_indices()
        row = torch.repeat_interleave(crow.diff())
        live = connector.weight.values() != 0
        pairs = torch.unique(row[live] * len(self.leader) + self.group[col[live]])
        return torch.bincount(pairs // len(self.leader), minlength=len(connector.bias))

    def relations(self, connector: Connector) -> float | None:
        """The share of outputs with at least one wire that relate different groups; None without any wire."""
        groups, wired = self.groups_read(connector), connector.fan_in() > 0
        return float((groups[wired] > 1).float().mean()) if wired.any() else None

    def __repr__(self) -> str:
        sizes = self.sizes
        return (
            f"CopyGroups({len(self.group)} features in {len(self.leader)} groups; {int((sizes > 1).sum())} groups of copies, "
            f"the largest of {int(sizes.max())})"
        )


def copy_groups(
    basis_in: Any,
    codes: Codes,
    cosine: float = 0.25,
    together: float = 0.2,
    segment: Segment | None = None,
    x: Float[Tensor, "rows d_in"] | None = None,
    effect: float = 0.25,
) -> CopyGroups:
    """Groups of features that point the same way, come together and, where a segment is given, have the same effect.

    The most frequent feature that is not in a group yet leads the next one; all that are linked to the leader itself join it, so
    that groups do not grow by chains.

    Args:
        cosine: least cosine of decoder directions. Features of a trained autoencoder that come together rarely point closer than
            .4 to one another (it would use one of them), and unrelated ones stay under .1.
        together: least share of the rows of the rarer feature in which the other is on as well; and twice what chance would give.
        segment, x: the model's own stretch and rows at its input; then the mean changes of y along both directions must have at
            least the cosine `effect`.

    Raises:
        BasisError: thresholds that are no shares, or a segment without rows.
    """
    if not (0 < cosine <= 1 and 0 <= together <= 1):
        raise BasisError(f"cosine must be in (0, 1] and together in [0, 1]; got {cosine} and {together}")
    if segment is not None and x is None:
        raise BasisError("copies by effect need rows at the segment's input: give x as well")
    matrix = directions(basis_in, codes.width)
    rows, cols = _linked(matrix, codes, cosine, together)
    if segment is not None and x is not None:
        kept = _same_effect(segment, x[:_EFFECT_ROWS], matrix, codes.typical(), rows, cols, effect)
        rows, cols = rows[kept], cols[kept]
    return _led(matrix, codes, rows, cols)


def _linked(matrix: Tensor, codes: Codes, cosine: float, together: float) -> tuple[Tensor, Tensor]:
    """Pairs of features (both orders) with a large cosine that come together."""
    unit = matrix / matrix.norm(dim=1, keepdim=True).clamp_min(1e-12)
    found = []
    for start in range(0, len(unit), _BLOCK):
        row, col = (unit[start : start + _BLOCK] @ unit.T >= cosine).nonzero(as_tuple=True)
        found.append(torch.stack([row + start, col]))
    rows, cols = torch.cat(found, 1)
    rows, cols = rows[rows != cols], cols[rows != cols]
    if not len(rows):
        return rows, cols
    on = scipy_csr(Codes(codes.crow, codes.col, torch.ones_like(codes.value), codes.width))
    both = torch.from_numpy(np.asarray((on.T @ on).tocsr()[np.array(rows), np.array(cols)]).ravel())
    counts = torch.bincount(codes.col, minlength=codes.width).double()
    least = torch.maximum(
        together * torch.minimum(counts[rows], counts[cols]), _LIFT * counts[rows] * counts[cols] / max(len(codes), 1)
    )
    kept = (both > 0) & (both >= least)
    return rows[kept], cols[kept]


def _same_effect(
    segment: Segment, x: Tensor, matrix: Tensor, typical: Tensor, rows: Tensor, cols: Tensor, effect: float
) -> Tensor:
    """Whether the typical value of both features, put in, changes y in the same way over the rows."""
    if not len(rows):
        return torch.zeros(0, dtype=torch.bool)
    used, place = torch.unique(torch.cat([rows, cols]), return_inverse=True)
    with torch.no_grad():
        y, changes = segment.forward(x), []
        for part in used.split(_BLOCK // max(len(x), 1)):
            moved = x[None] + (typical[part, None] * matrix[part])[:, None]
            changes.append((segment.forward(moved.flatten(0, 1)).view(len(part), len(x), -1) - y).flatten(1))
    change = torch.cat(changes)
    change = change / change.norm(dim=1, keepdim=True).clamp_min(1e-12)
    pairs = torch.stack([place[: len(rows)], place[len(rows) :]]).split(_BLOCK, dim=1)
    return torch.cat([(change[a] * change[b]).sum(1) >= effect for a, b in pairs])


def _led(matrix: Tensor, codes: Codes, rows: Tensor, cols: Tensor) -> CopyGroups:
    linked: dict[int, list[int]] = {}
    for i, j in zip(rows.tolist(), cols.tolist(), strict=True):
        linked.setdefault(i, []).append(j)
    group = torch.full((len(matrix),), -1)
    leaders: list[int] = []
    for feature in torch.argsort(codes.frequency(), descending=True, stable=True).tolist():
        if group[feature] >= 0:
            continue
        members = [m for m in linked.get(feature, []) if group[m] < 0]
        group[[feature, *members]] = len(leaders)
        leaders.append(feature)
    leader = torch.tensor(leaders)
    led_by = matrix[leader[group]]
    share = (matrix * led_by).sum(1) / led_by.square().sum(1).clamp_min(1e-12)
    return CopyGroups(group, leader, share, codes.mean_square())
