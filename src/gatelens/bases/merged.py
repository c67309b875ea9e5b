"""MergedBasis: an input dictionary in which the copies of one feature are read as one parent."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..connectors import Connector
from ..errors import BasisError
from .copies import CopyGroups
from .linear import Basis, directions
from .pair import PairShape


class MergedBasis:
    """One feature a group of copies, in units of the group's leader; everything that reads a basis reads this one.

    `type_gates` on its features and `wires(connector)` sees an AND of two groups where it saw "three of six features".
    What is lost is stated by the figures: the merged wires predict the gates' firing with a fidelity under 1.

    Attributes:
        basis_in: the dictionary underneath. groups: which of its features are copies.
        W_dec: [groups, d], the leaders' directions.
    """

    label = "features, copies merged"
    by_construction = (
        "every parent is a group of features that point the same way and come together: no gate relates two copies"
    )

    def __init__(self, basis_in: Basis, groups: CopyGroups):
        matrix = directions(basis_in, len(groups.group))
        if len(matrix) != len(groups.group):
            raise BasisError(
                f"the groups are of {len(groups.group)} features, the dictionary has {len(matrix)}: give the dictionary that "
                "they were found in"
            )
        self.basis_in, self.groups, self.W_dec = basis_in, groups, matrix[groups.leader]
        with torch.no_grad():
            self.b_dec = basis_in.decode(matrix.new_zeros(1, len(matrix)))[0]

    @property
    def cfg(self) -> PairShape:
        return PairShape(self.W_dec.shape[1], self.W_dec.shape[0])

    def encode(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows groups"]:
        return self.groups.merged(self.basis_in.encode(x))

    def decode(self, f: Float[Tensor, "rows groups"]) -> Float[Tensor, "rows d"]:
        return f @ self.W_dec + self.b_dec

    def wires(self, connector: Connector) -> Connector:
        """The connector read from groups: each group's wire is the best single weight for its members' wires.

        Least squares over members that vary independently, sum_i p_i (w_i - w s_i)^2 with s_i their shares and p_i their mean squares.
        """
        g, weight = self.groups, connector.weight
        if weight.shape[1] != len(g.group):
            raise BasisError(
                f"the connector reads {weight.shape[1]} features, the groups are of {len(g.group)}: give wires from the same dictionary"
            )
        row, col = torch.repeat_interleave(weight.crow_indices().diff()), weight.col_indices()
        size = g.power.new_zeros(len(g.leader)).index_add_(0, g.group, g.share.square() * g.power).clamp_min(1e-24)
        part = weight.values() * (g.share * g.power)[col] / size[g.group[col]]
        places, where = torch.unique(row * len(g.leader) + g.group[col], return_inverse=True)
        merged = part.new_zeros(len(places)).index_add_(0, where, part)
        counts = torch.bincount(places // len(g.leader), minlength=weight.shape[0]).tolist()
        rows = list(zip((places % len(g.leader)).split(counts), merged.split(counts), strict=True))
        return Connector.from_rows(
            rows, connector.bias, len(g.leader), threshold=connector.threshold, activation=connector.activation,
            solver=f"{connector.solver}, copies merged",
        )  # fmt: skip

    def save_into(self, out: Any) -> None:
        from .saving import basis_into

        basis_into(self.basis_in, out.part("input"))
        out.tensors(
            "groups.safetensors", {name: getattr(self.groups, name) for name in ("group", "leader", "share", "power")}
        )

    @classmethod
    def load_from(cls, stored: Any) -> MergedBasis:
        from .saving import basis_from

        return cls(basis_from(stored.part("input", "basis")), CopyGroups(**stored.tensors("groups.safetensors")))

    def __repr__(self) -> str:
        return f"MergedBasis({self.groups!r})"
