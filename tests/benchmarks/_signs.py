"""A baseline for reading gates: the signs of the wires alone."""

from __future__ import annotations

from gatelens.connectors import Connector
from gatelens.gates import GateKind


def read_signs(connector: Connector) -> dict[int, GateKind]:
    """The reading from signs alone, a baseline: inhibitors make an AND-NOT (or a mixed gate), several exciters an OR."""
    kinds = {}
    for out in range(len(connector.bias)):
        weights = connector.parents(out)[1]
        up, down = int((weights > 0).sum()), int((weights < 0).sum())
        if up == 0:
            kinds[out] = GateKind.NOT_READ
        elif down:
            kinds[out] = GateKind.AND_NOT if up == 1 else GateKind.MIXED
        else:
            kinds[out] = GateKind.COPY if up == 1 else GateKind.OR
    return kinds
