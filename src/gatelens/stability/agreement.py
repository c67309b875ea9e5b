"""How much of the wiring and of the gates two circuits share, once their features are matched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..connectors import Connector
from ..errors import BasisError
from ..gates import Gate
from .matching import Matching


@dataclass(frozen=True)
class Agreement:
    """Shares in [0, 1] over the gates that were read in the first circuit and whose output has a counterpart.

    Attributes:
        gates: how many were compared; None figures when there is none.
        kind: the counterpart is of the same kind. random_kind: a counterpart drawn at random is.
        inputs: mean Jaccard index of the signed inputs that the rules name. random_inputs: of random counterparts.
        whole: same kind and at least half of the inputs (Jaccard >= 1/2); random_whole likewise.
        verified: whether only verified gates were compared.
    """

    gates: int
    kind: float | None
    random_kind: float | None
    inputs: float | None
    random_inputs: float | None
    whole: float | None
    random_whole: float | None
    verified: bool

    def __repr__(self) -> str:
        def pair(value: float | None, random: float | None) -> str:
            return "-" if value is None or random is None else f"{value:.2f} ({random:.2f})"

        return (
            f"Agreement({self.gates} {'verified ' if self.verified else ''}gates; (random counterparts): "
            f"kind and inputs {pair(self.whole, self.random_whole)}, kind {pair(self.kind, self.random_kind)}, "
            f"inputs {pair(self.inputs, self.random_inputs)})"
        )


def wire_jaccard(
    a: Connector, b: Connector, inputs: Matching, outputs: Matching, draws: int = 5, seed: int = 0
) -> tuple[float, float]:
    """Jaccard index of the wires of two connectors under matched features; and its level with inputs matched at random.

    Only wires between features that have a counterpart count.

    Raises:
        BasisError: features that the matchings do not know, so the connectors are of other circuits.
    """
    for name, matching, sizes in (
        ("input", inputs, (a.weight.shape[1], b.weight.shape[1])),
        ("output", outputs, (len(a.bias), len(b.bias))),
    ):
        if int(matching.first.max()) >= sizes[0] or int(matching.second.max()) >= sizes[1]:
            raise BasisError(
                f"the {name} matching names features beyond the connectors' {sizes[0]} and {sizes[1]}: they are of two "
                "different circuits or models. Match the features of these two first"
            )
    ours, theirs = _wires(a), _wires(b)
    second_in, second_out = set(inputs.second.tolist()), set(outputs.second.tolist())
    theirs = {(o, i) for o, i in theirs if o in second_out and i in second_in}
    generator = torch.Generator().manual_seed(seed)
    real = _jaccard(_mapped(ours, inputs.table(), outputs.table()), theirs)
    random = []
    for _ in range(draws):
        order = torch.randperm(len(inputs.second), generator=generator)
        table = dict(zip(inputs.first.tolist(), inputs.second[order].tolist(), strict=True))
        random.append(_jaccard(_mapped(ours, table, outputs.table()), theirs))
    return real, sum(random) / draws


def gate_agreement(
    a: Sequence[Gate], b: Sequence[Gate], inputs: Matching, outputs: Matching, verified: bool = False, seed: int = 0
) -> Agreement:
    """Compare the gates of matched outputs: kind, and the inputs that the rules name, with their signs.

    A gate of the first circuit whose counterpart was not read counts as a disagreement.

    Args:
        verified: only gates of the first circuit that the interventions confirmed.
    """
    table_out, table_in = outputs.table(), inputs.table()
    theirs = {gate.out: gate for gate in b}
    chosen = [gate for gate in a if gate.read and table_out.get(gate.out) in theirs and (gate.verified or not verified)]
    if not chosen:
        return Agreement(0, None, None, None, None, None, None, verified)
    real = [_compared(gate, theirs[table_out[gate.out]], table_in) for gate in chosen]
    others = [gate for gate in b if gate.read] or list(b)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(others), (max(200, len(chosen)),), generator=generator).tolist()
    random = [_compared(chosen[i % len(chosen)], others[j], table_in) for i, j in enumerate(drawn)]
    shares = [_means(real), _means(random)]
    return Agreement(
        len(chosen), shares[0][0], shares[1][0], shares[0][1], shares[1][1], shares[0][2], shares[1][2], verified
    )


def _compared(a: Gate, b: Gate, table: dict[int, int]) -> tuple[bool, float, bool]:
    ours = {(table.get(i), sign) for i, sign in _named(a)}
    jaccard = _jaccard(ours, set(_named(b)))
    alike = b.read and a.kind == b.kind
    return alike, jaccard, alike and jaccard >= 0.5


def _named(gate: Gate) -> list[tuple[int, int]]:
    """The inputs of the rule with their signs; all parents, where the rule names none."""
    named = [(i, 1) for i in gate.excite] + [(i, -1) for i in gate.inhibit]
    return named or [(i, 1 if w > 0 else -1) for i, w in zip(gate.inputs, gate.weights, strict=True)]


def _means(rows: Sequence[tuple[bool, float, bool]]) -> tuple[float, float, float]:
    columns = list(zip(*rows, strict=True))
    return tuple(sum(map(float, column)) / len(rows) for column in columns)  # pyright: ignore[reportReturnType]


def _wires(connector: Connector) -> set[tuple[int, int]]:
    weight = connector.weight
    rows = torch.repeat_interleave(torch.arange(len(connector.bias)), weight.crow_indices().diff())
    on = weight.values() != 0
    return set(zip(rows[on].tolist(), weight.col_indices()[on].tolist(), strict=True))


def _mapped(wires: set[tuple[int, int]], table_in: dict[int, int], table_out: dict[int, int]) -> set[tuple[int, int]]:
    return {(table_out[o], table_in[i]) for o, i in wires if o in table_out and i in table_in}


def _jaccard(a: set, b: set) -> float:
    union = len(a | b)
    return len(a & b) / union if union else 1.0
