"""Scores against planted gates: wires by kind and by firing count, readings by kind."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from jaxtyping import Int
from torch import Tensor

from ..connectors import Connector
from ..errors import DataError
from ..gates.gate import Gate, GateKind
from .truth import PlantedGate

#: ends of the bins of firing counts
FIRING_BINS = (100, 300, 1000)


@dataclass(frozen=True)
class WireCounts:
    """Wires counted over some outputs.

    Attributes:
        right: found wires that are true, whatever their sign; signed: those of them with the right sign.
        found, true: wires found, wires planted.
        exact: outputs whose set of parents is exactly the planted one; outputs: how many there are.
    """

    right: int = 0
    signed: int = 0
    found: int = 0
    true: int = 0
    exact: int = 0
    outputs: int = 0

    def __add__(self, other: WireCounts) -> WireCounts:
        return WireCounts(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    @property
    def precision(self) -> float | None:
        return self.right / self.found if self.found else None

    @property
    def recall(self) -> float | None:
        return self.right / self.true if self.true else None

    @property
    def f1(self) -> float | None:
        return 2 * self.right / (self.found + self.true) if self.found + self.true else None

    @property
    def sign_accuracy(self) -> float | None:
        """Share of the right wires whose sign is right too."""
        return self.signed / self.right if self.right else None

    @property
    def exact_share(self) -> float | None:
        return self.exact / self.outputs if self.outputs else None

    def __repr__(self) -> str:
        figures = (self.precision, self.recall, self.f1, self.sign_accuracy, self.exact_share)
        texts = ["-" if f is None else f"{f:.3f}" for f in figures]
        names = ("precision", "recall", "F1", "signs", "exact")
        return f"WireCounts({', '.join(f'{n} {t}' for n, t in zip(names, texts, strict=True))}, {self.outputs} outputs)"


@dataclass(frozen=True)
class WireScores:
    """Wires against the truth: over all scored outputs, by planted kind, by how often the output fired."""

    total: WireCounts
    by_kind: Mapping[str, WireCounts]
    by_firings: Mapping[str, WireCounts]

    def __repr__(self) -> str:
        lines = [
            f"all: {self.total}",
            *(f"{name}: {c}" for name, c in (*self.by_kind.items(), *self.by_firings.items())),
        ]
        return "\n".join(lines)


def score_wires(
    truth: Sequence[PlantedGate],
    connector: Connector,
    firings: Int[Tensor, " n"] | None = None,
    min_firings: int = 0,
    same: Mapping[int, int] | None = None,
) -> WireScores:
    """Compare a connector's wires with the planted ones.

    Args:
        truth: the planted gates of the connector's outputs (or of some of them).
        firings: [n] rows on which each output fired; needed for `min_firings` and the bins.
        min_firings: outputs that fired on fewer rows are not scored.
        same: input feature -> the feature that it repeats exactly; wires from either count as the same wire.
    """
    if firings is None and min_firings:
        raise DataError("min_firings needs the outputs' firing counts; pass `firings`, [outputs]")
    same = same or {}
    kinds: dict[str, WireCounts] = defaultdict(WireCounts)
    bins: dict[str, WireCounts] = defaultdict(WireCounts)
    total = WireCounts()
    for gate in truth:
        count = 0 if firings is None else int(firings[gate.out])
        if count < min_firings:
            continue
        counts = _compare(gate, connector, same)
        total, kinds[gate.kind] = total + counts, kinds[gate.kind] + counts
        if firings is not None:
            bins[_bin(count)] += counts
    return WireScores(total, dict(sorted(kinds.items())), {name: bins[name] for name in _bin_names() if name in bins})


def _compare(gate: PlantedGate, connector: Connector, same: Mapping[int, int]) -> WireCounts:
    inputs, weights = connector.parents(gate.out)
    found = {same.get(i, i): w for i, w in zip(inputs.tolist(), weights.tolist(), strict=True) if w != 0}
    true = {same.get(i, i): w for i, w in zip(gate.inputs, gate.weights, strict=True)}
    right = [i for i in found if i in true]
    signed = sum(found[i] * true[i] > 0 for i in right)
    return WireCounts(len(right), signed, len(found), len(true), int(found.keys() == true.keys()), 1)


def _bin(count: int) -> str:
    return _bin_names()[sum(count >= end for end in FIRING_BINS)]


def _bin_names() -> list[str]:
    ends = [str(end) for end in FIRING_BINS]
    return [f"under {ends[0]}", *(f"{a}-{b}" for a, b in pairwise(ends)), f"{ends[-1]} and more"]


@dataclass(frozen=True)
class GateScores:
    """Readings against the truth.

    Attributes:
        confusion: planted kind -> reading -> count.
        in_class, right: outputs whose gate the typer can say; those read right.
        out_of_class, wrong_definite: outputs whose gate it cannot say; those given a definite logic label all the same.
        abstained: in-class outputs that were `not_read`.
    """

    confusion: Mapping[str, Mapping[GateKind, int]] = field(default_factory=dict)
    in_class: int = 0
    right: int = 0
    abstained: int = 0
    out_of_class: int = 0
    wrong_definite: int = 0

    @property
    def accuracy(self) -> float | None:
        """Share of in-class outputs read right; an abstention is not right."""
        return self.right / self.in_class if self.in_class else None

    @property
    def abstention(self) -> float | None:
        return self.abstained / self.in_class if self.in_class else None

    @property
    def wrong_definite_share(self) -> float | None:
        return self.wrong_definite / self.out_of_class if self.out_of_class else None

    def __repr__(self) -> str:
        readings = [kind for kind in GateKind if any(kind in row for row in self.confusion.values())]
        width = max([len(k) for k in self.confusion], default=0)
        lines = [" " * width + "".join(f"{kind!s:>9}" for kind in readings)]
        for planted, row in self.confusion.items():
            lines.append(f"{planted:<{width}}" + "".join(f"{row.get(kind, 0):>9}" for kind in readings))
        return "\n".join(lines)


def score_gates(
    truth: Sequence[PlantedGate],
    read: Sequence[Gate] | Mapping[int, GateKind],
    firings: Int[Tensor, " n"] | None = None,
    min_firings: int = 0,
) -> GateScores:
    """Compare readings (gates, or output -> kind) with the planted kinds; outputs that were not read at all are left out.

    A gate's rule counts as read when it holds; one of which is said that amounts matter is no definite label for an output that
    has no rule.
    """
    graded = set() if isinstance(read, Mapping) else {g.out for g in read if g.amounts_matter}
    kind_of = read if isinstance(read, Mapping) else {g.out: g.kind if g.read else GateKind.NOT_READ for g in read}
    confusion: dict[str, Counter[GateKind]] = defaultdict(Counter)
    in_class = right = abstained = outside = wrong = 0
    for gate in truth:
        if gate.out not in kind_of or (firings is not None and int(firings[gate.out]) < min_firings):
            continue
        kind = kind_of[gate.out]
        confusion[gate.kind][kind] += 1
        if gate.out_of_class:
            outside, wrong = outside + 1, wrong + (kind not in gate.accepted and gate.out not in graded)
        else:
            in_class, right = in_class + 1, right + (kind in gate.accepted)
            abstained += kind == GateKind.NOT_READ
    return GateScores(dict(sorted(confusion.items())), in_class, right, abstained, outside, wrong)


def true_connector(truth: Sequence[PlantedGate], width_in: int) -> Connector:
    """The connector that has exactly the planted wires; gate i in place i."""
    rows = [(torch.tensor(gate.inputs), torch.tensor(gate.weights, dtype=torch.float32)) for gate in truth]
    bias = torch.tensor([gate.bias for gate in truth], dtype=torch.float32)
    return Connector.from_rows(rows, bias, width_in, solver="planted")
